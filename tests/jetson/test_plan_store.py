"""A power cut at any step of putting engines in use leaves a set that works."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from orinspect.jetson.plan_store import (
    activate,
    building_folder,
    complete,
    finished_plan,
    record_plan,
    set_in_use,
)
from orinspect.runtime.infer.bundle import sha256_of_file
from orinspect.runtime.infer.engines.plans import BoardFacts, PlanFile, PlanSet, current_set

FACTS = BoardFacts("tensorrt", "10.3.0", "12.6", "36.4.3", "8.7")
OLD, NEW = "0" * 16, "1" * 16


class PowerCut(BaseException):
    """Nothing behind it runs."""


def built(folder: Path, key: str, content: bytes = b"plan") -> PlanSet:
    place = building_folder(folder, key)
    (place / "vision.plan").write_bytes(content)
    plan = PlanFile(
        "vision.plan", "vision.tensorrt.onnx", len(content), sha256_of_file(place / "vision.plan")
    )
    record_plan(place, plan)
    made = PlanSet(place, key, "model", FACTS, 1, {"vision": (plan,)})
    complete(made)
    return made


def content_in_use(folder: Path) -> bytes:
    chosen = current_set(folder)
    return (chosen.folder / chosen.plans("vision")[0].file).read_bytes()


def test_a_new_set_takes_the_old_ones_place(tmp_path: Path) -> None:
    activate(tmp_path, built(tmp_path, OLD, b"old"))
    assert content_in_use(tmp_path) == b"old" and set_in_use(tmp_path, NEW) is None
    (tmp_path / "notes").mkdir()  # not ours
    chosen = activate(tmp_path, built(tmp_path, NEW, b"new"))
    assert content_in_use(tmp_path) == b"new" and set_in_use(tmp_path, NEW) == chosen
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{NEW}-1", "current", "notes"]


def test_a_set_under_the_same_key_gets_the_next_number(tmp_path: Path) -> None:
    first = activate(tmp_path, built(tmp_path, NEW, b"first"))
    (first.folder / "vision.plan").write_bytes(b"")  # a disk that lost it
    assert set_in_use(tmp_path, NEW) is None
    activate(tmp_path, built(tmp_path, NEW, b"again"))
    assert content_in_use(tmp_path) == b"again"
    assert current_set(tmp_path).folder.name == f"{NEW}-2"


@pytest.mark.parametrize("step", range(12))
def test_a_power_cut_at_any_step_leaves_a_set_that_works(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call that changes the disk counts as a step; the one after `step` of them never happens."""
    activate(tmp_path, built(tmp_path, OLD, b"old"))
    done = 0

    def cut(function: Callable[..., object]) -> Callable[..., object]:
        def counted(*arguments: object, **named: object) -> object:
            nonlocal done
            if done == step:
                raise PowerCut
            done += 1
            return function(*arguments, **named)

        return counted

    monkeypatch.setattr(os, "replace", cut(os.replace))
    monkeypatch.setattr(os, "fsync", cut(os.fsync))
    monkeypatch.setattr(Path, "rename", cut(Path.rename))
    monkeypatch.setattr(shutil, "rmtree", cut(shutil.rmtree))
    with pytest.raises(PowerCut):
        activate(tmp_path, built(tmp_path, NEW, b"new"))
    monkeypatch.undo()
    assert content_in_use(tmp_path) in (b"old", b"new")
    activate(tmp_path, built(tmp_path, NEW, b"new"))  # and the next build finishes the work
    assert content_in_use(tmp_path) == b"new"
    assert not list(tmp_path.glob(f"{OLD}*"))


def test_what_is_finished_is_not_built_again(tmp_path: Path) -> None:
    place = built(tmp_path, NEW).folder
    assert finished_plan(place, "vision.plan") is not None
    assert finished_plan(place, "decoder.plan") is None
    (place / "vision.plan").write_bytes(b"nalp")  # same size, other bytes
    assert finished_plan(place, "vision.plan") is None
    (place / "done.json").write_text(json.dumps({"vision.plan": 3})[:-2])
    assert finished_plan(place, "vision.plan") is None
