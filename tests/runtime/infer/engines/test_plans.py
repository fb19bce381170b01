"""Sets of plans on disk: read back, refused by name, keyed by all that they are bound to."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from orinspect.runtime.errors import BundleError, EngineError
from orinspect.runtime.infer.engines.plans import (
    BoardFacts,
    PlanFile,
    PlanSet,
    current_set,
    l4t_from_text,
    l4t_of_this_board,
    model_hash,
    name_of_this_board,
    plan_key,
    plans_folder,
)

FACTS = BoardFacts("tensorrt", "10.3.0", "12.6", "36.4.3", "8.7")
KEY = "0123456789abcdef"


def plan_set(folder: Path, **changes: Any) -> PlanSet:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vision.plan").write_bytes(b"plan")
    plan = PlanFile("vision.plan", "vision.tensorrt.onnx", 4, "ab" * 32)
    made = PlanSet(folder, KEY, "model", FACTS, 1, {"vision": (plan,)})
    (folder / "built.json").write_text(json.dumps(made.to_table()))
    return dataclasses.replace(made, **changes)


def test_the_set_in_use_is_read_back(tmp_path: Path) -> None:
    made = plan_set(tmp_path / f"{KEY}-1")
    (tmp_path / "current").write_text(f"{KEY}-1\n")
    assert current_set(tmp_path) == made
    assert made.plans("vision")[0].layers is None
    made.check("model", FACTS)
    with pytest.raises(EngineError, match="no engine 'decoder', only vision; run: orinspect engines build"):
        made.plans("decoder")


@pytest.mark.parametrize(
    ("fact", "other", "said"),
    [
        ("tensorrt", "10.16.1", "tensorrt 10.3.0 -> 10.16.1"),
        ("sm", "8.6", "sm 8.7 -> 8.6"),
        ("board", "NVIDIA Jetson AGX Orin", " -> NVIDIA Jetson AGX Orin"),
        ("l4t", "38.2.0", "l4t 36.4.3 -> 38.2.0"),
        ("cuda", "13.0", "cuda 12.6 -> 13.0"),
    ],
)
def test_plans_of_another_board_or_version_are_refused(
    fact: str, other: str, said: str, tmp_path: Path
) -> None:
    made = plan_set(tmp_path)
    with pytest.raises(EngineError, match=said):
        made.check("model", dataclasses.replace(FACTS, **{fact: other}))


def test_plans_of_another_bundle_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"built from another bundle; run: orinspect engines build"):
        plan_set(tmp_path).check("other", FACTS)


@pytest.mark.parametrize("content", [None, "", "../bundle", KEY, "latest-1"])
def test_a_folder_without_a_set_in_use_says_what_to_run(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "current").write_text(content)
    with pytest.raises(EngineError, match="run: orinspect engines build"):
        current_set(tmp_path)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "vision.plan").unlink(), r"vision\.plan is missing"),
        (lambda folder: (folder / "vision.plan").write_bytes(b"pl"), "is 2 bytes, expected 4"),
        (lambda folder: (folder / "built.json").write_text("{"), r"built\.json cannot be read"),
        (lambda folder: (folder / "built.json").write_text('{"schema": "x"}'), r"schema 'x'"),
    ],
)
def test_a_damaged_set_is_refused_by_name(damage: Any, said: str, tmp_path: Path) -> None:
    plan_set(tmp_path)
    damage(tmp_path)
    with pytest.raises(EngineError, match=said):
        PlanSet.read(tmp_path)


def test_the_key_changes_with_all_that_a_plan_is_bound_to() -> None:
    others = [dataclasses.replace(FACTS, **{field.name: "9"}) for field in dataclasses.fields(FACTS)]
    keys = [plan_key("m", FACTS, 1), plan_key("n", FACTS, 1), plan_key("m", FACTS, 2)]
    keys += [plan_key("m", facts, 1) for facts in others]
    assert len(set(keys)) == len(keys)
    assert plan_key("m", FACTS, 1) == plan_key("m", BoardFacts(**dataclasses.asdict(FACTS)), 1)


def test_the_model_hash_is_of_what_engines_are_made_from() -> None:
    files = {
        name: {"sha256": name}
        for name in (
            "vision.tensorrt.onnx",
            "vision.weights",
            "tensorrt.json",
            "vision.onnx",
            "recipes/a.json",
        )
    }
    known = model_hash(files)
    for name, changes in (
        ("vision.tensorrt.onnx", True),
        ("vision.weights", True),
        ("tensorrt.json", True),
        ("vision.onnx", False),
        ("recipes/a.json", False),
    ):
        assert (model_hash({**files, name: {"sha256": "other"}}) != known) is changes, name
    with pytest.raises(BundleError, match="exported without TensorRT graphs"):
        model_hash({"vision.onnx": {"sha256": "a"}})


def test_the_default_folder_stands_beside_the_real_bundle(tmp_path: Path) -> None:
    (tmp_path / "bundle-7").mkdir()
    (tmp_path / "active").symlink_to("bundle-7")
    assert plans_folder(tmp_path / "active") == tmp_path / "bundle-7.engines"


# First lines of /etc/nv_tegra_release, as the Jetson Linux developer guides print them for R36 and R35.
@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n", "36.4.3"),
        ("# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64\n", "35.4.1"),
        ("Ubuntu", ""),
    ],
)
def test_the_jetson_linux_release(text: str, release: str, tmp_path: Path) -> None:
    assert l4t_from_text(text) == release
    (tmp_path / "release").write_text(text)
    assert l4t_of_this_board(tmp_path / "release") == release
    assert l4t_of_this_board(tmp_path / "none") == ""


def test_the_name_ends_where_the_device_tree_ends_it(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"NVIDIA Jetson Orin Nano Developer Kit\0")
    assert name_of_this_board(tmp_path / "model") == "NVIDIA Jetson Orin Nano Developer Kit"
    assert name_of_this_board(tmp_path / "none") == ""
