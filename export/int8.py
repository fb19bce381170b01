"""One component in INT8 or float16, as files: what `export` asks of calibration's rewrite.

A component is three files: `<component>.onnx` for ONNX Runtime (u8), `<component>.tensorrt.onnx` for TensorRT
(s8, the types of `tensorrt/types.py`), and `<component>.weights`, which both refer to. The matrices stand
there once, at page boundaries; vectors and scalars stand in both graphs. The rewrite itself is
`calibration/int8_graph.py`.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import onnx

from ..calibration.choice import Limits, LinearChoice, choose
from ..calibration.closeness import OutputError, output_errors
from ..calibration.exact_dot import prove_exact_sums
from ..calibration.int8_graph import (
    ZERO_POINT,
    Flavour,
    LinearBytes,
    flavour_from_int8,
    inline,
    int8_from_float,
    linear_bytes,
    linear_bytes_of_file,
    stored_bytes,
)
from ..calibration.linears import Weights, linears_of, tensor_values
from ..calibration.ranges import Progress, ranges_from_runs
from ..calibration.sessions import Feed, is_held
from .tensorrt.types import tensorrt_flavour

__all__ = [
    "ZERO_POINT",
    "ComponentFiles",
    "Flavour",
    "Int8Result",
    "LinearBytes",
    "flavour_from_int8",
    "float16_to_files",
    "int8_component",
    "int8_from_float",
    "int8_to_files",
    "linear_bytes",
    "linear_bytes_of_file",
    "save_graph",
]

_LARGEST_FILE = 1 << 30  # larger graphs keep their weights in a file beside them (protobuf ends at 2 GiB)
_GATE_FEEDS = 8
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


def save_graph(model: onnx.ModelProto, path: Path) -> None:
    """Write `model` whole or not at all; above 1 GiB its weights go into `<name>.data` beside it."""
    temporary = path.with_name(path.name + ".partial")
    size = sum(stored_bytes(tensor) for tensor in model.graph.initializer)
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
