"""One of our ONNX graphs in torch, type by type as it is written: float16 is float16, on a CPU as on a GPU.

ONNX Runtime's CPU kernels compute float16 in float32 and hide an overflow; this does not. It knows the
operators that `export` writes and no other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

Value = Any  # a torch tensor, or a numpy array where it is a shape

_TYPES: dict[int, torch.dtype] = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.INT64: torch.int64,
    onnx.TensorProto.INT32: torch.int32,
    onnx.TensorProto.BOOL: torch.bool,
    onnx.TensorProto.INT8: torch.int8,
    onnx.TensorProto.UINT8: torch.uint8,
}


class TorchGraph:
    """A graph, loaded onto a device; `run` takes and gives float32 arrays as an engine does."""

    def __init__(self, path: Path, device: str) -> None:
        """ValueError names an operator that this does not know."""
        model = onnx.load(str(path), load_external_data=True)
        self.device = torch.device(device)
        unknown = sorted({node.op_type for node in model.graph.node} - set(_OPERATORS))
        if unknown:
            raise ValueError(f"{path.name} has operators that torch_graph.py does not know: {unknown}")
        self._nodes = [
            (
                node,
                {
                    "outputs": len(node.output),  # what Split needs to know
                    **{entry.name: helper.get_attribute_value(entry) for entry in node.attribute},
                },
            )
            for node in model.graph.node
        ]
        self.constants: dict[str, Value] = {}
        for tensor in model.graph.initializer:
            values = numpy_helper.to_array(tensor)
            # shapes, axes and indexes steer the graph and stay on the host
            is_shape = values.dtype == np.int64
            self.constants[tensor.name] = values if is_shape else torch.tensor(values, device=self.device)
        self.inputs = {value.name: _TYPES[value.type.tensor_type.elem_type] for value in model.graph.input}
        self.outputs = [value.name for value in model.graph.output]

    @property
    def weight_bytes(self) -> int:
        """Bytes of the matrices, which every call reads once at the least."""
        return sum(
            value.numel() * value.element_size()
            for value in self.constants.values()
            if isinstance(value, torch.Tensor) and value.ndim >= 2
        )

    def run(self, feeds: Mapping[str, np.ndarray[Any, np.dtype[np.float32]]]) -> dict[str, Any]:
        """All outputs as float32 arrays."""
        found = self.call({name: self.placed(name, array) for name, array in feeds.items()})
        return {name: value.float().cpu().numpy() for name, value in found.items()}

    def placed(self, name: str, array: np.ndarray[Any, np.dtype[np.float32]]) -> torch.Tensor:
        """An input on the device, in the type that the graph takes."""
        return torch.tensor(array, device=self.device).to(self.inputs[name])

    def call(self, feeds: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """All outputs, on the device; captured in a CUDA graph, it runs again without Python."""
        values: dict[str, Value] = {"": None, **self.constants, **feeds}
        with torch.no_grad():
            for node, attributes in self._nodes:
                results = _OPERATORS[node.op_type]([values[name] for name in node.input], attributes)
                if not isinstance(results, (list, tuple)):
                    results = [results]
                values.update(zip(node.output, results, strict=True))
        return {name: values[name] for name in self.outputs}


def _is_host(inputs: list[Value]) -> bool:
    return all(isinstance(value, np.ndarray) for value in inputs if value is not None)


def _axes(inputs: list[Value], attributes: Mapping[str, Any]) -> list[int]:
    given = inputs[1] if len(inputs) > 1 else attributes["axes"]
    return [int(axis) for axis in np.asarray(given).reshape(-1)]


def _reshape(inputs: list[Value], attributes: Mapping[str, Any]) -> Value:
    value, sizes = inputs
    wanted = [value.shape[axis] if size == 0 else int(size) for axis, size in enumerate(sizes)]
    return value.reshape(wanted)


def _slice(inputs: list[Value], attributes: Mapping[str, Any]) -> Value:
    value, starts, ends, axes, *steps = inputs
    index: list[Any] = [slice(None)] * value.ndim
    for place, (start, end, axis) in enumerate(zip(starts, ends, axes, strict=True)):
        step = int(steps[0][place]) if steps else None
        index[int(axis)] = slice(int(start), int(end), step)
    return value[tuple(index)]


def _split(inputs: list[Value], attributes: Mapping[str, Any]) -> list[Value]:
    axis, value = int(attributes.get("axis", 0)), inputs[0]
    if len(inputs) > 1:
        return list(torch.split(value, [int(size) for size in inputs[1]], axis))
    return list(torch.chunk(value, int(attributes["outputs"]), axis))


def _gather(inputs: list[Value], attributes: Mapping[str, Any]) -> Value:
    value, index, axis = inputs[0], np.asarray(inputs[1]), int(attributes.get("axis", 0))
    if isinstance(value, np.ndarray):
        return np.take(value, index, axis)
    flat = torch.tensor(index.reshape(-1), device=value.device)
    shape = [*value.shape[:axis], *index.shape, *value.shape[axis + 1 :]]
    return value.index_select(axis, flat).reshape(shape)


def _concat(inputs: list[Value], attributes: Mapping[str, Any]) -> Value:
    axis = int(attributes["axis"])
    return np.concatenate(inputs, axis) if _is_host(inputs) else torch.cat(inputs, axis)


def _unsqueeze(inputs: list[Value], attributes: Mapping[str, Any]) -> Value:
    value = inputs[0]
    for axis in sorted(_axes(inputs, attributes)):
        value = np.expand_dims(value, axis) if isinstance(value, np.ndarray) else value.unsqueeze(axis)
    return value


def _squeeze(inputs: list[Value], attributes: Mapping[str, Any]) -> Value:
    value = inputs[0]
    for axis in sorted(_axes(inputs, attributes), reverse=True):
        value = np.squeeze(value, axis) if isinstance(value, np.ndarray) else value.squeeze(axis)
    return value


def _quantize(inputs: list[Value], attributes: Mapping[str, Any]) -> Value:
    value, scale, zero = inputs
    low, high = (0, 255) if zero.dtype == torch.uint8 else (-128, 127)
    return torch.clamp(torch.round(value / scale) + zero.float(), low, high).to(zero.dtype)


def _dequantize(inputs: list[Value], attributes: Mapping[str, Any]) -> Value:
    value, scale, *zero = inputs
    shape = [1] * value.ndim
    if scale.ndim:
        shape[int(attributes.get("axis", 1))] = -1
    number = value.to(scale.dtype)
    if zero and zero[0] is not None:
        number = number - zero[0].to(scale.dtype).reshape(shape if zero[0].ndim else [])
    return number * scale.reshape(shape if scale.ndim else [])


def _clip(inputs: list[Value], attributes: Mapping[str, Any]) -> Value:
    low, high = (float(bound) if bound is not None else None for bound in [*inputs[1:], None, None][:2])
    return torch.clamp(inputs[0], low, high)


def _reduced(how: Callable[..., Any]) -> Callable[[list[Value], Mapping[str, Any]], Value]:
    def run(inputs: list[Value], attributes: Mapping[str, Any]) -> Value:
        return how(inputs[0], _axes(inputs, attributes), keepdim=bool(attributes.get("keepdims", 1)))

    return run


def _two(torch_way: Callable[..., Any], numpy_way: Callable[..., Any]) -> Callable[..., Any]:
    """An operator of two values that shapes know, too."""

    def run(inputs: list[Value], attributes: Mapping[str, Any]) -> Value:
        return numpy_way(*inputs) if _is_host(inputs) else torch_way(*inputs)

    return run


def _cast(inputs: list[Value], attributes: Mapping[str, Any]) -> Value:
    return inputs[0].to(_TYPES[int(attributes["to"])])


def _where(inputs: list[Value], attributes: Mapping[str, Any]) -> Value:
    return torch.where(*inputs)


def _shape(inputs: list[Value], attributes: Mapping[str, Any]) -> Value:
    return np.asarray(inputs[0].shape, np.int64)[attributes.get("start") : attributes.get("end")]


_OPERATORS: dict[str, Callable[[list[Value], Mapping[str, Any]], Any]] = {
    "Abs": lambda i, a: torch.abs(i[0]),
    "Add": _two(torch.add, np.add),
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "DequantizeLinear": _dequantize,
    "Div": _two(torch.div, np.floor_divide),
    "Erf": lambda i, a: torch.erf(i[0]),
    "Gather": _gather,
    "Identity": lambda i, a: i[0],
    "Less": lambda i, a: i[0] < i[1],
    "MatMul": lambda i, a: torch.matmul(i[0], i[1]),
    "Max": lambda i, a: torch.maximum(i[0], i[1]),
    "Mul": _two(torch.mul, np.multiply),
    "Pow": lambda i, a: torch.pow(i[0], i[1]),
    "QuantizeLinear": _quantize,
    "ReduceMax": _reduced(torch.amax),
    "ReduceMean": _reduced(torch.mean),
    "Reshape": _reshape,
    "Shape": _shape,
    "Sigmoid": lambda i, a: torch.sigmoid(i[0]),
    "Slice": _slice,
    "Softmax": lambda i, a: torch.softmax(i[0], int(a.get("axis", -1))),
    "Split": _split,
    "Sqrt": lambda i, a: torch.sqrt(i[0]),
    "Squeeze": _squeeze,
    "Sub": _two(torch.sub, np.subtract),
    "Tanh": lambda i, a: torch.tanh(i[0]),
    "Transpose": lambda i, a: i[0].permute(*a["perm"]),
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}
