"""Small ONNX graphs that obey the naming rule of linears, and feeds for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from orinspect.calibration.choice import LinearChoice
from orinspect.calibration.linears import linears_of

Floats = npt.NDArray[np.float32]


def linear_graph(weight: Floats, bias: Floats | None = None, *, name: str = "fc") -> onnx.ModelProto:
    """x [B, K, in] -> y [B, K, out]: one linear right at the graph's input."""
    tensors = [numpy_helper.from_array(weight, f"{name}.weight")]
    nodes = [helper.make_node("MatMul", ["x", f"{name}.weight"], ["product"], name=name)]
    if bias is None:
        nodes.append(helper.make_node("Identity", ["product"], ["y"], name="y"))
    else:
        tensors.append(numpy_helper.from_array(bias, f"{name}.bias"))
        nodes.append(helper.make_node("Add", ["product", f"{name}.bias"], ["y"], name=f"{name}.add"))
    return _model(nodes, tensors, {"x": weight.shape[0]}, {"y": weight.shape[1]})


def attention_graph(hidden: int = 64, *, seed: int = 0) -> onnx.ModelProto:
    """x [B, K, hidden] -> y: q, k, v of one input, scores of two computed MatMuls, output, an MLP with SiLU.

    Six linears (`layers.0.…`) and two attention MatMuls that are none.
    """
    random = np.random.default_rng(seed)
    tensors = [numpy_helper.from_array(np.array(hidden**-0.5, np.float32), "scale")]

    def linear(name: str, source: str, outputs: int, inputs: int = hidden) -> onnx.NodeProto:
        weight = random.normal(0, inputs**-0.5, (inputs, outputs)).astype(np.float32)
        tensors.append(numpy_helper.from_array(weight, f"{name}.weight"))
        return helper.make_node("MatMul", [source, f"{name}.weight"], [f"{name}.y"], name=name)

    at, mlp = "layers.0.self_attn", "layers.0.mlp"
    nodes = [
        linear(f"{at}.q_proj", "x", hidden),
        linear(f"{at}.k_proj", "x", hidden),
        linear(f"{at}.v_proj", "x", hidden),
        helper.make_node("Transpose", [f"{at}.k_proj.y"], ["kt"], name="kt", perm=[0, 2, 1]),
        helper.make_node("MatMul", [f"{at}.q_proj.y", "kt"], ["scores"], name=f"{at}.scores"),
        helper.make_node("Mul", ["scores", "scale"], ["scaled"], name="scaled"),
        helper.make_node("Softmax", ["scaled"], ["probabilities"], name="softmax", axis=-1),
        helper.make_node("MatMul", ["probabilities", f"{at}.v_proj.y"], ["mixed"], name=f"{at}.mixed"),
        linear(f"{at}.o_proj", "mixed", hidden),
        helper.make_node("Add", ["x", f"{at}.o_proj.y"], ["residual"], name="residual"),
        linear(f"{mlp}.up_proj", "residual", 4 * hidden),
        helper.make_node("Sigmoid", [f"{mlp}.up_proj.y"], ["gate"], name="gate"),
        helper.make_node("Mul", [f"{mlp}.up_proj.y", "gate"], ["hidden"], name="silu"),
        linear(f"{mlp}.down_proj", "hidden", hidden, 4 * hidden),
        helper.make_node("Add", ["residual", f"{mlp}.down_proj.y"], ["y"], name="y"),
    ]
    return _model(nodes, tensors, {"x": hidden}, {"y": hidden})


def stacked_graph(
    layers: int, hidden: int = 64, inner: int = 128, *, seed: int = 0, quiet: Floats | None = None
) -> onnx.ModelProto:
    """x [B, K, hidden] -> y: `layers` residual MLPs `layers.<i>.up`, `layers.<i>.down`.

    With `quiet` [hidden] layer 0 does not see that direction of x and drops its residual: what it reads is
    large, what it makes of it small, which INT8 of any kind does badly.
    """
    random = np.random.default_rng(seed)
    tensors: list[onnx.TensorProto] = []
    nodes: list[onnx.NodeProto] = []

    def node(operator: str, inputs: list[str], name: str) -> str:
        nodes.append(helper.make_node(operator, inputs, [f"{name}.out"], name=name))
        return f"{name}.out"

    def linear(name: str, source: str, inputs: int, outputs: int) -> str:
        weight = random.normal(0, inputs**-0.5, (inputs, outputs)).astype(np.float32)
        if quiet is not None and name == "layers.0.up":
            unit = quiet / np.linalg.norm(quiet)
            weight -= np.outer(unit, unit @ weight)
        tensors.append(numpy_helper.from_array(weight, f"{name}.weight"))
        return node("MatMul", [source, f"{name}.weight"], name)

    stream = "x"
    for index in range(layers):
        name = f"layers.{index}"
        wide = linear(f"{name}.up", stream, hidden, inner)
        active = node("Tanh", [wide], f"{name}.act")
        down = linear(f"{name}.down", active, inner, hidden)
        residual = [down, down] if quiet is not None and index == 0 else [stream, down]
        stream = node("Add", residual, f"{name}.residual")
    nodes.append(helper.make_node("Identity", [stream], ["y"], name="output.y"))
    return _model(nodes, tensors, {"x": hidden}, {"y": hidden})


def _model(
    nodes: list[onnx.NodeProto],
    tensors: list[onnx.TensorProto],
    inputs: Mapping[str, int],
    outputs: Mapping[str, int],
) -> onnx.ModelProto:
    def values(sizes: Mapping[str, int]) -> list[onnx.ValueInfoProto]:
        return [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", "K", size])
            for name, size in sizes.items()
        ]

    graph = helper.make_graph(nodes, "linears", values(inputs), values(outputs), tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def saved(model: onnx.ModelProto, folder: Path, name: str = "float.onnx") -> Path:
    """Write `model` into `folder`."""
    onnx.save(model, str(folder / name))
    return folder / name


def feeds(
    count: int, features: int, *, batch: int = 2, rows: int = 32, seed: int = 1
) -> list[dict[str, Any]]:
    """`count` feeds x [batch, rows, features] of normal values."""
    random = np.random.default_rng(seed)
    return [{"x": random.normal(size=(batch, rows, features)).astype(np.float32)} for _ in range(count)]


def per_row_choices(model: onnx.ModelProto) -> list[LinearChoice]:
    """per_row for every linear: INT8 without calibration."""
    return [
        LinearChoice(
            linear.name,
            linear.input,
            "per_row",
            clip=None,
            clip_from=None,
            error_static=None,
            error_per_row=0.0,
            rows=0,
            in_features=linear.in_features,
            out_features=linear.out_features,
        )
        for linear in linears_of(model)
    ]
