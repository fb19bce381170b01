"""What is to be built of a bundle, and the refusal before it starts when memory or disk do not suffice."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from orinspect.jetson.board import BoardMemory
from orinspect.jetson.fit import build_peak_bytes, plan_bytes
from orinspect.jetson.plan_work import PlanWork, check_disk, check_memory, parts_that_fit, plan_works
from orinspect.runtime.errors import BundleError, EngineError
from orinspect.runtime.infer.bundle import Bundle
from orinspect.runtime.infer.shape import ModelShape

GIB = 1 << 30


class Described(NamedTuple):
    """As much of a bundle as plan_works reads: a 2B, as export lays it out."""

    path: Path
    manifest: dict[str, dict[str, dict[str, int]]]
    shape: ModelShape | None = None


@pytest.fixture
def large(tmp_path: Path) -> Described:
    profile = '{"name": "all", "inputs": {"x": {"min": [1], "opt": [1], "max": [2]}}}'
    linears = ", ".join(f'"layers.{layer}.mlp.up_proj"' for layer in range(28))
    parts = (
        '{"1": ["decoder.tensorrt.onnx"], "2": ["decoder.tensorrt.1of2.onnx", "decoder.tensorrt.2of2.onnx"]}'
    )
    (tmp_path / "tensorrt.json").write_text(
        f'{{"schema": "orinspect.tensorrt/1.0", "components": {{"decoder": {{"parts": {parts},'
        f' "layers": {{"1": [28], "2": [14, 14]}}, "profiles": [{profile}], "int8_linears": [{linears}],'
        f' "float_linears": []}}, "vision": {{"parts": {{"1": ["vision.tensorrt.onnx"]}},'
        f' "profiles": [{profile}],'
        ' "int8_linears": ["blocks.0.attn.qkv"], "float_linears": []}}}'
    )
    sizes = {
        "decoder.weights": 1_409_000_000,
        "vision.weights": 410_000_000,
        "decoder.tensorrt.onnx": 2_000_000,
        "decoder.tensorrt.1of2.onnx": 1_000_000,
        "decoder.tensorrt.2of2.onnx": 1_000_000,
        "vision.tensorrt.onnx": 1_000_000,
    }
    return Described(tmp_path, {"files": {name: {"bytes": size} for name, size in sizes.items()}})


def works_of(large: Described, parts: int) -> tuple[PlanWork, ...]:
    return plan_works(large, parts)  # type: ignore[arg-type]


def test_plans_are_built_small_ones_first_and_the_decoder_last(large: Described) -> None:
    whole = works_of(large, 1)
    assert [work.plan for work in whole] == ["vision.plan", "decoder.plan"]
    assert whole[1].weight_bytes == 1_411_000_000 and whole[1].layers == 28
    halves = works_of(large, 2)
    assert [work.plan for work in halves] == ["vision.plan", "decoder.1of2.plan", "decoder.2of2.plan"]
    assert halves[1].weight_bytes == 704_500_000 + 1_000_000
    assert halves[1].int8_linears[-1] == "layers.13.mlp.up_proj"
    assert halves[2].int8_linears[0] == "layers.14.mlp.up_proj"
    with pytest.raises(BundleError, match="in 1, 2 parts, not in 4"):
        works_of(large, 4)


def test_a_board_without_the_memory_is_told_which_parts_would_do(large: Described) -> None:
    works = works_of(large, 1)
    need = build_peak_bytes(works[1].weight_bytes)
    check_memory(works, BoardMemory(8 * GIB, need))
    said = r"building decoder\.plan takes about \d+ MiB at its peak, 5120 of 7782 MiB are free: build the"
    with pytest.raises(EngineError, match=rf"{said} decoder with --parts 2, or stop the desktop"):
        check_memory(works, BoardMemory(7782 << 20, 5 * GIB))
    check_memory(works_of(large, 2), BoardMemory(7782 << 20, 5 * GIB))
    with pytest.raises(
        EngineError, match="are free: stop the desktop and other programs, or use a board with"
    ):
        check_memory(works, BoardMemory(4 * GIB, 2 * GIB))  # not even the vision encoder


def test_only_the_decoder_can_be_cut(large: Described) -> None:
    vision, decoder = works_of(large, 1)
    assert parts_that_fit(vision, 1) is None
    assert parts_that_fit(decoder, build_peak_bytes(decoder.weight_bytes)) == 1
    assert parts_that_fit(decoder, build_peak_bytes(decoder.weight_bytes) - 1) == 2
    assert parts_that_fit(decoder, 2 * GIB) is None


def test_a_full_disk_is_said_before_the_build(large: Described, monkeypatch: pytest.MonkeyPatch) -> None:
    works = works_of(large, 1)
    check_disk(works, large.path)
    free = sum(plan_bytes(work.weight_bytes) for work in works) - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10 * free, 9 * free, free))
    with pytest.raises(EngineError, match=r"the engines take about \d+ MiB on disk, \d+ MiB are free in"):
        check_disk(works, large.path)


def test_a_real_export_lists_all_that_is_needed(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    from orinspect.tests.device_bundle import write_device_bundle

    bundle: Bundle = write_device_bundle(tmp_path)
    works = plan_works(bundle, 2)
    assert [work.plan for work in works][-2:] == ["decoder.1of2.plan", "decoder.2of2.plan"]
    assert all((bundle.path / work.graph).is_file() for work in works)
    weights = sum(
        (bundle.path / name).stat().st_size for name in bundle.manifest["files"] if name.endswith(".weights")
    )
    graphs = sum((bundle.path / work.graph).stat().st_size for work in works)
    assert abs(sum(work.weight_bytes for work in works) - weights - graphs) < 4
