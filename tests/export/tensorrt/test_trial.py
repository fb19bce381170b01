"""tensorrt-rtx builds every graph in every profile, and every INT8 linear is an Int8 GEMM in it.

Two decoder layers, two vision blocks and the heads of a 2B with random weights, and the reference checkpoint
whole; a naive graph must fail. Run by `make trt-check`.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import pytest

from orinspect.calibration.blocks import decoder_part
from orinspect.export.graph.graphs import GraphFiles, graphs_from_checkpoint
from orinspect.export.int8 import ComponentFiles
from orinspect.export.prompt import tokenizer_from_checkpoint
from orinspect.export.recipe_compile import compiled_from_recipe
from orinspect.export.tensorrt.lint import operator_table
from orinspect.export.tensorrt.profiles import linears_by_type, part_layers, profiles_for
from orinspect.export.tensorrt.trial import (
    COMPUTE_CAPABILITIES,
    Trial,
    fixed_profiles,
    layers_from_log,
    trial,
)
from orinspect.runtime.infer.bundle import CompiledRecipe
from orinspect.runtime.infer.engines.profile_choice import Profile, Range
from orinspect.runtime.infer.engines.tensorrt_builder import PlanOrder, plan_from_order
from orinspect.runtime.infer.shape import ModelShape
from orinspect.runtime.recipe import load_recipe
from orinspect.tests.export.tensorrt.graphs import FLOAT, INT8_MODES, MODES, TWO_LAYERS_OF_2B, quantised
from orinspect.tests.export.tensorrt.one_linear import NAIVE, NAME, PROFILES, linear_graph
from orinspect.tests.tiny_checkpoint import write_tiny_checkpoint

pytestmark = [
    pytest.mark.trt,
    pytest.mark.skipif(
        importlib.util.find_spec("tensorrt_rtx") is None,
        reason="tensorrt-rtx is not installed: make trt-check",
    ),
]

REFERENCE = Path(__file__).parents[3] / "examples" / "reference"
RECIPE = REFERENCE / "pcb-compare.toml"
COMPONENTS = ("vision", "decoder", "attributes", "head_schema")


@dataclass(frozen=True)
class Exported:
    """Graphs of one checkpoint with the profiles that its recipe asks for."""

    shape: ModelShape
    files: dict[str, ComponentFiles]
    table: dict[str, Any]  # of tensorrt.json, by component

    def built(self, component: str, capability: str) -> Trial:
        profiles, layers = self.table[component]["profiles"], self.shape.layers
        graph = self.files[component].tensorrt
        return trial(graph, profiles, compute_capability=capability, layers=layers)

    def lost(self, component: str, found: Trial) -> list[str]:
        entry = self.table[component]
        return found.lost(entry["int8_linears"], entry["profiles"])


def _exported(files: GraphFiles, place: Path, compiled: CompiledRecipe, modes: tuple[str, ...]) -> Exported:
    written = quantised(files, place, modes)
    models = {name: onnx.load(str(each.tensorrt), load_external_data=False) for name, each in written.items()}
    return Exported(files.shape, written, profiles_for(files.shape, [compiled], models)["components"])


def _compiled(checkpoint: Path) -> CompiledRecipe:
    return compiled_from_recipe(tokenizer_from_checkpoint(checkpoint), load_recipe(RECIPE))


@pytest.fixture(scope="module")
def slice_of_2b(tmp_path_factory: pytest.TempPathFactory) -> tuple[GraphFiles, CompiledRecipe, Path]:
    folder = tmp_path_factory.mktemp("2b")
    checkpoint = write_tiny_checkpoint(folder / "checkpoint", TWO_LAYERS_OF_2B)
    compiled = _compiled(checkpoint)
    files = graphs_from_checkpoint(checkpoint, folder / "float", tile_px=224, kept_ids=compiled.kept_ids)
    return files, compiled, folder


@pytest.fixture(scope="module")
def mixed(slice_of_2b: tuple[GraphFiles, CompiledRecipe, Path]) -> Exported:
    """Every mode of a linear in one model."""
    files, compiled, folder = slice_of_2b
    return _exported(files, folder / "mixed", compiled, MODES)


def test_a_right_linear_becomes_an_int8_gemm(tmp_path: Path) -> None:
    onnx.save(linear_graph(), str(tmp_path / "right.onnx"))
    found = trial(tmp_path / "right.onnx", PROFILES, compute_capability="SM86")
    assert found.errors == () and found.lost([NAME], PROFILES) == []
    assert found.plan_bytes > 256 * 512 and found.build_s > 0
    assert found.plan_bytes < found.peak_bytes < 1e9  # the child's own, however large this process is


@pytest.mark.parametrize("fault", NAIVE)
def test_a_naive_linear_is_lost(fault: str, tmp_path: Path) -> None:
    """The same graphs that the lint names: each of its rules stands for something that really happens."""
    arguments, _, _ = NAIVE[fault]
    onnx.save(linear_graph(**arguments), str(tmp_path / "naive.onnx"))
    found = trial(tmp_path / "naive.onnx", PROFILES, compute_capability="SM86")
    assert found.lost([NAME], PROFILES) == [f"rows: {NAME}"]


@pytest.mark.parametrize("capability", COMPUTE_CAPABILITIES)
@pytest.mark.parametrize("component", COMPONENTS)
def test_two_layers_of_a_2b_keep_every_int8_linear(mixed: Exported, component: str, capability: str) -> None:
    found = mixed.built(component, capability)
    assert found.errors == ()
    assert mixed.lost(component, found) == []
    entry, profiles = mixed.table[component], len(mixed.table[component]["profiles"])
    counted = [len(found.int8_linears(index) & set(entry["int8_linears"])) for index in range(profiles)]
    assert counted == [len(entry["int8_linears"])] * profiles and counted[0] > 0
    kept = set(entry["float_linears"])
    assert not any(found.int8_linears(index) & kept for index in range(profiles))


@pytest.mark.parametrize("mode", INT8_MODES)
def test_a_decoder_all_in_one_mode_keeps_every_linear(
    mode: str, slice_of_2b: tuple[GraphFiles, CompiledRecipe, Path]
) -> None:
    files, compiled, folder = slice_of_2b
    exported = _exported(files, folder / mode.replace(" ", "-"), compiled, (mode,))
    found = exported.built("decoder", "SM86")
    assert found.errors == () and exported.lost("decoder", found) == []
    assert len(exported.table["decoder"]["int8_linears"]) == 7 * 2


@pytest.mark.parametrize("component", COMPONENTS)
def test_the_float16_fallback_builds(
    component: str, slice_of_2b: tuple[GraphFiles, CompiledRecipe, Path]
) -> None:
    files, compiled, folder = slice_of_2b
    exported = _exported(files, folder / "float16", compiled, (FLOAT,))
    found = exported.built(component, "SM86")
    assert found.errors == () and not exported.table[component]["int8_linears"]
    assert any("Half" in layer.input_types for layer in found.layers if layer.kind != "kgen")


@pytest.mark.parametrize("capability", COMPUTE_CAPABILITIES)
@pytest.mark.parametrize("component", COMPONENTS)
def test_batch_1_and_one_token_alone_keep_every_int8_linear(
    mixed: Exported, component: str, capability: str
) -> None:
    """The smallest GEMMs there are, and shapes that are fixed altogether: not shipped, yet none is lost."""
    alone = [_alone(fixed_profiles(mixed.table[component]["profiles"], 2)[0])]
    found = trial(mixed.files[component].tensorrt, alone, compute_capability=capability)
    assert found.errors == () and found.lost(mixed.table[component]["int8_linears"], alone) == []
    if component == "decoder":
        assert alone[0]["inputs"]["embeds"]["max"] == [1, 1, 2048]
        assert mixed.table[component]["least_k"] == 1


def _alone(profile: dict[str, Any]) -> dict[str, Any]:
    """The smallest shape of a profile, and no other."""
    return {
        "name": "alone",
        "inputs": {
            name: dict.fromkeys(("min", "opt", "max"), bounds["min"])
            for name, bounds in profile["inputs"].items()
        },
    }


def test_profiles_share_the_weights_and_a_fixed_one_would_not(mixed: Exported) -> None:
    """Why no profile fixes its batch: the plan would hold every weight twice."""
    graph = mixed.files["decoder"].tensorrt
    profiles = fixed_profiles(mixed.table["decoder"]["profiles"], 2)

    def plan_bytes(*chosen: dict[str, Any]) -> int:
        return trial(graph, chosen, compute_capability="SM86").plan_bytes

    one, all_of_them = plan_bytes(profiles[0]), plan_bytes(*profiles)
    fixed = plan_bytes(_alone(profiles[0]), *profiles)
    print(f"plan of two 2B layers: {one}, {len(profiles)} profiles {all_of_them}, a fixed one more {fixed}")
    assert all_of_them < 1.5 * one
    assert fixed > all_of_them + 0.8 * one


def test_a_decoder_left_in_float_loses_all(
    mixed: Exported, slice_of_2b: tuple[GraphFiles, CompiledRecipe, Path]
) -> None:
    entry = mixed.table["decoder"]
    found = trial(slice_of_2b[0].decoder, entry["profiles"][:1], compute_capability="SM86", layers=2)
    assert found.errors == ()
    assert len(found.lost(entry["int8_linears"], entry["profiles"][:1])) == len(entry["int8_linears"])


@pytest.mark.parametrize("part", [1, 2])
def test_a_part_of_the_decoder_keeps_its_linears(mixed: Exported, part: int) -> None:
    whole = mixed.files["decoder"].tensorrt
    model = decoder_part(onnx.load(str(whole), load_external_data=False), mixed.shape, part - 1, part)
    graph = whole.with_name(f"decoder.tensorrt.{part}of2.onnx")
    onnx.save(model, str(graph))
    own, _ = linears_by_type(model)
    profiles = mixed.table["decoder"]["profiles"]
    found = trial(graph, profiles, compute_capability="SM86", layers=part_layers(2, 2)[part - 1])
    assert found.errors == () and own and found.lost(own, profiles) == []


@pytest.mark.parametrize("capability", COMPUTE_CAPABILITIES)
def test_the_reference_checkpoint_keeps_every_int8_linear(capability: str, tmp_path: Path) -> None:
    checkpoint = REFERENCE / "reference"
    compiled = _compiled(checkpoint)
    files = graphs_from_checkpoint(checkpoint, tmp_path / "float", kept_ids=compiled.kept_ids)
    exported = _exported(files, tmp_path / "int8", compiled, MODES)
    for component in COMPONENTS:
        found = exported.built(component, capability)
        assert found.errors == () and exported.lost(component, found) == [], component


def test_the_builder_of_the_device_builds_the_same(mixed: Exported, tmp_path: Path) -> None:
    """jetson's own code path on tensorrt-rtx: it passes profiles and reads back what the trial counts."""
    entry = mixed.table["decoder"]
    profiles = fixed_profiles(entry["profiles"], 2)
    said: list[str] = []
    order = PlanOrder(
        library="tensorrt_rtx",
        graph=mixed.files["decoder"].tensorrt,
        plan=tmp_path / "decoder.plan",
        profiles=tuple(Profile(each["name"], _ranges(each)) for each in profiles),
        timing_cache=None,
        workspace_bytes=1 << 30,
        compute_capability="SM86",
    )
    built = plan_from_order(order, lambda phase, done, steps: said.append(phase))
    found = Trial((), layers_from_log(built.layers))
    assert found.layers and found.lost(entry["int8_linears"], profiles) == []
    assert built.bytes == order.plan.stat().st_size > 0 and said


