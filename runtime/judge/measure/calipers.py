"""Measure a defect inside its box: sizes, shape, colour, edge and distance, each with its uncertainty.

The model finds and names, the calipers measure: classical image processing, nothing learned. docs/measure.md
has the definitions, the uncertainty budget and where it breaks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..scale import PixelScale
from .appearance import appearance_of_mask
from .budget import Parts
from .forms.bowl import bowl_in_window
from .forms.lines import LINE_TYPES, line_mask, line_signal
from .measurement import NO_DEPTH, Box, Measure, Measurement, nothing_measured
from .segment import FAINT, drawn_edges, mask_of_signal, segment_of_mask
from .signal import Signal, signal_of_window, signal_towards_mask, smoothed_further, unseen_signal
from .sizes import Sizes, sizes_of_bowl, sizes_of_segment
from .window import Field, Mask, Window, template_in_window, window_of_box

SHADED_TYPES = ("dent",)
"""Types that are seen by their shade: same pigment, no edge at the rim."""

CUT = "cut_at_picture_edge"
"""Note: the defect goes on beyond the picture; length, width and area are lower bounds."""

BEYOND_PLANE = "beyond_the_calibrated_plane"
"""Why a size stays in pixels: the scale's perspective has its horizon in the picture, this side of it."""


def measured_defects(
    image: npt.NDArray[np.uint8],
    boxes: Sequence[Box],
    *,
    scale: PixelScale | None,
    template: npt.NDArray[np.uint8] | None = None,
    box_margin_px: float = 0.0,
    defect_types: Sequence[str | None] | None = None,
) -> list[Measurement]:
    """`measure_defect` of every box of one picture, each with the others as its neighbours."""
    types = list(defect_types) if defect_types is not None else [None] * len(boxes)
    return [
        measure_defect(
            image,
            box,
            scale=scale,
            template=template,
            box_margin_px=box_margin_px,
            others=[*boxes[:index], *boxes[index + 1 :]],
            defect_type=types[index],
        )
        for index, box in enumerate(boxes)
    ]


def measure_defect(
    image: npt.NDArray[np.uint8],
    box_xyxy: Box,
    *,
    scale: PixelScale | None,
    template: npt.NDArray[np.uint8] | None = None,
    box_margin_px: float = 0.0,
    others: Sequence[Box] = (),
    defect_type: str | None = None,
) -> Measurement:
    """What can be measured in one box of a picture uint8 [H, W] or [H, W, 3] (BGR).

    `box_xyxy` in picture pixels, x2 and y2 exclusive. `template`: the same part without defects, of the same
    size; it is laid onto the part inside the box's surroundings. `box_margin_px`: how much room the detector
    leaves around a defect. `others`: boxes of the other defects, kept out of the surroundings and measured
    to. An ordinary picture raises nothing: what cannot be measured is in `nulls` with its reason.
    """
    window = window_of_box(
        image, box_xyxy, others, box_margin_px=box_margin_px, has_template=template is not None
    )
    if window is None:
        return nothing_measured("box_outside_picture")
    laid = None if template is None else template_in_window(template, window)
    seen = _bowl_seen(window, defect_type) if laid is None else None
    if seen is None:
        seen = _edges_seen(window, laid, defect_type)
    if seen is None:
        return nothing_measured(FAINT)
    mask, signal, sizes = seen
    notes = [CUT] if window.edges and _touches(mask, window) else []
    if template is not None and laid is None:
        notes.append("template_does_not_fit")
    measures, pixels = _size_measures(sizes, window, scale)
    measures.update(_shape_measures(sizes))
    measures.update(appearance_of_mask(mask, signal, sizes, window))
    outline = window.to_picture(sizes.points_xy)
    distance = _distance(outline, others, image.shape, pixels["length"].expanded_uncertainty or 0.0)
    pixels["distance"] = distance
    measures["distance"] = _scaled(distance, scale, outline, 1)
    nulls = {"depth": NO_DEPTH}
    if scale is None:
        nulls["size_mm"] = "not_calibrated"
    elif measures["length"].unit == "px":
        nulls["size_mm"] = BEYOND_PLANE
    if "orientation" not in measures:
        nulls["orientation"] = "no_longer_side"
    return Measurement(
        measures,
        pixels,
        nulls,
        tuple(notes),
        mask,
        window.origin_xy,
        outline,
        window.to_picture(sizes.corners_xy),
    )


def _bowl_seen(window: Window, defect_type: str | None) -> tuple[Mask, Signal, Sizes] | None:
    """A dent by its shade; None for other types, and where no bowl explains the shade."""
    if defect_type not in SHADED_TYPES:
        return None
    signal = unseen_signal(window)
    bowl = bowl_in_window(window, signal.background)
    if bowl is None:
        return None
    mask = bowl.mask(window.reach.shape)
    return (mask, signal, sizes_of_bowl(bowl)) if mask.any() else None


