"""The linears of an ONNX graph, found by the naming rule, and a copy of the graph that shows their inputs.

The rule (every graph that `export` writes obeys it): one linear is one MatMul node `<name>` whose second
input is the initialiser `<name>.weight`, float32 [in, out]. After the INT8 rewrite the initialiser keeps its
name, is int8, and `<name>.weight_scale` [out] stands beside it. Attention MatMuls have two computed inputs
and so never match.

Nothing here runs a graph; `sessions.py` does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from ..runtime.errors import CheckpointError

WEIGHT_SUFFIX = ".weight"
SCALE_SUFFIX = ".weight_scale"


@dataclass(frozen=True)
class Linear:
    """One linear of a graph: y [..., out_features] = x [..., in_features] @ weight."""

    name: str
    input: str
    in_features: int
    out_features: int

    @property
    def weight(self) -> str:
        """Name of the initialiser [in_features, out_features]."""
        return self.name + WEIGHT_SUFFIX


def linears_of(model: onnx.ModelProto) -> tuple[Linear, ...]:
    """The float32 linears of `model` in graph order; a MatMul that breaks the naming rule is none."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    found = []
    for node in model.graph.node:
        if node.op_type != "MatMul" or node.input[1] != node.name + WEIGHT_SUFFIX:
            continue
        tensor = weights.get(node.input[1])
        if tensor is None or tensor.data_type != onnx.TensorProto.FLOAT or len(tensor.dims) != 2:
            continue
        found.append(Linear(node.name, node.input[0], int(tensor.dims[0]), int(tensor.dims[1])))
    return tuple(found)


def linears_by_input(linears: Iterable[Linear]) -> dict[str, tuple[Linear, ...]]:
    """Input tensor -> the linears that read it (q, k and v share one), in graph order."""
    groups: dict[str, tuple[Linear, ...]] = {}
    for linear in linears:
        groups[linear.input] = (*groups.get(linear.input, ()), linear)
    return groups


def tensor_values(tensor: onnx.TensorProto, folder: Path | None = None) -> npt.NDArray[Any]:
    """The values of an initialiser; external data in `folder` is a read-only map of its part of the file.

    External data that is not there raises CheckpointError.
    """
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return np.asarray(numpy_helper.to_array(tensor))
    place = {entry.key: entry.value for entry in tensor.external_data}
    path = Path(place["location"]) if folder is None else folder / place["location"]
    number, offset = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type), int(place.get("offset", 0))
    end = offset + number.itemsize * math.prod(tensor.dims)
    size = path.stat().st_size if folder is not None and path.is_file() else -1
    if size < end:
        found = "is not there" if size < 0 else f"has {size} bytes"
        raise CheckpointError(f"{path} {found}, {tensor.name} ends at byte {end}: write the graph again")
    return np.memmap(path, number, "r", offset, tuple(tensor.dims))


class Weights(Mapping[str, npt.NDArray[np.float32]]):
    """Linear name -> its weight [in, out] float32, one at a time (nothing is kept).

    Weights in external data are mapped from their file in `folder`, so that a model loaded without them
    serves as well as a whole one.
    """

    def __init__(self, model: onnx.ModelProto, folder: Path | None = None) -> None:
        tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self._tensors = {linear.name: tensors[linear.weight] for linear in linears_of(model)}
        self._folder = folder

    def __getitem__(self, name: str) -> npt.NDArray[np.float32]:
        return tensor_values(self._tensors[name], self._folder)  # float32, or it would be no linear

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


@dataclass(frozen=True)
class Probe:
    """A serialised copy of a graph whose `tensors` are outputs too; external data stays in `folder`."""

    model: bytes
    folder: Path
    linears: tuple[Linear, ...]
    tensors: tuple[str, ...]


def probe_from_model(path: Path) -> Probe:
    """Copy the graph at `path` with every linear's input added as an output (graph inputs need none).

    Weights in external data are not loaded; a graph without linears is an error, for then the names are
    wrong.
    """
    probe = probed(onnx.load(str(path), load_external_data=False), path.parent)
    if not probe.linears:
        raise CheckpointError(
            f"{path.name}: no linear found; a linear is a MatMul node `name` with initialiser `name.weight`"
        )
    return probe


def probed(model: onnx.ModelProto, folder: Path) -> Probe:
    """`probe_from_model` of a model in memory, which stays as it is; it may have no linear."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    linears = linears_of(model)
    given = {value.name for value in model.graph.input}
    shown = {value.name for value in model.graph.output}
    tensors = tuple(name for name in linears_by_input(linears) if name not in given)
    copy.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in tensors
        if name not in shown
    )
    return Probe(copy.SerializeToString(), folder, linears, tensors)
