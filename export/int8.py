"""A float ONNX graph with INT8 linears: input Q/DQ, per-output-channel weight DQ, no output Q.

For a linear `<name>` the float32 initialiser `<name>.weight` [in, out] becomes int8 of the same name beside
`<name>.weight_scale` [out] float32 and `<name>.weight_zero` [out] int8, all zeros (left out, ONNX Runtime
1.31 puts a scalar there when it makes weights unsigned, and then refuses its own node). Two modes of the
activation:

    static    x -> Q/DQ with one scale -> MatMul
    per_row   x / rowmax|x| -> Q/DQ with the constant scale 1/127 -> MatMul -> x rowmax

Linears that read one tensor share the Q/DQ. Everything else stays as it was: attention MatMuls, norms, rope,
softmax, biases. ONNX Runtime runs DQ, DQ, MatMul as one MatMulIntegerToFloat; TensorRT as an Int8 GEMM.

Flavours: "u8" (zero point 128, ONNX Runtime CPU) and "s8" (zero point 0, TensorRT) hold the same scales and
give the same numbers, for q_u8 = q_s8 + 128. Every activation Q/DQ of a graph reads one initialiser,
ZERO_POINT, so one flavour becomes the other by replacing that single tensor: `flavour_from_int8`.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sized
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from ..calibration.choice import ROW_FLOOR, Limits, LinearChoice, choose, quantised_weight
from ..calibration.closeness import OutputError, output_errors
from ..calibration.exact_dot import prove_exact_sums
from ..calibration.linears import SCALE_SUFFIX, WEIGHT_SUFFIX, Weights, linears_of
from ..calibration.ranges import QUANTISED_MAX, Progress, ranges_from_runs
from ..calibration.sessions import Feed, is_held
from ..runtime.errors import CheckpointError

Flavour: TypeAlias = Literal["u8", "s8"]

ZERO_POINT = "activation_zero_point"
WEIGHT_ZERO_SUFFIX = ".weight_zero"
ROW_SCALE = "activation_row_scale"
ROW_FLOOR_NAME = "activation_row_floor"
_OPSET = 17
_LARGEST_FILE = 1 << 30  # larger graphs keep their weights in a file beside them (protobuf ends at 2 GiB)
_GATE_FEEDS = 8


@dataclass(frozen=True)
class LinearBytes:
    """Bytes of the linears' weights: as float32, and as stored (int8 with scales, or still float)."""

    float32: int
    stored: int

    @property
    def ratio(self) -> float:
        """stored / float32; 1 where there is no linear."""
        return self.stored / self.float32 if self.float32 else 1.0


@dataclass(frozen=True)
class Int8Result:
    """What became of one component; `cosine` and `max_abs_error` are those of the worst output."""

    flavour: Flavour
    choices: tuple[LinearChoice, ...]
    linears_float: tuple[str, ...]
    bytes_before: int
    bytes_after: int
    cosine: float
    max_abs_error: float
    outputs: dict[str, OutputError]

    @property
    def bytes_ratio(self) -> float:
        """Linears' bytes, stored / float32."""
        return self.bytes_after / self.bytes_before if self.bytes_before else 1.0

    def to_json(self) -> dict[str, Any]:
        """Plain values for the bundle's manifest."""
        return asdict(self) | {"bytes_ratio": self.bytes_ratio}


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
            stored += _stored_bytes(tensor) if tensor is not None else 0
    return LinearBytes(float32, stored)


def linear_bytes_of_file(path: Path) -> LinearBytes:
    """`linear_bytes` of the graph at `path`; external data is not read."""
    return linear_bytes(onnx.load(str(path), load_external_data=False))


def _stored_bytes(tensor: onnx.TensorProto) -> int:
    return int(np.prod(tensor.dims)) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize


def int8_from_float(
    model: onnx.ModelProto, choices: Iterable[LinearChoice], flavour: Flavour = "u8"
) -> onnx.ModelProto:
    """A new graph in which every chosen linear runs in INT8; `model` is unchanged.

    A choice for a linear that the graph does not have, or an opset other than 17, raises CheckpointError.
    """
    opset = {item.domain: item.version for item in model.opset_import}.get("")
    if opset != _OPSET:
        raise CheckpointError(
            f"graph {model.graph.name} has opset {opset}; the INT8 rewrite knows opset {_OPSET}"
        )
    by_name = {choice.name: choice for choice in choices}
    unknown = sorted(by_name.keys() - {linear.name for linear in linears_of(model)})
    if unknown:
        raise CheckpointError(
            f"graph {model.graph.name} has no float linear {unknown[0]}, for which a choice is given"
        )
    quantised = {name: choice for name, choice in by_name.items() if choice.mode != "float"}
    rewritten = _copy_without_weights(model, {name + WEIGHT_SUFFIX for name in quantised})
    writer = _Writer(rewritten.graph, flavour)
    weights = Weights(model)
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.name in quantised:
            writer.linear(node, quantised[node.name], weights[node.name])
        else:
            rewritten.graph.node.append(node)
    return rewritten


