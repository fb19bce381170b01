"""Copper shapes and the sheet they are placed on: discs, strokes and polygons that keep a clearance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Point = tuple[float, float]
COPPER = 255  # value of a copper pixel in a layout; background is 0
_SHIFT = 3  # OpenCV draws with 1/8 px


@dataclass(frozen=True)
class Shape:
    """A polygon (`filled`), or an open stroke, or (one point) a disc; `width_px` is the pen, 0 for none."""

    points: tuple[Point, ...]
    width_px: float
    filled: bool = False


def disc(centre: Point, radius: float) -> Shape:
    """A filled circle."""
    return Shape((centre,), 2.0 * radius)


def stroke(points: Sequence[Point], width_px: float) -> Shape:
    """A line with round ends through `points`."""
    return Shape(tuple(points), width_px)


def polygon(points: Sequence[Point], rounding_px: float = 0.0) -> Shape:
    """A filled polygon whose corners are rounded outwards by `rounding_px`."""
    return Shape(tuple(points), 2.0 * rounding_px, filled=True)


def box(centre: Point, width: float, height: float, rounding_px: float = 0.0, angle: float = 0.0) -> Shape:
    """A rectangle of the outer size `width` x `height`, turned by `angle` radians."""
    half_w, half_h = max(width / 2 - rounding_px, 0.5), max(height / 2 - rounding_px, 0.5)
    cos, sin = math.cos(angle), math.sin(angle)
    corners = ((-half_w, -half_h), (half_w, -half_h), (half_w, half_h), (-half_w, half_h))
    return polygon([(centre[0] + x * cos - y * sin, centre[1] + x * sin + y * cos) for x, y in corners],
                   rounding_px)


def draw(canvas: npt.NDArray[np.uint8], shape: Shape, grow_px: float = 0.0, value: int = COPPER) -> None:
    """Paint `shape`, grown by `grow_px` on every side, into `canvas` uint8 [H, W], in place."""
    scale = 1 << _SHIFT
    points = np.round(np.asarray(shape.points, dtype=np.float64) * scale).astype(np.int32)
    pen = shape.width_px + 2.0 * grow_px
    if len(shape.points) == 1:
        centre = (int(points[0, 0]), int(points[0, 1]))
        cv2.circle(canvas, centre, max(round(pen / 2 * scale), 4), (value,), -1, cv2.LINE_8, _SHIFT)
        return
    if shape.filled:
        cv2.fillPoly(canvas, [points], (value,), cv2.LINE_8, _SHIFT)
    thickness = round(pen)
    if thickness >= 1:
        cv2.polylines(canvas, [points], shape.filled, (value,), thickness, cv2.LINE_8, _SHIFT)


class Sheet:
    """A board's copper while it is laid out; a shape is placed only where it keeps its clearance."""

    def __init__(self, size_px: int, rng: np.random.Generator) -> None:
        self.size_px = size_px
        self.rng = rng
        self.copper: npt.NDArray[np.uint8] = np.zeros((size_px, size_px), np.uint8)
        self._trial: npt.NDArray[np.uint8] = np.zeros((size_px, size_px), np.uint8)

    def place(self, shapes: Sequence[Shape], gap_px: float, joined: Sequence[Shape] = ()) -> bool:
        """Paint all `shapes` if none comes nearer than `gap_px` to copper other than `joined`; else none."""
        trial = self._trial
        trial[:] = 0
        for shape in shapes:
            draw(trial, shape, gap_px)
        for shape in joined:
            draw(trial, shape, gap_px + 1.0, 0)
        if cv2.countNonZero(cv2.bitwise_and(trial, self.copper)):
            return False
        self.paint(shapes)
        return True

    def paint(self, shapes: Sequence[Shape]) -> None:
        """Add copper without asking for clearance."""
        for shape in shapes:
            draw(self.copper, shape)

    def cut(self, shapes: Sequence[Shape]) -> None:
        """Take copper away: holes and slots."""
        for shape in shapes:
            draw(self.copper, shape, 0.0, 0)

    def uniform(self, low: float, high: float) -> float:
        """A number between `low` and `high`."""
        return float(self.rng.uniform(low, high))

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return bool(self.rng.random() < probability)

    def count(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        return int(self.rng.integers(low, high + 1))

    def point(self, beyond_px: float = 0.0) -> Point:
        """A point of the picture, or up to `beyond_px` outside it."""
        low, high = -beyond_px, self.size_px + beyond_px
        return self.uniform(low, high), self.uniform(low, high)


def octilinear_walk(sheet: Sheet, start: Point, heading: int, segments: int,
                    length_px: tuple[float, float], square: bool = False) -> list[Point]:
    """A path in steps of 45 degrees (90 when `square`), as traces are routed; `heading` counts eighths."""
    points = [start]
    for _ in range(segments):
        angle = heading * math.pi / 4
        low, high = length_px
        length = low * (high / low) ** sheet.uniform(0.0, 1.0)
        x, y = points[-1]
        points.append((x + length * math.cos(angle), y + length * math.sin(angle)))
        turn = 2 if square else (1 if sheet.chance(0.85) else 2)
        heading += turn if sheet.chance(0.5) else -turn
    return points


def offset_path(points: Sequence[Point], distance: float) -> list[Point]:
    """The path `distance` to the side of `points`, mitred, so that parallel traces keep their pitch."""
    path = np.asarray(points, dtype=np.float64)
    along = np.diff(path, axis=0)
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    normal = np.stack([-along[:, 1], along[:, 0]], axis=1)
    before = np.concatenate([normal[:1], normal])
    after = np.concatenate([normal, normal[-1:]])
    mitre = (before + after) / np.maximum(1.0 + (before * after).sum(axis=1, keepdims=True), 0.3)
    moved = path + distance * mitre
    return [(float(x), float(y)) for x, y in moved]


def times(sheet: Sheet, low: float, high: float) -> int:
    """How often to try what occurs `low`..`high` times on a 640 px board; smaller boards get less."""
    area = (sheet.size_px / 640.0) ** 2
    return math.ceil(sheet.uniform(low, high) * area)
