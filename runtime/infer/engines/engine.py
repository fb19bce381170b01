"""What every inference engine promises: named float32 arrays in, named float32 arrays out.

ONNX Runtime fills the Protocol on a workstation and in the tests, TensorRT on the board. Nobody above this
file knows which one runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from ...errors import EngineError

if TYPE_CHECKING:
    from ..bundle import Bundle

FloatArray = npt.NDArray[np.float32]
Dimensions = tuple[object, ...]  # an int where the graph fixes a size, a name where it leaves it open


class Engine(Protocol):
    """One graph, loaded and ready. `run` is called from one thread at a time; `close` frees it, twice is
    fine.
    """

    @property
    def inputs(self) -> Mapping[str, Dimensions]:
        """Name -> dimensions of every input."""

    @property
    def outputs(self) -> Mapping[str, Dimensions]:
        """Name -> dimensions of every output."""

    def run(self, feeds: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """All outputs for these inputs. EngineError when a feed is missing, unknown, or the engine fails."""

    def close(self) -> None:
        """Give the engine's memory back."""


def engine_from_bundle(
    bundle: Bundle, component: str, *, backend: str = "onnxruntime", threads: int = 2
) -> Engine:
    """The engine of one component of a bundle: vision, attributes, decoder, or head_schema.<recipe id>.

    `threads` is the number of CPU threads inside one call. EngineError when the backend is unknown or its
    library is missing.
    """
    if backend != "onnxruntime":
        raise EngineError(f"engine backend {backend!r} is not available; use 'onnxruntime'")
    if threads < 1:
        raise EngineError(f"an engine needs at least 1 thread, got {threads}")
    # Imported here: the runtime must import on a device that has TensorRT and no ONNX Runtime.
    from .onnxruntime_engine import OnnxruntimeEngine

    return OnnxruntimeEngine(bundle.graph(component), threads=threads)


def check_finite(array: FloatArray, what: str) -> None:
    """EngineError unless every value is a number: a NaN here means a poisoned engine, never a clean part."""
    if not np.isfinite(array).all():
        bad = int(array.size - np.isfinite(array).sum())
        raise EngineError(
            f"{what} holds {bad} values of {array.size} that are not finite; restart the engine"
        )
