"""The short form of each campaign, and proof that each sees the fault that it is there to see."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from orinspect.runtime.config import read_config
from orinspect.runtime.deliver.outbox import Outbox
from orinspect.runtime.errors import ConfigError
from orinspect.tests.faults import access
from orinspect.tests.faults.access import run_access
from orinspect.tests.faults.broker_away import run_broker_away
from orinspect.tests.faults.clock import run_clock
from orinspect.tests.faults.disk import run_disk
from orinspect.tests.faults.fuzz import TARGETS, run_fuzz
from orinspect.tests.faults.fuzz_commands import run_fuzz_commands
from orinspect.tests.faults.kill9 import run_kill9
from orinspect.tests.faults.means.boxed import failures_of_cases
from orinspect.tests.faults.means.file_trace import Event
from orinspect.tests.faults.means.proxy import KINDS
from orinspect.tests.faults.means.service_table import service_table
from orinspect.tests.faults.power_cut import faults_of_cuts, recorded_outbox
from orinspect.tests.faults.service_kill9 import run_service_kill9
from orinspect.tests.faults.soak import run_soak
from orinspect.tests.faults.tcp_proxy import run_tcp_proxy


@pytest.mark.requires("mosquitto")
def test_killed_outbox_and_publisher_lose_nothing(tmp_path: Path) -> None:
    tally = run_kill9(0, tmp_path, kills=12)
    assert tally.points == 12
    assert tally.failures == ()
    assert tally.seams, "no kill at a line of the code"


@pytest.mark.requires("mosquitto")
def test_kill9_sees_rows_that_are_marked_before_the_broker_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = Outbox.waiting

    def hasty(outbox: Outbox, limit: int, **which: Any) -> object:
        rows = waiting(outbox, limit, **which)
        for row in rows:
            outbox.mark_published(row.result_id)
        return rows

    monkeypatch.setattr(Outbox, "waiting", hasty)
    # A kill must fall between mark and PUBACK: more seeds, until one does.
    failures: list[str] = []
    for seed in range(1, 9):
        folder = tmp_path / str(seed)
        folder.mkdir()
        failures += run_kill9(seed, folder, kills=12).failures
        if failures:
            break
    assert any("is lost" in failure for failure in failures), failures


@pytest.mark.slow
@pytest.mark.requires("mosquitto")
def test_a_killed_service_loses_nothing_and_leaves_no_process(tmp_path: Path) -> None:
    tally = run_service_kill9(0, tmp_path, kills=3)
    assert tally.points == 3
    assert tally.failures == ()


@pytest.mark.requires("mosquitto")
def test_what_piled_up_without_a_broker_arrives_when_it_is_back(tmp_path: Path) -> None:
    tally = run_broker_away(0, tmp_path, most_rows=300, is_short=True)
    assert tally.points == 300
    assert tally.failures == ()
    assert tally.figures["drained_per_s_least"] > 0


@pytest.mark.slow
@pytest.mark.requires("mosquitto")
@pytest.mark.parametrize("seed", [1, 3], ids=["a broker with sessions on disk", "one that forgets"])
def test_broken_connections_and_a_restarted_broker_lose_nothing(seed: int, tmp_path: Path) -> None:
    tally = run_tcp_proxy(seed, tmp_path, faults=8)
    assert tally.points >= 8
    assert tally.failures == ()
    assert tally.seams <= set(KINDS)


def test_a_damaged_full_or_read_only_disk_costs_nothing_that_was_whole(tmp_path: Path) -> None:
    tally = run_disk(0, tmp_path, damages=10)
    assert tally.points >= 11
    assert tally.failures == ()


@pytest.mark.slow
@pytest.mark.requires("mosquitto")
def test_a_clock_of_another_year_changes_no_order(tmp_path: Path) -> None:
    tally = run_clock(0, tmp_path, parts=4)
    assert tally.points == 8
    assert tally.failures == ()


@pytest.mark.requires("mosquitto", "openssl")
def test_no_stranger_gets_anything_in(tmp_path: Path) -> None:
    tally = run_access(0, tmp_path, attempts=8)
    assert tally.points == 8
    assert tally.failures == ()


@pytest.mark.requires("mosquitto", "openssl")
def test_access_sees_a_broker_that_lets_a_sensor_speak_for_the_station(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "ACL", access.ACL.replace("readwrite other/#", "readwrite #"))
    monkeypatch.setattr(access, "ATTEMPTS", {"another role": access.ATTEMPTS["another role"]})
    failures = run_access(0, tmp_path, attempts=6).failures
    assert any("got through" in failure for failure in failures), failures
    assert any("reads" in failure for failure in failures), failures


@pytest.mark.slow
@pytest.mark.requires("mosquitto")
def test_a_service_at_full_rate_keeps_its_descriptors_and_threads(tmp_path: Path) -> None:
    tally = run_soak(0, tmp_path, length_s=20.0)
    assert tally.failures == ()
    assert tally.figures["parts_per_s_least"] > 0


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> list[Event]:
    """The file writes of one outbox."""
    return recorded_outbox(0, tmp_path_factory.mktemp("recording"), parts=12)


@pytest.mark.requires("strace")
def test_after_a_power_cut_every_promise_is_kept(recorded: list[Event], tmp_path: Path) -> None:
    assert faults_of_cuts(recorded, Random(0), tmp_path, 60) == []


@pytest.mark.requires("strace")
@pytest.mark.parametrize("kept", ["no sync", "the names of half the files"])
def test_power_cut_sees_a_disk_that_lies(recorded: list[Event], kept: str, tmp_path: Path) -> None:
    lying = [event for event in recorded if event.kind != "sync" or (kept != "no sync" and event.name != ".")]
    if kept != "no sync":
        lying = [replace(event, kind="say") if event.name.endswith("-wal") else event for event in lying]
        lying = [event for event in lying if event.kind != "say" or event.name == ""]
    assert faults_of_cuts(lying, Random(0), tmp_path, 60)


def test_the_document_that_is_damaged_has_every_key_before(tmp_path: Path) -> None:
    path = tmp_path / "service.json"
    path.write_text(json.dumps(service_table()))
    problems = read_config(path)[1]
    # keys that contradict each other may come in later; each is read, and of the right type
    assert not [
        text for text in problems if "unknown key" in text or "missing" in text or "must be a" in text
    ]


def test_damaged_documents_end_in_a_sentence(tmp_path: Path) -> None:
    tally = run_fuzz(0, tmp_path, cases=30 * len(TARGETS))
    assert tally.failures == ()


@pytest.mark.slow
def test_commands_with_damaged_files_end_in_a_sentence(tmp_path: Path) -> None:
    tally = run_fuzz_commands(0, tmp_path, commands=6)
    assert tally.failures == ()


def _stray() -> None:
    with open(f"{os.curdir}/stray.txt", "w") as stream:
        stream.write("x")


def _busy() -> None:
    sum(number * number for number in range(4_000_000))


def _refused() -> None:
    raise ConfigError("service.toml: port is 0; give 1 to 65535")


@pytest.mark.parametrize(
    ("case", "seen"),
    [
        (_refused, None),
        (lambda: [][0], "IndexError"),
        (os.abort, "died"),
        (lambda: os._exit(0), "left"),
        (_stray, "stray.txt, outside its folder"),
        (_busy, "it took"),
    ],
)
def test_a_box_sees_what_a_case_does(
    case: Callable[[], object], seen: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path)
    failures = failures_of_cases([("one", case), ("two", _refused)], tmp_path / "inside", hang_s=0.1)
    assert len(failures) == (seen is not None)
    assert seen is None or seen in failures[0]
