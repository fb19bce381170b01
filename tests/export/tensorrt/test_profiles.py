"""Profiles cover every shape that the decoder makes, fix no batch, and name every linear."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from orinspect.export.tensorrt.profiles import (
    RecipeSizes,
    decoder_profiles,
    linears_by_type,
    part_files,
    part_layers,
    profiles_for,
    sizes_from_recipe,
)
from orinspect.export.tensorrt.trial import fixed_profiles
from orinspect.runtime.infer.bundle import Bundle
from orinspect.runtime.infer.decode import Decoder
from orinspect.runtime.infer.engines.onnxruntime_engine import OnnxruntimeEngine
from orinspect.runtime.infer.engines.profile_choice import component_plans, profile_for
from orinspect.runtime.infer.shape import ModelShape
from orinspect.tests.export.tensorrt.graphs import MODES, tensorrt_graphs
from orinspect.tests.small_bundle import write_small_bundle
from orinspect.tests.tiny_checkpoint import TinySizes


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_small_bundle(tmp_path_factory.mktemp("small"), sizes=TinySizes())


@pytest.fixture(scope="module")
def graphs(small: Bundle, tmp_path_factory: pytest.TempPathFactory) -> dict[str, onnx.ModelProto]:
    recipe = small.recipe()
    checkpoint, out = small.path.parent / "checkpoint", tmp_path_factory.mktemp("graphs")
    _, files = tensorrt_graphs(checkpoint, out, MODES, kept_ids=recipe.kept_ids)
    return {
        f"head_schema.{recipe.recipe.id}" if name == "head_schema" else name: onnx.load(
            str(written.tensorrt), load_external_data=False
        )
        for name, written in files.items()
    }


def test_every_call_of_a_whole_decode_finds_its_profile(
    small: Bundle, graphs: dict[str, onnx.ModelProto], tmp_path: Path
) -> None:
    """The device's own reader and choice, on the shapes that real decoding of 1, 3 and 7 tiles makes."""
    recipe, shape = small.recipe(), small.shape
    table = profiles_for(shape, [recipe], graphs, parts=(1, 3))
    (tmp_path / "tensorrt.json").write_text(json.dumps(table), encoding="utf-8")
    plans = component_plans(tmp_path)
    assert set(plans) == set(graphs)
    decoder = plans["decoder"]
    assert decoder.files(3) == tuple(part_files("decoder", 3)) and decoder.layers[3] == (1, 1, 1)
    profiles = decoder.profiles(graphs_inputs(graphs["decoder"]), shape.layers)
    taken: set[str] = set()

    class Watched(OnnxruntimeEngine):
        def run(self, feeds):  # type: ignore[no-untyped-def]
            chosen = profile_for(profiles, {name: array.shape for name, array in feeds.items()}, "decoder")
            taken.add(profiles[chosen].name)
            return super().run(feeds)

    draw = np.random.default_rng(0)
    with (
        Watched(small.graph("decoder"), threads=1) as engine,
        OnnxruntimeEngine(small.graph(f"head_schema.{recipe.recipe.id}"), threads=1) as head,
    ):
        words = Decoder(shape, recipe, small.embeddings, engine, head, clock=lambda: 0.0)
        for tiles in (1, 3, 7):
            image = draw.standard_normal((tiles, shape.tokens, shape.hidden)).astype(np.float32)
            stacked = draw.standard_normal((tiles, len(shape.deepstack), shape.tokens, shape.hidden))
            assert words.answers(image, stacked.astype(np.float32)).engine_calls > 2
    assert "prefill" in taken and len(taken) > 2


def graphs_inputs(model: onnx.ModelProto) -> list[str]:
    return [value.name for value in model.graph.input]


def test_every_linear_is_named_once_and_as_what_it_is(
    small: Bundle, graphs: dict[str, onnx.ModelProto]
) -> None:
    components = profiles_for(small.shape, [small.recipe()], graphs)["components"]
    for name, entry in components.items():
        matrices = [node.name for node in graphs[name].graph.node if node.op_type == "MatMul"]
        linears = [*entry["int8_linears"], *entry["float_linears"]]
        assert len(linears) == len(set(linears)) and set(linears) <= set(matrices)
        rest = set(matrices) - set(linears)
        assert all(each.endswith((".scores", ".mixed")) for each in rest), rest
    layers, blocks = small.shape.layers, small.shape.vision_depth
    assert sum(len(components["decoder"][kind]) for kind in ("int8_linears", "float_linears")) == 7 * layers
    vision = sum(len(components["vision"][kind]) for kind in ("int8_linears", "float_linears"))
    assert vision == 1 + 4 * blocks + 2 * (1 + len(small.shape.deepstack))
    assert components["decoder"]["float_linears"]  # MODES has a float one, or this test would show little


