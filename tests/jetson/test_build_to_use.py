"""From `engines build` to engines in use, and what keeps the old ones: on real graphs, with ONNX Runtime in
TensorRT's place and the children's work done in this process, so that it can be put there.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from orinspect.export.bundle import write_manifest
from orinspect.jetson import checks, engines
from orinspect.jetson.board import BoardMemory
from orinspect.jetson.engines import build_engines, report_text, verify_engines
from orinspect.jetson.plan_store import only_builder
from orinspect.runtime.errors import EngineError
from orinspect.runtime.infer.bundle import Bundle
from orinspect.runtime.infer.engines import cuda, tensorrt_device
from orinspect.runtime.infer.engines.device import StridedCopy
from orinspect.runtime.infer.engines.device_past import DevicePast
from orinspect.runtime.infer.engines.plans import current_set
from orinspect.runtime.infer.engines.tensorrt_builder import BuiltPlan, PlanOrder, write_whole
from orinspect.runtime.infer.golden_frames import Mismatch
from orinspect.runtime.infer.inspector import Inspector
from orinspect.tests import ort_tensorrt
from orinspect.tests.device_bundle import write_device_bundle
from orinspect.tests.host_cuda import host_cuda

pytestmark = pytest.mark.slow  # all of them together take several seconds


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_device_bundle(tmp_path_factory.mktemp("use"), golden=True)


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    bindings = pytest.importorskip("cuda.bindings.driver")
    host_cuda()

    def at_once(work: Callable[..., Any], *arguments: Any, heard: Callable[..., None], what: str) -> Any:
        return work(heard, *arguments)

    def built(tell: Callable[..., None], order: PlanOrder) -> BuiltPlan:
        content = ort_tensorrt.plan_bytes(order.graph, order.profiles)
        return BuiltPlan(write_whole(order.plan, content), "")

    for module in (checks, tensorrt_device):
        monkeypatch.setattr(module, "tensorrt_library", lambda *_: ort_tensorrt)
        monkeypatch.setattr(module, "driver_of_this_machine", lambda: cuda._BoundDriver(bindings))
    monkeypatch.setattr(engines, "run_in_child", at_once)
    monkeypatch.setattr(engines, "plan_in_child", built)
    yield
    assert host_cuda().host_cuda_live() == 0


def silent(_: str) -> None:
    """Progress is not looked at."""


@pytest.mark.parametrize("parts", [1, 2])
def test_engines_are_built_checked_and_used(bundle: Bundle, parts: int, tmp_path: Path) -> None:
    table = build_engines(bundle.path, tmp_path, parts=parts, say=silent)
    assert table["in_use"] and table["built"] == 3 + parts and not table["wrong"]
    assert table["golden"] == {"frames": 2, "out_of_tolerance": []}
    assert all(not count["in_float"] for profiles in table["int8"].values() for count in profiles.values())
    assert sum(count["prefill"]["intended"] for count in table["int8"].values() if "prefill" in count) == 21
    again = build_engines(bundle.path, tmp_path, parts=parts, say=silent)
    assert again["built"] == 0 and again["folder"] == table["folder"]
    report = verify_engines(bundle.path, tmp_path, say=silent)
    assert report["int8"] == table["int8"] and report["golden"] == table["golden"]
    assert "golden frames: 2, outputs out of tolerance: 0" in report_text(report)
    with Inspector(bundle, backend="tensorrt", plans=tmp_path) as inspector:
        assert inspector.recipe.id == bundle.recipe_ids[0]


def test_a_linear_that_runs_in_float_is_named(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_engines(bundle.path, tmp_path, say=silent)
    lost = "layers.1.mlp.down_proj"
    monkeypatch.setattr(ort_tensorrt.Inspector, "FLOAT_LINEARS", (lost,))
    report = verify_engines(bundle.path, tmp_path, say=silent)
    assert report["int8"]["decoder.plan"]["prefill"] == {"int8": 20, "intended": 21, "in_float": [lost]}
    assert f"in float: {lost}" in report_text(report)


def test_engines_that_answer_wrongly_never_replace_those_in_use(bundle: Bundle, tmp_path: Path) -> None:
    """An engine whose weights are not what the export saw, as a kernel that computes nonsense would be."""
    build_engines(bundle.path, tmp_path, say=silent)
    before = current_set(tmp_path)
    broken = tmp_path / "broken"
    shutil.copytree(bundle.path, broken)
    path = broken / "attributes.tensorrt.onnx"
    model = onnx.load(str(path), load_external_data=False)
    for tensor in model.graph.initializer:
        if tensor.name.endswith(".weight_scale"):
            values = onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.asarray(values * 3), tensor.name))
    path.write_bytes(model.SerializeToString())
    (broken / "manifest.json").unlink()
    keys = ("precision", "model", "recipes", "dense_types", "golden")
    write_manifest(broken, {key: bundle.manifest[key] for key in keys})
    with pytest.raises(
        EngineError, match=r"not put in use: attributes: \w+ is off by .*those in use before stay"
    ):
        build_engines(broken, tmp_path, say=silent)
    assert current_set(tmp_path) == before
    assert not verify_engines(bundle.path, tmp_path, say=silent)["wrong"]


def test_an_altered_plan_is_refused_by_name(bundle: Bundle, tmp_path: Path) -> None:
    build_engines(bundle.path, tmp_path, say=silent)
    path = current_set(tmp_path).folder / "vision.plan"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        EngineError, match=r"vision\.plan was altered: its SHA-256 is another; run: orinspect"
    ):
        verify_engines(bundle.path, tmp_path, say=silent)
    table = build_engines(bundle.path, tmp_path, say=silent)  # the way out that the sentence names
    assert table["built"] == 4 and table["folder"] != str(path.parent)
    assert not verify_engines(bundle.path, tmp_path, say=silent)["wrong"]


def test_what_is_finished_needs_no_memory_any_more(bundle: Bundle, tmp_path: Path) -> None:
    """The decoder was built before the cut; what is left is small, and so is the memory now."""
    whole = build_engines(bundle.path, tmp_path, say=silent)
    place = Path(whole["folder"])
    place.rename(tmp_path / f"{whole['key']}.building")
    (tmp_path / "current").unlink()
    none_left = BoardMemory(4 << 30, 1)
    table = build_engines(bundle.path, tmp_path, memory=lambda: none_left, say=silent)
    assert table["built"] == 0 and table["in_use"]


def test_one_builds_at_a_time(bundle: Bundle, tmp_path: Path) -> None:
    with only_builder(tmp_path), pytest.raises(EngineError, match="another orinspect engines build works in"):
        build_engines(bundle.path, tmp_path, say=silent)
    assert build_engines(bundle.path, tmp_path, say=silent)["built"] == 4


def test_what_is_not_a_number_is_wrong_in_any_frame(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frame whose choices are too close to call gates no error, but it is no excuse for NaN."""
    for error, wrong in ((9.0, 0), (float("inf"), 1)):
        found = Mismatch("decoder", "hidden", error, 1.0, may_gate=False)
        monkeypatch.setattr(checks, "check_golden", lambda *_, found=found: (found,))
        folder = tmp_path / str(wrong)
        if wrong:
            with pytest.raises(EngineError, match=r"not put in use: decoder: hidden is off by inf"):
                build_engines(bundle.path, folder, say=silent)
        else:
            assert build_engines(bundle.path, folder, say=silent)["in_use"]


@pytest.mark.parametrize("parts", [1, 2])
def test_a_past_that_is_kept_wrongly_is_seen(
    bundle: Bundle, parts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three slots too early: the golden frames bring a past of their own and know nothing of it."""
    right = DevicePast._columns

    def shifted(
        past: DevicePast, source: int, slots: int, first: int, row: int, target: int, count: int
    ) -> StridedCopy:
        return right(past, source, slots, first, row, max(target - 3, 0), count)

    monkeypatch.setattr(DevicePast, "_columns", shifted)
    with pytest.raises(EngineError, match=r"not put in use: decoder, \d+ tokens over \d+ in the engine's"):
        build_engines(bundle.path, tmp_path, parts=parts, say=silent)


def test_the_passes_are_of_one_token_and_of_many(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = set[int]()
    right = DevicePast.step

    def noted(past: DevicePast, engine: Any, feeds: Any, counts: Any) -> Any:
        columns.add(feeds["embeds"].shape[1])
        return right(past, engine, feeds, counts)

    monkeypatch.setattr(DevicePast, "step", noted)
    assert build_engines(bundle.path, tmp_path, say=silent)["in_use"]
    assert {1, max(columns)} <= columns and len(columns) > 2
