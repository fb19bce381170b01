"""A float ONNX graph with INT8 linears: input Q/DQ, per-output-channel weight DQ, no output Q.

For a linear `<name>` the float32 initialiser `<name>.weight` [in, out] becomes int8 of the same name beside
`<name>.weight_scale` [out] float32 and `<name>.weight_zero` [out] int8, all zeros (left out, ONNX Runtime
1.31 puts a scalar there when it makes weights unsigned, and then refuses its own node). Two modes of the
activation, each optionally smoothed (x times a constant [in] first, the weight's rows divided by it):

    static    x -> Q/DQ with one scale -> MatMul
    per_row   x / rowmax|x| -> Q/DQ with the constant scale 1/127 -> MatMul -> x rowmax

Linears that read one tensor share the smoothing and the Q/DQ. Everything else stays as it was: attention
MatMuls, norms, rope, softmax, biases. ONNX Runtime runs DQ, DQ, MatMul as one MatMulIntegerToFloat; TensorRT
as an Int8 GEMM. A linear kept float may store its weight as float16 (`<name>.weight`, one Cast behind it).

Flavours: "u8" (zero point 128, ONNX Runtime CPU) and "s8" (zero point 0, TensorRT) hold the same scales and
give the same numbers, for q_u8 = q_s8 + 128. Every activation Q/DQ of a graph reads one initialiser,
ZERO_POINT, so one flavour becomes the other by replacing that single tensor: `flavour_from_int8`.

A weight is read, rounded and handed to `store` before the next one is touched, so that a writer which puts it
into a file needs the memory of one weight.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from ..runtime.errors import CheckpointError
from .choice import LinearChoice
from .linears import SCALE_SUFFIX, WEIGHT_SUFFIX, Weights, linears_of
from .ranges import QUANTISED_MAX
from .rounding import ROW_FLOOR, quantised_weight
from .sessions import Floats

Flavour: TypeAlias = Literal["u8", "s8"]
Store: TypeAlias = Callable[[str, npt.NDArray[Any]], onnx.TensorProto]
"""Takes a tensor's name and values, keeps the values somewhere, returns the initialiser that finds them."""

ZERO_POINT = "activation_zero_point"
WEIGHT_ZERO_SUFFIX = ".weight_zero"
ROW_SCALE = "activation_row_scale"
ROW_FLOOR_NAME = "activation_row_floor"
INVERSE_SMOOTHING_SUFFIX = ".inverse_smoothing"
_OPSET = 17


def inline(name: str, values: npt.NDArray[Any]) -> onnx.TensorProto:
    """The `Store` that keeps values inside the graph."""
    return numpy_helper.from_array(values, name)


@dataclass(frozen=True)
class LinearBytes:
    """Bytes of the linears' weights: as float32, and as stored (int8 with scales, or still float)."""

    float32: int
    stored: int

    @property
    def ratio(self) -> float:
        """stored / float32; 1 where there is no linear."""
        return self.stored / self.float32 if self.float32 else 1.0


def linear_bytes(model: onnx.ModelProto) -> LinearBytes:
    """Count the linears' weights of a float or INT8 graph; scales count as stored, biases on neither side."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    float32 = stored = 0
    for node in model.graph.node:
        weight = tensors.get(node.name + WEIGHT_SUFFIX) if node.op_type == "MatMul" else None
        if weight is None or len(weight.dims) != 2:
            continue
        float32 += 4 * int(np.prod(weight.dims))
        for suffix in (WEIGHT_SUFFIX, SCALE_SUFFIX, WEIGHT_ZERO_SUFFIX):
            tensor = tensors.get(node.name + suffix)
            stored += stored_bytes(tensor) if tensor is not None else 0
    return LinearBytes(float32, stored)


def linear_bytes_of_file(path: Path) -> LinearBytes:
    """`linear_bytes` of the graph at `path`; external data is not read."""
    return linear_bytes(onnx.load(str(path), load_external_data=False))


def stored_bytes(tensor: onnx.TensorProto) -> int:
    """Bytes of a tensor's values, wherever they stand."""
    return int(np.prod(tensor.dims)) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize


