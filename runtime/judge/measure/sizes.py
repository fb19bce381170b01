"""Length, width and area of a segmented defect to a fraction of a pixel, and what each is uncertain by."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from .contour import Outline, outline_of_level, smallest_rectangle
from .edges import PIXEL_VARIANCE, Edge, edge_of_segment
from .segment import Segment, plateau_of
from .signal import Signal
from .window import Field

Parts = dict[str, float]


@dataclass(frozen=True)
class Sizes:
    """Sizes in the window's pixels with the parts of their standard uncertainty by name (k = 1).

    `corners_xy` [4, 2] of the smallest rectangle of the corrected length and width; `points_xy` of the
    outline as seen.
    """

    length: float
    width: float
    area: float
    perimeter: float
    degrees: float
    length_parts: Parts
    width_parts: Parts
    area_parts: Parts
    points_xy: npt.NDArray[np.float64]
    corners_xy: npt.NDArray[np.float64]
    edge: Edge


def sizes_of_segment(segment: Segment, signal: Signal) -> Sizes | None:
    """Measure twice: the outline in the picture, and the outline of its own silhouette blurred alike.

    What the blur does to the silhouette (ends and corners pulled in, thin lines swollen) it did to the
    defect: the difference is taken off. None when there is no outline.
    """
    seen = outline_of_level(segment.own, segment.level)
    if seen is None or seen.area_px <= 0:
        return None
    length, width, degrees, corners = smallest_rectangle(seen.points_xy)
    edge = edge_of_segment(segment, signal, seen)
    silhouette = _silhouette(segment, edge)
    flat = outline_of_level(silhouette, 0.5)
    again = None if flat is None else _seen_again(silhouette, edge)
    change = np.zeros(4)
    if flat is not None and again is not None:
        before, after = _extents(flat), _extents(again)
        # Corrected = silhouette + (seen - seen again), as a change of what was seen.
        change = before - after
        limit = 2.0 * edge.blur_px + 1.0
        change[:2] = np.clip(change[:2], -limit, limit)
        change[2:] = np.clip(change[2:], -0.9 * seen.area_px, seen.area_px)
    corrected_length, corrected_width = length + float(change[0]), max(width + float(change[1]), 0.0)
    area = max(seen.area_px + float(change[2]), 0.0)
    if corrected_length < corrected_width:
        corrected_length, corrected_width = corrected_width, corrected_length
    parts = _parts(segment, signal, edge, seen, (length, width), change)
    return Sizes(
        corrected_length,
        corrected_width,
        area,
        max(seen.perimeter_px + float(change[3]), 1e-6),
        degrees,
        *parts,
        seen.points_xy,
        _resized(corners, corrected_length, corrected_width, degrees),
        edge,
    )


def _silhouette(segment: Segment, edge: Edge) -> Field:
    """How much of each pixel the defect covers, 0 to 1: by the distance to its outline moved by the inset."""
    own = segment.own
    across = cv2.Sobel(own, cv2.CV_32F, 1, 0, ksize=1, scale=0.5)
    down = cv2.Sobel(own, cv2.CV_32F, 0, 1, ksize=1, scale=0.5)
    steep = np.maximum(cv2.magnitude(across, down), np.float32(0.25 * edge.slope * segment.plateau))
    distance = (own - np.float32(segment.level)) / steep
    return np.clip(distance + np.float32(0.5 - edge.inset_px), 0.0, 1.0).astype(np.float32)


def _seen_again(silhouette: Field, edge: Edge) -> Outline | None:
    """The outline at half height of the silhouette under the blur of the picture."""
    sigma = math.sqrt(max(edge.blur_px**2 - PIXEL_VARIANCE, 0.04))
    blurred = np.asarray(cv2.GaussianBlur(silhouette, (0, 0), sigma), np.float32)
    mask = blurred > 0.5 * float(blurred.max())
    plateau = plateau_of(blurred, mask)
    return outline_of_level(blurred, 0.5 * plateau)


def _extents(outline: Outline) -> npt.NDArray[np.float64]:
    length, width, _, _ = smallest_rectangle(outline.points_xy)
    return np.array([length, width, outline.area_px, outline.perimeter_px])


def _parts(
    segment: Segment,
    signal: Signal,
    edge: Edge,
    seen: Outline,
    sides: tuple[float, float],
    change: npt.NDArray[np.float64],
) -> tuple[Parts, Parts, Parts]:
    """Parts of the standard uncertainty of length, width (px), area (px2); formulas: docs/measure.md."""
    level_noise = signal.noise / (segment.plateau * max(edge.slope, 1e-3))
    lower = outline_of_level(segment.own, 0.7 * segment.level)
    upper = outline_of_level(segment.own, min(1.3 * segment.level, 0.85 * segment.plateau))
    spread = np.zeros(3)
    if lower is not None and upper is not None:
        spread = np.abs(_extents(lower) - _extents(upper))[:3]
    sharp = 0.77 * edge.blur_px  # what a straight edge moves, both sides together, between the two levels
    common = {"pixel": 0.1 * math.sqrt(2), "noise": level_noise * math.sqrt(2)}
    left = min(segment.left_out, 1.0)
    length = {
        **common,
        "blur": 0.3 * abs(change[0]),
        "level": 0.25 * max(spread[0] - sharp, 0.0),
        "pieces": left * 0.2 * sides[0],
    }
    width = {
        **common,
        "blur": 0.3 * abs(change[1]),
        "level": 0.25 * max(spread[1] - sharp, 0.0),
        "pieces": left * 0.2 * sides[1],
    }
    rim = seen.perimeter_px
    area = {
        "pixel": 0.05 * rim,
        "noise": level_noise * math.sqrt(rim),
        "blur": 0.3 * abs(change[2]),
        "level": 0.25 * max(spread[2] - 0.5 * sharp * rim, 0.0),
        "pieces": left * 0.5 * seen.area_px,
    }
    return length, width, area


def _resized(
    corners: npt.NDArray[np.float64], length: float, width: float, degrees: float
) -> npt.NDArray[np.float64]:
    """Corners [4, 2] of a rectangle about the same middle with the corrected sides."""
    middle, turn = corners.mean(axis=0), math.radians(degrees)
    along = np.array([math.cos(turn), math.sin(turn)]) * length / 2
    aside = np.array([-math.sin(turn), math.cos(turn)]) * width / 2
    return np.stack(
        [middle - along - aside, middle + along - aside, middle + along + aside, middle - along + aside]
    )
