"""One INT8 linear as an ONNX graph, right or wrong in one respect."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

IN, OUT = 256, 512
NAME = "fc"
PROFILES: list[dict[str, Any]] = [
    {"name": "rows", "inputs": {"x": {"min": [1, 16, IN], "opt": [4, 16, IN], "max": [8, 16, IN]}}}
]


def linear_graph(
    *,
    zero: npt.NDArray[Any] | None = None,
    weight_axis: int = 1,
    scale: npt.NDArray[Any] | None = None,
    is_activation_quantised: bool = True,
    is_scale_computed: bool = False,
    is_weight_computed: bool = False,
    is_output_quantised: bool = False,
) -> onnx.ModelProto:
    """x [B, 16, IN] -> Q/DQ -> MatMul with a dequantised weight [IN, OUT] -> y; the defaults are right."""
    draw = np.random.default_rng(0)
    weight = draw.integers(-127, 128, (IN, OUT)).astype(np.int8)
    scales = weight.shape[weight_axis]
    constants: dict[str, npt.NDArray[Any]] = {
        f"{NAME}.weight": weight,
        f"{NAME}.weight_scale": np.full(scales, 0.01, np.float32),
        f"{NAME}.weight_zero": np.zeros(scales, np.int8),
        "zero": np.array(0, np.int8) if zero is None else zero,
        "scale": np.array(0.1, np.float32) if scale is None else scale,
        "clamp": np.array(3, np.int8),
    }
    nodes = []
    step, value, stored, product = "scale", "x", f"{NAME}.weight", "y"
    if is_scale_computed:
        nodes.append(helper.make_node("Abs", ["x"], ["abs"], name="abs"))
        nodes.append(helper.make_node("ReduceMax", ["abs"], ["largest"], name="largest", keepdims=0))
        nodes.append(helper.make_node("Mul", ["largest", "scale"], ["step"], name="step"))
        step = "step"
    if is_activation_quantised:
        nodes.append(helper.make_node("QuantizeLinear", ["x", step, "zero"], ["q"], name="q", axis=2))
        nodes.append(helper.make_node("DequantizeLinear", ["q", step, "zero"], ["dq"], name="dq", axis=2))
        value = "dq"
    if is_weight_computed:
        nodes.append(helper.make_node("Identity", [stored], ["moved"], name="moved"))
        stored = "moved"
    if is_output_quantised:
        product = "product"
    weights = [stored, f"{NAME}.weight_scale", f"{NAME}.weight_zero"]
    nodes.append(helper.make_node("DequantizeLinear", weights, ["w"], name="weight_dq", axis=weight_axis))
    nodes.append(helper.make_node("MatMul", [value, "w"], [product], name=NAME))
    if is_output_quantised:
        nodes.append(helper.make_node("QuantizeLinear", ["product", "scale", "zero"], ["yq"], name="out_q"))
        nodes.append(helper.make_node("DequantizeLinear", ["yq", "scale", "zero"], ["y"], name="out_dq"))
    graph = helper.make_graph(
        nodes,
        "one_linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 16, IN])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 16, OUT])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


NAIVE: dict[str, tuple[dict[str, Any], str, str]] = {
    "unsigned": ({"zero": np.array(128, np.uint8)}, "q", "zero point"),
    "zero point 5": ({"zero": np.array(5, np.int8)}, "q", "zero point"),
    "scales along the inputs": ({"weight_axis": 0}, NAME, "linear"),
    "float activation": ({"is_activation_quantised": False}, NAME, "linear"),
    "a scale each channel": ({"scale": np.full(IN, 0.1, np.float32)}, NAME, "linear"),
    "computed scale": ({"is_scale_computed": True}, "q", "scale"),
}
"""What a quantiser that does not know TensorRT writes: arguments, the node and the rule that must be named.

Each of them loses the Int8 GEMM or does not parse at all (tensorrt-rtx 1.7.1.116, test_trial.py).
"""
