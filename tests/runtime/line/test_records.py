"""The service as a process with evidence, shifts, audit and health: what it leaves on disk and broker."""

from __future__ import annotations

import csv
import json
import signal
import socket
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from orinspect.runtime.deliver.audit.chain import files_of, verified
from orinspect.runtime.deliver.outbox import Outbox
from orinspect.tests.brokers import WAIT_S, listener, real_broker
from orinspect.tests.line_run import ROOT, Line
from orinspect.tests.report_cases import ROOT as TREE

pytestmark = pytest.mark.requires("mosquitto")


def _validator(name: str) -> jsonschema.Draft202012Validator:
    text = (TREE / "runtime" / "schema" / f"{name}-1.0.json").read_text(encoding="utf-8")
    return jsonschema.Draft202012Validator(json.loads(text))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _tables(port: int) -> dict[str, dict[str, Any]]:
    zone = {"x1": 0, "y1": 0, "x2": 40, "y2": 40}
    return {
        "evidence": {"folder": "evidence", "free_mib": 0, "zones": [zone]},
        "audit": {"folder": "audit"},
        "shifts": {"csv": "csv", "publish_s": 1.0},
        "health": {"interval_s": 1.0, "metrics_port": port},
        "part": {"lot": "L7"},
        "outbox": {"drain_timeout_s": 20.0},
    }


def _events(folder: Path) -> list[dict[str, Any]]:
    lines = [line for path in files_of(folder) for line in path.read_bytes().splitlines()]
    return [json.loads(line) for line in lines]


def test_all_records_of_a_run_agree_with_its_results(tmp_path: Path) -> None:
    port = _free_port()
    with (
        real_broker(tmp_path) as broker,
        listener(broker, f"{ROOT}/#") as received,
        Line(tmp_path, broker, "reject", tables=_tables(port)) as line,
    ):
        line.inspecting()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=WAIT_S) as answer:
            assert b'orinspect_state{state="running"} 1' in answer.read()
        assert line.finish() == 0
        last: dict[str, Any] = {}
        reports = {}
        while last.get("state", {}).get("state") != "offline":
            message = received.get(timeout=WAIT_S)
            name = message.topic.removeprefix(f"{ROOT}/")
            last[name] = json.loads(message.payload)
            if name == "result":
                reports[last[name]["result_id"]] = last[name]
        assert message.topic.endswith("/state")
    assert len(reports) == 6
    stats, health = last["stats/shift"], last["health"]
    _validator("stats").validate(stats)
    _validator("health").validate(health)
    simulated = stats["shift"]["simulated"]
    both = stats["previous"]["simulated"]["reject"] if stats["previous"] else 0  # midnight may pass
    assert simulated["reject"] + both == 6
    assert stats["shift"]["inspected"] == 0, "scenes are never mixed in"
    assert health["results"]["simulated"]["reject"] == 6
    for report in reports.values():
        name = report["image"]["evidence"]
        kept = json.loads((tmp_path / "evidence" / f"{name}.json").read_text(encoding="utf-8"))
        assert kept == report
        assert (tmp_path / "evidence" / f"{name}.annotated.png").exists()
    rows = [row for path in (tmp_path / "csv").glob("*.csv") if "defects" not in path.name
            for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines())]  # fmt: skip
    of_lot = [row for row in rows if (row["lot"], row["is_simulated"]) == ("L7", "true")]
    assert sum(int(row["reject"]) for row in of_lot) == 6
    events = _events(tmp_path / "audit")
    kinds = [event["event"] for event in events]
    assert (kinds[0], kinds[-1]) == ("service_started", "service_stopped")
    (used,) = [event["facts"] for event in events if event["event"] == "in_use"]
    assert (used["bundle"]["precision"], used["scale"]) == ("int8", None)
    found = verified(files_of(tmp_path / "audit"), anchor=health["audit"]["head"])
    assert (found.broken, found.anchor_n) == (None, health["audit"]["n"])


def test_disks_that_refuse_all_records_cost_no_result(tmp_path: Path) -> None:
    """A file stands where each folder should be: the line goes on, and says so."""
    for name in ("evidence", "audit", "csv", "outbox.counters"):
        (tmp_path / name).write_text("in the way" * 100)
    (tmp_path / "outbox.counters").unlink()
    (tmp_path / "outbox.counters").mkdir()
    taken = socket.create_server(("127.0.0.1", 0))
    alarms: Counter[str] = Counter()
    with (
        taken,
        real_broker(tmp_path) as broker,
        listener(broker, f"{ROOT}/#") as received,
        Line(tmp_path, broker, "reject", tables=_tables(taken.getsockname()[1])) as line,
    ):
        assert line.finish() == 0
        states, results = [], set()
        while "offline" not in states:
            message = received.get(timeout=WAIT_S)
            content = json.loads(message.payload)
            if message.topic.endswith("/alarm"):
                alarms[content["code"]] += 1
            elif message.topic.endswith("/state"):
                states.append(content["state"])
            elif message.topic.endswith("/result"):
                results.add(content["result_id"])
    assert len(results) == 6
    assert set(alarms) >= {
        "evidence.not_written", "audit.not_written", "statistics.not_counted", "health.metrics_not_served"
    }  # fmt: skip
    with Outbox(tmp_path / "outbox.sqlite") as outbox:
        assert outbox.counts()["published"] == 6


@pytest.mark.slow
def test_kill_9_and_the_next_run_counts_what_was_left(tmp_path: Path) -> None:
    tables = _tables(_free_port())
    with real_broker(tmp_path) as broker, listener(broker, f"{ROOT}/stats/shift") as received:
        for _ in range(2):
            with Line(tmp_path, broker, "reject", tables=tables) as line:
                line.inspecting()
                line.go()
                line.inspecting()
                line.process.kill()
                assert line.process.wait(WAIT_S) == -signal.SIGKILL
        with Line(tmp_path, broker, "reject", tables=tables) as line:
            assert line.finish() == 0
        with Outbox(tmp_path / "outbox.sqlite") as outbox:
            payloads = [outbox.payload(*key) for key in outbox.keys(("", 0), 100)]
        made = [json.loads(payload) for payload in payloads if payload is not None]
        assert len(made) == 6
        while True:
            stats = json.loads(received.get(timeout=WAIT_S).payload)
            found = [shift["simulated"] for shift in (stats["shift"], stats["previous"]) if shift]
            if sum(each["inspected"] + each["not_inspected"] for each in found) == 6:
                break
    assert sum(each["not_inspected"] for each in found) == sum(
        report["result_state"] == "aborted" for report in made
    )
    events = [event["event"] for event in _events(tmp_path / "audit")]
    assert events.count("service_started") == 3
    assert verified(files_of(tmp_path / "audit")).broken is None
