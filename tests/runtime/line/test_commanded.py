"""A whole station under command: a real broker, a real camera process, a real outbox, every command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orinspect.runtime.deliver.audit.chain import verified
from orinspect.runtime.deliver.commands.seal import signature_of
from orinspect.runtime.deliver.outbox import Outbox
from orinspect.tests.brokers import real_broker
from orinspect.tests.commander import Commander, moment
from orinspect.tests.line_run import ROOT, Line

SECRET = "0123456789abcdef0123456789abcdef"
ALL = ["inspect", "recipe/select", "state", "self-test", "pause", "resume", "bundle/activate"]


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    with real_broker(tmp_path) as port:
        yield port


def _tables(**changes: Any) -> dict[str, dict[str, Any]]:
    return {
        "trigger": {"kind": "command", "picture_timeout_s": 60.0},
        "commands": {"allow": ALL, **changes},
        "audit": {"folder": "audit"},
    }


def _audited(folder: Path) -> list[dict[str, Any]]:
    """The facts of every audited command, of a chain that holds."""
    files = sorted((folder / "audit").glob("audit-*.jsonl"))
    assert verified(files).broken is None
    lines = [json.loads(line) for path in files for line in path.read_text("utf-8").splitlines()]
    return [line["facts"] for line in lines if line["event"] == "command"]


def test_a_part_is_inspected_on_command_and_every_command_is_answered_and_audited(
    tmp_path: Path, port: int
) -> None:
    source = "scenes:pcb?seed=3&parts=60&size_px=128&style=grey"
    with (
        Commander(port, ROOT) as office,
        Line(tmp_path, port, "reject", source, tables=_tables(), protocol="5") as line,
    ):
        office.until_state("ready")
        asked = office.ask("inspect", {"part_id": "P-7", "lot": "L", "job_id": "J", "trigger_id": "T"})
        assert (asked["outcome"], asked["reason"]) == ("done", None)
        line.inspecting()
        line.go()
        report = office.next("result")
        assert report["result_id"] == asked["result"]["result_id"]
        assert report["sequence"] == asked["result"]["sequence"] == 1
        part = report["part"]
        assert (part["part_id"], part["lot"], part["job_id"], part["trigger_id"]) == ("P-7", "L", "J", "T")
        assert report["disposition"] == "reject"

        line.run_free()
        nameless = office.ask("inspect")
        report = office.next("result")
        assert report["result_id"] == nameless["result"]["result_id"]
        assert report["part"]["part_id"].startswith("scenes-3-")  # what the picture says
        assert report["part"]["trigger_id"] == nameless["id"]

        state = office.ask("state")["result"]
        assert (state["state"], state["is_paused"], state["trigger"]) == ("running", False, "command")
        assert office.ask("self-test")["result"]["frames"] == 0

        assert office.ask("pause", {"reason": "cleaning"})["outcome"] == "done"
        paused = office.until_state("ready")
        assert paused["reason"] == "paused: cleaning"
        assert office.ask("inspect")["reason"] == "wrong_state"
        assert office.ask("resume")["result"]["state"] == "running"

        refused = office.ask("recipe/select", {"recipe": "nobody"})  # there is no bundle at all
        assert (refused["outcome"], refused["reason"]) == ("failed", "failed")
        for name in ("..", "a/b", "/etc", "absent"):
            assert office.ask("bundle/activate", {"bundle": name})["reason"] == "failed"
        assert office.ask("inspect")["outcome"] == "done"
        assert office.next("result")["result_state"] == "completed"
        assert line.terminate() == 0
        office.until_state("offline")
    audited = _audited(tmp_path)
    assert [facts["command"] for facts in audited[:4]] == ["inspect", "inspect", "state", "self-test"]
    assert len(audited) == 13
    assert {facts["outcome"] for facts in audited} == {"done", "refused", "failed"}


def test_what_must_not_be_obeyed_is_refused_with_a_reason_and_changes_nothing(
    tmp_path: Path, port: int
) -> None:
    (tmp_path / "secret").write_text(SECRET)
    tables = _tables(allow=ALL[:-1], secret_file="secret")
    with Commander(port, ROOT, "3.1.1") as office, Line(tmp_path, port, tables=tables) as line:
        office.until_state("ready")

        def signed(name: str, arguments: dict[str, Any] | None = None, **changes: Any) -> bytes:
            table = office.request(arguments, **changes)
            table["signature"] = signature_of(f"{ROOT}/cmd/{name}", table, SECRET.encode())
            return json.dumps(table).encode()

        def reason(name: str, payload: bytes, *, retain: bool = False) -> str:
            answer = office.ask_raw(name, payload, retain=retain)
            assert answer["outcome"] == "refused"
            assert answer["detail"]
            return str(answer["reason"])

        good = signed("pause")
        assert reason("reboot", signed("reboot")) == "unknown_command"
        assert reason("pause", b"\x00\xff") == "malformed"
        assert reason("pause", signed("pause", {"until": "x"})) == "malformed"
        assert reason("pause", b"{" + b" " * 5000 + b"}") == "too_large"
        assert reason("pause", json.dumps(office.request()).encode()) == "bad_signature"
        assert reason("inspect", signed("pause")) == "bad_signature"
        assert reason("pause", signed("pause", issued_at=moment(-3600))) == "stale"
        assert reason("bundle/activate", signed("bundle/activate", {"bundle": "b"})) == "not_allowed"
        state = office.ask("state")["result"]  # needs no signature
        assert (state["state"], state["is_paused"]) == ("ready", False), "nothing has changed"

        assert office.ask_raw("pause", good)["outcome"] == "done"
        assert office.ask_raw("resume", signed("resume"))["outcome"] == "done"
        assert reason("pause", good) == "replayed"
        assert office.ask("state")["result"]["is_paused"] is False
        assert line.terminate() == 0
        office.until_state("offline")
        with Line(tmp_path, port, tables=tables) as again:  # the same again after a restart
            office.until_state("ready")
            assert reason("pause", good) == "replayed"
            assert office.ask_raw("pause", signed("pause"))["outcome"] == "done"
            again.process.kill()
            office.until_state("offline")
        with Line(tmp_path, port, tables=tables) as once_more:  # a pause outlives a kill
            assert office.until_state("ready")["reason"] == "paused: by command"
            assert office.ask_raw("resume", signed("resume"))["outcome"] == "done"
            assert once_more.terminate() == 0
    assert len(_audited(tmp_path)) >= 16


def test_a_station_without_the_table_takes_no_commands(tmp_path: Path, port: int) -> None:
    with Commander(port, ROOT) as office, Line(tmp_path, port) as line:
        office.until_state("ready")
        office._client.publish(f"{ROOT}/cmd/pause", json.dumps(office.request()), qos=1)
        line.inspecting()
        assert line.finish() == 0
        office.until_state("offline")
        assert office._answers.empty()


def test_triggers_by_time_and_the_one_too_many(tmp_path: Path, port: int) -> None:
    source = "scenes:pcb?seed=3&parts=500&size_px=128&style=grey"
    tables = {"trigger": {"kind": "time", "every_s": 0.05, "queue": 1, "picture_timeout_s": 60.0}}
    with Commander(port, ROOT) as office, Line(tmp_path, port, source=source, tables=tables) as line:
        line.inspecting()  # and while this part takes its time, others come
        while (overrun := office.next("result"))["reason_code"] != "not_inspected.overrun":
            pass
        assert overrun["result_state"] == "aborted"
        assert overrun["disposition"] == "review"
        assert overrun["part"]["trigger_id"].startswith("time-")
        assert line.terminate() == 0
        office.until_state("offline")
    with Outbox(tmp_path / "outbox.sqlite") as outbox:
        assert outbox.counts()["accepted"] == 0, "every accepted trigger has a report"
