"""The watched folder: only whole files, each once, in the order of their arrival, and where they go."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from orinspect.runtime.capture.frame import Frame, camera_from_source
from orinspect.runtime.capture.sources import Resume
from orinspect.runtime.capture.watch import WatchCamera
from orinspect.runtime.errors import CaptureError


class Time:
    """A clock that only the camera's own waits move; `then` is what happens during each of them."""

    def __init__(self, *then: Callable[[], object]) -> None:
        self.now_ns = 0
        self._then = iter(then)

    def unix_s(self) -> float:
        return self.now_ns / 1e9

    def monotonic_ns(self) -> int:
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)
        next(self._then, lambda: None)()


def picture(value: int, suffix: str = ".png") -> bytes:
    image = cv2.GaussianBlur(np.random.default_rng(value).integers(0, 255, (60, 80), np.uint8), (0, 0), 2)
    return bytes(cv2.imencode(suffix, image)[1])


def put(path: Path, data: bytes, changed_s: int = 1000) -> None:
    path.write_bytes(data)
    os.utime(path, (changed_s, changed_s))


def opened(folder: Path, time: Time, parameters: str = "", keys: frozenset[str] = frozenset()) -> WatchCamera:
    camera = camera_from_source(f"watch:{folder}{parameters}", time, time.sleep, Resume(keys=keys))
    assert isinstance(camera, WatchCamera)
    return camera


def take(frames: Iterator[Frame], count: int) -> list[Frame]:
    return [next(frames) for _ in range(count)]


def test_pictures_come_in_the_order_of_their_time_and_each_once(tmp_path: Path) -> None:
    put(tmp_path / "b.png", picture(1), 10)
    put(tmp_path / "a.png", picture(2), 20)
    put(tmp_path / "notes.txt", b"none", 5)
    put(tmp_path / ".c.png", picture(9), 5)  # as rsync names a file under way
    late = Time(*[lambda: None] * 8, lambda: put(tmp_path / "0.png", picture(3), 30))
    with opened(tmp_path, late) as camera:
        frames = take(camera.frames(), 3)
    assert [frame.part_id for frame in frames] == ["b", "a", "0"]
    assert [frame.sequence for frame in frames] == [1, 2, 3]
    assert all(frame.fault is None and frame.image.shape == (60, 80) for frame in frames)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
def test_a_file_that_is_still_written_is_waited_for(tmp_path: Path, suffix: str) -> None:
    whole = picture(1, suffix)
    path = tmp_path / f"p{suffix}"

    def written(eighths: int) -> Callable[[], object]:
        return lambda: put(path, whole[: len(whole) * eighths // 8], 100 + eighths)

    steps = [written(eighths) for eighths in range(1, 9)]
    steps.insert(5, lambda: None)  # a pause of the writer that is shorter than it takes to be whole
    time = Time(*steps)
    with opened(tmp_path, time, "?settle_s=0.5&poll_s=0.2") as camera:
        (frame,) = take(camera.frames(), 1)
    assert frame.fault is None
    np.testing.assert_array_equal(
        frame.image, cv2.imdecode(np.frombuffer(whole, np.uint8), cv2.IMREAD_ANYCOLOR)
    )
    assert time.now_ns >= round((len(steps) * 0.2 + 0.5) * 1e9)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
def test_a_file_that_never_gets_whole_is_one_fault_and_the_next_goes_on(tmp_path: Path, suffix: str) -> None:
    put(tmp_path / f"cut{suffix}", picture(1, suffix)[:-200], 10)
    time = Time(*[lambda: None] * 30, lambda: put(tmp_path / "next.png", picture(2), 20))
    with opened(tmp_path, time, "?give_up_s=4") as camera:
        broken, good = take(camera.frames(), 2)
    assert broken.fault is not None and broken.fault.name == "picture" and broken.part_id == "cut"
    assert re.search(rf"cut{re.escape(suffix)} \(\d+ bytes\) is not a picture", broken.fault.why)
    assert (good.part_id, good.fault) == ("next", None)


def test_a_name_that_is_used_again_is_another_part(tmp_path: Path) -> None:
    put(tmp_path / "part.png", picture(1), 10)
    time = Time(*[lambda: None] * 5, lambda: put(tmp_path / "part.png", picture(2), 11))
    with opened(tmp_path, time) as camera:
        first, second = take(camera.frames(), 2)
    assert first.key != second.key and (first.image != second.image).any()


def test_a_file_moves_only_when_its_part_is_written_down(tmp_path: Path) -> None:
    put(tmp_path / "a.png", picture(1), 10)
    put(tmp_path / "b.png", b"none", 20)
    with opened(tmp_path, Time(), "?after=move&give_up_s=1") as camera:
        good, broken = take(camera.frames(), 2)
        assert (tmp_path / "a.png").exists() and (tmp_path / "b.png").exists()
        for frame in (good, broken):
            assert frame.key is not None
            camera.accepted(frame.key)
            camera.accepted(frame.key)  # twice is fine
        put(tmp_path / "a.png", picture(3), 30)
        (again,) = take(camera.frames(), 1)
        assert again.key is not None
        camera.accepted(again.key)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["done/a.1.png", "done/a.png", "failed/b.png"]


def test_what_a_crash_left_is_put_away_and_not_given_again(tmp_path: Path) -> None:
    for name, number in (("a.png", 1), ("b.png", 2)):
        put(tmp_path / name, picture(number), number)
    with opened(tmp_path, Time()) as camera:
        keys = [frame.key for frame in take(camera.frames(), 2)]
    assert keys[0] is not None
    with opened(tmp_path, Time(), "?after=delete", frozenset({keys[0]})) as camera:
        (frame,) = take(camera.frames(), 1)
    assert frame.part_id == "b"
    assert [path.name for path in tmp_path.iterdir()] == ["b.png"]


def test_a_folder_that_goes_is_an_error_that_waiting_may_cure(tmp_path: Path) -> None:
    camera = opened(tmp_path / "mount", Time())
    with pytest.raises(CaptureError, match="cannot be listed: No such file or directory; check the mount"):
        next(camera.frames())
    (tmp_path / "mount").mkdir()
    put(tmp_path / "mount" / "a.png", picture(1))
    assert next(camera.frames()).part_id == "a"
    camera.close()


def test_a_template_goes_with_every_picture(tmp_path: Path) -> None:
    put(tmp_path / "golden.png", picture(1))
    put(tmp_path / "a.png", picture(2))
    with opened(tmp_path, Time(), "?template=golden.png&mm_per_px=0.02") as camera:
        (frame,) = take(camera.frames(), 1)
    assert frame.template is not None and (frame.part_id, frame.mm_per_px) == ("a", 0.02)


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ("?after=burn", "after is 'burn'; give keep or move or delete"),
        ("?settle_s=-1", "settle_s is '-1'"),
        ("?template=none.png", "template is 'none.png'"),
        ("?seed=1", "no parameter 'seed'"),
    ],
)
def test_a_wrong_parameter_is_named(tmp_path: Path, parameters: str, complaint: str) -> None:
    with pytest.raises(CaptureError, match=re.escape(complaint)):
        camera_from_source(f"watch:{tmp_path}{parameters}")
