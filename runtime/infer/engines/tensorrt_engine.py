"""TensorRT behind the Engine Protocol; the only file that imports tensorrt.

Every profile of a plan has an execution context of its own, so that going from prefill to decode switches
nothing; all contexts of all plans work in one scratch memory, because no two run at a time.
"""

from __future__ import annotations

import importlib
import logging
import mmap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import EngineError
from ..shape import ModelShape
from .device import ALIGNMENT, CudaDevice, released
from .device_past import DevicePast
from .engine import Dimensions, FloatArray
from .past import Past
from .plans import BUILD_AGAIN
from .profile_choice import Profile, most_rows, profile_for, run_in_pieces

log = logging.getLogger(__name__)

LIBRARIES = ("tensorrt", "tensorrt_rtx")
MOST_FLOAT16 = 60000.0  # as the graphs clip


def tensorrt_library(name: str = "tensorrt") -> Any:
    """The module; EngineError says what to install. `tensorrt_rtx` builds on machines without TensorRT."""
    if name not in LIBRARIES:
        raise EngineError(f"TensorRT library {name!r} is not known; use {' or '.join(LIBRARIES)}")
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise EngineError(
            f"{name} cannot be imported ({error}); on a Jetson it comes with JetPack (apt install "
            "python3-libnvinfer) and a virtual environment sees it with --system-site-packages"
        ) from error


def tensorrt_logger(trt: Any, said: list[str], verbose: Callable[[str], None] | None = None) -> Any:
    """A TensorRT logger that collects its errors in `said` and passes the rest to Python's logging.

    `verbose` is called with every message below a warning.
    """

    class _Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                said.append(message)
                log.error("%s", message)
            elif severity == trt.ILogger.Severity.WARNING:
                log.warning("%s", message)
            elif verbose is not None:
                verbose(message)

    return _Logger()


class Scratch:
    """Working memory of whichever engine runs; it grows to the largest need and is freed with the device."""

    def __init__(self, device: CudaDevice) -> None:
        self._device = device
        self.pointer, self.size = 0, 0

    def reserve(self, size: int) -> None:
        """At least `size` bytes; what was in it is lost."""
        if size > self.size:
            if self.pointer:
                self._device.synchronise()
                self._device.free(self.pointer)
            self.pointer, self.size = 0, 0
            self.pointer = self._device.allocate(size)
            self.size = size


