"""The TensorRT flavour: which value has which type, the same numbers as u8, and nothing overflows.

ONNX Runtime computes float16 in float32 on a CPU and hides overflow, so that part runs on onnx's reference
evaluator, whose float16 is numpy's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from orinspect.calibration.choice import LinearChoice
from orinspect.calibration.int8_graph import int8_from_float
from orinspect.calibration.linears import linears_of
from orinspect.calibration.sessions import Session
from orinspect.export.graph.graphs import GraphFiles, graphs_from_checkpoint
from orinspect.export.tensorrt.types import tensorrt_flavour
from orinspect.runtime.errors import CheckpointError
from orinspect.runtime.infer.sequence import mrope_cos_sin
from orinspect.runtime.infer.shape import ModelShape
from orinspect.tests.linear_graphs import attention_graph
from orinspect.tests.tiny_checkpoint import TinySizes, write_tiny_checkpoint

pytestmark = pytest.mark.slow  # all of them together take several seconds

REFERENCE = Path(__file__).parents[2] / "examples" / "reference" / "reference"
Feed = dict[str, npt.NDArray[Any]]
BATCH, NEW, PAST, FILLED = 2, 5, 16, 9
DRAWS = 6
COMPONENTS = ("vision", "attributes", "decoder", "head_schema")


def _graphs(folder: Path, sizes: TinySizes) -> GraphFiles:
    return graphs_from_checkpoint(write_tiny_checkpoint(folder / "checkpoint", sizes), folder)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> GraphFiles:
    return graphs_from_checkpoint(REFERENCE, tmp_path_factory.mktemp("reference"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> GraphFiles:
    return _graphs(tmp_path_factory.mktemp("tiny"), TinySizes(layers=2, vision_depth=2))


def _float_graph(files: GraphFiles, component: str) -> onnx.ModelProto:
    assert files.attributes is not None
    return onnx.load(str(files.decoder.parent / f"{component}.onnx"))


def _feed(shape: ModelShape, component: str, seed: int = 0) -> Feed:
    """Inputs of a component; the past's unfilled slots hold 1e4 behind the mask."""
    random = np.random.default_rng(seed)

    def normal(*sizes: int) -> npt.NDArray[np.float32]:
        return random.normal(size=sizes).astype(np.float32)

    depth = len(shape.deepstack)
    if component == "vision":
        return {"patches": random.uniform(-1, 1, (BATCH, shape.patches, 1536)).astype(np.float32)}
    if component == "attributes":
        tokens = normal(BATCH, shape.tokens, shape.hidden)
        return {"image_tokens": tokens, "deepstack": normal(BATCH, depth, shape.tokens, shape.hidden)}
    if component == "head_schema":
        return {"hidden": normal(BATCH, shape.hidden)}
    places = np.broadcast_to(np.arange(FILLED, FILLED + NEW), (BATCH, 3, NEW))
    cos, sin = mrope_cos_sin(places, shape)
    past = normal(*shape.past_kv_shape(BATCH, PAST))
    past[..., FILLED:, :] = 1e4
    mask = np.full((BATCH, NEW, PAST + NEW), -1e4, np.float32)
    mask[:, :, :FILLED] = 0
    mask[:, :, PAST:] = np.where(np.tri(NEW), 0, -1e4)
    return {
        "embeds": normal(BATCH, NEW, shape.hidden),
        "deepstack": 0.1 * normal(BATCH, depth, NEW, shape.hidden),
        "cos": cos,
        "sin": sin,
        "past_kv": past,
        "mask": mask,
    }


def _typed_feed(feed: Feed) -> Feed:
    return feed | {name: feed[name].astype(np.float16) for name in ("past_kv",) if name in feed}


