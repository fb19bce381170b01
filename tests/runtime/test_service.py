"""The service as a process, with a real camera process, a real outbox and a real broker.

The inspector waits for the test's word, so that every kill and every signal comes at a known moment.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import paho.mqtt.client as paho
import pytest

from orinspect.runtime.capture.scenes import pcb_scene
from orinspect.runtime.deliver.outbox import Outbox
from orinspect.runtime.judge.scale import PixelScale
from orinspect.runtime.line.by_hand import inspect_pictures
from orinspect.runtime.service import EXIT_ENGINE
from orinspect.tests.brokers import WAIT_S, listener, real_broker
from orinspect.tests.line_run import ROOT, Line
from orinspect.tests.report_cases import SCHEMA
from orinspect.tests.scripted_broker import NOT_AUTHORISED, Publish, ScriptedBroker
from orinspect.tests.small_bundle import write_small_bundle

VALIDATOR = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
Messages = queue.Queue[paho.MQTTMessage]


@pytest.fixture
def messages(tmp_path: Path) -> Iterator[tuple[int, Messages]]:
    """A broker's port and everything that is published under the root."""
    with real_broker(tmp_path) as port, listener(port, f"{ROOT}/#") as received:
        yield port, received


def _until(received: Messages, *ending: str) -> tuple[list[dict[str, Any]], list[str]]:
    """(reports, states) until the last states are these; `offline` alone may be the will of a killed run."""
    reports: list[dict[str, Any]] = []
    states: list[str] = []
    while tuple(states[-len(ending) :]) != ending:
        message = received.get(timeout=WAIT_S)
        content = json.loads(message.payload)
        if message.topic.endswith("/result"):
            VALIDATOR.validate(content)
            reports.append(content)
        elif message.topic.endswith("/state"):
            states.append(content["state"])
    return reports, states


def _outbox(folder: Path) -> dict[str, int]:
    with Outbox(folder / "outbox.sqlite") as outbox:
        return outbox.counts()


@pytest.mark.slow
def test_a_source_that_ends_ends_the_service(tmp_path: Path, messages: tuple[int, Messages]) -> None:
    port, received = messages
    with Line(tmp_path, port, "reject") as line:
        assert line.finish() == 0
    reports, states = _until(received, "offline")
    assert states == ["starting", "self_test", "ready", "running", "stopping", "offline"]
    assert [report["sequence"] for report in reports] == [1, 2, 3, 4, 5, 6]
    assert {report["disposition"] for report in reports} == {"reject"}
    assert len({report["result_id"] for report in reports}) == 6
    assert _outbox(tmp_path) == {"accepted": 0, "committed": 0, "published": 6, "acknowledged": 0}


def test_sigterm_finishes_the_part_under_way_and_says_offline(
    tmp_path: Path, messages: tuple[int, Messages]
) -> None:
    port, received = messages
    with Line(tmp_path, port) as line:
        line.inspecting()
        line.go()
        second = line.inspecting()
        line.process.send_signal(signal.SIGTERM)
        reports, _ = _until(received, "stopping")  # said while the second part is still under way
        assert len(reports) <= 1
        line.go()
        assert line.finish() == 0
    last, states = _until(received, "offline")
    assert [report["part"]["part_id"] for report in (*reports, *last)][-1] == second
    assert len(reports) + len(last) == 2
    assert states == ["offline"]
    assert _outbox(tmp_path)["accepted"] == 0


