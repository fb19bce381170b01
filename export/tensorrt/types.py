"""The TensorRT flavour of a graph: s8 activations, float16 where it pays, float32 where it must stay exact.

float32: residual stream, norms, SiLU x up, softmax, rope, QuantizeLinear and its scales (at opset 17 it takes
nothing else), every graph input and output but the cache. float16:

- the cache, `past_kv` and `new_kv`;
- attention MatMuls (two computed inputs): each input enters through Clip(+-60000) and Cast, the product
  leaves the same way, for a score of two large vectors overflows where neither of them does. A scalar that
  would scale the product scales the left input instead;
- linears kept float: x / rowmax|x| -> Cast -> MatMul -> Cast -> x rowmax. They are kept because their input
  has values that INT8 cannot hold: a Clip would cut exactly those, and their product may overflow all the
  same.

Transposes, reshapes and slices between the two take the type of what they feed, so that a cache row is cast
once and read many times.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from ...calibration.int8_graph import ROW_FLOOR_NAME, ZERO_POINT, copied_without, flavour_from_int8
from ...calibration.linears import WEIGHT_SUFFIX
from ...calibration.rounding import ROW_FLOOR
from ...runtime.errors import CheckpointError

HALF_BOUND = 60000.0
"""Clip before and after float16 (largest 65504); a multiple of its step there, so exact in both types."""

CACHE_VALUES = ("past_kv", "new_kv")
_LAYOUT = {"Reshape", "Transpose", "Split", "Slice", "Concat", "Squeeze", "Unsqueeze", "Gather", "Identity"}
_BOUNDS = {suffix: sign * HALF_BOUND for suffix, sign in (("low", -1), ("high", 1))}


def tensorrt_flavour(model: onnx.ModelProto) -> onnx.ModelProto:
    """The TensorRT flavour of a graph that `int8_from_float` wrote with `float16_rest`; `model` stays.

    Weights are neither read nor copied: references to external data go over as they are. CheckpointError
    names a linear whose weight is float32.
    """
    if any(tensor.name == ZERO_POINT for tensor in model.graph.initializer):
        model = flavour_from_int8(model, "s8")
    typed = copied_without(model, ())
    for value in (*typed.graph.input, *typed.graph.output):
        if value.name in CACHE_VALUES:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
    writer = _Writer(typed.graph, _Plan(model.graph))
    for node in model.graph.node:
        writer.write(node)
    return typed


def _data_inputs(node: onnx.NodeProto) -> list[str]:
    """The inputs of a layout operator that it moves; the others are shapes, indexes and axes."""
    return list(node.input) if node.op_type == "Concat" else [node.input[0]]


class _Plan:
    """What each node is, seen from its neighbours: read only."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.producers = {name: node for node in graph.node for name in node.output}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self.outputs = {value.name for value in graph.output}
        self.absorbed: dict[str, onnx.NodeProto] = {}  # attention MatMul's name -> the scaling behind it
        for node in graph.node:
            scaling = self._scaling_behind(node) if self.is_attention(node) else None
            if scaling is not None:
                self.absorbed[node.name] = scaling
        self.dropped = {node.name for node in self.absorbed.values()}
        self.half_layouts: set[str] = set()
        for node in reversed(graph.node):
            if node.op_type in _LAYOUT and self._feeds_half_only(node):
                self.half_layouts.add(node.name)

    def is_half_linear(self, node: onnx.NodeProto) -> bool:
        """A linear that stays float: its weight is a float16 initialiser behind a Cast."""
        if node.op_type != "MatMul":
            return False
        maker = self.producers.get(node.input[1])
        return maker is not None and self.is_weight_cast(maker)

    def is_weight_cast(self, node: onnx.NodeProto) -> bool:
        """The Cast behind a float16 weight."""
        return node.op_type == "Cast" and node.input[0] in self.constants

    def is_attention(self, node: onnx.NodeProto) -> bool:
        """A MatMul whose two inputs are computed from the graph's inputs."""
        if node.op_type != "MatMul" or self.is_half_linear(node):
            return False
        if node.input[1] in self.constants:
            raise CheckpointError(
                f"{node.name} has the float32 weight {node.input[1]}; the TensorRT flavour is made of a graph"
                " whose float linears are stored as float16"
            )
        maker = self.producers.get(node.input[1])
        return maker is None or maker.op_type != "DequantizeLinear"

    def scalar(self, name: str) -> float | None:
        """The value of a float32 constant with one element; None for anything else."""
        tensor = self.constants.get(name)
        if tensor is None or tensor.data_type != TensorProto.FLOAT or int(np.prod(tensor.dims)) != 1:
            return None
        return float(numpy_helper.to_array(tensor).reshape(()))

    def _scaling_behind(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        """The Mul by a constant below 1 that alone reads this product."""
        readers = self._readers.get(node.output[0], [])
        if len(readers) != 1 or readers[0].op_type != "Mul" or node.output[0] in self.outputs:
            return None
        scale = self.scalar(readers[0].input[1])
        return readers[0] if scale is not None and abs(scale) < 1 else None

    def _feeds_half_only(self, layout: onnx.NodeProto) -> bool:
        """Whether all that read this operator's outputs want float16, and somebody does."""
        wishes = [name in CACHE_VALUES for name in layout.output if name in self.outputs]
        for name in layout.output:
            wishes += [self._wants_half(reader, name) for reader in self._readers.get(name, [])]
        return bool(wishes) and all(wishes)

    def _wants_half(self, reader: onnx.NodeProto, name: str) -> bool:
        if reader.name in self.half_layouts:
            return name in _data_inputs(reader)
        if not self.is_attention(reader):
            return False
        return reader.name not in self.absorbed or name != reader.input[0]


class _Writer:
    """Appends the typed nodes to a graph; remembers which values are float16 and where both types exist."""

    def __init__(self, graph: onnx.GraphProto, plan: _Plan) -> None:
        self._graph, self._plan = graph, plan
        self._names = set(plan.constants)
        self._halves = {value.name for value in graph.input if value.name in CACHE_VALUES}
        self._made: dict[tuple[str, str], tuple[str, str]] = {}

    def write(self, node: onnx.NodeProto) -> None:
        """Append `node` in its types, with the casts that it needs before and behind."""
        plan = self._plan
        if node.name in plan.dropped or plan.is_weight_cast(node):
            return
        if plan.is_half_linear(node):
            self._half_linear(node)
        elif plan.is_attention(node):
            self._attention(node)
        elif node.op_type in _LAYOUT and self._moves_half(node):
            moved = {name: self._half(name) for name in _data_inputs(node)}
            self._copy(node, moved)
            self._halves.update(node.output)
        elif node.op_type == "Shape":
            self._copy(node, {})
        else:
            self._copy(node, {name: self._single(name) for name in node.input if name in self._halves})

    def _moves_half(self, node: onnx.NodeProto) -> bool:
        return node.name in self._plan.half_layouts or self._halves.issuperset(_data_inputs(node))

    def _attention(self, node: onnx.NodeProto) -> None:
        left, right = node.input
        scaling = self._plan.absorbed.get(node.name)
        if scaling is not None:
            left = self._node("Mul", [self._single(left), scaling.input[1]], f"{node.name}.left_scaled")
        target = node.output[0] if scaling is None else scaling.output[0]
        product = self._node("MatMul", [self._half(left), self._half(right)], f"{node.name}.half", node.name)
        bounded = self._clip(product, f"{node.name}.bounded", np.float16)
        self._node("Cast", [bounded], target, f"{node.name}.single", to=TensorProto.FLOAT)

    def _half_linear(self, node: onnx.NodeProto) -> None:
        rows, row_max = self._half_rows(self._single(node.input[0]))
        name = node.name
        product = self._node("MatMul", [rows, name + WEIGHT_SUFFIX], f"{name}.half", name)
        single = self._node("Cast", [product], f"{name}.single", to=TensorProto.FLOAT)
        self._node("Mul", [single, row_max], node.output[0], f"{name}.scaled_back")

    def _half_rows(self, value: str) -> tuple[str, str]:
        """`value` over its rows' largest magnitudes in float16, and those; once for all who read it."""
        key = ("rows", value)
        if key not in self._made:
            self._constant(np.array(ROW_FLOOR, np.float32), ROW_FLOOR_NAME)
            size = self._node("Abs", [value], f"{value}.abs")
            largest = self._node("ReduceMax", [size], f"{value}.largest", axes=[-1], keepdims=1)
            row_max = self._node("Max", [largest, ROW_FLOOR_NAME], f"{value}.row_max")
            rows = self._node("Div", [value, row_max], f"{value}.rows")
            half = self._node("Cast", [rows], f"{value}.half_rows", to=TensorProto.FLOAT16)
            self._made[key] = half, row_max
        return self._made[key]

    def _half(self, value: str) -> str:
        """`value` in float16, within +-60000."""
        if value in self._halves:
            return value
        key = ("half", value)
        if key not in self._made:
            maker = self._plan.producers.get(value)
            is_bounded = maker is not None and maker.op_type == "Softmax"
            source = value if is_bounded else self._clip(value, f"{value}.clipped", np.float32)
            half = self._node("Cast", [source], f"{value}.half", to=TensorProto.FLOAT16)
            self._made[key] = half, half
        return self._made[key][0]

    def _single(self, value: str) -> str:
        """`value` in float32."""
        if value not in self._halves:
            return value
        key = ("single", value)
        if key not in self._made:
            single = self._node("Cast", [value], f"{value}.single", to=TensorProto.FLOAT)
            self._made[key] = single, single
        return self._made[key][0]

    def _clip(self, value: str, output: str, number: type[np.floating[Any]]) -> str:
        bounds = []
        for suffix, bound in _BOUNDS.items():
            bounds.append(f"half.{suffix}.{np.dtype(number).name}")
            self._constant(np.array(bound, number), bounds[-1])
        return self._node("Clip", [value, *bounds], output)

    def _node(
        self, operator: str, inputs: list[str], output: str, name: str | None = None, **attributes: Any
    ) -> str:
        node = helper.make_node(operator, inputs, [output], name=name or output, **attributes)
        self._graph.node.append(node)
        return output

    def _copy(self, node: onnx.NodeProto, renamed: dict[str, str]) -> None:
        copy = self._graph.node.add()
        copy.CopyFrom(node)
        _rename(copy.input, renamed)

    def _constant(self, values: npt.NDArray[Any], name: str) -> None:
        if name not in self._names:
            self._names.add(name)
            self._graph.initializer.append(numpy_helper.from_array(values, name))


def _rename(inputs: Any, renamed: dict[str, str]) -> None:
    for index, name in enumerate(inputs):
        inputs[index] = renamed.get(name, name)
