from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from orinspect.calibration.calibrate import calibrate
from orinspect.calibration.choice import LinearChoice, Mode
from orinspect.calibration.int8_graph import (
    ZERO_POINT,
    Flavour,
    flavour_from_int8,
    int8_from_float,
    linear_bytes,
)
from orinspect.calibration.sessions import Session, kernel_counts
from orinspect.runtime.errors import CheckpointError
from orinspect.tests.linear_graphs import attention_graph, feeds, linear_graph, saved

QKV = tuple(f"layers.0.self_attn.{name}_proj" for name in "qkv")
LINEARS = (*QKV, "layers.0.self_attn.o_proj", "layers.0.mlp.up_proj", "layers.0.mlp.down_proj")


def _choice(name: str, mode: Mode, clip: float = 4.0) -> LinearChoice:
    return LinearChoice(name, "x", mode, clip, "abs_max", 0.01, 0.01, 64, 64, 64)


def _run(model: onnx.ModelProto | Path, values: Any) -> Any:
    source = model if isinstance(model, Path) else model.SerializeToString()
    with Session(source, threads=1) as session:
        return session.run({"x": values})["y"]


def _operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("mode", ["static", "per_row"])
@pytest.mark.parametrize("flavour", ["u8", "s8"])
def test_rewritten_graph_is_valid_and_close(mode: Mode, flavour: Flavour) -> None:
    model = attention_graph()
    int8 = int8_from_float(model, [_choice(name, mode, 8.0) for name in LINEARS], flavour)
    onnx.checker.check_model(int8, full_check=True)
    values = feeds(1, 64)[0]["x"]
    exact, measured = _run(model, values), _run(int8, values)
    assert np.linalg.norm(measured - exact) / np.linalg.norm(exact) < 0.05
    assert np.abs(measured - exact).max() > 1e-5  # it is quantised indeed


@pytest.mark.parametrize("mode", ["static", "per_row"])
def test_every_linear_runs_as_an_integer_kernel_and_attention_does_not(mode: Mode) -> None:
    int8 = int8_from_float(attention_graph(), [_choice(name, mode) for name in LINEARS])
    kernels = kernel_counts(int8.SerializeToString())
    assert kernels["MatMulIntegerToFloat"] == len(LINEARS)
    assert kernels.get("MatMul", 0) + kernels.get("FusedMatMul", 0) == 2  # scores and mixed
    assert kernels["QuantizeLinear"] == 4  # x (q, k and v together), mixed, residual, hidden
    assert "DequantizeLinear" not in kernels


@pytest.mark.parametrize("mode", ["static", "per_row"])
def test_linears_with_a_common_input_share_its_quantisation(mode: Mode) -> None:
    int8 = int8_from_float(attention_graph(), [_choice(name, mode) for name in QKV])
    assert _operators(int8).count("QuantizeLinear") == 1
    assert _operators(int8).count("DequantizeLinear") == 1 + len(QKV)
    assert _operators(int8).count("Abs") == (mode == "per_row")


def test_u8_and_s8_are_one_tensor_apart_and_give_the_same_numbers() -> None:
    choices = [_choice(name, "static" if name in QKV else "per_row") for name in LINEARS]
    u8 = int8_from_float(attention_graph(), choices, "u8")
    s8 = int8_from_float(attention_graph(), choices, "s8")
    assert flavour_from_int8(u8, "s8") == s8
    assert flavour_from_int8(s8, "u8") == u8
    zero_points = [
        numpy_helper.to_array(t) for m in (u8, s8) for t in m.graph.initializer if t.name == ZERO_POINT
    ]
    assert [(z.dtype, int(z)) for z in zero_points] == [(np.dtype(np.uint8), 128), (np.dtype(np.int8), 0)]
    values = feeds(1, 64)[0]["x"] * 3  # beyond the clip, too
    exact, same = _run(u8, values), _run(s8, values)
    assert np.linalg.norm(exact - same) / np.linalg.norm(exact) < 1e-3  # a step flips where float sums differ


@pytest.mark.parametrize("mode", ["static", "per_row"])
def test_one_linear_gives_the_same_sums_in_both_flavours(mode: Mode) -> None:
    model = linear_graph(np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32))
    values = feeds(1, 64)[0]["x"] * 3
    u8 = int8_from_float(model, [_choice("fc", mode)])
    np.testing.assert_allclose(
        _run(u8, values), _run(flavour_from_int8(u8, "s8"), values), rtol=1e-5, atol=1e-6
    )


def test_a_float_graph_has_no_other_flavour() -> None:
    with pytest.raises(CheckpointError, match="no INT8 graph of orinspect"):
        flavour_from_int8(attention_graph(), "s8")


def test_weights_are_int8_by_column_and_biases_stay_float() -> None:
    weight = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32) * np.logspace(-3, 1, 8)
    bias = np.full(8, 1000, np.float32)
    model = linear_graph(weight.astype(np.float32), bias)
    int8 = int8_from_float(model, [_choice("fc", "per_row")])
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in int8.graph.initializer}
    assert tensors["fc.weight"].dtype == np.int8 and tensors["fc.weight"].shape == (64, 8)
    assert np.array_equal(tensors["fc.bias"], bias)
    assert np.abs(tensors["fc.weight"] * tensors["fc.weight_scale"] - weight).max(axis=0) == pytest.approx(
        tensors["fc.weight_scale"] / 2, rel=0.5
    )


