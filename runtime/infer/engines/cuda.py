"""The CUDA driver: the only file that knows how it is reached.

pycuda where the site has it, else NVIDIA's own `cuda.bindings`. Both stand on the driver library, so both
give the same device pointers; neither `pycuda.autoinit` nor a context of our own is ever used.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import EngineError
from .device import Driver, StridedCopy


def driver_of_this_machine() -> Driver:
    """The driver over pycuda or cuda.bindings. EngineError says what to install, or what the driver lacks."""
    try:
        import pycuda.driver as pycuda_driver
    except ImportError:
        try:
            from cuda.bindings import driver as cuda_driver
        except ImportError as error:
            raise EngineError(
                f"neither pycuda nor cuda.bindings can be imported ({error}); on the device run: "
                "pip install cuda-python (its version = the CUDA version of the JetPack), or build pycuda"
            ) from error
        return _BoundDriver(cuda_driver)
    return _PycudaDriver(pycuda_driver)


def _no_device(why: object) -> EngineError:
    return EngineError(
        f"no CUDA device can be opened: {why}; on a Jetson check that /dev/nvhost-gpu is there and that this "
        "user is in the groups video and render; on a machine without a GPU use the backend onnxruntime"
    )


def _no_context(why: object) -> EngineError:
    return EngineError(
        f"the CUDA device makes no context: {why}; it takes some hundred MiB: stop other programs on this "
        "board and start again"
    )


class _BoundDriver:
    """Over cuda.bindings.driver, whose calls return (status, values...)."""

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda
        try:
            self._call(cuda.cuInit, 0)
            self._device = self._call(cuda.cuDeviceGet, 0)
        # The loader raises classes of its own where the driver library is missing.
        except Exception as error:
            raise _no_device(str(error).splitlines()[0] if str(error) else repr(error)) from error
        try:
            self._context = self._call(cuda.cuDevicePrimaryCtxRetain, self._device)
        except EngineError as error:
            raise _no_context(error) from error
        self._addresses: dict[int, Any] = {}  # of a pinned array -> what the driver frees

    def _call(self, function: Any, *arguments: Any) -> Any:
        status, *values = function(*arguments)
        if int(status) != 0:
            _, name = self._cuda.cuGetErrorName(status)
            _, words = self._cuda.cuGetErrorString(status)
            said = " ".join(part.decode() for part in (name, words) if part)
            raise EngineError(f"{function.__name__}: {said or int(status)}")
        return values[0] if len(values) == 1 else tuple(values)

    def push(self) -> None:
        self._call(self._cuda.cuCtxPushCurrent, self._context)

    def pop(self) -> None:
        self._call(self._cuda.cuCtxPopCurrent)

    def release(self) -> None:
        self._call(self._cuda.cuDevicePrimaryCtxRelease, self._device)

    def device(self) -> tuple[str, tuple[int, int], int]:
        kinds = self._cuda.CUdevice_attribute
        major, minor = (
            int(self._call(self._cuda.cuDeviceGetAttribute, kind, self._device))
            for kind in (
                kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
                kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
            )
        )
        name = self._call(self._cuda.cuDeviceGetName, 256, self._device)
        version = int(self._call(self._cuda.cuDriverGetVersion))
        return bytes(name).split(b"\0")[0].decode(), (major, minor), version

    def memory_info(self) -> tuple[int, int]:
        free, total = self._call(self._cuda.cuMemGetInfo)
        return int(free), int(total)

    def allocate(self, size: int) -> int:
        return int(self._call(self._cuda.cuMemAlloc, size))

    def free(self, pointer: int) -> None:
        self._call(self._cuda.cuMemFree, pointer)

    def allocate_pinned(self, size: int) -> npt.NDArray[np.uint8]:
        address = int(self._call(self._cuda.cuMemHostAlloc, size, 0))
        array = _array_at(address, size)
        self._addresses[id(array)] = address
        return array

    def free_pinned(self, array: npt.NDArray[np.uint8]) -> None:
        self._call(self._cuda.cuMemFreeHost, self._addresses.pop(id(array)))

    def stream(self) -> int:
        return int(self._call(self._cuda.cuStreamCreate, 1))  # CU_STREAM_NON_BLOCKING

    def destroy_stream(self, stream: int) -> None:
        self._call(self._cuda.cuStreamDestroy, stream)

    def synchronise(self, stream: int) -> None:
        self._call(self._cuda.cuStreamSynchronize, stream)

    def upload(self, pointer: int, source: npt.NDArray[np.uint8], stream: int) -> None:
        self._call(self._cuda.cuMemcpyHtoDAsync, pointer, source.ctypes.data, source.nbytes, stream)

    def download(self, target: npt.NDArray[np.uint8], pointer: int, stream: int) -> None:
        self._call(self._cuda.cuMemcpyDtoHAsync, target.ctypes.data, pointer, target.nbytes, stream)

    def copy(self, plan: StridedCopy, stream: int) -> None:
        order = self._cuda.CUDA_MEMCPY2D()
        order.srcMemoryType = order.dstMemoryType = self._cuda.CUmemorytype.CU_MEMORYTYPE_DEVICE
        order.srcDevice, order.srcPitch = plan.source, plan.source_pitch
        order.dstDevice, order.dstPitch = plan.destination, plan.destination_pitch
        order.WidthInBytes, order.Height = plan.width, plan.rows
        self._call(self._cuda.cuMemcpy2DAsync, order, stream)

    def fill_zero(self, pointer: int, size: int, stream: int) -> None:
        self._call(self._cuda.cuMemsetD8Async, pointer, 0, size, stream)


class _PycudaDriver:
    """Over pycuda.driver, whose calls raise and whose objects own what they allocate."""

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda
        try:
            cuda.init()
            self._device = cuda.Device(0)
        except cuda.Error as error:
            raise _no_device(error) from error
        try:
            self._context = self._device.retain_primary_context()
        except cuda.Error as error:
            raise _no_context(error) from error
        self._owned: dict[int, Any] = {}  # pointer or stream handle -> the object that frees it
        self._pinned: dict[int, Any] = {}

    def push(self) -> None:
        with self._said("cuCtxPushCurrent"):
            self._context.push()

    def pop(self) -> None:
        self._cuda.Context.pop()

    def release(self) -> None:
        with self._said("cuDevicePrimaryCtxRelease"):
            self._context.detach()

    def device(self) -> tuple[str, tuple[int, int], int]:
        return self._device.name(), self._device.compute_capability(), self._cuda.get_driver_version()

    def memory_info(self) -> tuple[int, int]:
        with self._said("cuMemGetInfo"):
            free, total = self._cuda.mem_get_info()
        return int(free), int(total)

    def allocate(self, size: int) -> int:
        with self._said("cuMemAlloc"):
            memory = self._cuda.mem_alloc(size)
        self._owned[int(memory)] = memory
        return int(memory)

    def free(self, pointer: int) -> None:
        with self._said("cuMemFree"):
            self._owned.pop(pointer).free()

    def allocate_pinned(self, size: int) -> npt.NDArray[np.uint8]:
        with self._said("cuMemHostAlloc"):
            owner = self._cuda.pagelocked_empty(size, np.uint8)
        array: npt.NDArray[np.uint8] = owner[:]  # a view: the owner is freed by name
        self._pinned[id(array)] = owner
        return array

    def free_pinned(self, array: npt.NDArray[np.uint8]) -> None:
        with self._said("cuMemFreeHost"):
            self._pinned.pop(id(array)).base.free()

    def stream(self) -> int:
        with self._said("cuStreamCreate"):
            stream = self._cuda.Stream(1)
        self._owned[stream.handle] = stream
        return int(stream.handle)

    def destroy_stream(self, stream: int) -> None:
        self._owned.pop(stream)  # pycuda destroys it with the object

    def synchronise(self, stream: int) -> None:
        with self._said("cuStreamSynchronize"):
            self._owned[stream].synchronize()

    def upload(self, pointer: int, source: npt.NDArray[np.uint8], stream: int) -> None:
        with self._said("cuMemcpyHtoDAsync"):
            self._cuda.memcpy_htod_async(pointer, source, self._owned[stream])

    def download(self, target: npt.NDArray[np.uint8], pointer: int, stream: int) -> None:
        with self._said("cuMemcpyDtoHAsync"):
            self._cuda.memcpy_dtoh_async(target, pointer, self._owned[stream])

    def copy(self, plan: StridedCopy, stream: int) -> None:
        order = self._cuda.Memcpy2D()
        order.set_src_device(plan.source)
        order.set_dst_device(plan.destination)
        order.src_pitch, order.dst_pitch = plan.source_pitch, plan.destination_pitch
        order.width_in_bytes, order.height = plan.width, plan.rows
        with self._said("cuMemcpy2DAsync"):
            order(self._owned[stream])

    def fill_zero(self, pointer: int, size: int, stream: int) -> None:
        with self._said("cuMemsetD8Async"):
            self._cuda.memset_d8_async(pointer, 0, size, self._owned[stream])

    @contextmanager
    def _said(self, what: str) -> Iterator[None]:
        try:
            yield
        except self._cuda.Error as error:
            raise EngineError(f"{what}: {error}") from error


def _array_at(address: int, size: int) -> npt.NDArray[np.uint8]:
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
