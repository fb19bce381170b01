"""Golden frames, recipes and bundles on a whole station with real engines: what is released, and what not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orinspect.runtime.infer.bundle import Bundle
from orinspect.tests.brokers import real_broker
from orinspect.tests.commander import Commander
from orinspect.tests.installed import FIRST, SECOND, break_golden, write_installed
from orinspect.tests.line_run import ROOT, Line

SOURCE = "scenes:pcb?seed=3&parts=60&size_px=128&style=grey"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_installed(tmp_path_factory.mktemp("installed"))


@pytest.fixture
def bundles(installed: Path, tmp_path: Path) -> Path:
    shutil.copytree(installed, tmp_path / "bundles")
    return tmp_path / "bundles"


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    with real_broker(tmp_path) as port:
        yield port


def _line(folder: Path, port: int, bundle: str, **more: dict[str, Any]) -> Line:
    tables: dict[str, dict[str, Any]] = {
        "inspection": {"bundle": f"bundles/{bundle}", "threads": 1},
        "trigger": {"kind": "command", "picture_timeout_s": 120.0},
        "commands": {"allow": ["inspect", "recipe/select", "state", "self-test", "bundle/activate"]},
        **more,
    }
    return Line(folder, port, "real", SOURCE, tables=tables, protocol="5")


def _inspected(office: Commander) -> dict[str, Any]:
    assert office.ask("inspect")["outcome"] == "done"
    return office.next("result")


def test_recipes_and_bundles_are_changed_by_command_and_stay_as_they_were_when_that_fails(
    bundles: Path, tmp_path: Path, port: int
) -> None:
    good, other = (Bundle.open(bundles / name).id for name in ("good", "other"))
    assert good != other
    with Commander(port, ROOT) as office:
        with _line(tmp_path, port, "good") as line:
            assert [office.next("state")["state"] for _ in range(3)] == ["starting", "self_test", "ready"]
            report = _inspected(office)
            assert (report["recipe"]["id"], report["bundle"]["id"]) == (FIRST, good)

            done = office.ask("recipe/select", {"recipe": SECOND})
            assert (done["outcome"], done["result"]["golden_frames"]) == ("done", 1)
            assert _inspected(office)["recipe"] | {"sha256": ""} == {
                "id": SECOND,
                "version": "2",
                "sha256": "",
            }

            failed = office.ask("recipe/select", {"recipe": "nobody"})
            assert failed["outcome"] == "failed"
            assert "nobody" in failed["detail"]
            for name, why in (("broken", "vision.onnx"), ("wrong", "golden frames forbid it: vision")):
                failed = office.ask("bundle/activate", {"bundle": name})
                assert failed["outcome"] == "failed"
                assert why in failed["detail"]
                report = _inspected(office)
                assert (report["result_state"], report["bundle"]["id"]) == ("completed", good), "as before"
                assert report["recipe"]["id"] == SECOND

            assert office.ask("bundle/activate", {"bundle": "other"})["outcome"] == "done"
            report = _inspected(office)
            assert (report["recipe"]["id"], report["bundle"]["id"]) == (FIRST, other)
            line.process.kill()
            office.until_state("offline")
        with _line(tmp_path, port, "good") as line:  # what was chosen holds after a kill
            office.until_state("ready")
            assert _inspected(office)["bundle"]["id"] == other
            shutil.rmtree(bundles / "other")
            assert line.terminate() == 0
            office.until_state("offline")
        with _line(tmp_path, port, "good") as line:  # and where it is gone, service.toml does, and says so
            degraded = office.until_state("degraded")
            assert "service.toml holds" in degraded["reason"]
            assert _inspected(office)["bundle"]["id"] == good
            assert line.terminate() == 0


def test_engines_that_fail_their_golden_frames_inspect_nothing_until_a_command_helps(
    bundles: Path, tmp_path: Path, port: int
) -> None:
    with Commander(port, ROOT) as office, _line(tmp_path, port, "wrong") as line:
        fault = office.until_state("fault")
        assert fault["reason"].startswith("golden frames: vision: ")
        office.next("alarm")
        while (
            office.ask("state")["result"].get("recipe") is None or office.ask("inspect")["outcome"] != "done"
        ):
            pass  # the camera is still being opened
        report = office.next("result")
        assert (report["result_state"], report["reason_code"]) == ("aborted", "not_inspected.fault")
        assert report["disposition"] == "review"
        assert office.ask("self-test")["outcome"] == "failed"

        assert office.ask("bundle/activate", {"bundle": "good"})["outcome"] == "done"
        assert _inspected(office)["result_state"] == "completed"
        assert office.ask("state")["result"]["state"] == "running"

        break_golden(bundles / "good")  # as a disk or a driver would
        failed = office.ask("self-test")
        assert failed["outcome"] == "failed"
        assert failed["result"]["wrong"][0].startswith("vision: ")
        assert office.ask("state")["result"]["state"] == "fault"
        assert _inspected(office)["reason_code"] == "not_inspected.fault"
        assert line.terminate() == 0
        assert office.nothing_on("result")
        assert json.loads((tmp_path / "outbox.choice.json").read_text())["bundle"] == "good"


def test_the_fallback_inspects_and_the_station_says_that_it_is_degraded(
    bundles: Path, tmp_path: Path, port: int
) -> None:
    fallback = {"fallback": {"bundle": "bundles/other", "threads": 1, "recipe": SECOND}}
    with Commander(port, ROOT) as office, _line(tmp_path, port, "wrong", **fallback) as line:
        degraded = office.until_state("degraded")
        assert "vision" in degraded["reason"]
        report = _inspected(office)
        assert report["result_state"] == "completed"
        assert (report["bundle"]["id"], report["recipe"]["id"]) == (Bundle.open(bundles / "other").id, SECOND)
        assert office.ask("self-test")["outcome"] == "done"
        assert office.ask("state")["result"]["state"] == "degraded"
        assert line.terminate() == 0
        office.until_state("offline")
