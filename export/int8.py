"""One component in INT8 or float16, as files: what `export` asks of calibration's rewrite.

A component is three files: `<component>.onnx` for ONNX Runtime (u8), `<component>.tensorrt.onnx` for TensorRT
(s8, the types of `tensorrt/types.py`), and `<component>.weights`, which both refer to. The matrices stand
there once, at page boundaries; vectors and scalars stand in both graphs. The rewrite itself is
`calibration/int8_graph.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import onnx

from ..calibration.choice import LinearChoice
from ..calibration.int8_graph import (
    LinearBytes,
    inline,
    int8_from_float,
    linear_bytes,
)
from ..calibration.linears import Weights, linears_of, tensor_values
from ..calibration.ranges import Progress
from .tensorrt.types import tensorrt_flavour

_ALIGNMENT = 4096  # a page: what reads the weights may map them
_LEAST_BESIDE = 1024  # bytes; a smaller matrix stays in the graphs


@dataclass(frozen=True)
class ComponentFiles:
    """The three files of a component, and the bytes of its linears."""

    onnxruntime: Path
    tensorrt: Path
    weights: Path
    linears: LinearBytes


def int8_to_files(
    float_path: Path | str,
    choices: Iterable[LinearChoice],
    out_dir: Path | str,
    component: str,
    *,
    progress: Progress | None = None,
) -> ComponentFiles:
    """Write the component's three files into `out_dir` by `choices`; linears without one become float16.

    One weight is in memory at a time. The files appear together and whole, or none does. CheckpointError
    names a choice or a weight that does not fit.
    """
    source, out_dir = Path(float_path), Path(out_dir)
    model = onnx.load(str(source), load_external_data=False)
    files = [out_dir / f"{component}{suffix}" for suffix in (".onnx", ".tensorrt.onnx", ".weights")]
    with _whole_files(files) as partial, partial[2].open("wb") as data:
        shared = _SharedWeights(data, files[2].name, len(linears_of(model)), component, progress)
        weights = Weights(model, source.parent)
        u8 = int8_from_float(model, choices, weights=weights, store=shared.store, float16_rest=True)
        shared.take_rest(u8.graph, source.parent)
        partial[0].write_bytes(u8.SerializeToString())
        partial[1].write_bytes(tensorrt_flavour(u8).SerializeToString())
    return ComponentFiles(files[0], files[1], files[2], linear_bytes(u8))


def float16_to_files(
    float_path: Path | str, out_dir: Path | str, component: str, *, progress: Progress | None = None
) -> ComponentFiles:
    """As `int8_to_files` with every linear in float16: the fallback when INT8 loses too much."""
    return int8_to_files(float_path, (), out_dir, component, progress=progress)


class _SharedWeights:
    """The file of matrices that both graphs of a component refer to."""

    def __init__(
        self, data: BinaryIO, location: str, linears: int, component: str, progress: Progress | None
    ) -> None:
        self._data, self._location = data, location
        self._linears, self._component, self._progress = linears, component, progress
        self._written = 0

    def store(self, name: str, values: npt.NDArray[Any]) -> onnx.TensorProto:
        """Append a matrix to the file; anything smaller stays in the graph."""
        if values.ndim < 2:
            return inline(name, values)
        self._written += 1
        if self._progress is not None and self._written <= self._linears:
            self._progress(f"{self._component}: weights", self._written, self._linears)
        if values.nbytes < _LEAST_BESIDE:
            return inline(name, values)
        self._data.write(b"\0" * (-self._data.tell() % _ALIGNMENT))
        offset = self._data.tell()
        self._data.write(np.ascontiguousarray(values).data)
        tensor = onnx.TensorProto(
            name=name, dims=values.shape, data_type=onnx.helper.np_dtype_to_tensor_dtype(values.dtype)
        )
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", self._location), ("offset", offset), ("length", values.nbytes)):
            tensor.external_data.add(key=key, value=str(value))
        return tensor

    def take_rest(self, graph: onnx.GraphProto, folder: Path) -> None:
        """Move what the rewrite left untouched (position tables, norms) here, or into the graph."""
        for tensor in graph.initializer:
            location = {entry.key: entry.value for entry in tensor.external_data}.get("location")
            if location != self._location:
                tensor.CopyFrom(self.store(tensor.name, tensor_values(tensor, folder)))


@contextmanager
def _whole_files(files: list[Path]) -> Iterator[list[Path]]:
    """Temporary names to write to; they become `files` when the block ends well, else nothing is left."""
    partial = [path.with_name(path.name + ".partial") for path in files]
    try:
        yield partial
        for temporary, path in zip(partial, files, strict=True):
            os.replace(temporary, path)
    finally:
        for temporary in partial:
            temporary.unlink(missing_ok=True)