def _copy_without_weights(model: onnx.ModelProto, dropped: Collection[str]) -> onnx.ModelProto:
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

    def __init__(self, graph: onnx.GraphProto, flavour: Flavour) -> None:
        self._graph, self._flavour = graph, flavour
        self._inputs: dict[tuple[str, str, float | None], tuple[str, str | None]] = {}

    def linear(self, node: onnx.NodeProto, choice: LinearChoice, weight: npt.NDArray[np.float32]) -> None:
        """Write the MatMul `node` in INT8; its output keeps its name."""
        values, row_max = self._input(node, choice)
        name = node.name
        quantised, scale = quantised_weight(weight)
        self._tensor(quantised, name + WEIGHT_SUFFIX)
        self._tensor(scale, name + SCALE_SUFFIX)
        self._tensor(np.zeros(len(scale), np.int8), name + WEIGHT_ZERO_SUFFIX)
        weight_inputs = [name + suffix for suffix in (WEIGHT_SUFFIX, SCALE_SUFFIX, WEIGHT_ZERO_SUFFIX)]
        self._node("DequantizeLinear", weight_inputs, f"{name}.weight_float", axis=1)
        product = node.output[0] if row_max is None else f"{name}.scaled_rows"
        self._node("MatMul", [values, f"{name}.weight_float"], product, name)  # still findable by its name
        if row_max is not None:
            self._node("Mul", [product, row_max], node.output[0])

    def _input(self, node: onnx.NodeProto, choice: LinearChoice) -> tuple[str, str | None]:
        """The dequantised input, and the row maxima to multiply the product with (None when static)."""
        source = node.input[0]
        static = choice.mode == "static"
        key = (source, choice.mode, choice.clip if static else None)
        if key not in self._inputs:
            prefix = f"{node.name}.input"
            if static:
                self._inputs[key] = self._static_input(source, prefix, choice), None
            else:
                self._inputs[key] = self._per_row_input(source, prefix)
        return self._inputs[key]

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

    def _tensor(self, value: npt.NDArray[Any], name: str) -> None:
        if all(tensor.name != name for tensor in self._graph.initializer):
            self._graph.initializer.append(numpy_helper.from_array(value, name))


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


def save_graph(model: onnx.ModelProto, path: Path) -> None:
    """Write `model` whole or not at all; above 1 GiB its weights go into `<name>.data` beside it."""
    temporary = path.with_name(path.name + ".partial")
    size = sum(_stored_bytes(tensor) for tensor in model.graph.initializer)
    data = path.with_name(path.name + ".data")
    try:
        if size > _LARGEST_FILE:
            data.unlink(missing_ok=True)
            onnx.save(model, str(temporary), save_as_external_data=True, location=data.name)
        else:
            onnx.save(model, str(temporary))
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        if size > _LARGEST_FILE:
            data.unlink(missing_ok=True)
        raise


def int8_component(
    float_model_path: Path | str,
    feeds: Iterable[Feed],
    out_path: Path | str,
    *,
    flavour: Flavour = "u8",
    limits: Limits | None = None,
    keep_float: Collection[str] = (),
    threads: int = 2,
    progress: Progress | None = None,
) -> Int8Result:
    """Measure, choose, rewrite and check one component; the INT8 graph is written to `out_path`.

    `feeds` is consumed once: every fourth feed (from the second) is held back for the choice and for the
    accuracy in the result. `progress(what, done, total)` is called along the way. Raises EngineError,
    CheckpointError.
    """
    source, target = Path(float_model_path), Path(out_path)
    prove_exact_sums()
    held = _HeldFeeds(feeds)
    statistics = ranges_from_runs(source, held, threads=threads, progress=progress)
    model = onnx.load(str(source))
    choices = choose(statistics.values(), Weights(model), limits=limits, keep_float=keep_float)
    int8 = int8_from_float(model, choices, flavour)
    size = linear_bytes(int8)
    save_graph(int8, target)
    del model, int8
    outputs = output_errors(source, target, held.kept or held.first, threads=threads, progress=progress)
    return Int8Result(
        flavour,
        choices,
        tuple(choice.name for choice in choices if choice.mode == "float"),
        size.float32,
        size.stored,
        min(error.cosine for error in outputs.values()),
        max(error.max_abs_error for error in outputs.values()),
        outputs,
    )


class _HeldFeeds:
    """Passes feeds through and keeps the first few held ones (and the very first, in case it stays alone)."""

    def __init__(self, feeds: Iterable[Feed]) -> None:
        self._feeds = feeds
        self.first: list[Feed] = []
        self.kept: list[Feed] = []

    def __iter__(self) -> Iterator[Feed]:
        for index, feed in enumerate(self._feeds):
            if index == 0:
                self.first = [feed]
            if is_held(index) and len(self.kept) < _GATE_FEEDS:
                self.kept.append(feed)
            yield feed

    def __len__(self) -> int:
        return len(self._feeds) if isinstance(self._feeds, Sized) else 0
