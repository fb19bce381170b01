"""A small writer of ONNX graphs: nodes by hand, initialisers streamed to disk when the model is big.

Opset 17, and of it only what TensorRT 10.3 builds: no Attention, RMSNormalization, RotaryEmbedding,
TensorScatter. Norms and activations are spelt in the order that ONNX Runtime recognises and fuses.
Naming rule, which the INT8 rewrite relies on: a linear is one MatMul node called `<name>` with initialiser
`<name>.weight` [in, out], and, where it has a bias, one Add node and initialiser called `<name>.bias`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8
INLINE_LIMIT_BYTES = 256 * 1024**2
"""More float32 weights than this stand in `<file>.data` beside the graph (protobuf ends at 2 GB)."""

_ALIGNMENT = 4096
_TANH_GELU_CUBIC = 0.044715

Floats = npt.NDArray[np.float32]

LayerProgress = Callable[[str, int, int], None]
"""Called with (component, layers written, layers) while a graph is written."""


def silent(component: str, done: int, total: int) -> None:
    """The progress of a caller who gave none."""


class OnnxGraph:
    """Nodes and initialisers of one graph; methods return the name of the value that they produce."""

    def __init__(self, name: str, data_file: BinaryIO | None, data_name: str) -> None:
        self._name = name
        self._data_file = data_file
        self._data_name = data_name
        self._nodes: list[Any] = []
        self._initialisers: dict[str, TensorProto] = {}
        self._inputs: list[ValueInfoProto] = []
        self._outputs: list[ValueInfoProto] = []

    def input(self, name: str, shape: Sequence[str | int]) -> str:
        """Declare a float32 graph input; a string is a dynamic axis."""
        self._inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))
        return name

    def output(self, value: str, name: str, shape: Sequence[str | int]) -> None:
        """Declare `value` as the float32 graph output `name`."""
        self._nodes.append(helper.make_node("Identity", [value], [name], name=f"output.{name}"))
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))

    def node(self, operator: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Append a node with one output, called `<name>.out`."""
        return self.nodes(operator, inputs, name, 1, **attributes)[0]

    def nodes(
        self, operator: str, inputs: Sequence[str], name: str, outputs: int, **attributes: Any
    ) -> list[str]:
        """Append a node with several outputs."""
        values = [f"{name}.out" if outputs == 1 else f"{name}.out{index}" for index in range(outputs)]
        self._nodes.append(helper.make_node(operator, list(inputs), values, name=name, **attributes))
        return values

    def initialiser(self, name: str, array: npt.NDArray[Any]) -> str:
        """Store a constant under a name of its own; big models write it to the data file at once."""
        if name in self._initialisers:
            raise ValueError(f"initialiser {name} is written twice")
        if self._data_file is None or array.nbytes < 1024 or array.dtype != np.float32:
            self._initialisers[name] = numpy_helper.from_array(array, name)
            return name
        padding = -self._data_file.tell() % _ALIGNMENT
        self._data_file.write(b"\0" * padding)
        offset = self._data_file.tell()
        self._data_file.write(np.ascontiguousarray(array).data)
        tensor = TensorProto(name=name, dims=array.shape, data_type=TensorProto.FLOAT)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", self._data_name), ("offset", offset), ("length", array.nbytes)):
            tensor.external_data.add(key=key, value=str(value))
        self._initialisers[name] = tensor
        return name

    def integers(self, *values: int) -> str:
        """An int64 vector constant, shared by all who ask for the same numbers."""
        name = "int." + "_".join(str(value) for value in values)
        if name not in self._initialisers:
            self.initialiser(name, np.array(values, np.int64))
        return name

    def scalar(self, value: float) -> str:
        """A float32 scalar constant, shared by all who ask for the same number."""
        name = f"float.{value!r}"
        if name not in self._initialisers:
            self.initialiser(name, np.array(value, np.float32))
        return name

    def reshape(self, value: str, name: str, *shape: int) -> str:
        """Reshape; 0 keeps the axis at that place, -1 takes what is left."""
        return self.node("Reshape", [value, self.integers(*shape)], name)

    def model(self) -> ModelProto:
        """The finished graph as a protobuf."""
        graph = helper.make_graph(
            self._nodes, self._name, self._inputs, self._outputs, list(self._initialisers.values())
        )
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="orinspect",
        )


@contextmanager
def graph_to_file(path: Path, *, weight_bytes: int) -> Iterator[OnnxGraph]:
    """Give a graph to fill, then write it to `path` (weights beside it when they exceed INLINE_LIMIT_BYTES).

    The files take their names only when the block ends well; after an exception nothing is left.
    """
    data_path = path.with_name(path.name + ".data")
    partial, partial_data = (each.with_name(each.name + ".partial") for each in (path, data_path))
    data_file = partial_data.open("wb") if weight_bytes > INLINE_LIMIT_BYTES else None
    try:
        graph = OnnxGraph(path.stem, data_file, data_path.name)
        yield graph
        partial.write_bytes(graph.model().SerializeToString())
        data_path.unlink(missing_ok=True)
        if data_file is not None:
            data_file.close()
            os.replace(partial_data, data_path)
        os.replace(partial, path)
    finally:
        if data_file is not None:
            data_file.close()
        partial.unlink(missing_ok=True)
        partial_data.unlink(missing_ok=True)