@pytest.mark.slow
def test_kill_9_and_again_every_report_once_under_one_id(
    tmp_path: Path, messages: tuple[int, Messages]
) -> None:
    port, received = messages
    with Line(tmp_path, port) as line:
        for _ in range(2):
            line.inspecting()
            line.go()
        third = line.inspecting()
        line.process.kill()
        assert line.process.wait(WAIT_S) == -signal.SIGKILL
    with Outbox(tmp_path / "outbox.sqlite") as outbox:
        assert [json.loads(row.trigger)["part"]["part_id"] for row in outbox.abandoned()] == [third]
        abandoned = outbox.abandoned()[0].result_id
    with Line(tmp_path, port) as line:
        assert line.finish() == 0
    reports, states = _until(received, "stopping", "offline")
    assert "offline" in states, "the last will"
    by_id = {report["result_id"]: report for report in reports}
    parts = [report["part"]["part_id"] for report in by_id.values()]
    assert len(parts) == len(set(parts)) == 6, "none lost, none under two ids"
    assert by_id[abandoned]["part"]["part_id"] == third
    assert by_id[abandoned]["result_state"] == "aborted"
    assert by_id[abandoned]["reason_code"] == "not_inspected.restart"
    assert by_id[abandoned]["disposition"] == "review"
    assert sum(report["result_state"] == "aborted" for report in by_id.values()) == 1
    assert sorted(report["sequence"] for report in by_id.values()) == [1, 2, 3, 4, 5, 6]
    assert _outbox(tmp_path) == {"accepted": 0, "committed": 0, "published": 6, "acknowledged": 0}


@pytest.mark.slow
def test_killed_again_and_again_it_still_loses_nothing(
    tmp_path: Path, messages: tuple[int, Messages]
) -> None:
    port, received = messages
    for _ in range(4):
        with Line(tmp_path, port) as line:
            line.inspecting()
            line.process.kill()
    with Line(tmp_path, port) as line:
        assert line.finish() == 0
    reports, _ = _until(received, "stopping", "offline")
    by_part: dict[str, set[str]] = {}
    for report in reports:
        by_part.setdefault(report["part"]["part_id"], set()).add(report["result_id"])
    assert len(by_part) == 6
    assert all(len(ids) == 1 for ids in by_part.values())
    assert _outbox(tmp_path)["published"] == 6


@pytest.mark.slow
def test_killed_between_publish_and_puback_the_report_comes_again_under_its_id(tmp_path: Path) -> None:
    with ScriptedBroker(puback=lambda publish: "silence") as deaf, Line(tmp_path, deaf.port) as line:
        line.inspecting()
        line.go()
        first = deaf.next(Publish, "/result")
        line.process.kill()
    with ScriptedBroker() as broker, Line(tmp_path, broker.port) as line:
        again = broker.next(Publish, "/result")
        assert isinstance(first, Publish)
        assert isinstance(again, Publish)
        assert again.payload == first.payload
        assert line.finish() == 0


@pytest.mark.slow
def test_a_folder_with_a_broken_picture_and_a_late_one_is_inspected_whole_and_once(
    tmp_path: Path, messages: tuple[int, Messages]
) -> None:
    port, received = messages
    folder = tmp_path / "parts"
    folder.mkdir()
    for number in (2, 3, 5):
        assert cv2.imwrite(str(folder / f"p{number}.png"), pcb_scene(number, size_px=128, style="grey").image)
    (folder / "p4.png").write_bytes((folder / "p3.png").read_bytes()[:300])
    with Line(tmp_path, port, source=f"folder:{folder}") as line:
        assert line.inspecting() == "p2"
        line.go()
        assert line.inspecting() == "p3"
        line.process.kill()
    assert cv2.imwrite(
        str(folder / "p1.png"), pcb_scene(1, size_px=128, style="grey").image
    )  # sorts before all of them
    with Line(tmp_path, port, source=f"folder:{folder}") as line:
        assert line.finish() == 0
    reports, _ = _until(received, "stopping", "offline")
    codes: dict[str, set[str | None]] = {}
    for report in {report["result_id"]: report for report in reports}.values():
        codes.setdefault(report["part"]["part_id"], set()).add(report["reason_code"])
    assert codes == {
        "p1": {None},
        "p2": {None},
        "p3": {"not_inspected.restart"},
        "p4": {"not_inspected.picture"},
        "p5": {None},
    }
    (broken,) = (report for report in reports if report["part"]["part_id"] == "p4")
    assert (broken["result_state"], broken["disposition"]) == ("aborted", "review")
    assert "p4.png (300 bytes) is not a picture" in broken["null_reasons"]["reasoning"]
    assert _outbox(tmp_path) == {"accepted": 0, "committed": 0, "published": 5, "acknowledged": 0}


