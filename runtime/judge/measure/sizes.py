"""Length, width and area of a segmented defect to a fraction of a pixel, and what each is uncertain by."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from .budget import Correction, Parts, extents_of_outline, parts_of_bowl, parts_of_segment
from .contour import Outline, outline_of_level, smallest_rectangle
from .edges import PIXEL_VARIANCE, Edge, distance_to_outline, edge_of_segment, steepest_px
from .forms.bowl import Bowl
from .segment import LEVEL, Segment, own_field, plateau_of, share_of_height
from .signal import Signal
from .window import Field

HOLE_TYPES = ("pit",)
"""Types whose rim catches the light: their outline is where the edge is steepest, not half of the height."""


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


def sizes_of_segment(
    segment: Segment, signal: Signal, *, is_shade: bool = False, defect_type: str | None = None
) -> Sizes | None:
    """Measure twice: the outline in the picture, and the outline of its own silhouette blurred alike.

    What the blur does to the silhouette (ends and corners pulled in, thin lines swollen) it did to the
    defect: the difference is taken off. `is_shade`: what is seen is the shade of a bowl, not the bowl's rim.
    None when there is no outline.
    """
    seen = outline_of_level(segment.own, LEVEL)
    if seen is None or seen.area_px <= 0:
        return None
    length, width, degrees, corners = smallest_rectangle(seen.points_xy)
    edge = edge_of_segment(segment, signal, seen, length)
    correction, rim = _correction(segment, signal, edge, seen, defect_type in HOLE_TYPES)
    change, overshoot = correction.change, correction.overshoot_px
    corrected_length = max(length + float(change[0] - overshoot[0]) + 2 * rim, 0.0)
    corrected_width = max(width + float(change[1] - overshoot[1]) + 2 * rim, 0.0)
    area = max(seen.area_px + float(change[2]) + rim * seen.perimeter_px, 0.0)
    if corrected_length < corrected_width:
        corrected_length, corrected_width = corrected_width, corrected_length
    parts = parts_of_segment(
        segment, signal, edge, seen, correction, is_shade=is_shade, defect_type=defect_type
    )
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


def _correction(
    segment: Segment, signal: Signal, edge: Edge, seen: Outline, is_hole: bool
) -> tuple[Correction, float]:
    """What blur and noise did to the outline, and how far outside it a hole's steepest edge lies, px."""
    length, width, degrees, _ = smallest_rectangle(seen.points_xy)
    change, overshoot, swing = np.zeros(4), np.zeros(2), np.zeros(2)
    silhouette = _silhouette(segment, edge)
    share_again, rim = _share_again(silhouette, segment, edge), 0.0
    again = None
    if share_again is not None:
        again = outline_of_level(own_field(share_again, segment.mask, LEVEL), LEVEL)
    if share_again is None or again is None:
        return Correction((length, width), change, swing, overshoot), rim
    if is_hole:
        rim = steepest_px(segment.share, segment.mask) - steepest_px(share_again, segment.mask)
    inner = 2 * edge.inset_px
    before = np.array([length - inner, width - inner, float(silhouette.sum()), seen.perimeter_px])
    change = before - extents_of_outline(again)
    level_noise = min(segment.noise / max(edge.slope, 1e-3), 2.0)
    overshoot, swing = _overshoot(again, degrees, level_noise, signal.smoothing_px)
    # The silhouette has the outline's noise, smoothed when seen again: that part is not the blur's.
    blurred_px = math.hypot(signal.smoothing_px, edge.blur_px)
    calmed = level_noise * math.sqrt(signal.smoothing_px / blurred_px)
    left, _ = _overshoot(again, degrees, calmed, blurred_px)
    change[:2] -= overshoot - left
    # Of a line narrower than its blur nothing can be drawn again; its ends stay where half its height is.
    drawn = 1.0 - min(edge.inset_px / (1.1774 * edge.blur_px), 1.0)
    unseen = np.array([0.0, -inner, -edge.inset_px * seen.perimeter_px, 0.0])
    change = drawn * change + (1.0 - drawn) * unseen
    limit = 2.0 * edge.blur_px + 1.0
    change[:2] = np.clip(change[:2], -limit, limit)
    change[2:] = np.clip(change[2:], -0.9 * seen.area_px, seen.area_px)
    return Correction((length, width), change, swing, overshoot), rim


