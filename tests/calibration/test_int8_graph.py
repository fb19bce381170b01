"""Smoothing, float16 weights and streaming in the INT8 rewrite; the rest: test_int8.py of export."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from orinspect.calibration.choice import LinearChoice, Mode, choose
from orinspect.calibration.int8_graph import (
    Flavour,
    flavour_from_int8,
    inline,
    int8_from_float,
    linear_bytes,
)
from orinspect.calibration.linears import Weights, linears_of
from orinspect.calibration.ranges import ranges_from_runs
from orinspect.calibration.sessions import Floats, Session, kernel_counts
from orinspect.runtime.errors import CheckpointError
from orinspect.tests.linear_graphs import attention_graph, feeds, linear_graph, saved


def _choices(model: onnx.ModelProto, mode: Mode, *, is_smoothed: bool = True) -> list[LinearChoice]:
    """One mode for all linears, every input smoothed by factors of its own, up to four times apart."""
    inputs = {linear.input: linear.in_features for linear in linears_of(model)}
    random = np.random.default_rng(0)
    factors = {
        name: (2 ** random.uniform(-1, 1, size)).astype(np.float32) if is_smoothed else None
        for name, size in inputs.items()
    }
    return [
        LinearChoice(
            linear.name, linear.input, mode, 8.0, "abs_max", 0.01, 0.01, 64, linear.in_features,
            linear.out_features, 0.5 if is_smoothed else None, factors[linear.input],
        )
        for linear in linears_of(model)
    ]  # fmt: skip


def _run(model: onnx.ModelProto, values: Floats) -> Any:
    with Session(model.SerializeToString(), threads=1) as session:
        return session.run({"x": values})["y"]


def _without_rounding(int8: onnx.ModelProto, model: onnx.ModelProto) -> onnx.ModelProto:
    """Every Q and DQ passes its input on, and the smoothed weights are float: only the smoothing is left."""
    copy = onnx.ModelProto()
    copy.CopyFrom(int8)
    tensors = {tensor.name: tensor for tensor in copy.graph.initializer}
    smoothed = {
        node.output[0]: node.input[1] for node in copy.graph.node if node.output[0].endswith("_smoothed")
    }
    weights, inverse_of = Weights(model), {}
    makers = {node.output[0]: node for node in copy.graph.node}
    for node in copy.graph.node:
        if node.op_type == "MatMul" and node.name in weights:
            before = node.input[0]  # back from the dequantised value to the smoothed one
            while before not in smoothed:
                before = makers[before].input[0]
            inverse_of[node.name] = numpy_helper.to_array(tensors[smoothed[before]])
    for name, inverse in inverse_of.items():
        tensors[f"{name}.weight"].CopyFrom(inline(f"{name}.weight", weights[name] / inverse[:, None]))
    for node in copy.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            node.CopyFrom(helper.make_node("Identity", [node.input[0]], list(node.output), name=node.name))
    return copy


@pytest.mark.parametrize("mode", ["static", "per_row"])
def test_smoothing_is_exact_in_float(mode: Mode) -> None:
    model = attention_graph()
    int8 = int8_from_float(model, _choices(model, mode))
    values = feeds(1, 64)[0]["x"]
    np.testing.assert_allclose(_run(_without_rounding(int8, model), values), _run(model, values), atol=2e-5)


@pytest.mark.parametrize("mode", ["static", "per_row"])
@pytest.mark.parametrize("flavour", ["u8", "s8"])
def test_a_smoothed_graph_is_valid_and_close(mode: Mode, flavour: Flavour) -> None:
    model = attention_graph()
    int8 = int8_from_float(model, _choices(model, mode), flavour)
    onnx.checker.check_model(int8, full_check=True)
    values = feeds(1, 64)[0]["x"]
    exact, measured = _run(model, values), _run(int8, values)
    assert 1e-4 < np.linalg.norm(measured - exact) / np.linalg.norm(exact) < 0.08


@pytest.mark.parametrize("mode", ["static", "per_row"])
def test_smoothed_linears_are_integer_kernels_and_share_one_mul(mode: Mode) -> None:
    model = attention_graph()
    plain, smoothed = (
        kernel_counts(int8_from_float(model, _choices(model, mode, is_smoothed=yes)).SerializeToString())
        for yes in (False, True)
    )
    assert smoothed["MatMulIntegerToFloat"] == plain["MatMulIntegerToFloat"] == 6
    assert smoothed["QuantizeLinear"] == plain["QuantizeLinear"] == 4  # q, k and v share theirs
    assert smoothed["Mul"] == plain.get("Mul", 0) + 4
    assert "DequantizeLinear" not in smoothed


def test_smoothed_flavours_are_one_tensor_apart() -> None:
    model = attention_graph()
    choices = _choices(model, "static")
    assert flavour_from_int8(int8_from_float(model, choices, "u8"), "s8") == int8_from_float(
        model, choices, "s8"
    )


def test_smoothing_that_does_not_fit_is_an_error() -> None:
    model = linear_graph(np.ones((8, 4), np.float32))
    (choice,) = _choices(model, "static")
    for factors, told in ((np.ones(7), r"\(7,\) and"), (np.zeros(8), r"\(8,\) and a smallest of 0")):
        wrong = LinearChoice(**(vars(choice) | {"smoothing": factors.astype(np.float32)}))
        with pytest.raises(CheckpointError, match=f"fc: smoothing needs 8 factors above 0, got shape {told}"):
            int8_from_float(model, [wrong])


def test_loud_channels_through_the_whole_of_ranges_choice_and_graph(tmp_path: Any) -> None:
    random = np.random.default_rng(0)
    weight = random.normal(size=(64, 32)).astype(np.float32)
    weight[[3, 17]] /= 200
    model, given = linear_graph(weight), feeds(6, 64)
    for feed in given:
        feed["x"][..., [3, 17]] *= 200
        feed["x"][:, :2] *= 50  # and loud rows
    path = saved(model, tmp_path)
    statistics = ranges_from_runs(path, given, threads=1)
    (choice,) = choose(statistics.values(), Weights(model))
    assert (choice.mode, choice.alpha is not None) == ("per_row", True)
    values = feeds(1, 64, seed=5)[0]["x"]
    values[..., [3, 17]] *= 200
    exact = _run(model, values)

    def error(choice: LinearChoice) -> float:
        measured = _run(int8_from_float(model, [choice]), values)
        return float(np.linalg.norm(measured - exact) / np.linalg.norm(exact))

    plain = LinearChoice(**(vars(choice) | {"smoothing": None, "alpha": None}))
    assert error(choice) < 0.02
    assert error(plain) > 0.2


def test_weights_are_read_and_stored_one_by_one() -> None:
    model = attention_graph()
    told: list[str] = []

    class Told(Weights):
        def __getitem__(self, name: str) -> Floats:
            told.append(f"read {name}")
            return super().__getitem__(name)

    def store(name: str, values: Any) -> TensorProto:
        if values.ndim == 2:
            told.append(f"stored {name}")
        return inline(name, values)

    choices = _choices(model, "per_row")
    int8 = int8_from_float(model, choices, weights=Told(model), store=store)
    names = [linear.name for linear in linears_of(model)]
    assert told == [entry for name in names for entry in (f"read {name}", f"stored {name}.weight")]
    assert int8 == int8_from_float(model, choices)


def test_float16_weights_of_what_stays_float() -> None:
    weight = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
    bfloat = (weight.view(np.uint32) & 0xFFFF0000).view(np.float32)
    model, values = linear_graph(bfloat), feeds(1, 64)[0]["x"]
    half = int8_from_float(model, [], float16_rest=True)
    onnx.checker.check_model(half, full_check=True)
    assert linear_bytes(half).ratio == 0.5
    np.testing.assert_array_equal(_run(half, values), _run(model, values))  # bfloat16 fits into float16
    assert "Cast" not in kernel_counts(half.SerializeToString())  # done once, at load
    with pytest.raises(CheckpointError, match=r"fc\.weight reaches 100000, beyond float16"):
        int8_from_float(linear_graph(np.full((8, 8), 1e5, np.float32)), [], float16_rest=True)