def test_reports_that_a_broker_refuses_are_kept_and_the_end_says_why(tmp_path: Path) -> None:
    with (
        ScriptedBroker(connack=lambda connect: NOT_AUTHORISED[connect.level]) as broker,
        Line(tmp_path, broker.port) as line,
    ):
        assert line.finish() == 1
        last = line.errors.read_text().splitlines()[-1]
        assert last.startswith("orinspect: 6 reports are not delivered")
        assert "Not authorized" in last
    assert _outbox(tmp_path)["committed"] == 6


@pytest.mark.slow
def test_without_a_broker_every_part_is_inspected_and_kept(tmp_path: Path) -> None:
    with ScriptedBroker() as gone:
        port = gone.port
    with Line(tmp_path, port) as line:
        assert line.finish() == 1
        assert "6 reports are not delivered and stay in" in line.errors.read_text().splitlines()[-1]
    assert _outbox(tmp_path)["committed"] == 6
    with ScriptedBroker() as broker, Line(tmp_path, broker.port) as line:
        assert line.finish() == 0
    assert _outbox(tmp_path)["published"] == 6


@pytest.mark.slow
@pytest.mark.parametrize(("says", "why"), [("broken", "NaN"), ("crash", "a fault of ours")])
def test_a_failed_engine_is_reported_and_ends_the_process_with_its_code(
    tmp_path: Path, messages: tuple[int, Messages], says: str, why: str
) -> None:
    port, received = messages
    with Line(tmp_path, port, says) as line:
        assert line.finish() == EXIT_ENGINE
    reports, states = _until(received, "fault")
    assert "offline" not in states
    while not reports:  # state and report go out side by side
        message = received.get(timeout=WAIT_S)
        reports += [json.loads(message.payload)] if message.topic.endswith("/result") else []
    assert [(report["result_state"], report["reason_code"]) for report in reports] == [
        ("failed", "failed.engine")
    ]
    assert reports[0]["disposition"] == "review"
    assert why in reports[0]["null_reasons"]["reasoning"]


@pytest.mark.slow
def test_a_camera_that_does_not_exist_is_a_fault_and_one_sentence(
    tmp_path: Path, messages: tuple[int, Messages]
) -> None:
    port, received = messages
    with Line(tmp_path, port, source="folder:nowhere") as line:
        assert line.finish() == 1
        assert "orinspect: camera.source is 'folder:nowhere'" in line.errors.read_text()
    _until(received, "fault")
    with listener(port, f"{ROOT}/state") as later:  # what whoever looks afterwards sees
        state = later.get(timeout=WAIT_S)
        assert state.retain
        assert (json.loads(state.payload)["state"], "nowhere" in str(state.payload)) == ("fault", True)


@pytest.mark.slow
def test_a_killed_capture_process_is_replaced_and_no_part_is_lost(
    tmp_path: Path, messages: tuple[int, Messages]
) -> None:
    port, received = messages
    with Line(tmp_path, port, tables={"recovery": {"retry_least_s": 0.05}}) as line:
        line.inspecting()
        os.kill(_capture_process(line.process.pid), signal.SIGKILL)
        assert line.finish() == 0
    reports, states = _until(received, "offline")
    assert "degraded" in states
    assert states[-2:] == ["stopping", "offline"]
    assert len({report["part"]["part_id"] for report in reports}) == len(reports) == 6
    assert {report["result_state"] for report in reports} == {"completed"}