def _ranges(profile: dict[str, Any]) -> dict[str, Range]:
    return {
        name: Range(*(tuple(bounds[key]) for key in ("min", "opt", "max")))
        for name, bounds in profile["inputs"].items()
    }


def test_the_parser_knows_the_operators_of_the_table() -> None:
    """tensorrt-rtx is of the 11 line: what the table gives 11.4 it accepts, what it denies it refuses."""
    operators = operator_table()["operators"]
    ask = (
        "import sys, tensorrt_rtx as trt\n"
        "logger = trt.Logger(trt.Logger.ERROR); builder = trt.Builder(logger)\n"
        "network = builder.create_network(0); parser = trt.OnnxParser(network, logger)\n"
        "print(*(name for name in sys.argv[1:] if parser.supports_operator(name)))\n"
    )
    command = [sys.executable, "-c", ask, *operators]
    known = set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert known == {name for name, entry in operators.items() if isinstance(entry, list) or "11.4" in entry}


def test_a_graph_that_cannot_be_read_is_an_answer_and_no_exception(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no protobuf")
    found = trial(tmp_path / "broken.onnx", PROFILES, compute_capability="SM86")
    assert found.errors and found.lost([NAME], PROFILES) == [f"rows: {NAME}"]
    onnx.save(linear_graph(), str(tmp_path / "right.onnx"))
    narrow = [{"name": "narrow", "inputs": {"x": {key: [1, 16, 8] for key in ("min", "opt", "max")}}}]
    assert trial(tmp_path / "right.onnx", narrow, compute_capability="SM86").errors
    assert trial(tmp_path / "right.onnx", PROFILES, compute_capability="SM0").errors
