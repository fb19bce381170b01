"""The GPU as the engines see it: one context, one stream, memory on both sides, strided copies.

The device's PRIMARY context is retained, which TensorRT shares, and is current only inside
`with device.current()`: in whichever one thread works with it, and in no other. How the driver is reached is
cuda.py's affair.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ...errors import EngineError

log = logging.getLogger(__name__)

ALIGNMENT = 256
"""Every allocation is a multiple of this many bytes; TensorRT asks it of its scratch memory."""


@dataclass(frozen=True)
class StridedCopy:
    """`rows` pieces of `width` bytes; offsets and pitches (distance between pieces) in bytes."""

    source: int
    source_pitch: int
    destination: int
    destination_pitch: int
    width: int
    rows: int


class Driver(Protocol):
    """What is needed of the driver, over either binding; sizes in bytes, pointers and streams as int.

    A call that the driver refuses raises EngineError with the driver's own words.
    """

    def push(self) -> None:
        """Make the context current in this thread."""

    def pop(self) -> None:
        """Give the thread its previous context back."""

    def release(self) -> None:
        """Give the primary context back."""

    def device(self) -> tuple[str, tuple[int, int], int]:
        """The device's name, its compute capability, and the driver's CUDA version, as 12060."""

    def memory_info(self) -> tuple[int, int]:
        """Free and total device memory; on a Jetson the board's own memory."""

    def allocate(self, size: int) -> int:
        """Device memory."""

    def free(self, pointer: int) -> None:
        """Free what `allocate` gave."""

    def allocate_pinned(self, size: int) -> npt.NDArray[np.uint8]:
        """Page-locked host memory, [size] uint8."""

    def free_pinned(self, array: npt.NDArray[np.uint8]) -> None:
        """Free what `allocate_pinned` gave."""

    def stream(self) -> int:
        """A stream of its own that does not wait for the default one."""

    def destroy_stream(self, stream: int) -> None:
        """Free a stream."""

    def synchronise(self, stream: int) -> None:
        """Wait until all work of the stream is done."""

    def upload(self, pointer: int, source: npt.NDArray[np.uint8], stream: int) -> None:
        """Pinned host memory to the device."""

    def download(self, target: npt.NDArray[np.uint8], pointer: int, stream: int) -> None:
        """Device memory to pinned host memory."""

    def copy(self, plan: StridedCopy, stream: int) -> None:
        """A strided copy within the device."""

    def fill_zero(self, pointer: int, size: int, stream: int) -> None:
        """Zeros."""


class CudaDevice:
    """The first CUDA device, opened: its context, one stream, and all memory taken from it.

    A context manager. What is still allocated at the end is freed in the reverse order, then the stream, then
    the context.
    """

    def __init__(self, driver: Driver) -> None:
        """`driver`: of `cuda.driver_of_this_machine`."""
        self._driver = driver
        self._pointers: dict[int, int] = {}  # pointer -> bytes, oldest first
        self._pinned: list[npt.NDArray[np.uint8]] = []
        try:
            with self.current():
                self.name, self.capability, self.cuda_version = self._driver.device()
                self.stream = self._driver.stream()
        except BaseException:
            released(self._driver.release)
            raise
        self._is_open = True

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the context current in this thread for as long as the block lasts; blocks may nest."""
        self._driver.push()
        try:
            yield
        finally:
            self._driver.pop()

    def allocate(self, size: int) -> int:
        """A pointer to at least `size` bytes of device memory. EngineError says how much was free."""
        size = -(-max(size, 1) // ALIGNMENT) * ALIGNMENT
        try:
            pointer = self._driver.allocate(size)
        except EngineError as error:
            raise self._refused(size, "device", error) from error
        self._pointers[pointer] = size
        return pointer

    def free(self, pointer: int) -> None:
        """Give one allocation back."""
        del self._pointers[pointer]
        self._driver.free(pointer)

    def pinned(self, size: int) -> npt.NDArray[np.uint8]:
        """[size] uint8 of page-locked host memory, kept until the device is closed or `free_pinned`."""
        try:
            array = self._driver.allocate_pinned(max(size, 1))
        except EngineError as error:
            raise self._refused(size, "page-locked", error) from error
        self._pinned.append(array)
        return array

    def free_pinned(self, array: npt.NDArray[np.uint8]) -> None:
        """Give one pinned buffer back; no view of it may be used any more."""
        self._pinned = [kept for kept in self._pinned if kept is not array]
        self._driver.free_pinned(array)

    def upload(self, pointer: int, source: npt.NDArray[np.uint8]) -> None:
        """Pinned bytes to the device, in stream order: leave them alone until the next `synchronise`."""
        self._driver.upload(pointer, source, self.stream)

    def download(self, target: npt.NDArray[np.uint8], pointer: int) -> None:
        """Device to pinned bytes, in stream order: they are there after the next `synchronise`."""
        self._driver.download(target, pointer, self.stream)

    def copy(self, plan: StridedCopy) -> None:
        """A strided copy within the device, in stream order; one of nothing is none."""
        if plan.width and plan.rows:
            self._driver.copy(plan, self.stream)

    def fill_zero(self, pointer: int, size: int) -> None:
        """Zeros, in stream order."""
        if size:
            self._driver.fill_zero(pointer, size, self.stream)

    def synchronise(self) -> None:
        """Wait until the stream is idle; EngineError when anything in it failed."""
        try:
            self._driver.synchronise(self.stream)
        except EngineError as error:
            raise EngineError(
                f"the GPU failed ({error}); a CUDA context does not recover: restart the service, and if it "
                "stays so, look at dmesg and run: orinspect engines verify BUNDLE"
            ) from error

    def memory_info(self) -> tuple[int, int]:
        """Free and total bytes."""
        return self._driver.memory_info()

    def close(self) -> None:
        """Free everything, in order; twice is fine. After a failure of the GPU every call is refused: that is
        logged, so that it hides neither the failure nor what is done about it.
        """
        if not self._is_open:
            return
        self._is_open = False
        released(self._free_all)
        released(self._driver.release)

    def _free_all(self) -> None:
        with self.current():
            for array in reversed(self._pinned):
                released(self._driver.free_pinned, array)
            for pointer in reversed(list(self._pointers)):
                released(self._driver.free, pointer)
            self._pinned, self._pointers = [], {}
            released(self._driver.destroy_stream, self.stream)

    def _refused(self, size: int, kind: str, error: EngineError) -> EngineError:
        free, total = self._driver.memory_info()
        return EngineError(
            f"{size >> 20} MiB of {kind} memory were refused ({error}); {free >> 20} of {total >> 20} "
            "MiB are free: stop other programs on this board, or use a smaller batch or a smaller model"
        )

    def __enter__(self) -> CudaDevice:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def released(give_back: Callable[..., object], *what: object) -> None:
    """Give something back; what the driver says against it is logged, and the rest is still given back."""
    try:
        give_back(*what)
    except EngineError as error:
        log.warning("%s", error)