def _choices(model: onnx.ModelProto, mode: Any, float_every: int = 0) -> list[LinearChoice]:
    """One mode for all linears; with `float_every` 3 each third input's linears stay float."""
    inputs = list(dict.fromkeys(linear.input for linear in linears_of(model)))
    stay = set(inputs[::float_every]) if float_every else set()
    return [
        LinearChoice(
            linear.name,
            linear.input,
            "float" if linear.input in stay else mode,
            6.0,
            "abs_max",
            0.01,
            0.01,
            64,
            linear.in_features,
            linear.out_features,
        )
        for linear in linears_of(model)
    ]


def _both(model: onnx.ModelProto, mode: str, float_every: int = 0) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """The u8 and the TensorRT flavour; mode "float16" leaves every linear float."""
    choices = [] if mode == "float16" else _choices(model, mode, float_every)
    u8 = int8_from_float(model, choices, float16_rest=True)
    return u8, tensorrt_flavour(u8)


def _run(model: onnx.ModelProto, feed: Feed) -> Feed:
    with Session(model.SerializeToString(), threads=1) as session:
        return session.run(feed)


def _difference(measured: Mapping[str, npt.NDArray[Any]], exact: Mapping[str, npt.NDArray[Any]]) -> float:
    """The largest |measured - exact| / |exact| of all outputs."""
    return max(
        float(np.linalg.norm(measured[name].astype(np.float32) - exact[name]) / np.linalg.norm(exact[name]))
        for name in exact
    )


@pytest.mark.parametrize("mode", ["per_row", "static", "float16"])
@pytest.mark.parametrize("component", COMPONENTS)
def test_both_flavours_give_the_same_numbers(reference: GraphFiles, component: str, mode: str) -> None:
    model = _float_graph(reference, component)
    u8, typed = _both(model, mode, float_every=3)
    onnx.checker.check_model(typed, full_check=True)
    of_u8, of_typed, between = [], [], []
    for seed in range(DRAWS):
        feed = _feed(reference.shape, component, seed)
        exact, ours, same = _run(model, feed), _run(u8, feed), _run(typed, _typed_feed(feed))
        of_u8.append(_difference(ours, exact))
        of_typed.append(_difference(same, exact))
        between.append(_difference(same, ours))
    if mode == "float16" or component == "head_schema":
        assert max(between) < 3e-3
    else:  # float16 rounding moves values over an INT8 step, and what follows: another draw of its error,
        # up to a tenth more or less of it from one feed to the next
        assert np.mean(of_typed) < 1.1 * np.mean(of_u8)
        assert np.mean(between) < np.mean(of_u8)


@pytest.mark.parametrize("mode", ["per_row", "static"])
def test_one_layer_gives_the_same_numbers_within_float16(mode: str) -> None:
    u8, typed = _both(attention_graph(), mode, float_every=3)
    feed = {"x": np.random.default_rng(0).normal(size=(2, 32, 64)).astype(np.float32)}
    assert _difference(_run(typed, feed), _run(u8, feed)) < 5e-3