def test_no_profile_fixes_its_batch(small: Bundle, graphs: dict[str, onnx.ModelProto]) -> None:
    """A shape that is fixed altogether makes tensorrt-rtx store the weights a second time."""
    for entry in profiles_for(small.shape, [small.recipe()], graphs)["components"].values():
        for profile in entry["profiles"]:
            assert all(bounds["min"][0] < bounds["max"][0] for bounds in profile["inputs"].values())


def test_the_memory_of_a_recipe_bounds_rows_and_pictures(
    small: Bundle, graphs: dict[str, onnx.ModelProto]
) -> None:
    compiled = small.recipe()
    table = {}
    for budget in (1, 256):
        tiling = dataclasses.replace(compiled.recipe.tiling, attention_mb=budget)
        recipe = dataclasses.replace(compiled.recipe, tiling=tiling)
        asked = [dataclasses.replace(compiled, recipe=recipe)]
        components = profiles_for(big(small.shape), asked, graphs)["components"]
        table[budget] = [
            max(profile["inputs"][name]["max"][0] for profile in components[component]["profiles"])
            for component, name in (("vision", "patches"), ("decoder", "embeds"))
        ]
    assert table == {1: [2, 2], 256: [16, 16]}  # a single one would fix the batch


def big(shape: ModelShape) -> ModelShape:
    """The same with so many heads that one picture fills a megabyte of attention scores."""
    return dataclasses.replace(shape, heads=512, vision_heads=64)


def test_profiles_leave_no_gap_in_new_tokens_or_past(small: Bundle) -> None:
    sizes = [RecipeSizes(prefix=40, first=90, run=20, longest=900), RecipeSizes(70, 30, 9, 400)]
    profiles = decoder_profiles(small.shape, sizes, rows=16)
    decode = [profile for profile in profiles if profile["name"] != "prefill"]
    assert len(decode) == 4 * 3  # k 1, 2..8, 9..16, 17..20; past 128..256, 288..576, 608..928
    for slots in range(128, 929, 32):
        for k in range(1, 21):
            holding = [
                profile
                for profile in decode
                if profile["inputs"]["past_kv"]["min"][4] <= slots <= profile["inputs"]["past_kv"]["max"][4]
                and profile["inputs"]["embeds"]["min"][1] <= k <= profile["inputs"]["embeds"]["max"][1]
            ]
            assert len(holding) == 1, (slots, k)
    prefill = profiles[-1]["inputs"]
    assert prefill["embeds"]["min"][1] == 30 and prefill["embeds"]["max"][1] == 90
    for profile in profiles:
        for name, bounds in profile["inputs"].items():
            for least, best, most in zip(bounds["min"], bounds["opt"], bounds["max"], strict=True):
                assert least == best == most or least <= best <= most, (profile["name"], name)
        tokens = {key: profile["inputs"]["embeds"][key][1] for key in ("min", "opt", "max")}
        slots_of = {key: profile["inputs"]["past_kv"][key][4] for key in tokens}
        assert profile["inputs"]["mask"]["max"][2] == tokens["max"] + slots_of["max"]


def test_sizes_are_those_of_the_guide(small: Bundle) -> None:
    recipe = small.recipe()
    sizes = sizes_from_recipe(recipe, small.shape)
    assert sizes.prefix == len(recipe.prefix_ids)
    assert sizes.longest == sizes.prefix + sizes.first + recipe.recipe.token_budget
    assert 1 < sizes.run < recipe.recipe.token_budget


def test_parts_take_their_layers() -> None:
    assert part_layers(28, 4) == [7, 7, 7, 7]
    assert part_layers(36, 5) == [8, 7, 7, 7, 7]
    assert part_files("decoder", 2) == ["decoder.tensorrt.1of2.onnx", "decoder.tensorrt.2of2.onnx"]
    (profile,) = fixed_profiles(
        [{"name": "a", "inputs": {"past_kv": {"min": [1, "layers", 2], "max": [4, "layers", 2]}}}], 7
    )
    assert profile["inputs"]["past_kv"] == {"min": [1, 7, 2], "max": [4, 7, 2]}


def test_a_float_graph_has_no_int8_linear(small: Bundle) -> None:
    model = onnx.load(str(small.graph("decoder")), load_external_data=False)
    int8, kept = linears_by_type(model)
    assert not int8 and len(kept) == 7 * small.shape.layers


def test_tensorrt_graphs_are_no_components(small: Bundle) -> None:
    files: dict[str, dict[str, int]] = {
        f"{name}{end}": {} for name in small.components for end in (".onnx", ".tensorrt.onnx")
    }
    manifest = small.manifest | {"files": {**files, "decoder.tensorrt.1of2.onnx": {}, "decoder.weights": {}}}
    assert set(Bundle(small.path, manifest, small.sha256, small.shape).components) == set(small.components)
