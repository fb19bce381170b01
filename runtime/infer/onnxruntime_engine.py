"""ONNX Runtime behind the Engine protocol; the only file of the runtime that imports onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ..errors import EngineError
from .engine import Dimensions, FloatArray

try:
    import onnxruntime
except ImportError:  # said in one sentence when an engine is asked for, not when this file is read
    onnxruntime = None


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
    # Without VNNI u8 x s8 saturates in 16 bits unless ONNX Runtime is told to be exact.
    options.add_session_config_entry("session.x64quantprecision", "1")
    # Four sessions share the cores: a thread that spins after its call takes them from the next engine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _first_line(problem: BaseException) -> str:
    return str(problem).strip().splitlines()[0] if str(problem).strip() else type(problem).__name__
