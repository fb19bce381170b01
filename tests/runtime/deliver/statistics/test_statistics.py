"""Statistics: every committed report counted once, whatever happens between outbox and counters."""

from __future__ import annotations

import csv
import dataclasses
import json
import random
import subprocess
import sys
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from orinspect.runtime.config import ShiftsConfig
from orinspect.runtime.deliver.missed import Missed, NotInspected
from orinspect.runtime.deliver.outbox import Outbox
from orinspect.runtime.deliver.statistics.statistics import Statistics
from orinspect.runtime.report import Part, Report, View, timestamp
from orinspect.tests.brokers import WAIT_S
from orinspect.tests.report_cases import BOOT, ROOT, report
from orinspect.tests.stepped_clock import SteppedClock

SCHEMA = json.loads((ROOT / "runtime" / "schema" / "stats-1.0.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
FACTS = {"device_id": "orin-07", "station_id": "aoi-1", "boot_id": BOOT}
CONFIG = ShiftsConfig("Europe/Berlin", ("06:00", "18:00"), ("day", "night"))
NOON = 1767265200.0  # 2026-01-01T12:00:00+01:00


class Posted:
    """What was published, last message first to see."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    def publish(self, name: str, payload: str, *, retain: bool = False) -> None:
        assert (name, retain) == ("stats/shift", True)
        VALIDATOR.validate(json.loads(payload))
        self.messages.append(json.loads(payload))


class Station:
    """An outbox and its statistics; `made` commits a report and counts it, as the service does."""

    def __init__(self, folder: Path, config: ShiftsConfig = CONFIG, **arguments: Any) -> None:
        self.clock = SteppedClock(NOON)
        self.posted, self.alarms = Posted(), []  # type: tuple[Posted, list[tuple[str, str | None]]]
        self.outbox = Outbox(folder / "outbox.sqlite", keep=100_000)
        self.statistics = Statistics(
            config, folder / "outbox.sqlite.counters", self.outbox, self.posted, facts=FACTS,
            clock=self.clock, alarm=lambda *each: self.alarms.append(each), **arguments,
        )  # fmt: skip

    def __enter__(self) -> Station:
        self.statistics.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.statistics.__exit__(None, None, None)
        self.outbox.close()

    def committed(self, kind: str = "pass", **fields: Any) -> str:
        """A report in the outbox; its payload."""
        given = made(kind, self.clock, **fields)
        sequence = self.outbox.accept(given.result_id, given.boot_id, "cam", 1, "{}")
        payload = dataclasses.replace(given, sequence=sequence).to_json()
        self.outbox.commit(given.result_id, payload)
        return payload

    def made(self, kind: str = "pass", **fields: Any) -> str:
        payload = self.committed(kind, **fields)
        self.statistics.count(payload)
        return payload

    def shift(self) -> dict[str, Any]:
        found = self.statistics.message()
        VALIDATOR.validate(found)
        shift: dict[str, Any] = found["shift"]
        return shift


def made(
    kind: str, clock: SteppedClock, part: str | None = None, lot: str | None = None, view: int = 0,
    simulated: bool = False, boot: str = BOOT,
) -> Report:  # fmt: skip
    """A report of its own id, as of now."""
    base = report(kind)
    return dataclasses.replace(
        base, result_id=str(uuid.uuid4()), boot_id=boot, is_simulated=simulated,
        part=Part(part, "bare-pcb", None, lot), view=View("cam0", view, 2),
        captured_at=timestamp(clock.now_s),
        clock=dataclasses.replace(base.clock, synchronised=clock.is_synchronised),
    )  # fmt: skip


def test_verdicts_reasons_and_defects_are_counted(tmp_path: Path) -> None:
    with Station(tmp_path) as station:
        for kind in ("pass", "pass", "reject", "review", "failed", "aborted"):
            station.made(kind)
        shift = station.shift()
    assert [shift[name] for name in ("inspected", "pass", "reject", "review")] == [4, 2, 1, 1]
    assert shift["not_inspected"] == 2
    assert shift["not_inspected_by_reason"] == {"failed.answer": 1, "not_inspected.restart": 1}
    assert (shift["name"], shift["day"]) == ("day", "2026-01-01")
    assert [(bar["type"], bar["defects"], bar["results"], bar["share"]) for bar in shift["pareto"]] == [
        ("open", 2, 2, 0.666667), ("short", 1, 1, 0.333333)
    ]  # fmt: skip
    assert shift["first_pass"] == {"parts": 4, "passed": 2, "yield": 0.5}
    assert station.posted.messages[-1]["shift"] == shift


def test_a_part_is_counted_in_the_first_pass_yield_by_its_first_verdict_only(tmp_path: Path) -> None:
    with Station(tmp_path) as station:
        station.made("aborted", part="A")  # no verdict: not its first inspection
        station.made("pass", part="A")
        station.made("reject", part="B")
        station.made("pass", part="B")  # reworked
        station.made("pass", part="C", view=0)
        station.made("review", part="C", view=1)  # the other side
        station.made("pass", part="D", view=0)
        station.made("pass", part="D", view=1)
        assert station.shift()["first_pass"] == {"parts": 4, "passed": 2, "yield": 0.5}
        assert station.shift()["inspected"] == 7
        station.clock.step(12 * 3600)
        station.made("pass", part="B")  # in the next shift it is no new part either
        assert station.shift()["first_pass"] == {"parts": 0, "passed": 0, "yield": None}
        assert station.shift()["inspected"] == 1


def test_simulated_parts_are_never_mixed_in(tmp_path: Path) -> None:
    with Station(tmp_path) as station:
        station.made("pass", part="A", simulated=True)
        station.made("reject", part="A")
        shift = station.shift()
        totals = station.statistics.totals()
    assert (shift["inspected"], shift["reject"], shift["first_pass"]["passed"]) == (1, 1, 0)
    assert (shift["simulated"]["inspected"], shift["simulated"]["first_pass"]["yield"]) == (1, 1.0)
    assert totals is not None
    assert (totals[False].verdicts["reject"], totals[True].verdicts["pass"]) == (1, 1)


def test_lots_are_counted_beside_the_shift(tmp_path: Path) -> None:
    with Station(tmp_path) as station:
        for lot, kind in (("L1", "pass"), ("L2", "reject"), ("L2", "pass"), (None, "review")):
            station.made(kind, lot=lot)
        station.made("pass", lot="null")
        lots = {lot["lot"]: lot for lot in station.shift()["lots"]}
    assert {name: (lot["inspected"], lot["pass"]) for name, lot in lots.items()} == {
        "L1": (1, 1), "L2": (2, 1), None: (1, 0), "null": (1, 1)
    }  # fmt: skip


def test_an_unsynchronised_clock_has_a_shift_of_its_own_for_each_boot(tmp_path: Path) -> None:
    with Station(tmp_path) as station:
        station.clock.is_synchronised = False
        station.clock.now_s = 100.0  # 1970
        station.made("pass")
        station.made("pass", boot="another boot")
        shift = station.shift()
        assert (shift["name"], shift["day"], shift["starts_at"], shift["inspected"]) == (
            "unsynchronised", None, None, 1
        )  # fmt: skip
        station.clock.is_synchronised = True
        station.clock.now_s = NOON
        station.made("pass")
        assert (station.shift()["name"], station.shift()["inspected"]) == ("day", 1)
        totals = station.statistics.totals()
    assert totals is not None
    assert totals[False].inspected == 3


def test_a_clock_that_jumps_ten_years_loses_no_count_and_comes_back(tmp_path: Path) -> None:
    with Station(tmp_path) as station:
        for years in (0, 10, -10, 0):
            station.clock.now_s = NOON + years * 365.25 * 86400
            station.made("pass")
        assert station.shift()["inspected"] == 2
        totals = station.statistics.totals()
    assert totals is not None
    assert totals[False].inspected == 4


def test_the_message_holds_the_shift_before_and_is_sent_on_change_only(tmp_path: Path) -> None:
    with Station(tmp_path) as station:
        for _ in range(2):
            station.statistics.tick()
            station.clock.step(CONFIG.publish_s)
        assert len(station.posted.messages) == 1
        station.made("reject")
        station.statistics.tick()
        station.made("reject")
        station.statistics.tick()  # too soon
        assert station.posted.messages[-1]["shift"]["reject"] == 1
        station.clock.step(8 * 3600)
        station.statistics.tick()
    last = station.posted.messages[-1]
    assert len(station.posted.messages) == 3
    assert (last["shift"]["name"], last["shift"]["inspected"]) == ("night", 0)
    assert (last["previous"]["name"], last["previous"]["reject"]) == ("day", 2)


def test_old_shifts_go_and_the_totals_stay(tmp_path: Path) -> None:
    with Station(tmp_path, dataclasses.replace(CONFIG, keep=3)) as station:
        for _ in range(10):
            station.made("pass", part="A")
            station.clock.step(12 * 3600)
        counters = station.statistics._counters
        assert counters is not None
        with counters.atomic() as connection:
            (shifts,) = connection.execute("SELECT count(*) FROM shift").fetchone()
            (tallied,) = connection.execute("SELECT count(DISTINCT shift) FROM tally").fetchone()
        totals = station.statistics.totals()
    assert (shifts, tallied) == (3, 4)
    assert totals is not None
    assert totals[False].inspected == 10


def _recount(outbox: Outbox) -> Counter[str]:
    """What the outbox holds, counted by hand."""
    found: Counter[str] = Counter()
    for key in outbox.keys(("", 0), 10**6):
        payload = outbox.payload(*key)
        if payload is not None:
            table = json.loads(payload)
            found[table["disposition"] if table["result_state"] == "completed" else table["reason_code"]] += 1
    return found


def _counted(station: Station) -> Counter[str]:
    totals = station.statistics.totals()
    assert totals is not None
    both = Counter(totals[False].verdicts) + Counter(totals[False].not_inspected)
    return both + Counter(totals[True].verdicts) + Counter(totals[True].not_inspected)


def test_what_was_committed_and_not_counted_is_counted_at_the_next_start_and_once(tmp_path: Path) -> None:
    kinds = random.Random(5).choices(("pass", "reject", "review", "failed", "aborted"), k=60)
    with Station(tmp_path) as station:
        for number, kind in enumerate(kinds):
            payload = station.committed(kind, boot=f"boot {number % 3}")
            if number % 4:
                station.statistics.count(payload)
                station.statistics.count(payload)  # twice changes nothing
        assert sum(_counted(station).values()) == 45
    for _ in range(2):
        with Station(tmp_path) as station:
            assert _counted(station) == _recount(station.outbox)
            assert sum(_counted(station).values()) == 60
            counters = station.statistics._counters
            assert counters is not None
            with counters.atomic() as connection:
                (intervals,) = connection.execute("SELECT count(*) FROM counted").fetchone()
            assert intervals == 3, "one interval a boot, however many reports"


def _run_of(first: int, last: int, clock: SteppedClock, boot: str = BOOT) -> str:
    """The payload that stands for sequences nobody could look at."""
    station = ("orin-07", "aoi-1", BOOT)
    return NotInspected(
        "019b7750-ce00-7000-8000-0000000000bb", timestamp(clock.now_s), True, *station, 500_000,
        Missed(boot, first, last), "not_inspected.outbox_full", "no room", False,
    ).to_json()  # fmt: skip


def test_a_run_of_parts_without_room_is_counted_once_and_without_those_that_were(tmp_path: Path) -> None:
    with Station(tmp_path) as station:
        station.made("pass")  # sequence 1
        run = _run_of(1, 100_000, station.clock)
        station.statistics.count(run)
        station.statistics.count(run)
        assert station.shift()["not_inspected_by_reason"] == {"not_inspected.outbox_full": 99_999}
        station.statistics.count(_run_of(99_000, 100_010, station.clock))
        station.statistics.count(_run_of(5, 6, station.clock, boot="other"))
        assert station.shift()["not_inspected"] == 99_999 + 10 + 2
        assert station.shift()["pass"] == 1
        assert station.shift()["first_pass"]["parts"] == 1


def test_runs_are_counted_from_the_outbox_too(tmp_path: Path) -> None:
    with Station(tmp_path) as station:
        station.outbox.accept("r", BOOT, "gap", 0, "{}")
        station.outbox.commit("r", _run_of(7, 9, station.clock, boot="before"))
    for _ in range(2):
        with Station(tmp_path) as station:
            assert _counted(station) == {"not_inspected.outbox_full": 3}


KILLED = """
import sys
from pathlib import Path
from orinspect.tests.runtime.deliver.statistics.test_statistics import Station
with Station(Path(sys.argv[1])) as station:
    number = 0
    while True:
        kind = ("pass", "reject", "review", "aborted")[number % 4]
        payload = station.committed(kind, part=str(number % 7))
        print(number, flush=True)
        station.statistics.count(payload)
        station.statistics.tick()
        number += 1
"""


def test_kill_9_between_commit_and_count_neither_loses_nor_doubles(tmp_path: Path) -> None:
    rng = random.Random(3)
    for _ in range(4):
        command = [sys.executable, "-c", KILLED, str(tmp_path)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        for _ in range(rng.randrange(1, 25)):
            child.stdout.readline()  # it is committed, and not yet counted, or just being counted
        child.kill()
        child.wait(WAIT_S)
        child.stdout.close()
        with Station(tmp_path) as station:
            assert _counted(station) == _recount(station.outbox)
            assert station.shift()["first_pass"]["parts"] <= 7


def test_counters_rolled_back_by_a_power_cut_are_counted_again(tmp_path: Path) -> None:
    """Without an fsync a part, a power cut may take the last transactions: an older file comes back."""
    counters = tmp_path / "outbox.sqlite.counters"
    with Station(tmp_path) as station:
        station.made("pass")
    before = counters.read_bytes()
    with Station(tmp_path) as station:
        for kind in ("reject", "review", "pass"):
            station.made(kind)
    counters.write_bytes(before)
    with Station(tmp_path) as station:
        assert _counted(station) == _recount(station.outbox) == {"pass": 2, "reject": 1, "review": 1}


def test_a_damaged_file_is_moved_away_and_counting_begins_with_the_outbox(tmp_path: Path) -> None:
    counters = tmp_path / "outbox.sqlite.counters"
    with Station(tmp_path, dataclasses.replace(CONFIG, csv=tmp_path / "csv")) as station:
        station.made("pass")
    content = bytearray(counters.read_bytes())
    content[100:3000] = b"\xff" * 2900
    counters.write_bytes(content)
    with Station(tmp_path, dataclasses.replace(CONFIG, csv=tmp_path / "csv")) as station:
        station.clock.step(60)
        assert _counted(station) == {"pass": 1}
        assert station.statistics.problems == {}
        station.made("reject")
    assert (tmp_path / "outbox.sqlite.counters.damaged-1").exists()


def test_a_disk_that_refuses_makes_an_alarm_and_is_made_up_for(tmp_path: Path) -> None:
    in_the_way = tmp_path / "outbox.sqlite.counters"
    in_the_way.mkdir()
    with Station(tmp_path) as station:
        station.made("pass")
        station.made("reject")
        station.statistics.tick()
        assert [code for code, text in station.alarms if text] == ["statistics.not_counted"]
        assert station.statistics.totals() is None
        in_the_way.rmdir()
        station.made("pass")
        assert station.alarms[-1] == ("statistics.not_counted", None)
        assert _counted(station) == _recount(station.outbox) == {"pass": 2, "reject": 1}


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_csv_of_a_day(tmp_path: Path) -> None:
    folder = tmp_path / "csv"
    with Station(tmp_path, dataclasses.replace(CONFIG, csv=folder)) as station:
        station.made("reject", lot="=cmd|' /C calc'!A0")
        station.made("pass", simulated=True)
        station.statistics.tick()
        station.clock.step(8 * 3600)
        station.made("review")
        station.clock.is_synchronised = False
        station.made("pass")
    rows = _rows(folder / "2026-01-01.csv")
    assert [(row["shift"], row["lot"], row["is_simulated"], row["inspected"]) for row in rows] == [
        ("day", "*", "false", "1"), ("day", "'=cmd|' /C calc'!A0", "false", "1"),
        ("day", "*", "true", "1"), ("day", "", "true", "1"),
        ("night", "*", "false", "1"), ("night", "", "false", "1"),
    ]  # fmt: skip
    assert rows[0]["first_pass_yield"] == "0.0"
    defects = _rows(folder / "2026-01-01-defects.csv")
    assert {(row["shift"], row["lot"], row["type"], row["defects"]) for row in defects} >= {
        ("day", "*", "open", "1"), ("day", "*", "short", "1"), ("night", "*", "open", "1")
    }  # fmt: skip
    assert len(list(folder.glob("unsynchronised-*.csv"))) == 2
    assert not list(folder.glob("*.partial"))


def test_a_csv_of_an_earlier_count_is_kept_under_another_name(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, csv=tmp_path / "csv")
    with Station(tmp_path, config) as station:
        station.made("pass")
    for name in ("outbox.sqlite", "outbox.sqlite.counters"):
        (tmp_path / name).unlink()
    station = Station(tmp_path, config)
    station.clock.step(60)
    with station:
        station.made("reject")
    names = sorted(path.name for path in (tmp_path / "csv").iterdir())
    assert names == [
        "2026-01-01-defects.csv", "2026-01-01-defects.since-2026-01-01T110000000Z.csv",
        "2026-01-01.csv", "2026-01-01.since-2026-01-01T110000000Z.csv",
    ]  # fmt: skip
    assert _rows(tmp_path / "csv" / names[3])[0]["pass"] == "1"


def test_a_folder_of_csv_that_refuses_disturbs_no_counter(tmp_path: Path) -> None:
    (tmp_path / "csv").write_text("in the way")
    with Station(tmp_path, dataclasses.replace(CONFIG, csv=tmp_path / "csv")) as station:
        station.made("pass")
        station.statistics.tick()
        assert [code for code, text in station.alarms if text] == ["statistics.not_written"]
        assert station.posted.messages[-1]["shift"]["pass"] == 1
        (tmp_path / "csv").unlink()
        station.clock.step(CONFIG.publish_s)
        station.statistics.tick()
        assert station.alarms[-1] == ("statistics.not_written", None)
        assert (tmp_path / "csv" / "2026-01-01.csv").exists()


@pytest.mark.parametrize("payload", ["{}", "nonsense", "[]", '{"revision": 0}'])
def test_what_is_no_report_is_not_counted_and_stops_nothing(tmp_path: Path, payload: str) -> None:
    with Station(tmp_path) as station:
        station.statistics.count(payload)
        station.made("pass")
        assert _counted(station) == {"pass": 1}
