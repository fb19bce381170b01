"""The camera in a child process: same frames, bounded memory, and every way that a child can end."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from multiprocessing import resource_tracker
from pathlib import Path

import numpy as np
import pytest

from orinspect.runtime.capture import process
from orinspect.runtime.capture.frame import camera_from_source
from orinspect.runtime.capture.process import ProcessCamera
from orinspect.runtime.errors import CaptureError
from orinspect.tests.planned_camera import planned

SOURCE = "scenes:pcb?seed=3&parts=5&size_px=160"


@pytest.fixture(autouse=True)
def _no_shared_memory_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    own = f"ors_{os.getpid()}_"  # another run of these tests has memory too
    monkeypatch.setattr(process, "MEMORY_PREFIX", own)
    resource_tracker.ensure_running()
    yield
    assert not [path.name for path in Path("/dev/shm").glob(f"{own}*")]


def test_frames_cross_unchanged_and_the_truth_stays_behind() -> None:
    with camera_from_source(SOURCE) as direct, ProcessCamera(SOURCE, camera_from_source, slots=2) as camera:
        count = 0
        for here, there in zip(direct.frames(), camera.frames(), strict=True):
            np.testing.assert_array_equal(there.image, here.image)
            assert here.template is not None
            assert there.template is not None
            np.testing.assert_array_equal(there.template, here.template)
            assert (there.part_id, there.sequence, there.mm_per_px) == (
                here.part_id,
                here.sequence,
                here.mm_per_px,
            )
            assert here.truth is not None
            assert there.truth is None
            count += 1
        assert count == 5


def test_a_frame_outlives_its_slot() -> None:
    with ProcessCamera("4,5,6,7,8,9", planned, slots=1) as camera:
        frames = list(camera.frames())
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [1, 2, 3, 4, 5, 6]


def test_pictures_may_grow_and_shrink() -> None:
    sizes = [4, 4000, 3, 8000, 8000, 1]
    with ProcessCamera(",".join(map(str, sizes)), planned, slots=2) as camera:
        frames = list(camera.frames())
    assert [frame.image.shape[0] for frame in frames] == sizes
    assert [set(np.unique(frame.image)) for frame in frames] == [{number} for number in range(1, 7)]


@pytest.mark.slow
def test_a_hanging_driver_is_an_error_and_the_child_is_gone_after_close() -> None:
    camera = ProcessCamera("4,stuck", planned, timeout_s=3.0)
    with camera, pytest.raises(CaptureError, match="no frame in 3 s"):
        list(camera.frames())
    camera.close()  # twice is fine


def test_a_driver_that_throws_is_one_sentence() -> None:
    with ProcessCamera("4,fail", planned) as camera, pytest.raises(CaptureError, match="driver is upset"):
        list(camera.frames())


def test_a_child_that_dies_is_an_error_with_its_signal() -> None:
    with (
        ProcessCamera("4,die", planned) as camera,
        pytest.raises(CaptureError, match=r"died \(exit code -11"),
    ):
        list(camera.frames())


def test_an_error_of_the_camera_keeps_its_words() -> None:
    with (
        ProcessCamera("folder:nowhere", camera_from_source) as camera,
        pytest.raises(CaptureError, match="not a folder"),
    ):
        list(camera.frames())


def test_stop_ends_the_frames_of_an_endless_source() -> None:
    with ProcessCamera("scenes:pcb?size_px=128", camera_from_source) as camera:
        taken = 0
        for _ in camera.frames():
            taken += 1
            camera.stop()
        assert taken == 1


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_closing_with_frames_that_nobody_took_frees_their_memory(taken: int) -> None:
    with ProcessCamera("2000,3000,400000,500000", planned, slots=3) as camera:
        for _, _ in zip(range(taken), camera.frames(), strict=False):
            pass
        child = camera.pid
        assert child is not None
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    gc.collect()  # memory that is still held speaks up here, and a warning is an error