def linear(graph: OnnxGraph, value: str, name: str, weight: Floats, bias: Floats | None = None) -> str:
    """value [..., in] times a torch-order weight [out, in], plus bias [out]."""
    stored = graph.initialiser(f"{name}.weight", np.ascontiguousarray(weight.T))
    product = graph.node("MatMul", [value, stored], name)
    if bias is None:
        return product
    return graph.node("Add", [product, graph.initialiser(f"{name}.bias", bias)], f"{name}.bias_add")


def layer_norm(graph: OnnxGraph, value: str, name: str, weight: Floats, bias: Floats, epsilon: float) -> str:
    """LayerNorm over the last axis."""
    mean = graph.node("ReduceMean", [value], f"{name}.mean", axes=[-1], keepdims=1)
    centred = graph.node("Sub", [value, mean], f"{name}.centred")
    square = graph.node("Pow", [centred, graph.scalar(2.0)], f"{name}.square")
    variance = graph.node("ReduceMean", [square], f"{name}.variance", axes=[-1], keepdims=1)
    deviation = graph.node(
        "Sqrt", [graph.node("Add", [variance, graph.scalar(epsilon)], f"{name}.floor")], f"{name}.deviation"
    )
    unit = graph.node("Div", [centred, deviation], f"{name}.unit")
    scaled = graph.node("Mul", [unit, graph.initialiser(f"{name}.weight", weight)], f"{name}.scaled")
    return graph.node("Add", [scaled, graph.initialiser(f"{name}.bias", bias)], f"{name}.shifted")


def rms_norm(graph: OnnxGraph, value: str, name: str, weight: Floats, epsilon: float) -> str:
    """RMSNorm over the last axis."""
    square = graph.node("Pow", [value, graph.scalar(2.0)], f"{name}.square")
    mean = graph.node("ReduceMean", [square], f"{name}.mean", axes=[-1], keepdims=1)
    root = graph.node(
        "Sqrt", [graph.node("Add", [mean, graph.scalar(epsilon)], f"{name}.floor")], f"{name}.root"
    )
    unit = graph.node("Div", [value, root], f"{name}.unit")
    return graph.node("Mul", [unit, graph.initialiser(f"{name}.weight", weight)], f"{name}.scaled")


def gelu_tanh(graph: OnnxGraph, value: str, name: str) -> str:
    """GELU by its tanh approximation, as torch's gelu_pytorch_tanh."""
    cube = graph.node("Pow", [value, graph.scalar(3.0)], f"{name}.cube")
    term = graph.node("Mul", [cube, graph.scalar(_TANH_GELU_CUBIC)], f"{name}.term")
    total = graph.node("Add", [value, term], f"{name}.total")
    angle = graph.node("Mul", [total, graph.scalar(float(np.sqrt(np.float32(2 / np.pi))))], f"{name}.angle")
    wave = graph.node("Add", [graph.node("Tanh", [angle], f"{name}.tanh"), graph.scalar(1.0)], f"{name}.wave")
    half = graph.node("Mul", [value, graph.scalar(0.5)], f"{name}.half")
    return graph.node("Mul", [half, wave], f"{name}.gelu")


def gelu_exact(graph: OnnxGraph, value: str, name: str) -> str:
    """GELU by the error function."""
    ratio = graph.node("Div", [value, graph.scalar(float(np.sqrt(np.float32(2.0))))], f"{name}.ratio")
    wave = graph.node("Add", [graph.node("Erf", [ratio], f"{name}.erf"), graph.scalar(1.0)], f"{name}.wave")
    half = graph.node("Mul", [value, wave], f"{name}.doubled")
    return graph.node("Mul", [half, graph.scalar(0.5)], f"{name}.gelu")


def rotate(graph: OnnxGraph, value: str, name: str, cos: str, signed_sin: str) -> str:
    """Rotary embedding over the last axis: value * cos + swapped halves * sin.

    The minus of rotate_half is in `signed_sin` (its first half is negated once for all layers).
    """
    first, second = graph.nodes("Split", [value], f"{name}.halves", 2, axis=-1)
    swapped = graph.node("Concat", [second, first], f"{name}.swapped", axis=-1)
    kept = graph.node("Mul", [value, cos], f"{name}.cos")
    turned = graph.node("Mul", [swapped, signed_sin], f"{name}.sin")
    return graph.node("Add", [kept, turned], f"{name}.rotated")