def sizes_of_bowl(bowl: Bowl) -> Sizes:
    """The sizes of a fitted bowl: those of its ellipse."""
    first, second = bowl.axes_px
    # The shade rises from a tenth to nine tenths over this share of the half axis.
    rise = 0.18 * second
    edge = Edge(rise, rise, 2 * second, 0.0, 0.4 / rise, 0.5 * rise, 0.0)
    turn = math.radians(bowl.degrees)
    along = np.array([math.cos(turn), math.sin(turn)]) * first
    aside = np.array([-math.sin(turn), math.cos(turn)]) * second
    corners = np.array([-along - aside, along - aside, along + aside, aside - along]) + bowl.centre_xy
    perimeter = math.pi * (3 * (first + second) - math.sqrt((3 * first + second) * (first + 3 * second)))
    return Sizes(
        2 * first,
        2 * second,
        math.pi * first * second,
        perimeter,
        bowl.degrees,
        *parts_of_bowl(bowl, perimeter),
        bowl.outline_xy,
        corners,
        edge,
    )


def _silhouette(segment: Segment, edge: Edge) -> Field:
    """How much of each pixel the defect covers, 0 to 1: by the distance to its outline moved by the inset."""
    inside = distance_to_outline(segment.own, edge) + np.float32(0.5 - edge.inset_px)
    return np.asarray(np.clip(inside, 0.0, 1.0), np.float32)


def _share_again(silhouette: Field, segment: Segment, edge: Edge) -> Field | None:
    """The share of its height, place by place, of the silhouette under the blur of the picture."""
    sigma = math.sqrt(max(edge.blur_px**2 - PIXEL_VARIANCE, 0.04))
    blurred = np.asarray(cv2.GaussianBlur(silhouette, (0, 0), sigma), np.float32)
    height = plateau_of(blurred, segment.mask)
    if height <= 0:
        return None
    return share_of_height(blurred, segment.mask, height, segment.gap_px)


def _overshoot(
    outline: Outline, degrees: float, noise_px: float, smoothing_px: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """How much farther than it is a noisy outline reaches, along and across, and the scatter of that; [2] px.

    The mean of the largest of several: every stretch of the outline of the noise's own length is a draw with
    a standard deviation of `noise_px` about its place. Both ends together.
    """
    turn = math.radians(degrees)
    axes = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    places = outline.points_xy @ axes.T  # [n, 2] along, across
    noise = max(noise_px, 1e-3)
    weight = outline.perimeter_px / len(places) / max(2.5 * smoothing_px, 1.0)
    reach = np.linspace(-3.0, 4.5, 21)
    mean, variance = np.zeros(2), np.zeros(2)
    for axis in range(2):
        for sign in (1, -1):
            below = (sign * places[:, axis] - (sign * places[:, axis]).max()) / noise
            near = below[below > -5.0]
            draws = max(weight, 1.0 / max(int(np.count_nonzero(near > -1.0)), 1))
            z = reach[:, None] - near
            # log of the normal distribution by a logistic form, good to 0.0002 (Page 1977)
            share = np.exp(-draws * np.log1p(np.exp(-1.5976 * z - 0.07056 * z**3)).sum(axis=1))
            chance = np.diff(share)
            middle = (reach[1:] + reach[:-1]) / 2
            expected = float(chance @ middle) / max(float(chance.sum()), 1e-9)
            mean[axis] += expected * noise
            variance[axis] += max(float(chance @ (middle - expected) ** 2), 0.02) * noise**2
    return mean, np.sqrt(variance)


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