class TensorrtEngine:
    """One plan, loaded. Arrays go in and come out as float32 on the host, or stay on the device by name."""

    def __init__(
        self, trt: Any, runtime: Any, device: CudaDevice, scratch: Scratch, path: Path, said: list[str]
    ) -> None:
        """Load the plan at `path` straight from the file's pages; EngineError when TensorRT refuses it."""
        self._trt, self._scratch, self._said, self._name = trt, scratch, said, path.name
        self.device = device
        self.profiles: tuple[Profile, ...] = ()
        self.least_k = 1
        said.clear()
        try:
            stream = path.open("rb")
        except OSError as error:
            raise EngineError(f"{path} cannot be read ({error.strerror}); {BUILD_AGAIN}") from error
        with stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as pages, device.current():
            self._engine: Any = runtime.deserialize_cuda_engine(pages)
        if self._engine is None:
            raise EngineError(
                f"TensorRT cannot load {path.name} ({self._first_words()}): it is of another version or GPU, "
                f"or memory ran out; {BUILD_AGAIN}"
            )
        self._inputs: dict[str, Dimensions] = {}
        self._outputs: dict[str, Dimensions] = {}
        self._types: dict[str, npt.DTypeLike] = {}
        types = {trt.DataType.FLOAT: np.float32, trt.DataType.HALF: np.float16}
        for index in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(index)
            kind = self._engine.get_tensor_dtype(name)
            if kind not in types:
                raise EngineError(f"{path.name}: tensor {name} is {kind}; export the bundle again")
            self._types[name] = types[kind]
            is_input = self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
            sizes = tuple(self._engine.get_tensor_shape(name))
            (self._inputs if is_input else self._outputs)[name] = tuple(
                size if size >= 0 else f"{name}.{axis}" for axis, size in enumerate(sizes)
            )
        self._contexts: dict[int, Any] = {}
        self._memory: dict[str, tuple[int, int]] = {}  # name -> pointer, bytes
        self._pinned: dict[str, npt.NDArray[np.uint8]] = {}

    def serve(self, profiles: Sequence[Profile], least_k: int) -> None:
        """Take calls of these profiles, in the plan's order; the scratch memory grows to their need."""
        if len(profiles) != self._engine.num_optimization_profiles:
            raise EngineError(
                f"{self._name} has {self._engine.num_optimization_profiles} profiles, the bundle lists "
                f"{len(profiles)}; {BUILD_AGAIN}"
            )
        self.profiles, self.least_k = tuple(profiles), least_k
        needs = [self._engine.get_device_memory_size_for_profile_v2(index) for index in range(len(profiles))]
        with self.device.current():
            # never nothing: TensorRT refuses a null pointer, also for an engine that needs none
            self._scratch.reserve(max(*needs, ALIGNMENT))

    @property
    def inputs(self) -> Mapping[str, Dimensions]:
        """Name -> dimensions of every input."""
        return self._inputs

    @property
    def outputs(self) -> Mapping[str, Dimensions]:
        """Name -> dimensions of every output."""
        return self._outputs

    @property
    def most_rows(self) -> int:
        """The largest batch of any profile."""
        return most_rows(self.profiles)

    def run(self, feeds: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """All outputs for these inputs; a batch larger than the profiles takes several calls.

        EngineError when a feed is missing, unknown or of a shape that no profile takes, or TensorRT fails.
        """
        if set(feeds) != set(self._inputs):
            raise EngineError(f"{self._name} takes {sorted(self._inputs)}, got {sorted(feeds)}")
        rows, most = len(next(iter(feeds.values()))), self.most_rows
        with self.device.current():
            runs = [
                self._run({name: array[first : first + most] for name, array in feeds.items()})
                for first in range(0, rows, most)
            ]
        return {name: np.concatenate([run[name] for run in runs]) for name in self._outputs}

    def _run(self, feeds: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        if "past_kv" not in feeds:
            return self.execute(feeds, {}, ())[0]
        return run_in_pieces(
            lambda piece: self.execute(piece, {}, ())[0], feeds, self.profiles, self.least_k
        )

    def past(self, shape: ModelShape, prefix_kv: FloatArray, rows: int, capacity: int) -> Past:
        """Keys and values on the device; the one before is no longer valid."""
        return DevicePast(self, shape, prefix_kv, rows, capacity)

    def execute(
        self,
        feeds: Mapping[str, FloatArray],
        resident: Mapping[str, tuple[int, tuple[int, ...]]],
        kept: Sequence[str],
    ) -> tuple[dict[str, FloatArray], dict[str, int]]:
        """One call, waited for. `resident`: inputs that lie on the device, as (pointer, shape); `kept`:
        outputs that stay there. The other outputs as float32, and the pointers of the kept ones, valid until
        the next call. The context must be current.
        """
        self._said.clear()
        shapes = {name: array.shape for name, array in feeds.items()}
        shapes |= {name: shape for name, (_, shape) in resident.items()}
        index = profile_for(self.profiles, shapes, self._name)
        context = self._context(index)
        for name, shape in shapes.items():
            if name in resident:
                pointer = resident[name][0]
            else:
                pointer = self.reserved(name, feeds[name].size * self.item_bytes(name))
                self.stage(name, feeds[name], pointer)
            self._accepted(context.set_input_shape(name, shape), f"shape {list(shape)} of {name}")
            self._accepted(context.set_tensor_address(name, pointer), f"the address of {name}")
        places: dict[str, tuple[int, tuple[int, ...]]] = {}
        for name in self._outputs:
            shape = tuple(context.get_tensor_shape(name))
            pointer = self.reserved(name, int(np.prod(shape)) * self.item_bytes(name))
            self._accepted(context.set_tensor_address(name, pointer), f"the address of {name}")
            places[name] = pointer, shape
        context.set_device_memory(self._scratch.pointer, self._scratch.size)
        self._accepted(context.execute_async_v3(self.device.stream), "a call")
        outputs = self._fetched({name: place for name, place in places.items() if name not in kept})
        return outputs, {name: places[name][0] for name in kept}

    def item_bytes(self, name: str) -> int:
        """Size of one number of a tensor."""
        return np.dtype(self._types[name]).itemsize

    def reserved(self, name: str, size: int) -> int:
        """Device memory of this engine under a name, at least `size` bytes; zeros when it is new."""
        pointer, have = self._memory.get(name, (0, 0))
        if size > have or not pointer:
            if pointer:
                self.device.synchronise()
                self.device.free(pointer)
                del self._memory[name]
            pointer = self.device.allocate(size)
            self.device.fill_zero(pointer, size)
            self._memory[name] = pointer, size
        return pointer

    def stage(self, name: str, array: FloatArray, pointer: int) -> None:
        """Upload an array in the type of tensor `name`, through pinned memory, in stream order."""
        kind = np.dtype(self._types[name])
        view = self._pinned_view(name, array.size * kind.itemsize).view(kind).reshape(array.shape)
        if kind == np.float16:  # a value that float16 cannot hold would be inf there, and NaN one step later
            np.clip(array, -MOST_FLOAT16, MOST_FLOAT16, out=view, casting="unsafe")
        else:
            view[...] = array
        self.device.upload(pointer, view.reshape(-1).view(np.uint8))

    def inspected(self) -> str:
        """What TensorRT says about the layers of the plan, as JSON; the plan is built so that it says all."""
        with self.device.current():
            inspector = self._engine.create_engine_inspector()
            return str(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))

    def close(self) -> None:
        """Free contexts, engine and buffers, in this order; twice is fine, and so is a GPU that failed."""
        if self._engine is None:
            return
        with self.device.current():
            released(self.device.synchronise)
            self._contexts.clear()
            self._engine = None
            for pointer, _ in self._memory.values():
                released(self.device.free, pointer)
            for array in self._pinned.values():
                released(self.device.free_pinned, array)
            self._memory, self._pinned = {}, {}

    def _context(self, index: int) -> Any:
        """The execution context of a profile, made at its first call."""
        if self._engine is None:
            raise EngineError(f"{self._name} was closed; open the bundle again")
        if index not in self._contexts:
            context = self._engine.create_execution_context(
                self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
            )
            self._accepted(context is not None, "an execution context")
            self._accepted(
                context.set_optimization_profile_async(index, self.device.stream), f"profile {index}"
            )
            self.device.synchronise()
            self._contexts[index] = context
        return self._contexts[index]

    def _fetched(self, places: Mapping[str, tuple[int, tuple[int, ...]]]) -> dict[str, FloatArray]:
        """Wait for the stream and copy these outputs out of pinned memory."""
        views = {}
        for name, (pointer, shape) in places.items():
            count = int(np.prod(shape))
            kind = np.dtype(self._types[name])
            pinned = self._pinned_view(name, count * kind.itemsize)
            self.device.download(pinned, pointer)
            views[name] = pinned.view(kind).reshape(shape)
        self.device.synchronise()
        return {name: view.astype(np.float32) for name, view in views.items()}

    def _pinned_view(self, name: str, size: int) -> npt.NDArray[np.uint8]:
        have = self._pinned.get(name)
        if have is None or have.size < size:
            if have is not None:
                self.device.synchronise()
                self.device.free_pinned(have)
            have = self._pinned[name] = self.device.pinned(size)
        return have[:size]

    def _accepted(self, is_fine: bool, what: str) -> None:
        if not is_fine:
            raise EngineError(
                f"{self._name}: TensorRT refuses {what} ({self._first_words()}); restart the service, and if "
                f"it stays so, {BUILD_AGAIN}"
            )

    def _first_words(self) -> str:
        """What TensorRT said first since the last call began; what follows is mostly a consequence."""
        return self._said[0].strip().splitlines()[0] if self._said else "it gave no reason"