def _capture_process(parent: int) -> int:
    """The child that multiprocessing spawned for the camera."""
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            is_child = f"\nPPid:\t{parent}\n" in (path / "status").read_text()
            if is_child and b"spawn_main" in (path / "cmdline").read_bytes():
                return int(path.name)
    raise AssertionError("there is no capture process")


def _site_scale(folder: Path, **change: Any) -> Path:
    path = folder / "scale.json"
    made = PixelScale(0.25, 0.001, calibrated_at="2026-01-01T00:00:00.000Z", picture_wh=(128, 128))
    path.write_text(replace(made, **change).to_json(), encoding="utf-8")
    return path


@pytest.mark.slow
def test_the_scale_of_the_site_is_in_the_reports(tmp_path: Path, messages: tuple[int, Messages]) -> None:
    port, received = messages
    path = _site_scale(tmp_path, camera_id="cam0")
    with Line(tmp_path, port, source="scenes:pcb?seed=3&parts=1&size_px=128", scale=path) as line:
        assert line.finish() == 0
    ((report,), _) = _until(received, "offline")
    scale = report["scale"]
    assert (scale["mm_per_px"], scale["expanded_uncertainty"], scale["k"]) == (0.25, 0.002, 2.0)
    assert scale["calibration_id"] == json.loads(path.read_text("utf-8"))["id"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"expires_at": "2026-02-01T00:00:00.000Z"}, "expired at 2026-02-01"),
        ({"camera_id": "cam7"}, "camera 'cam7'"),
        ({"picture_wh": (640, 480)}, "640x480"),
    ],
)
def test_a_scale_that_must_not_be_used_leaves_sizes_out_and_the_service_up(
    change: dict[str, Any], named: str, tmp_path: Path, messages: tuple[int, Messages]
) -> None:
    port, received = messages
    source = "scenes:pcb?seed=3&parts=2&size_px=128"
    with Line(tmp_path, port, "reject", source, _site_scale(tmp_path, **change)) as line:
        assert line.finish() == 0
        said = line.errors.read_text("utf-8")
    reports, _ = _until(received, "offline")
    assert len(reports) == 2
    for report in reports:
        assert report["scale"]["mm_per_px"] is None
        assert named in report["null_reasons"]["scale.mm_per_px"]
        assert [defect["size_mm"] for defect in report["defects"]] == [None]
    assert said.count(named) == 1  # once, not for each part


def test_a_scale_that_cannot_be_read_stops_the_start(tmp_path: Path, messages: tuple[int, Messages]) -> None:
    port, received = messages
    with Line(tmp_path, port, scale=tmp_path / "none.json") as line:
        assert line.finish() == 1
        assert "none.json" in line.errors.read_text("utf-8")
    _until(received, "fault")


def test_one_picture_by_hand_takes_a_scale(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path)
    scene = pcb_scene(5, size_px=128)
    cv2.imwrite(str(tmp_path / "part.png"), scene.image)
    cv2.imwrite(str(tmp_path / "golden.png"), scene.template)
    template, scale = tmp_path / "golden.png", _site_scale(tmp_path, camera_id="cam9")
    report = inspect_pictures(bundle.path, tmp_path / "part.png", template=template, threads=1, scale=scale)
    assert (report.scale.mm_per_px, report.view.camera_id) == (0.25, "cam9")


def test_one_picture_by_hand_gives_a_valid_report(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path)
    scene = pcb_scene(5, size_px=256)
    cv2.imwrite(str(tmp_path / "part.png"), scene.image)
    cv2.imwrite(str(tmp_path / "golden.png"), scene.template)
    report = inspect_pictures(bundle.path, tmp_path / "part.png", template=tmp_path / "golden.png", threads=1)
    table = json.loads(report.to_json())
    VALIDATOR.validate(table)
    assert (table["part"]["part_id"], table["image"]["width"], table["is_simulated"]) == ("part", 256, False)
    assert table["bundle"]["id"] == bundle.id