def _edges_seen(
    window: Window, laid: Field | None, defect_type: str | None
) -> tuple[Mask, Signal, Sizes] | None:
    """A defect by its edges, or a line by its course; None where nothing stands out."""
    ends_px, drawn = 0.0, None
    if defect_type in LINE_TYPES and laid is None:
        found_in, signal = line_signal(unseen_signal(window), window)
        line = line_mask(found_in, window, has_branches=defect_type == "crack")
        found, ends_px = (None, 0.0) if line is None else ((line[0], 0.0), line[1])
    else:
        signal = signal_of_window(window, laid)
        drawn = None if laid is None else drawn_edges(laid, signal.noise)
        in_colour = laid is None and window.pixels.shape[2] > 1
        found = mask_of_signal(signal, window, drawn, rough=in_colour)
        if found is not None and in_colour:
            signal = signal_towards_mask(signal, window, found[0])
            found = mask_of_signal(signal, window, drawn)
    segment = None if found is None else segment_of_mask(signal, window, *found, drawn)
    if (
        segment is not None
        and segment.softness_px > 1.8
        and segment.noise > 0.03
        and defect_type not in LINE_TYPES
    ):
        signal = smoothed_further(signal, window, 0.7 * segment.softness_px)
        segment = segment_of_mask(signal, window, segment.mask, segment.left_out, drawn)
    if segment is None:
        return None
    is_shade = signal.is_two_sided or defect_type in SHADED_TYPES
    segment = replace(segment, ends_px=ends_px)
    sizes = sizes_of_segment(segment, signal, is_shade=is_shade, defect_type=defect_type)
    return None if sizes is None else (segment.mask, signal, sizes)


def _size_measures(
    sizes: Sizes, window: Window, scale: PixelScale | None
) -> tuple[dict[str, Measure], dict[str, Measure]]:
    """Length, width and area in mm (px without a scale), and the same in picture pixels."""
    step = float(window.step)
    pixels = {
        "length": Measure(sizes.length * step, "px", 2 * _together(sizes.length_parts) * step),
        "width": Measure(sizes.width * step, "px", 2 * _together(sizes.width_parts) * step),
        "area": Measure(sizes.area * step**2, "px2", 2 * _together(sizes.area_parts) * step**2),
    }
    corners = window.to_picture(sizes.corners_xy)
    powers = {"length": 1, "width": 1, "area": 2}
    return {name: _scaled(pixels[name], scale, corners, powers[name]) for name in pixels}, pixels


def _scaled(
    measure: Measure, scale: PixelScale | None, around_xy: npt.NDArray[np.float64], power: int
) -> Measure:
    """A measure in mm or mm2 by the scale at a place of the picture; as it is where there is none."""
    if scale is None or not isinstance(measure.value, float):
        return measure
    x, y = around_xy.mean(axis=0)
    factor = scale.mm_per_px_at(float(x), float(y)) ** power
    if not (math.isfinite(factor) and factor > 0):
        return measure
    own = (measure.expanded_uncertainty or 0.0) * factor
    of_scale = 2 * power * scale.relative_uncertainty * measure.value * factor
    return Measure(measure.value * factor, "mm" if power == 1 else "mm2", math.hypot(own, of_scale))


def _shape_measures(sizes: Sizes) -> dict[str, Measure]:
    """Aspect, orientation and roundness; no orientation where neither side is clearly the longer."""
    u_length, u_width = _together(sizes.length_parts), _together(sizes.width_parts)
    width = max(sizes.width, 0.25)
    aspect = sizes.length / width
    measures = {
        "aspect": Measure(
            aspect, "1", 2 * aspect * math.hypot(u_length / max(sizes.length, 0.25), u_width / width)
        )
    }
    if sizes.length - sizes.width > 2 * math.hypot(u_length, u_width):
        swing = math.degrees(math.atan2(2 * u_width, sizes.length))
        measures["orientation"] = Measure(sizes.degrees, "deg", swing)
    roundness = min(4 * math.pi * sizes.area / sizes.perimeter**2, 1.0)
    relative = _together(sizes.area_parts) / max(sizes.area, 1.0)
    measures["roundness"] = Measure(roundness, "1", min(2 * roundness * relative, 1.0))
    return measures


def _distance(
    outline_xy: npt.NDArray[np.float64], others: Sequence[Box], shape: tuple[int, ...], uncertainty: float
) -> Measure:
    """From the outline to the nearest other box or edge of the picture, in pixels; 0 where they meet."""
    (x1, y1), (x2, y2) = outline_xy.min(axis=0), outline_xy.max(axis=0)
    nearest = float(min(x1, y1, shape[1] - x2, shape[0] - y2))
    x, y = outline_xy[:, 0], outline_xy[:, 1]
    boxes = np.asarray(others, np.float64).reshape(-1, 4)
    # No point of the outline is nearer than the rectangle around it: of hundreds of boxes a few are asked.
    across = np.maximum(np.maximum(boxes[:, 0] - x2, x1 - boxes[:, 2]), 0.0)
    down = np.maximum(np.maximum(boxes[:, 1] - y2, y1 - boxes[:, 3]), 0.0)
    least = np.hypot(across, down)
    for index in np.argsort(least, kind="stable"):
        if least[index] >= nearest:
            break
        left, top, right, bottom = boxes[index]
        across = np.maximum(np.maximum(left - x, x - right), 0.0)
        down = np.maximum(np.maximum(top - y, y - bottom), 0.0)
        nearest = min(nearest, float(np.hypot(across, down).min()))
    return Measure(max(nearest, 0.0), "px", uncertainty)


def _touches(mask: npt.NDArray[np.bool_], window: Window) -> bool:
    """Whether the defect reaches a side of the picture that its box touches."""
    sides = {"left": mask[:, 0], "top": mask[0], "right": mask[:, -1], "bottom": mask[-1]}
    return any(bool(sides[name].any()) for name in window.edges)


def _together(parts: Parts) -> float:
    """Combined standard uncertainty: the root of the sum of squares (JCGM 100, 5.1.2)."""
    return math.sqrt(sum(part * part for part in parts.values()))