def _value_types(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    values = (*graph.value_info, *graph.input, *graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


@pytest.mark.parametrize("component", COMPONENTS)
def test_types_are_those_of_the_design(tiny: GraphFiles, component: str) -> None:
    model = _float_graph(tiny, component)
    _, typed = _both(model, "per_row", float_every=3)
    types, names = _value_types(typed), {linear.name for linear in linears_of(model)}
    inputs = {value.name: value.type.tensor_type.elem_type for value in typed.graph.input}
    outputs = {value.name: value.type.tensor_type.elem_type for value in typed.graph.output}
    for name, number in (inputs | outputs).items():
        half = name in ("past_kv", "new_kv")
        assert number == (TensorProto.FLOAT16 if half else TensorProto.FLOAT), name
    stored = {tensor.name for tensor in typed.graph.initializer}
    computed = {
        "Abs", "Add", "Div", "Erf", "Less", "Max", "Mul", "Pow", "QuantizeLinear", "ReduceMax", "ReduceMean",
        "Sigmoid", "Softmax", "Sqrt", "Sub", "Tanh", "Where",
    }  # fmt: skip
    for node in typed.graph.node:
        numbers = {types[name] for name in node.input} - {TensorProto.INT64, TensorProto.INT8}
        if node.op_type in computed:
            assert numbers <= {TensorProto.FLOAT, TensorProto.BOOL}, node.name
        if node.op_type == "MatMul":
            is_int8 = node.name in names and node.input[1] not in stored
            assert numbers == {TensorProto.FLOAT if is_int8 else TensorProto.FLOAT16}, node.name
        if node.op_type == "QuantizeLinear":
            assert types[node.input[2]] == TensorProto.INT8
        if node.op_type == "DequantizeLinear":
            assert types[node.input[1]] == TensorProto.FLOAT and types[node.input[0]] == TensorProto.INT8
    assert {node.name for node in typed.graph.node if node.op_type == "MatMul"} >= names
    assert len({node.name for node in typed.graph.node}) == len(typed.graph.node)


def test_the_cache_is_cast_once(tiny: GraphFiles) -> None:
    """The past is read as it is stored; a new key is clipped and cast once, for its scores and its row."""
    _, typed = _both(_float_graph(tiny, "decoder"), "per_row")
    casts = {node.input[0]: node.output[0] for node in typed.graph.node if node.op_type == "Cast"}
    assert not [name for name in casts if name.startswith("past.")]
    for value in ("k.rotated.out", "v_proj.out"):
        clipped = f"layers.0.self_attn.{value}.clipped"
        assert len([node.name for node in typed.graph.node if casts[clipped] in node.input]) == 1


def test_a_scaled_product_is_scaled_before_it(tiny: GraphFiles) -> None:
    """The vision's scores are 1 / sqrt(head size) of a product that may not fit into float16."""
    model = _float_graph(tiny, "vision")
    _, typed = _both(model, "per_row")
    assert [node.name for node in model.graph.node if node.name.endswith(".attn.scaled")]
    assert not [node.name for node in typed.graph.node if node.name.endswith(".attn.scaled")]
    scalings = [node.name for node in typed.graph.node if node.name.endswith(".scores.left_scaled")]
    assert scalings == [f"blocks.{block}.attn.scores.left_scaled" for block in range(2)]


def test_a_float32_linear_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"q_proj has the float32 weight .*q_proj\.weight"):
        tensorrt_flavour(attention_graph())


# --- true float16 ---------------------------------------------------------------------------------------


def _planted(model: onnx.ModelProto, plant: str, size: float) -> onnx.ModelProto:
    """Activations of about `size` behind the plant's norms: their weights are made that large."""
    norms, linear = PLANTS[plant][1:]
    planted = onnx.ModelProto()
    planted.CopyFrom(model)
    tensors = {tensor.name: tensor for tensor in planted.graph.initializer}
    for name in norms:
        values = numpy_helper.to_array(tensors[f"{name}.weight"])
        grown = (values * (size / np.abs(values).mean())).astype(np.float32)
        tensors[f"{name}.weight"].CopyFrom(numpy_helper.from_array(grown, f"{name}.weight"))
    if linear is not None:
        louder = 16 * numpy_helper.to_array(tensors[f"{linear}.weight"])
        tensors[f"{linear}.weight"].CopyFrom(numpy_helper.from_array(louder, f"{linear}.weight"))
    return planted


def _rewired(model: onnx.ModelProto, change: Callable[[onnx.NodeProto], str | None]) -> onnx.ModelProto:
    """A copy in which a node for which `change` names a value passes that value on instead."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in copy.graph.node:
        passed = change(node)
        if passed is not None:
            name, output = node.name, node.output[0]
            node.CopyFrom(helper.make_node("Identity", [passed], [output], name=name))
    return copy


def _without_clip(model: onnx.ModelProto) -> onnx.ModelProto:
    return _rewired(model, lambda node: node.input[0] if node.op_type == "Clip" else None)


def _without_row_scale(model: onnx.ModelProto) -> onnx.ModelProto:
    def change(node: onnx.NodeProto) -> str | None:
        is_scale = node.name.endswith((".rows", ".scaled_back")) and node.op_type in ("Div", "Mul")
        return str(node.input[0]) if is_scale else None

    return _rewired(model, change)


class DequantizeLinear(OpRun):
    """The reference has it from opset 19 on only."""

    op_domain = ""

    def _run(self, x: Any, scale: Any, zero: Any, axis: int = 1, **_: Any) -> tuple[Any]:
        if scale.ndim:
            sizes = [-1 if place == axis % x.ndim else 1 for place in range(x.ndim)]
            scale, zero = scale.reshape(sizes), zero.reshape(sizes)
        return ((x.astype(np.int32) - zero).astype(np.float32) * scale,)


def _in_true_float16(model: onnx.ModelProto, feed: Feed) -> Feed:
    evaluator = ReferenceEvaluator(model, new_ops=[DequantizeLinear])
    with np.errstate(all="ignore"):
        outputs = evaluator.run(None, _typed_feed(feed))
    return dict(zip(evaluator.output_names, outputs, strict=True))


def _is_finite(outputs: Feed) -> bool:
    return all(np.isfinite(value).all() for value in outputs.values())


# name -> component, norms made large, a linear made 16 times as large
PLANTS: dict[str, tuple[str, tuple[str, ...], str | None]] = {
    "values": ("decoder", ("layers.0.input_layernorm",), "layers.0.self_attn.v_proj"),
    "scores": ("decoder", ("layers.1.self_attn.q_norm", "layers.1.self_attn.k_norm"), None),
    "silu x up": ("decoder", ("layers.0.post_attention_layernorm",), None),  # its square, into down_proj
    "hidden": ("decoder", ("norm",), None),
    "vision attention": ("vision", ("blocks.0.norm1",), "blocks.0.attn.qkv"),
    "vision mlp": ("vision", ("blocks.1.norm2",), None),
    "vision merger": ("vision", ("merger.norm",), None),
}


@pytest.mark.parametrize("size", [1e3, 1e4])
@pytest.mark.parametrize("mode", ["float16", "per_row", "static"])
@pytest.mark.parametrize("plant", PLANTS)
def test_planted_activations_stay_finite(tiny: GraphFiles, plant: str, mode: str, size: float) -> None:
    component = PLANTS[plant][0]
    _, typed = _both(_planted(_float_graph(tiny, component), plant, size), mode)
    assert _is_finite(_in_true_float16(typed, _feed(tiny.shape, component)))


@pytest.mark.parametrize("size", [1e3, 1e4])
@pytest.mark.parametrize("mode", ["float16", "per_row"])
def test_a_planted_stream_stays_exact(tiny: GraphFiles, mode: str, size: float) -> None:
    model, feed = _float_graph(tiny, "decoder"), _feed(tiny.shape, "decoder")
    feed["embeds"][:, 1:3, 7] = size
    u8, typed = _both(model, mode)
    assert _difference(_in_true_float16(typed, feed), _run(u8, feed)) < (3e-3 if mode == "float16" else 0.05)


@pytest.mark.parametrize("mode", ["float16", "per_row"])
@pytest.mark.parametrize("plant", ["values", "scores", "vision attention"])
def test_without_clip_planted_activations_are_lost(tiny: GraphFiles, plant: str, mode: str) -> None:
    component = PLANTS[plant][0]
    _, typed = _both(_planted(_float_graph(tiny, component), plant, 1e4), mode)
    assert not _is_finite(_in_true_float16(_without_clip(typed), _feed(tiny.shape, component)))


def test_float_linears_keep_what_a_clip_would_cut(tiny: GraphFiles) -> None:
    """SiLU x up reaches 1e8 here: scaled by row it is exact, merely cast it is lost."""
    feed = _feed(tiny.shape, "decoder")
    model = _planted(_float_graph(tiny, "decoder"), "silu x up", 1e4)
    _, typed = _both(model, "float16")
    assert _difference(_in_true_float16(typed, feed), _run(model, feed)) < 1e-2
    assert not _is_finite(_in_true_float16(_without_row_scale(typed), feed))
