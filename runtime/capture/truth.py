"""Whether a frame is the picture of a part, now and from here: the checks between a camera and its frames.

    frozen      the very content of the frame before
    stale       a time that stands still, runs backwards, or is too long ago
    black, saturated
                so much of the area shows nothing
    blurred     its edges are wider than the limit
    moved       the view lies beside the reference picture, or shows something else

The first two are asked of live cameras only: two files may hold the same picture. A frame that fails keeps
its picture and carries the first fault found; nothing is dropped here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ..config import TruthConfig
from ..errors import PictureError
from .frame import Frame, FrameFault, Picture, read_picture
from .quality import picture_quality

WORKING_PX = 384
"""Longest side of the pictures that are laid over each other."""

_SPARSE = 61  # every so manieth byte tells most pictures apart at once
FloatArray = npt.NDArray[np.float32]
_EMPTY_PX, _EMPTY_DARK, _EMPTY_WHITE = 640, 12, 248  # longest side looked at; levels of what shows nothing


@dataclass(frozen=True)
class Place:
    """How a picture lies beside another: pixels, and how much of its edges (-1 to 1) is there after that."""

    right_px: float
    down_px: float
    likeness: float

    @property
    def shift_px(self) -> float:
        """Length of the shift."""
        return float(np.hypot(self.right_px, self.down_px))


class TruthCheck:
    """The checks of one camera; it knows the frame before. PictureError for a `reference` that is none."""

    def __init__(self, config: TruthConfig, is_live: bool, monotonic_ns: Callable[[], int]) -> None:
        self._config, self._is_live, self._monotonic_ns = config, is_live, monotonic_ns
        self._reference = None if config.reference is None else _Reference.of_file(config.reference)
        self._before: Frame | None = None
        self._same = 0  # frames in a row with the content of the one before

    def checked(self, frame: Frame) -> Frame:
        """The frame, with the first fault found; one that has a fault already keeps it."""
        if frame.fault is not None:
            return frame
        fault = (self._time_or_content(frame) if self._is_live else None) or self._light(frame)
        fault = fault or self._place(frame)
        return frame if fault is None else replace(frame, fault=fault)

    def _time_or_content(self, frame: Frame) -> FrameFault | None:
        before, self._before = self._before, frame
        self._same = self._same + 1 if before is not None and _is_same(before.image, frame.image) else 0
        config = self._config
        age_s = (self._monotonic_ns() - frame.monotonic_ns) / 1e9
        if config.stale_s and age_s > config.stale_s:
            return FrameFault("stale", f"the picture is {age_s:.1f} s old, and stale_s is {config.stale_s:g}")
        if before is not None and frame.monotonic_ns <= before.monotonic_ns:
            back_ms = (before.monotonic_ns - frame.monotonic_ns) / 1e6
            return FrameFault("stale", f"the picture's time lies {back_ms:.1f} ms before the last one's")
        if config.frozen_frames and self._same >= config.frozen_frames:
            return FrameFault("frozen", f"{self._same + 1} pictures in a row are the same, bit by bit")
        return None

    def _light(self, frame: Frame) -> FrameFault | None:
        config = self._config
        if not (config.most_dark_share or config.most_glare_share or config.most_blur_px):
            return None
        dark_share, glare_share = _empty_shares(frame.image)
        for name, what, value, most in (
            ("black", "is black", dark_share, config.most_dark_share),
            ("saturated", "is white", glare_share, config.most_glare_share),
        ):
            if most and value > most:
                why = f"{value:.5g} of the picture {what}; at most {most:g} may be"
                return FrameFault("black" if name == "black" else "saturated", why)
        seen = picture_quality(frame.image) if config.most_blur_px else None
        if seen is not None and seen.blur_px is not None and seen.blur_px > config.most_blur_px:
            why = f"the edges are {seen.blur_px:.2f} px wide, and most_blur_px is {config.most_blur_px:g}"
            return FrameFault("blurred", why)
        return None

    def _place(self, frame: Frame) -> FrameFault | None:
        most = self._config.most_moved_px
        reference = self._reference
        if reference is None and frame.template is not None and most:
            reference = _Reference(frame.template)
        if not most or reference is None:
            return None
        try:
            place = reference.place_of(frame.image)
        except PictureError as error:
            return FrameFault("moved", str(error))
        if place.likeness < self._config.least_likeness:
            why = (
                f"the picture does not show what the reference shows: likeness {place.likeness:.2f}, and "
                f"least_likeness is {self._config.least_likeness:g}"
            )
            return FrameFault("moved", why)
        if place.shift_px > most:
            why = (
                f"the view lies {place.right_px:+.1f} px right and {place.down_px:+.1f} px down of the "
                f"reference, and most_moved_px is {most:g}"
            )
            return FrameFault("moved", why)
        return None


class _Reference:
    """A picture that others are laid over, its edges taken once."""

    def __init__(self, picture: Picture) -> None:
        self._shape = picture.shape[:2]
        self._scale = max(1.0, max(self._shape) / WORKING_PX)
        self._edges = _edges(picture, self._scale)
        self._window = cv2.createHanningWindow(self._edges.shape[::-1], cv2.CV_32F)

    @classmethod
    def of_file(cls, path: Path) -> _Reference:
        return cls(read_picture(path))

    def place_of(self, picture: Picture) -> Place:
        """Where `picture` lies; PictureError when its size is another."""
        if picture.shape[:2] != self._shape:
            raise PictureError(
                f"the picture is {picture.shape[1]} x {picture.shape[0]} pixels and the reference "
                f"{self._shape[1]} x {self._shape[0]}; take both with one camera"
            )
        edges = _edges(picture, self._scale)
        (right, down), _ = cv2.phaseCorrelate(self._edges, edges, self._window)
        back = np.array([[1, 0, -right], [0, 1, -down]], np.float32)
        laid = cv2.warpAffine(edges, back, edges.shape[::-1], borderMode=cv2.BORDER_REFLECT)
        height, width = edges.shape
        y, x = min(int(abs(down)) + 1, height // 3), min(int(abs(right)) + 1, width // 3)
        inner = (slice(y, height - y), slice(x, width - x))
        likeness = _correlation(self._edges[inner], np.asarray(laid, np.float32)[inner])
        return Place(right * self._scale, down * self._scale, likeness)


def place_beside(reference: Picture, picture: Picture) -> Place:
    """How `picture` lies beside `reference`, both uint8 of one size; PictureError when they are not."""
    return _Reference(reference).place_of(picture)


def _edges(picture: Picture, scale: float) -> FloatArray:
    """Strength of the edges of the picture made smaller, [h, w] float32: light does not move them."""
    grey = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    size = max(round(grey.shape[1] / scale), 8), max(round(grey.shape[0] / scale), 8)
    small = cv2.GaussianBlur(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), (0, 0), 1.5)
    across, along = (cv2.Sobel(small, cv2.CV_32F, dx, 1 - dx) for dx in (1, 0))
    return np.asarray(cv2.magnitude(across, along), np.float32)


def _correlation(first: FloatArray, second: FloatArray) -> float:
    """Of two pictures of one size, -1 to 1; 0 where one of them is flat."""
    first, second = first - first.mean(), second - second.mean()
    norm = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float((first * second).sum() / norm) if norm > 1e-6 else 0.0


def _empty_shares(image: Picture) -> tuple[float, float]:
    """The shares of the picture in which everything is black, and white, once noise is averaged away.

    A scan of a nearly empty board is white but for a thousandth; a covered lens has not one lighter spot.
    """
    height, width = image.shape[:2]
    factor = max(1.0, max(height, width) / _EMPTY_PX)
    size = max(round(width / factor), 1), max(round(height / factor), 1)
    calm = cv2.blur(cv2.resize(image, size, interpolation=cv2.INTER_AREA), (3, 3))
    channels = calm.reshape(size[1], size[0], -1)
    dark, white = channels.max(axis=2) <= _EMPTY_DARK, channels.min(axis=2) >= _EMPTY_WHITE
    return float(dark.mean()), float(white.mean())


def _is_same(before: Picture, now: Picture) -> bool:
    """Whether two pictures hold the same bytes; a live sensor's noise answers soon."""
    if before.shape != now.shape:
        return False
    first, second = before.reshape(-1), now.reshape(-1)
    return np.array_equal(first[::_SPARSE], second[::_SPARSE]) and np.array_equal(first, second)