def test_the_float_model_is_unchanged_and_the_naming_rule_still_holds() -> None:
    model = attention_graph()
    before = model.SerializeToString(deterministic=True)
    int8 = int8_from_float(model, [_choice(name, "per_row") for name in LINEARS])
    assert model.SerializeToString(deterministic=True) == before
    assert [n.name for n in int8.graph.node if n.op_type == "MatMul" and n.name in LINEARS] == list(LINEARS)
    assert not [
        t for t in int8.graph.initializer if t.name in {f"{x}.weight" for x in LINEARS} and t.data_type == 1
    ]


def test_two_spiked_rows_of_64_leave_the_others_alone_under_per_row() -> None:
    random = np.random.default_rng(0)
    model = linear_graph(random.normal(0, 0.1, (192, 64)).astype(np.float32))
    values = random.normal(size=(1, 64, 192)).astype(np.float32)
    values[0, [5, 40]] *= 400
    exact = _run(model, values)
    others = np.ones(64, bool)
    others[[5, 40]] = False

    def error(mode: Mode) -> float:
        int8 = int8_from_float(model, [_choice("fc", mode, float(np.abs(values).max()))])
        difference = (_run(int8, values) - exact)[0, others]
        return float(np.linalg.norm(difference) / np.linalg.norm(exact[0, others]))

    assert error("static") > 0.5
    assert error("per_row") < 0.015


def test_rows_of_zeros_are_zeros_and_tiny_rows_keep_their_precision() -> None:
    random = np.random.default_rng(0)
    model = linear_graph(random.normal(size=(64, 8)).astype(np.float32))
    values = random.normal(size=(1, 4, 64)).astype(np.float32)
    values[0, 1] = 0
    values[0, 2] *= 1e-6
    measured = _run(int8_from_float(model, [_choice("fc", "per_row")]), values)
    exact = _run(model, values)
    assert not measured[0, 1].any()
    assert np.linalg.norm(measured[0, 2] - exact[0, 2]) / np.linalg.norm(exact[0, 2]) < 0.03


def test_linear_bytes_before_and_after() -> None:
    model = attention_graph()
    weights = 4 * 64 * 64 + 2 * 64 * 256
    scales = 5 * (5 * 64 + 256)  # a float32 scale and an int8 zero an output channel
    assert linear_bytes(model).float32 == linear_bytes(model).stored == 4 * weights
    int8 = linear_bytes(int8_from_float(model, [_choice(name, "static") for name in LINEARS]))
    assert (int8.float32, int8.stored) == (4 * weights, weights + scales)
    assert int8.ratio <= 0.27
    half = linear_bytes(int8_from_float(model, [_choice(name, "static") for name in QKV]))
    assert half.ratio > 0.5  # what stays float counts in full


def test_wrong_choices_and_opsets_are_errors() -> None:
    with pytest.raises(CheckpointError, match="no float linear elsewhere"):
        int8_from_float(attention_graph(), [_choice("elsewhere", "static")])
    with pytest.raises(CheckpointError, match=r"clip above 0, got 0\.0"):
        int8_from_float(attention_graph(), [_choice(QKV[0], "static", 0.0)])
    newer = attention_graph()
    newer.opset_import[0].version = 18
    with pytest.raises(CheckpointError, match="opset 18"):
        int8_from_float(newer, [])


def test_modes_of_one_input_may_differ() -> None:
    choices = [
        _choice(QKV[0], "static"),
        _choice(QKV[1], "per_row"),
        replace(_choice(QKV[2], "static"), clip=2.0),
    ]
    int8 = int8_from_float(attention_graph(), choices)
    onnx.checker.check_model(int8, full_check=True)
    assert _operators(int8).count("QuantizeLinear") == 3
    assert kernel_counts(int8.SerializeToString())["MatMulIntegerToFloat"] == 3


def test_spiked_rows_make_calibration_choose_per_row_and_it_pays(tmp_path: Path) -> None:
    path, given = saved(attention_graph(), tmp_path), feeds(4, 64)
    for feed in given:
        feed["x"][:, [3, 20]] *= 300
    others = np.ones(32, bool)
    others[[3, 20]] = False

    choices = calibrate(path, given, tmp_path / "work", threads=1)
    assert {choice.mode for choice in choices} == {"per_row"}
    loudest = max(float(np.abs(feed["x"]).max()) for feed in given)
    of_qkv = [choice for choice in choices if choice.name in QKV]
    static = [replace(choice, mode="static", clip=loudest) for choice in of_qkv]

    def error_of_the_others(chosen: list[LinearChoice]) -> float:
        int8 = int8_from_float(onnx.load(str(path)), chosen)
        exact, measured = (_run(graph, given[1]["x"])[:, others] for graph in (path, int8))
        return float(np.linalg.norm(measured - exact) / np.linalg.norm(exact))

    assert error_of_the_others(of_qkv) < error_of_the_others(static) / 10
