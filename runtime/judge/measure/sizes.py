"""Length, width and area of a segmented defect to a fraction of a pixel, and what each is uncertain by."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from .contour import Outline, outline_of_level, rectangle_spread, smallest_rectangle
from .edges import PIXEL_VARIANCE, Edge, distance_to_outline, edge_of_segment
from .segment import Segment, plateau_of
from .signal import Signal
from .window import Field

Parts = dict[str, float]
_PIXEL = 0.08  # px an end: interpolation between pixel centres
_LEVEL = 0.13  # of the outline's way between 35 % and 65 % of the plateau: the level is wrong by 4 % of it
_BLUR = 0.4  # of the correction for blur: the blur is not Gaussian, the defect's end not its silhouette's
_SOFTEST_LENS_PX = 2.2  # sigma of a lens's blur
_SHADE = 0.25  # of a side: the shade of a bowl reaches half its height at 0.6 to 0.9 of the way to the rim
_UNEVEN = 0.5  # of what surroundings that are not as modelled move an end


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


def sizes_of_segment(segment: Segment, signal: Signal, *, is_shade: bool = False) -> Sizes | None:
    """Measure twice: the outline in the picture, and the outline of its own silhouette blurred alike.

    What the blur does to the silhouette (ends and corners pulled in, thin lines swollen) it did to the
    defect: the difference is taken off. `is_shade`: what is seen is the shade of a bowl, not the bowl's rim.
    None when there is no outline.
    """
    seen = outline_of_level(segment.own, segment.level)
    if seen is None or seen.area_px <= 0:
        return None
    length, width, degrees, corners = smallest_rectangle(seen.points_xy)
    edge = edge_of_segment(segment, signal, seen, length)
    silhouette = _silhouette(segment, edge)
    again = _seen_again(silhouette, edge)
    change, overshoot, swing = np.zeros(4), np.zeros(2), np.zeros(2)
    if again is not None:
        inner = 2 * edge.inset_px
        before = np.array([length - inner, width - inner, float(silhouette.sum()), seen.perimeter_px])
        change = before - _extents(again)
        level_noise = signal.noise / (segment.plateau * max(edge.slope, 1e-3))
        overshoot, swing = _overshoot(again, degrees, level_noise, signal.smoothing_px)
        # The silhouette has the outline's noise, smoothed when seen again: that part is not the blur's.
        calmed = math.sqrt(signal.smoothing_px / math.hypot(signal.smoothing_px, edge.blur_px))
        left, _ = _overshoot(
            again, degrees, level_noise * calmed, math.hypot(signal.smoothing_px, edge.blur_px)
        )
        change[:2] -= overshoot - left
        # Of a line narrower than its blur nothing can be drawn again; its ends stay where half its height is.
        drawn = 1.0 - min(edge.inset_px / (1.1774 * edge.blur_px), 1.0)
        unseen = np.array([0.0, -inner, -edge.inset_px * seen.perimeter_px, 0.0])
        change = drawn * change + (1.0 - drawn) * unseen
        limit = 2.0 * edge.blur_px + 1.0
        change[:2] = np.clip(change[:2], -limit, limit)
        change[2:] = np.clip(change[2:], -0.9 * seen.area_px, seen.area_px)
    corrected_length = max(length + float(change[0] - overshoot[0]), 0.0)
    corrected_width = max(width + float(change[1] - overshoot[1]), 0.0)
    area = max(seen.area_px + float(change[2]), 0.0)
    faint = _faint_extents(segment, edge, (length, width, seen.area_px))
    if corrected_length < corrected_width:
        corrected_length, corrected_width = corrected_width, corrected_length
    parts = _parts(segment, signal, edge, seen, (length, width), change, swing, overshoot, faint, is_shade)
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


def _faint_extents(
    segment: Segment, edge: Edge, seen: tuple[float, float, float]
) -> tuple[float, float, float]:
    """By how much length, width (px) and area (px2) grow when the defect's faint parts count, blur taken off.

    Whether they are the defect is not to be known: the truth lies anywhere between (JCGM 100, 4.3.7). A pixel
    of growth is the noise's.
    """
    outline = outline_of_level(segment.faint, segment.faint_level)
    if outline is None or segment.faint_level >= segment.level:
        return 0.0, 0.0, 0.0
    share = np.array([[segment.faint_level / (2 * segment.level)]], np.float32)
    out = max(-float(distance_to_outline(share, edge)[0, 0]), 0.0) + 0.5
    more = _extents(outline)[:3] - np.asarray(seen) - out * np.array([2.0, 2.0, outline.perimeter_px])
    return tuple(max(float(value), 0.0) for value in more)  # type: ignore[return-value]


def _silhouette(segment: Segment, edge: Edge) -> Field:
    """How much of each pixel the defect covers, 0 to 1: by the distance to its outline moved by the inset."""
    share = segment.own / np.float32(2 * segment.level)
    inside = distance_to_outline(share, edge) + np.float32(0.5 - edge.inset_px)
    return np.asarray(np.clip(inside, 0.0, 1.0), np.float32)


def _seen_again(silhouette: Field, edge: Edge) -> Outline | None:
    """The outline at half height of the silhouette under the blur of the picture."""
    sigma = math.sqrt(max(edge.blur_px**2 - PIXEL_VARIANCE, 0.04))
    blurred = np.asarray(cv2.GaussianBlur(silhouette, (0, 0), sigma), np.float32)
    mask = blurred > 0.5 * float(blurred.max())
    if not mask.any():
        return None
    plateau = plateau_of(blurred, mask)
    return outline_of_level(blurred, 0.5 * plateau)


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
    reach = np.linspace(-3.0, 4.5, 31)
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


def _extents(outline: Outline) -> npt.NDArray[np.float64]:
    length, width, _, _ = smallest_rectangle(outline.points_xy)
    return np.array([length, width, outline.area_px, outline.perimeter_px])


def _causes(
    segment: Segment, signal: Signal, edge: Edge
) -> tuple[float, float, float, float, float, npt.NDArray[np.float64]]:
    """What noise, surroundings, softness and template move an outline (px); the level: share and way."""
    level_noise = signal.noise / (segment.plateau * max(edge.slope, 1e-3))
    lower = outline_of_level(segment.own, 0.7 * segment.level)
    upper = outline_of_level(segment.own, min(1.3 * segment.level, 0.85 * segment.plateau))
    spread = np.zeros(3)
    if lower is not None and upper is not None:
        spread = np.abs(_extents(lower) - _extents(upper))[:3]
    level = _LEVEL * math.hypot(1.0, segment.patchiness / 0.04)
    # An edge softer than any lens: the defect fades, and where it ends is a matter of definition (D.3.4).
    soft = min(0.399 / max(edge.slope, 1e-3), edge.thickness_px / 2.355)
    soft = 0.67 * math.sqrt(max(soft**2 - signal.smoothing_px**2 - _SOFTEST_LENS_PX**2, 0.0))
    # Where the outline runs along the template's own, part and template are a pixel apart either way.
    joint = 3**-0.5 * min(segment.on_template / 0.2, 1.0)
    uneven_px = signal.unevenness / (segment.plateau * max(edge.slope, 1e-3))
    return level_noise, uneven_px, soft, joint, level, spread


def _parts(
    segment: Segment,
    signal: Signal,
    edge: Edge,
    seen: Outline,
    sides: tuple[float, float],
    change: npt.NDArray[np.float64],
    swing: npt.NDArray[np.float64],
    overshoot: npt.NDArray[np.float64],
    faint: tuple[float, float, float],
    is_shade: bool,
) -> tuple[Parts, Parts, Parts]:
    """Parts of the standard uncertainty of length, width (px), area (px2); formulas: docs/measure.md."""
    level_noise, uneven_px, soft, joint, level, spread = _causes(segment, signal, edge)
    tolerance = math.hypot(swing[0] / max(sides[0], 1.0), swing[1] / max(sides[1], 1.0)) + 0.01
    turned = rectangle_spread(seen.points_xy, tolerance)
    left, rim = min(segment.left_out, 1.0), seen.perimeter_px
    length, width = (
        {
            "pixel": _PIXEL * math.sqrt(2),
            "noise": math.hypot(float(swing[side]), 0.5 * float(overshoot[side])),
            "surroundings": _UNEVEN * uneven_px * math.sqrt(2),
            "blur": _BLUR * abs(float(change[side])),
            "level": level * float(spread[side]),
            "inset": (0.0, 2.0)[side] * edge.inset_uncertainty_px,
            "rectangle": turned[side] / math.sqrt(12),
            "pieces": left * 0.2 * sides[side],
            "soft": soft * math.sqrt(2),
            "shade": _SHADE * sides[side] * is_shade,
            "template": joint * math.sqrt(2),
            "faint": faint[side] / math.sqrt(3),
            "box": segment.short_of_box[side] / math.sqrt(3),
        }
        for side in (0, 1)
    )
    area = {
        "pixel": 0.4 * _PIXEL * rim,
        "noise": level_noise * math.sqrt(rim),
        "surroundings": 0.3 * _UNEVEN * uneven_px * rim,
        "blur": _BLUR * abs(float(change[2])),
        "level": 0.42 * level * float(spread[2]),
        "inset": rim * edge.inset_uncertainty_px,
        "pieces": left * 0.5 * seen.area_px,
        "soft": 0.5 * soft * rim,
        "shade": 2 * _SHADE * seen.area_px * is_shade,
        "template": 0.5 * joint * segment.on_template * rim,
        "faint": faint[2] / math.sqrt(3),
        "box": segment.short_of_box[0] / math.sqrt(3) * min(edge.thickness_px, sides[1]),
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
