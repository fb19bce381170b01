"""What TensorRT 10.3, 10.16 and 11.4 would not build as it is meant, found without any of them.

`lint` reads a graph and the table `operators.json` beside this file (with its sources and dates) and names
node and rule of each finding. It knows less than a parser does: `trial.py` builds with the one that runs on a
CPU. Weights are never read, only small constants.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, defs, helper, numpy_helper, shape_inference

VERSIONS = ("10.3", "10.16", "11.4")

_TABLE = Path(__file__).with_name("operators.json")
_SMALL = 4096  # elements of a constant that the rules may read
_MOST_DIMENSIONS = 8  # nvinfer1::Dims::MAX_DIMS
_INT32 = 2**31 - 1
_INPUT_TYPES = {TensorProto.FLOAT, TensorProto.FLOAT16}
_CONSTANT_INPUTS = {"Squeeze": (1,), "Unsqueeze": (1,), "Split": (1,), "Slice": (3, 4), "ReduceSum": (1,)}
_DATA_INPUT = {"Where": 1}  # the first input that carries data, 0 elsewhere
_UNKNOWN = "?"  # stands for the type variable of an operator without a schema
_QUANTISERS = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class Finding:
    """One thing that TensorRT would refuse, or run otherwise than meant, in these versions."""

    node: str
    rule: str
    message: str
    versions: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.node}: {self.rule}: {self.message} (TensorRT {', '.join(self.versions)})"


@cache
def operator_table() -> dict[str, Any]:
    """operators.json: versions, operators, notes, and the sources with their dates."""
    table: dict[str, Any] = json.loads(_TABLE.read_text(encoding="utf-8"))
    return table


def lint(
    model: onnx.ModelProto, versions: Sequence[str] = VERSIONS, folder: Path | None = None
) -> tuple[Finding, ...]:
    """All findings of a graph, in the order of its nodes; external data is checked where `folder` is given.

    `versions` are keys of the table; another one raises ValueError.
    """
    unknown = sorted(set(versions) - set(operator_table()["versions"]))
    if unknown:
        raise ValueError(f"no table for TensorRT {unknown[0]}; known are {', '.join(VERSIONS)}")
    graph = _Graph(model, tuple(versions))
    findings = [*_model_findings(graph, folder)]
    for node in graph.nodes:
        findings += _operator_findings(graph, node)
        findings += _shape_findings(graph, node)
        if node.op_type in _QUANTISERS:
            findings += _quantiser_findings(graph, node)
        if node.op_type == "MatMul":
            findings += _linear_findings(graph, node)
    return tuple(findings)


class _Graph:
    """A graph with what the rules ask of it: who makes and reads a value, its type and rank."""

    def __init__(self, model: onnx.ModelProto, versions: tuple[str, ...]) -> None:
        self.model, self.versions = model, versions
        self.nodes = list(model.graph.node)
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.maker = {value: node for node in self.nodes for value in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for value in node.input:
                self.readers.setdefault(value, []).append(node)
        self.opset = max((item.version for item in model.opset_import if not item.domain), default=0)
        self.types = {name: tensor.data_type for name, tensor in self.constants.items()}
        self.ranks = {name: len(tensor.dims) for name, tensor in self.constants.items()}
        known = shape_inference.infer_shapes(_without_weights(model)).graph
        for value in (*known.input, *known.output, *known.value_info):
            self.types[value.name] = value.type.tensor_type.elem_type
            if value.type.tensor_type.HasField("shape"):
                self.ranks[value.name] = len(value.type.tensor_type.shape.dim)

    def finding(self, node: str, rule: str, message: str, versions: Sequence[str] | None = None) -> Finding:
        return Finding(node, rule, message, self.versions if versions is None else tuple(versions))

    def values(self, name: str) -> np.ndarray[Any, Any] | None:
        """A small constant that stands in the graph, else None."""
        tensor = self.constants.get(name)
        if tensor is None or tensor.data_location == TensorProto.EXTERNAL or np.prod(tensor.dims) > _SMALL:
            return None
        return np.asarray(numpy_helper.to_array(tensor))


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with empty tensors in place of large ones: their types and shapes say enough."""
    light = onnx.ModelProto(ir_version=model.ir_version)
    light.opset_import.extend(model.opset_import)
    light.graph.name = model.graph.name
    light.graph.node.extend(model.graph.node)
    light.graph.input.extend(model.graph.input)
    light.graph.output.extend(model.graph.output)
    for tensor in model.graph.initializer:
        if np.prod(tensor.dims) <= _SMALL and tensor.data_location != TensorProto.EXTERNAL:
            light.graph.initializer.append(tensor)
        else:
            light.graph.input.append(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
    return light


def _model_findings(graph: _Graph, folder: Path | None) -> Iterator[Finding]:
    """What is wrong with the file as a whole: opset, names, inputs, constants."""
    model = graph.model
    for version in graph.versions:
        low, high = operator_table()["versions"][version]["opset"]
        if not low <= graph.opset <= high:
            message = f"opset {graph.opset}, the parser reads {low} to {high}"
            yield graph.finding(model.graph.name, "opset", message, (version,))
    for item in model.opset_import:
        if item.domain not in ("", "ai.onnx"):
            yield graph.finding(model.graph.name, "domain", f"operators of {item.domain!r} need a plugin")
    for name, count in Counter(node.name for node in graph.nodes).items():
        if not name or count > 1:
            what = f"{count} nodes have {'this' if name else 'no'} name"
            yield graph.finding(name or "?", "name", f"{what}: the engine's layers could not be told apart")
    for value in (*model.graph.input, *model.graph.output):
        kind = value.type.tensor_type.elem_type
        if kind not in _INPUT_TYPES:
            message = f"{_name(kind)} at the graph's edge; the runtime binds float32 and float16"
            yield graph.finding(value.name, "edge", message)
    for tensor in graph.constants.values():
        yield from _constant_findings(graph, tensor, folder)


def _constant_findings(graph: _Graph, tensor: TensorProto, folder: Path | None) -> Iterator[Finding]:
    values = graph.values(tensor.name)
    if tensor.data_type == TensorProto.DOUBLE:
        yield graph.finding(tensor.name, "float64", "a double constant is clamped to float32")
    if (
        tensor.data_type == TensorProto.INT64
        and values is not None
        and np.abs(values, dtype=float).max(initial=0) > _INT32
    ):
        message = f"int64 constant {values.ravel()[:4].tolist()} does not fit int32, in which TensorRT counts"
        yield graph.finding(tensor.name, "int64", message)
    if tensor.data_location != TensorProto.EXTERNAL:
        return
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = PurePosixPath(entries.get("location", ""))
    if location.is_absolute() or len(location.parts) != 1 or location.name in ("", ".."):
        message = f"external data in {str(location)!r}; it must lie beside the graph"
        yield graph.finding(tensor.name, "external data", message)
    elif folder is not None:
        end = int(entries.get("offset", 0)) + int(entries.get("length", 0))
        place = folder / location.name
        if not place.is_file() or place.stat().st_size < end:
            yield graph.finding(
                tensor.name, "external data", f"{location.name} is missing or ends before {end}"
            )


def _operator_findings(graph: _Graph, node: onnx.NodeProto) -> Iterator[Finding]:
    """Operators and types: TensorRT's table, ONNX's own constraints, and strong typing."""
    table = operator_table()["operators"]
    entry = table.get(node.op_type, {})
    schema = _schema(node, graph.opset)
    kinds = _kinds_of_inputs(graph, node, schema)
    main = _DATA_INPUT.get(node.op_type, 0)
    data_role = schema.inputs[main].type_str if schema and len(schema.inputs) > main else _UNKNOWN
    data = {kind for role, kind in kinds if role == data_role}
    if node.op_type == "Cast":
        data |= {attribute.i for attribute in node.attribute if attribute.name == "to"}
    for version in graph.versions:
        accepted = entry if isinstance(entry, list) else entry.get(version)
        if accepted is None:
            yield graph.finding(node.name, "operator", f"{node.op_type} is not in the table", (version,))
            continue
        refused = sorted(_name(kind) for kind in data if _name(kind) not in accepted)
        if refused:
            message = f"{node.op_type} does not take {refused[0]}"
            yield graph.finding(node.name, "type", message, (version,))
        if node.op_type == "Shape" and node.attribute and version == "10.3":
            yield graph.finding(
                node.name, "attribute", operator_table()["notes"]["Shape"]["10.3"], (version,)
            )
    for role in sorted({role for role, _ in kinds}):
        found = sorted({_name(kind) for other, kind in kinds if other == role})
        allowed = _allowed(schema, role)
        if len(found) > 1:
            message = (
                f"{node.op_type} joins {' and '.join(found)}; a strongly typed network has no hidden casts"
            )
            yield graph.finding(node.name, "mixed types", message)
        elif allowed and found[0] not in allowed:
            message = f"{node.op_type} of opset {graph.opset} does not take {found[0]} as {role}"
            yield graph.finding(node.name, "onnx type", message)


def _schema(node: onnx.NodeProto, opset: int) -> Any:
    try:
        return defs.get_schema(node.op_type, opset, node.domain)
    except defs.SchemaError:
        return None


def _kinds_of_inputs(graph: _Graph, node: onnx.NodeProto, schema: Any) -> list[tuple[str, int]]:
    """(type variable of the schema, element type) of each input whose type is known."""
    kinds = []
    for index, value in enumerate(node.input):
        formal = schema.inputs[min(index, len(schema.inputs) - 1)] if schema and schema.inputs else None
        kind = graph.types.get(value, TensorProto.UNDEFINED)
        if kind != TensorProto.UNDEFINED:
            kinds.append((formal.type_str if formal else _UNKNOWN, kind))
    return kinds


def _allowed(schema: Any, role: str) -> set[str]:
    """Names of the types that a type variable may be; empty where the schema says nothing."""
    for constraint in schema.type_constraints if schema else ():
        if constraint.type_param_str == role:
            return {kind[len("tensor(") : -1].upper() for kind in constraint.allowed_type_strs}
    return set()


def _name(kind: int) -> str:
    return str(TensorProto.DataType.Name(kind))


def _shape_findings(graph: _Graph, node: onnx.NodeProto) -> Iterator[Finding]:
    """Ranks, Reshape, and inputs that must be constants."""
    for value in node.output:
        if graph.ranks.get(value, 0) > _MOST_DIMENSIONS:
            yield graph.finding(
                node.name, "rank", f"{graph.ranks[value]} dimensions, at most {_MOST_DIMENSIONS}"
            )
    for index in _CONSTANT_INPUTS.get(node.op_type, ()):
        if index < len(node.input) and node.input[index] and node.input[index] not in graph.constants:
            yield graph.finding(
                node.name, "constant", f"input {index} of {node.op_type} must be an initialiser"
            )
    if node.op_type != "Reshape":
        return
    target = graph.values(node.input[1])
    if any(attribute.name == "allowzero" and attribute.i for attribute in node.attribute):
        yield graph.finding(node.name, "reshape", "allowzero is not what TensorRT's 0 means")
    if target is None:
        yield graph.finding(node.name, "reshape", "the shape must be a constant")
    elif (target < -1).any() or (target == -1).sum() > 1:
        yield graph.finding(node.name, "reshape", f"{target.tolist()} has more than one open axis")
    elif (target[graph.ranks.get(node.input[0], len(target)) :] == 0).any():
        yield graph.finding(
            node.name, "reshape", f"{target.tolist()} keeps an axis that the input does not have"
        )


def _quantiser_findings(graph: _Graph, node: onnx.NodeProto) -> Iterator[Finding]:
    """Explicit quantisation as TensorRT takes it: int8, zero point 0, constant float32 scales, in pairs."""
    if len(node.input) < 3 or not node.input[2]:
        yield graph.finding(node.name, "zero point", "is left out, which ONNX reads as uint8")
    else:
        zero = graph.constants.get(node.input[2])
        values = graph.values(node.input[2])
        if zero is None:
            yield graph.finding(node.name, "zero point", f"{node.input[2]} must be an initialiser")
        elif zero.data_type != TensorProto.INT8:
            yield graph.finding(node.name, "zero point", f"is {_name(zero.data_type)}, must be INT8")
        elif values is not None and values.any():
            yield graph.finding(node.name, "zero point", f"is {values.ravel()[:4].tolist()}, must be 0")
    scale = graph.constants.get(node.input[1])
    scales = graph.values(node.input[1])
    if scale is None:
        yield graph.finding(node.name, "scale", f"{node.input[1]} must be an initialiser")
        return
    if scale.data_type != TensorProto.FLOAT:
        yield graph.finding(node.name, "scale", f"is {_name(scale.data_type)}, must be FLOAT")
    if scales is not None and not (np.isfinite(scales).all() and (scales > 0).all()):
        yield graph.finding(node.name, "scale", "is not positive and finite everywhere")
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
    tensor = graph.constants.get(node.input[0])
    if len(scale.dims) == 1 and tensor is not None and scale.dims[0] != tensor.dims[axis]:
        message = f"{scale.dims[0]} scales for axis {axis} of {list(tensor.dims)}"
        yield graph.finding(node.name, "axis", message)
    if node.op_type == "QuantizeLinear":
        others = [
            reader for reader in graph.readers.get(node.output[0], ()) if reader.op_type != "DequantizeLinear"
        ]
        for reader in others:
            yield graph.finding(node.name, "pair", f"{reader.name} reads it; only a DequantizeLinear may")
    elif tensor is None:
        source = graph.maker.get(node.input[0])
        if source is None or source.op_type != "QuantizeLinear" or source.input[1] != node.input[1]:
            yield graph.finding(node.name, "pair", "is no pair with a QuantizeLinear of the same scale")


def _linear_findings(graph: _Graph, node: onnx.NodeProto) -> Iterator[Finding]:
    """An INT8 linear: both inputs dequantised, one scale for the activation, one an output for the weight."""
    left, right = (graph.maker.get(value) for value in node.input)
    is_quantised = [maker is not None and maker.op_type == "DequantizeLinear" for maker in (left, right)]
    if not any(is_quantised):
        return
    if not all(is_quantised) or left is None or right is None:
        side = "activation" if is_quantised[1] else "weight"
        yield graph.finding(node.name, "linear", f"its {side} is not quantised: it would run in float")
        return
    if right.input[0] not in graph.constants:
        yield graph.finding(node.name, "linear", "its weight is computed; an Int8 GEMM takes a constant")
        return
    if graph.ranks.get(left.input[1]) != 0:
        yield graph.finding(node.name, "linear", "its activation has several scales: no Int8 GEMM")
    axis = next((attribute.i for attribute in right.attribute if attribute.name == "axis"), 1)
    if graph.ranks.get(right.input[1]) == 1 and axis not in (1, -1):
        yield graph.finding(node.name, "linear", f"its weight has scales along axis {axis}, not its outputs")
    for reader in graph.readers.get(node.output[0], ()):
        if reader.op_type == "QuantizeLinear":
            message = f"{reader.name} quantises its output, which costs accuracy for no fusion"
            yield graph.finding(node.name, "output", message)