def int8_from_float(
    model: onnx.ModelProto,
    choices: Iterable[LinearChoice],
    flavour: Flavour = "u8",
    *,
    weights: Mapping[str, Floats] | None = None,
    store: Store = inline,
    float16_rest: bool = False,
) -> onnx.ModelProto:
    """A new graph in which every chosen linear runs in INT8; `model` is unchanged.

    `weights` gives linear name -> [in, out] float32 where they do not stand in `model` itself; `store` keeps
    the new tensors. Linears that stay float keep their initialisers as they are or, with `float16_rest`, are
    stored as float16 with a Cast to float32 behind them. Initialisers that are not touched keep their
    references to external data. A choice for a linear that the graph does not have, an opset other than 17,
    or a weight beyond float16 raises CheckpointError.
    """
    opset = {item.domain: item.version for item in model.opset_import}.get("")
    if opset != _OPSET:
        raise CheckpointError(
            f"graph {model.graph.name} has opset {opset}; the INT8 rewrite knows opset {_OPSET}"
        )
    by_name = {choice.name: choice for choice in choices}
    floats = {linear.name for linear in linears_of(model)}
    unknown = sorted(by_name.keys() - floats)
    if unknown:
        raise CheckpointError(
            f"graph {model.graph.name} has no float linear {unknown[0]}, for which a choice is given"
        )
    quantised = {name: choice for name, choice in by_name.items() if choice.mode != "float"}
    halves = floats - quantised.keys() if float16_rest else set()
    rewritten = copied_without(model, {name + WEIGHT_SUFFIX for name in quantised.keys() | halves})
    writer = _Writer(rewritten.graph, flavour, store)
    weights = Weights(model) if weights is None else weights
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.name in quantised:
            writer.linear(node, quantised[node.name], weights[node.name])
        elif node.op_type == "MatMul" and node.name in halves:
            writer.half_linear(node, weights[node.name])
        else:
            rewritten.graph.node.append(node)
    return rewritten


def copied_without(model: onnx.ModelProto, dropped: Collection[str]) -> onnx.ModelProto:
    """Everything of `model` but its nodes and the initialisers `dropped` (large ones are never copied)."""
    copy = onnx.ModelProto()
    for field, value in model.ListFields():
        if field.name == "graph":
            continue
        if field.is_repeated:
            getattr(copy, field.name).extend(value)
        else:
            setattr(copy, field.name, value)
    copy.graph.name = model.graph.name
    copy.graph.doc_string = model.graph.doc_string
    copy.graph.input.extend(model.graph.input)
    copy.graph.output.extend(model.graph.output)
    copy.graph.initializer.extend(t for t in model.graph.initializer if t.name not in dropped)
    return copy


