"""Frames of a video file that OpenCV wrote."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from orinspect.runtime.capture.frame import Frame, camera_from_source
from orinspect.runtime.capture.sources import Resume, SourceError, SourceText


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten frames whose mean grey level is 20 times their number, with noise that fills the file."""
    path = tmp_path_factory.mktemp("video") / "line.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (160, 120))
    assert writer.isOpened()
    random = np.random.default_rng(1)
    for number in range(1, 11):
        writer.write((20 * number + random.integers(-9, 10, (120, 160, 3))).astype(np.uint8))
    writer.release()
    return path


def frames_of(source: str, after: int = 0) -> list[Frame]:
    with camera_from_source(source, resume=Resume(after=after)) as camera:
        return list(camera.frames())


def test_every_frame_once_under_its_number(video: Path) -> None:
    frames = frames_of(f"video:{video}?mm_per_px=0.1")
    assert [frame.sequence for frame in frames] == list(range(1, 11))
    assert [round(float(frame.image.mean()) / 20) for frame in frames] == list(range(1, 11))
    assert frames[2].part_id == "line-000003" and frames[2].mm_per_px == 0.1
    assert all(frame.fault is None and not frame.is_simulated for frame in frames)


def test_every_third_frame_and_behind_the_last_one_given(video: Path) -> None:
    assert [frame.sequence for frame in frames_of(f"video:{video}?every=3")] == [1, 4, 7, 10]
    assert [frame.sequence for frame in frames_of(f"video:{video}?every=3", after=4)] == [7, 10]
    assert SourceText.of(f"video:{video}").resumed_by == "sequence"


def test_a_file_that_breaks_off_says_so(video: Path, tmp_path: Path) -> None:
    data = video.read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) // 2])
    frames = frames_of(f"video:{tmp_path / 'cut.avi'}")
    assert 1 < len(frames) < 10
    assert all(frame.fault is None for frame in frames[:-1])
    fault = frames[-1].fault
    assert fault is not None and re.search(r"cut breaks off after \d of 10 frames", fault.why)
    assert [frame.sequence for frame in frames] == list(range(1, len(frames) + 1))


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.avi").write_text("hello")
    with pytest.raises(SourceError, match="no video that OpenCV can read"):
        camera_from_source(f"video:{tmp_path / 'text.avi'}")
    with pytest.raises(SourceError, match="is not a file"):
        camera_from_source(f"video:{tmp_path / 'none.avi'}")
