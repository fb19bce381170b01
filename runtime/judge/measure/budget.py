"""The uncertainty budget of length, width and area: every part a standard uncertainty (k = 1), in pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .contour import Outline, outline_of_level, rectangle_spread, smallest_rectangle
from .edges import Edge, distance_to_outline
from .forms.bowl import Bowl
from .forms.lines import LINE_TYPES
from .segment import LEVEL, Segment
from .signal import Signal

Parts = dict[str, float]

FILM_TYPES = ("stain",)
"""Types that may be thicker towards their soft edge, or not: the picture does not tell."""

_OF_TYPE_PX = {  # px of a size: a lip, a bloom, a ragged end
    "pit": 0.5,
    "rust": 0.45,
    "scratch": 0.75,
    "crack": 1.1,
}
_ASTRAY_PX = 8.0  # for a noise as large as the line's height, beyond a tenth of it
_FILM = 0.6  # of the softness of the edge

_JOINT = 1.2  # px an end: where part and template part ways, both have ragged edges of their own
_PIXEL = 0.08  # px an end: interpolation between pixel centres
_LEVEL = 0.13  # of the outline's way between 35 % and 65 % of the plateau: the level is wrong by 4 % of it
_BLUR = 0.6  # of the correction for blur: the blur is not Gaussian, the defect's end not its silhouette's
_SOFTEST_LENS_PX = 2.2  # sigma of a lens's blur
_SHADE = 0.25  # of a side: the shade of a bowl reaches half its height at 0.6 to 0.9 of the way to the rim
_BOWL = 0.025  # of a side: a dent is no bowl of our shape
_UNEVEN = 0.5  # of what surroundings that are not as modelled move an end


@dataclass(frozen=True)
class Correction:
    """What was taken off: `seen_px` are length and width as seen; `change` [4] for length, width, area and
    perimeter under blur; `overshoot_px` [2] for the reach of a noisy outline, `swing_px` [2] its scatter.
    """

    seen_px: tuple[float, float]
    change: npt.NDArray[np.float64]
    swing_px: npt.NDArray[np.float64]
    overshoot_px: npt.NDArray[np.float64]


def parts_of_bowl(bowl: Bowl, perimeter: float) -> tuple[Parts, Parts, Parts]:
    """Parts of length, width (px) and area (px2) of a fitted bowl."""
    length, width = (
        {"fit": 2 * u, "shape": _BOWL * 2 * side, "pixel": _PIXEL * math.sqrt(2)}
        for side, u in zip(bowl.axes_px, bowl.u_axes_px, strict=True)
    )
    area = math.pi * bowl.axes_px[0] * bowl.axes_px[1]
    of_area = {"fit": bowl.u_area_px2, "shape": 2 * _BOWL * area, "pixel": 0.4 * _PIXEL * perimeter}
    return length, width, of_area


def parts_of_segment(
    segment: Segment,
    signal: Signal,
    edge: Edge,
    seen: Outline,
    correction: Correction,
    *,
    is_shade: bool,
    defect_type: str | None,
) -> tuple[Parts, Parts, Parts]:
    """Parts of the standard uncertainty of length, width (px), area (px2); formulas: docs/measure.md."""
    sides, change = correction.seen_px, correction.change
    swing, overshoot = correction.swing_px, correction.overshoot_px
    faint = _faint_extents(segment, edge, (*sides, seen.area_px))
    level_noise, uneven_px, soft, joint, level, spread = _causes(segment, signal, edge)
    tolerance = math.hypot(swing[0] / max(sides[0], 1.0), swing[1] / max(sides[1], 1.0)) + 0.01
    turned = rectangle_spread(seen.points_xy, tolerance)
    of_type = _type_px(defect_type, segment)
    left, rim = min(segment.left_out, 1.0), seen.perimeter_px
    length, width = (
        {
            "pixel": _PIXEL * math.sqrt(2),
            "noise": math.hypot(float(swing[side]), 0.5 * float(overshoot[side])),
            "surroundings": _UNEVEN * uneven_px * math.sqrt(2),
            "blur": _BLUR * abs(float(change[side])),
            "level": level * float(spread[side]),
            "inset": (0.0, 2.5)[side] * edge.inset_uncertainty_px,
            "rectangle": turned[side] / math.sqrt(12),
            "pieces": left * 0.2 * sides[side],
            "soft": soft * math.sqrt(2),
            "shade": _SHADE * sides[side] * is_shade,
            "template": joint * math.sqrt(2),
            "faint": faint[side] / math.sqrt(3),
            "box": segment.short_of_box[side] / math.sqrt(3),
            "type": of_type,
            "ends": (segment.ends_px, 0.0)[side],
        }
        for side in (0, 1)
    )
    area = {
        "pixel": 0.4 * _PIXEL * rim,
        "noise": level_noise * math.sqrt(rim),
        "surroundings": 0.3 * _UNEVEN * uneven_px * rim,
        "blur": _BLUR * abs(float(change[2])),
        "level": 0.42 * level * float(spread[2]),
        "inset": 1.25 * rim * edge.inset_uncertainty_px,
        "pieces": left * 0.5 * seen.area_px,
        "soft": 0.5 * soft * rim,
        "shade": 2 * _SHADE * seen.area_px * is_shade,
        "template": 0.5 * joint * segment.on_template * rim,
        "faint": faint[2] / math.sqrt(3),
        "box": segment.short_of_box[0] / math.sqrt(3) * min(edge.thickness_px, sides[1]),
        "type": 0.65 * of_type * rim,
        "ends": segment.ends_px * edge.thickness_px,
    }
    return length, width, area


def _type_px(defect_type: str | None, segment: Segment) -> float:
    """What a type leaves open about where it ends, px: found on simulated metal, its own kind of edge."""
    if defect_type in FILM_TYPES:
        return _FILM * segment.softness_px
    open_px = _OF_TYPE_PX.get(defect_type or "", 0.0)
    if defect_type in LINE_TYPES:  # a line in a texture as strong as itself may have been followed astray
        open_px += _ASTRAY_PX * max(segment.noise - 0.1, 0.0)
    return open_px


def _causes(
    segment: Segment, signal: Signal, edge: Edge
) -> tuple[float, float, float, float, float, npt.NDArray[np.float64]]:
    """What noise, surroundings, softness and template move an outline (px); the level: share and way."""
    level_noise = min(segment.noise / max(edge.slope, 1e-3), 2.0)
    lower = outline_of_level(segment.own, 0.7 * LEVEL)
    upper = outline_of_level(segment.own, 1.3 * LEVEL)
    spread = np.zeros(3)
    if lower is not None and upper is not None:
        spread = np.abs(extents_of_outline(lower) - extents_of_outline(upper))[:3]
    level = _LEVEL * math.hypot(1.0, segment.patchiness / 0.04)
    # An edge softer than any lens: the defect fades, and where it ends is a matter of definition (D.3.4).
    soft = min(0.399 / max(edge.slope, 1e-3), edge.thickness_px / 2.355)
    soft = 0.67 * math.sqrt(max(soft**2 - signal.smoothing_px**2 - _SOFTEST_LENS_PX**2, 0.0))
    # Where the outline runs along the template's own, part and template are a pixel apart either way.
    joint = _JOINT * min(segment.on_template / 0.2, 1.0)
    uneven_px = segment.unevenness / max(edge.slope, 1e-3)
    return level_noise, uneven_px, soft, joint, level, spread


def _faint_extents(
    segment: Segment, edge: Edge, seen: tuple[float, float, float]
) -> tuple[float, float, float]:
    """By how much length, width (px) and area (px2) grow when the defect's faint parts count, blur taken off.

    Whether they are the defect is not to be known: the truth lies anywhere between (JCGM 100, 4.3.7). A pixel
    of growth is the noise's.
    """
    outline = outline_of_level(segment.faint, segment.faint_level)
    if outline is None or segment.faint_level >= LEVEL:
        return 0.0, 0.0, 0.0
    share = np.array([[segment.faint_level]], np.float32)
    out = max(-float(distance_to_outline(share, edge)[0, 0]), 0.0) + 0.5
    more = (
        extents_of_outline(outline)[:3] - np.asarray(seen) - out * np.array([2.0, 2.0, outline.perimeter_px])
    )
    return tuple(max(float(value), 0.0) for value in more)  # type: ignore[return-value]


def extents_of_outline(outline: Outline) -> npt.NDArray[np.float64]:
    """Length, width, area and perimeter, [4]."""
    length, width, _, _ = smallest_rectangle(outline.points_xy)
    return np.array([length, width, outline.area_px, outline.perimeter_px])