class _Writer:
    """Appends quantised linears to a graph; remembers which inputs are quantised already."""

    def __init__(self, graph: onnx.GraphProto, flavour: Flavour, store: Store) -> None:
        self._graph, self._flavour, self._store = graph, flavour, store
        self._names = {tensor.name for tensor in graph.initializer}
        self._inputs: dict[tuple[str, str, float | None, bytes], tuple[str, str | None]] = {}

    def linear(self, node: onnx.NodeProto, choice: LinearChoice, weight: Floats) -> None:
        """Write the MatMul `node` in INT8; its output keeps its name."""
        values, row_max = self._input(node, choice)
        name = node.name
        quantised, scale = quantised_weight(weight, choice.smoothing)
        self._tensor(quantised, name + WEIGHT_SUFFIX)
        self._tensor(scale, name + SCALE_SUFFIX)
        self._tensor(np.zeros(len(scale), np.int8), name + WEIGHT_ZERO_SUFFIX)
        weight_inputs = [name + suffix for suffix in (WEIGHT_SUFFIX, SCALE_SUFFIX, WEIGHT_ZERO_SUFFIX)]
        self._node("DequantizeLinear", weight_inputs, f"{name}.weight_float", axis=1)
        product = node.output[0] if row_max is None else f"{name}.scaled_rows"
        self._node("MatMul", [values, f"{name}.weight_float"], product, name)  # still findable by its name
        if row_max is not None:
            self._node("Mul", [product, row_max], node.output[0])

    def half_linear(self, node: onnx.NodeProto, weight: Floats) -> None:
        """Write the MatMul `node` in float with its weight stored as float16."""
        name = node.name
        with np.errstate(over="ignore"):
            half = weight.astype(np.float16)  # exact for a bfloat16 weight of ordinary size
        if not np.isfinite(half).all():
            raise CheckpointError(
                f"{name}.weight reaches {np.abs(weight).max():g}, beyond float16 (65504): export in float32"
            )
        self._tensor(half, name + WEIGHT_SUFFIX)
        self._node("Cast", [name + WEIGHT_SUFFIX], f"{name}.weight_float", to=onnx.TensorProto.FLOAT)
        self._node("MatMul", [node.input[0], f"{name}.weight_float"], node.output[0], name)

    def _input(self, node: onnx.NodeProto, choice: LinearChoice) -> tuple[str, str | None]:
        """The dequantised input, and the row maxima to multiply the product with (None when static)."""
        source = node.input[0]
        static = choice.mode == "static"
        smoothing = choice.smoothing
        smoothed_by = b"" if smoothing is None else smoothing.tobytes()
        key = (source, choice.mode, choice.clip if static else None, smoothed_by)
        if key not in self._inputs:
            prefix = f"{node.name}.input"
            if smoothing is not None:
                source = self._smoothed(source, prefix, choice, smoothing)
            if static:
                self._inputs[key] = self._static_input(source, prefix, choice), None
            else:
                self._inputs[key] = self._per_row_input(source, prefix)
        return self._inputs[key]

    def _smoothed(self, source: str, prefix: str, choice: LinearChoice, smoothing: Floats) -> str:
        if smoothing.shape != (choice.in_features,) or not (smoothing > 0).all():
            raise CheckpointError(
                f"{choice.name}: smoothing needs {choice.in_features} factors above 0, got shape"
                f" {smoothing.shape} and a smallest of {smoothing.min(initial=np.inf):g}"
            )
        inverse = prefix + INVERSE_SMOOTHING_SUFFIX
        self._tensor((1 / smoothing).astype(np.float32), inverse)
        self._node("Mul", [source, inverse], f"{prefix}_smoothed")
        return f"{prefix}_smoothed"

    def _static_input(self, source: str, prefix: str, choice: LinearChoice) -> str:
        if choice.clip is None or not choice.clip > 0:
            raise CheckpointError(f"{choice.name}: a static linear needs a clip above 0, got {choice.clip}")
        self._tensor(np.array(choice.clip / QUANTISED_MAX, np.float32), f"{prefix}_scale")
        return self._quantised(source, f"{prefix}_scale", prefix)

    def _per_row_input(self, source: str, prefix: str) -> tuple[str, str]:
        self._tensor(np.array(1 / QUANTISED_MAX, np.float32), ROW_SCALE)
        self._tensor(np.array(ROW_FLOOR, np.float32), ROW_FLOOR_NAME)
        self._node("Abs", [source], f"{prefix}_abs")
        self._node("ReduceMax", [f"{prefix}_abs"], f"{prefix}_largest", axes=[-1], keepdims=1)
        self._node("Max", [f"{prefix}_largest", ROW_FLOOR_NAME], f"{prefix}_row_max")
        self._node("Div", [source, f"{prefix}_row_max"], f"{prefix}_rows")
        return self._quantised(f"{prefix}_rows", ROW_SCALE, prefix), f"{prefix}_row_max"

    def _quantised(self, source: str, scale: str, prefix: str) -> str:
        self._tensor(_zero_point(self._flavour), ZERO_POINT)
        self._node("QuantizeLinear", [source, scale, ZERO_POINT], f"{prefix}_int8")
        self._node("DequantizeLinear", [f"{prefix}_int8", scale, ZERO_POINT], f"{prefix}_float")
        return f"{prefix}_float"

    def _node(
        self, operator: str, inputs: list[str], output: str, name: str | None = None, **attributes: Any
    ) -> None:
        node = helper.make_node(operator, inputs, [output], name=name or output, **attributes)
        self._graph.node.append(node)

    def _tensor(self, values: npt.NDArray[Any], name: str) -> None:
        if name not in self._names:
            self._names.add(name)
            self._graph.initializer.append(self._store(name, values))


def _zero_point(flavour: Flavour) -> npt.NDArray[Any]:
    return np.array(128, np.uint8) if flavour == "u8" else np.array(0, np.int8)


def flavour_from_int8(model: onnx.ModelProto, flavour: Flavour) -> onnx.ModelProto:
    """The other flavour of an INT8 graph, by replacing its one activation zero point; `model` stays."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.name == ZERO_POINT:
            tensor.CopyFrom(numpy_helper.from_array(_zero_point(flavour), ZERO_POINT))
            return copy
    raise CheckpointError(f"graph {model.graph.name} has no {ZERO_POINT}: it is no INT8 graph of orinspect")
