"""ONNX Runtime behind the Engine protocol; the only file of the runtime that imports onnxruntime."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ...errors import EngineError
from .engine import Dimensions, FloatArray

try:
    import onnxruntime
except ImportError:  # said in one sentence when an engine is asked for, not when this file is read
    onnxruntime = None

# session.x64quantprecision=1 has ONNX Runtime avoid the kernel that saturates, by unsigned weights.
EXACT_ENTRY = ("session.x64quantprecision", "1")
DOT_LENGTH, DOT_COLUMNS = 4096, 16  # of the graph below: the longest sum that a linear of ours adds


class OnnxruntimeEngine:
    """One ONNX graph on the CPU. Deterministic: same feeds, same thread count, same result."""

    def __init__(self, path: Path, *, threads: int = 2) -> None:
        """Load the graph at `path`; EngineError when onnxruntime is missing or refuses the file."""
        if onnxruntime is None:
            raise EngineError("onnxruntime is not installed; run: pip install 'orinspect[cpu]'")
        if not path.is_file():
            raise EngineError(f"{path} does not exist; export the bundle again")
        try:
            session = onnxruntime.InferenceSession(
                str(path), _session_options(threads), providers=["CPUExecutionProvider"]
            )
        except Exception as problem:  # onnxruntime raises classes of its own that share no public root
            raise EngineError(f"onnxruntime cannot load {path.name}: {_first_line(problem)}") from problem
        self._name = path.name
        self._session: Any = session
        self._inputs = {entry.name: tuple(entry.shape) for entry in session.get_inputs()}
        self._outputs = {entry.name: tuple(entry.shape) for entry in session.get_outputs()}

    @property
    def inputs(self) -> Mapping[str, Dimensions]:
        """Name -> dimensions of every input."""
        return self._inputs

    @property
    def outputs(self) -> Mapping[str, Dimensions]:
        """Name -> dimensions of every output."""
        return self._outputs

    def run(self, feeds: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """All outputs for these inputs; EngineError names the feed that is missing, unknown or of another
        type.
        """
        if self._session is None:
            raise EngineError(f"{self._name} was closed; open the bundle again")
        if set(feeds) != set(self._inputs):
            raise EngineError(f"{self._name} takes {sorted(self._inputs)}, got {sorted(feeds)}")
        for name, array in feeds.items():
            if array.dtype != np.float32:
                raise EngineError(f"{self._name}: input {name} must be float32, got {array.dtype}")
        try:
            arrays = self._session.run(list(self._outputs), dict(feeds))
        except Exception as problem:
            raise EngineError(f"{self._name} failed: {_first_line(problem)}") from problem
        return dict(zip(self._outputs, arrays, strict=True))

    def close(self) -> None:
        """Give the session's memory back."""
        self._session = None

    def __enter__(self) -> OnnxruntimeEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _session_options(threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = 3
    # A pattern is stored for every new input shape, and batch and past change from call to call.
    options.enable_mem_pattern = False
    if not sums_are_exact():
        options.add_session_config_entry(*EXACT_ENTRY)
    # Four sessions share the cores: a thread that spins after its call takes them from the next engine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


@functools.cache
def sums_are_exact() -> bool:
    """Whether ONNX Runtime's u8 x s8 sums are exact on this CPU by themselves, as they are with VNNI.

    Without VNNI two products are added in 16 bits, which saturates. EXACT_ENTRY then gives the exact numbers;
    with VNNI it would give the same numbers at half the speed. So the largest sum there is, a dot of
    4096 x 255 x 127, is added once without it.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(long_dot_graph(), options, providers=["CPUExecutionProvider"])
    exact = DOT_LENGTH * 255 * 127
    return all(  # one row and many rows take different kernels
        bool((session.run(None, {"x": np.full((rows, DOT_LENGTH), 255, np.uint8)})[0] == exact).all())
        for rows in (1, 16)
    )


def long_dot_graph() -> bytes:
    """An ONNX file, x uint8 [n, 4096] -> MatMulInteger with w int8 [4096, 16], all 127 -> y int32 [n, 16].

    Spelled out, because a device has no `onnx` to write it with; a test reads it back.
    """
    head = (
        b'\x08\x08\x12\x00:\xdc\x80\x04\n\x18\n\x01x\n\x01w\x12\x01y"\rMatMulInteger\x12\x01g'
        b"*\x8e\x80\x04\x08\x80 \x08\x10\x10\x03B\x01wJ\x80\x80\x04"
    )
    tail = (
        b"Z\x15\n\x01x\x12\x10\n\x0e\x08\x02\x12\n\n\x03\x12\x01n\n\x03\x08\x80 "
        b"b\x14\n\x01y\x12\x0f\n\r\x08\x06\x12\t\n\x03\x12\x01n\n\x02\x08\x10B\x04\n\x00\x10\x11"
    )
    return head + b"\x7f" * (DOT_LENGTH * DOT_COLUMNS) + tail


def _first_line(problem: BaseException) -> str:
    return str(problem).strip().splitlines()[0] if str(problem).strip() else type(problem).__name__
