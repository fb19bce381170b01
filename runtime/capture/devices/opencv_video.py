"""What OpenCV's VideoCapture reads: video files, and RTSP streams where GStreamer is missing.

The one file that knows VideoCapture. `video:FILE?fps=5&every=10` gives a file's frames as parts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from ...errors import CaptureError
from ..frame import Clock, Frame
from ..sources import Pace, Resume, SourceText
from .stamp import PARAMETERS, Stamp

_SHORT = 0.9  # a file that ends before this share of its own frame count is damaged; the count may be a guess


class VideoFileCamera:
    """The frames of a video file in order, every `every`th; a frame's number in the file is its sequence.

    A file that ends far before its own frame count gives a last frame with the fault `picture`.
    """

    def __init__(
        self, text: SourceText, clock: Clock, sleep: Callable[[float], None], resume: Resume
    ) -> None:
        text.allow(("fps", "every", *PARAMETERS))
        if not os.path.isfile(text.path):
            raise text.refused_path(f"{text.path!r} is not a file; give a video")
        self._every = text.whole("every", 1, 1)
        self._pace = Pace(text.number("fps", None), clock.monotonic_ns, sleep)
        self._stamp, self._name, self._after = Stamp(text, clock), Path(text.path).stem, resume.after
        self._video = cv2.VideoCapture(text.path)
        self._closed = False
        if not self._video.isOpened():
            raise text.refused_path(f"{text.path!r} is no video that OpenCV can read")

    def __enter__(self) -> VideoFileCamera:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; twice is fine."""
        self._closed = True
        self._video.release()

    def frames(self) -> Iterator[Frame]:
        """Frames at the pace of `fps`, or as fast as they are asked for."""
        total = self._video.get(cv2.CAP_PROP_FRAME_COUNT)
        number = 0
        # Counted frame by frame: a jump by CAP_PROP_POS_FRAMES lands beside the frame in many files.
        while not self._closed and self._video.grab():
            number += 1
            if number <= self._after or (number - 1) % self._every:
                continue
            found, image = self._video.retrieve()
            self._pace.wait()
            part_id = f"{self._name}-{number:06d}"
            if found:
                yield self._stamp.frame(np.asarray(image, np.uint8), sequence=number, part_id=part_id)
            else:
                yield self._stamp.broken(
                    f"frame {number} of {self._name} cannot be decoded", sequence=number, part_id=part_id
                )
        if not self._closed and self._after <= number < _SHORT * total:
            why = f"{self._name} breaks off after {number} of {total:.0f} frames"
            yield self._stamp.broken(why, sequence=number + 1, part_id=f"{self._name}-{number + 1:06d}")


class FfmpegStreamCamera:
    """The frames of a network stream through OpenCV's own FFmpeg, decoded on the CPU.

    CaptureError when it cannot be opened, ends, or gives nothing for `silence_s`.
    """

    def __init__(self, url: str, text: SourceText, clock: Clock, silence_s: float) -> None:
        self._text, self._stamp, self._silence_s = text, Stamp(text, clock), silence_s
        wait_ms = int(silence_s * 1000)
        self._video = cv2.VideoCapture(
            url,
            cv2.CAP_FFMPEG,
            [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, wait_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, wait_ms],
        )
        self._closed = False
        if not self._video.isOpened():
            raise CaptureError(f"camera {text.text} cannot be opened; check address, network and password")

    def __enter__(self) -> FfmpegStreamCamera:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the stream; twice is fine."""
        self._closed = True
        self._video.release()

    def frames(self) -> Iterator[Frame]:
        """Every frame of the stream: whoever does not take them in time loses them in the child process."""
        while not self._closed:
            found, image = self._video.read()
            if not found or image is None or not image.size:
                raise CaptureError(
                    f"camera {self._text.text} ended its stream or gave nothing for "
                    f"{self._silence_s:g} s; check it"
                )
            yield self._stamp.frame(np.asarray(image, np.uint8))
