"""What every inference engine promises: named float32 arrays in, named float32 arrays out.

ONNX Runtime fills the Protocol on a workstation and in the tests, TensorRT on the board. Nobody above this
file knows which one runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
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


BACKENDS = ("onnxruntime", "tensorrt")
OpenEngine = Callable[[str], Engine]  # component -> engine


@contextmanager
def engines_from_bundle(
    bundle: Bundle,
    *,
    backend: str = "onnxruntime",
    threads: int = 2,
    plans: Path | None = None,
    open_engine: Callable[..., Engine] | None = None,
) -> Iterator[OpenEngine]:
    """A function that opens components; all that it opened are freed in the reverse order at the end.

    With TensorRT the engines share one CUDA context, one stream and one scratch memory, taken from the
    thread that enters and used by that thread only. `plans`: where `orinspect engines build` put them, None
    for its default beside the bundle. `open_engine` stands in for `engine_from_bundle`. EngineError when the
    backend is unknown, its library or the plans are missing.
    """
    if backend == "tensorrt":
        from .tensorrt_device import TensorrtDevice

        with TensorrtDevice(bundle, plans) as device:
            yield device.engine
        return
    with ExitStack() as opened:

        def opened_engine(component: str) -> Engine:
            opener = open_engine or engine_from_bundle
            engine = opener(bundle, component, backend=backend, threads=threads)
            opened.callback(engine.close)
            return engine

        yield opened_engine


def engine_from_bundle(
    bundle: Bundle, component: str, *, backend: str = "onnxruntime", threads: int = 2
) -> Engine:
    """The CPU engine of one component of a bundle: vision, attributes, decoder, or head_schema.<recipe id>.

    `threads` is the number of CPU threads inside one call. EngineError when the backend is unknown or its
    library is missing.
    """
    if backend != "onnxruntime":
        raise EngineError(f"engine backend {backend!r} is not available; use {' or '.join(BACKENDS)}")
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
