"""The demo with all its processes, on a small untrained bundle: it must say that the weights are no good."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from orinspect.evaluation.demo import _is_unfinished, _plan, run_demo
from orinspect.tests.small_bundle import RECIPE, write_small_bundle

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_bundle(tmp_path_factory.mktemp("small")).path


def _export(bundle: Path, log: list[str]) -> Any:
    def export(checkpoint: str, recipes: list[Path], calibration: str, out: Path) -> None:
        log.append(calibration)
        shutil.copytree(bundle, out)

    return export


def test_an_untrained_bundle_runs_the_whole_way_and_fails_on_accuracy(
    tmp_path: Path, small_bundle: Path
) -> None:
    lines: list[str] = []
    out = tmp_path / "out"
    summary = run_demo(
        out,
        parts=2,
        export=_export(small_bundle, []),
        checkpoint="untrained",
        recipe=RECIPE,
        say=lines.append,
    )
    assert summary["parts"] == 2
    assert not summary["passed"]
    assert any("NOT GOOD ENOUGH" in line for line in lines)
    assert json.loads((out / "summary.json").read_text()) == summary
    received = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert [report["part"]["part_id"] for report in received] == ["scenes-1-0000", "scenes-1-0001"]
    assert len(list((out / "pictures").iterdir())) == 2
    table = [line for line in lines if line.startswith("scenes-1-")]
    assert len(table) == 2


def test_killed_in_the_middle_it_goes_on_and_nothing_is_lost_or_doubled(
    tmp_path: Path, small_bundle: Path
) -> None:
    """The service is killed under the demo (which starts it again), then the demo itself stops half-way
    and is started again."""
    out = tmp_path / "out"
    exports: list[str] = []
    killed: list[int] = []
    pids: list[int] = []

    def say(line: str) -> None:
        if line.startswith("service: process"):
            pids.append(int(line.split()[-1]))
        if line.startswith("scenes-1-0000") and not killed:
            killed.append(pids[-1])
            os.kill(pids[-1], signal.SIGKILL)
        if line.startswith("scenes-1-0003") and len(killed) == 1:
            killed.append(0)
            os.kill(os.getpid(), signal.SIGINT)  # Ctrl-C for the demo, whose main thread waits

    arguments: dict[str, Any] = {"parts": 6, "checkpoint": "untrained", "recipe": RECIPE}
    with pytest.raises(KeyboardInterrupt):
        run_demo(out, export=_export(small_bundle, exports), say=say, **arguments)
    assert not (out / "summary.json").exists()
    lines: list[str] = []
    summary = run_demo(out, export=_export(small_bundle, exports), say=lines.append, **arguments)
    assert len(exports) == 1, "the whole bundle of the first run is used again"
    assert any("going on with the unfinished run" in line for line in lines)
    assert summary["part_under_two_ids"] == 0
    received = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert {report["part"]["part_id"] for report in received} == {f"scenes-1-{n:04d}" for n in range(6)}
    assert summary["parts"] + summary["not_inspected"] == 6
    assert summary["not_inspected"] <= 2


def test_an_unfinished_run_of_other_weights_is_not_continued(tmp_path: Path) -> None:
    checkpoint, out = tmp_path / "weights", tmp_path / "out"
    checkpoint.mkdir()
    out.mkdir()
    (checkpoint / "model.safetensors").write_bytes(b"first")
    plan = _plan("scenes:pcb", checkpoint, RECIPE)
    (out / "run.json").write_text(plan, encoding="utf-8")
    assert not _is_unfinished(out, plan), "it did not come to the first part"
    (out / "outbox.sqlite").touch()
    assert _is_unfinished(out, plan)
    (checkpoint / "model.safetensors").write_bytes(b"second, longer")
    assert not _is_unfinished(out, _plan("scenes:pcb", checkpoint, RECIPE))
    (out / "summary.json").touch()
    assert not _is_unfinished(out, plan)
