"""The CUDA device through the real bindings, over a driver whose device memory is the host's."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from orinspect.runtime.errors import EngineError
from orinspect.runtime.infer.engines import cuda
from orinspect.runtime.infer.engines.device import CudaDevice, Driver, StridedCopy
from orinspect.tests.host_cuda import host_cuda


@pytest.fixture(params=["cuda.bindings", "pycuda"])
def driver(request: pytest.FixtureRequest) -> Driver:
    name = request.param
    if name == "pycuda":
        host_cuda()
        return cuda._PycudaDriver(pytest.importorskip("pycuda.driver", exc_type=ImportError))
    bindings = pytest.importorskip("cuda.bindings.driver")
    host_cuda()
    return cuda._BoundDriver(bindings)


@pytest.fixture
def device(driver: Driver) -> Iterator[CudaDevice]:
    with CudaDevice(driver) as opened:
        yield opened
    assert host_cuda().host_cuda_live() == 0  # nothing retained, allocated or current any more


def test_the_device_says_what_it_is(device: CudaDevice) -> None:
    assert (device.name, device.capability, device.cuda_version) == ("Host", (8, 7), 12060)
    with device.current():
        free, total = device.memory_info()
        assert free == total
        device.allocate(1000)
        assert device.memory_info()[0] == total - 1024  # whole multiples of the alignment


def test_bytes_go_up_and_come_down(device: CudaDevice) -> None:
    with device.current():
        pointer, pinned = device.allocate(64), device.pinned(64)
        pinned[:] = np.arange(64)
        device.upload(pointer, pinned)
        pinned[:] = 0
        device.fill_zero(pointer + 8, 8)
        device.download(pinned, pointer)
        device.synchronise()
        expected = np.arange(64)
        expected[8:16] = 0
        assert pinned.tolist() == expected.tolist()
        device.free(pointer)
        device.free_pinned(pinned)


def test_a_strided_copy_moves_pieces(device: CudaDevice) -> None:
    with device.current():
        source, target, pinned = device.allocate(60), device.allocate(60), device.pinned(60)
        pinned[:] = np.arange(60)
        device.upload(source, pinned)
        device.fill_zero(target, 60)
        device.copy(StridedCopy(source + 3, 10, target + 1, 15, 4, 3))
        device.copy(StridedCopy(source, 10, target, 15, 0, 3))  # of nothing
        device.download(pinned, target)
        device.synchronise()
    expected = np.zeros(60)
    for row in range(3):
        expected[15 * row + 1 : 15 * row + 5] = np.arange(4) + 10 * row + 3
    assert pinned.tolist() == expected.tolist()


def test_memory_that_is_not_there_is_said_in_a_sentence(
    device: CudaDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOST_CUDA_LIMIT", str(8 << 20))
    with (
        device.current(),
        pytest.raises(EngineError, match=r"64 MiB .* refused .*8 of 8 MiB are free: stop other"),
    ):
        device.allocate(64 << 20)


def test_nothing_works_outside_the_context(device: CudaDevice) -> None:
    with device.current(), device.current():
        pass
    with pytest.raises(EngineError):
        device._driver.allocate(16)


def test_a_device_that_fails_at_once_is_given_back(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_stream() -> int:
        raise EngineError("cuStreamCreate: CUDA_ERROR_OUT_OF_MEMORY")

    monkeypatch.setattr(driver, "stream", no_stream)
    with pytest.raises(EngineError, match="cuStreamCreate"):
        CudaDevice(driver)
    assert host_cuda().host_cuda_live() == 0


def test_closing_frees_all_of_it(driver: Driver) -> None:
    device = CudaDevice(driver)
    with device.current():
        device.allocate(16)
        device.pinned(16)
    assert host_cuda().host_cuda_live() > 0
    device.close()
    device.close()
    assert host_cuda().host_cuda_live() == 0


def test_a_machine_without_a_device_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    bindings = pytest.importorskip("cuda.bindings.driver")
    host_cuda()
    monkeypatch.setenv("HOST_CUDA_NONE", "1")
    with pytest.raises(
        EngineError, match=r"no CUDA device can be opened: .*NO_DEVICE.*use the backend onnxruntime"
    ):
        cuda._BoundDriver(bindings)


def test_a_board_without_memory_for_a_context_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    bindings = pytest.importorskip("cuda.bindings.driver")
    host_cuda()
    monkeypatch.setenv("HOST_CUDA_LIMIT", "0")
    with pytest.raises(EngineError, match=r"makes no context: .*OUT_OF_MEMORY.*stop other programs"):
        cuda._BoundDriver(bindings)


def test_a_machine_without_bindings_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in ("pycuda", "pycuda.driver", "cuda", "cuda.bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(EngineError, match=r"neither pycuda nor cuda.bindings.*pip install cuda-python"):
        cuda.driver_of_this_machine()
