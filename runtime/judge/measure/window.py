"""The part of a picture in which one defect is measured: its box, its surroundings, the template there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from .measurement import Box

Field = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

MOST_PX = 320  # longest side of a window; a longer one is measured in larger pixels
_LEAST_PAD_PX, _MOST_PAD_PX = 9.0, 40.0
_TEMPLATE_PAD_PX = 16.0  # at least, with a template: its edges must be seen to lay it on
_MOST_VOTES = 700  # pixels that decide how a template lies
_ROOM_PX = 8.0  # what a detector's box may be longer than its defect beyond the margin it is known to leave
_SEARCH_PX = 6  # how far a template is sought from where it should be


@dataclass(frozen=True)
class Window:
    """Pixels float32 [h, w, channels] around a box; `step` picture pixels make one of the window's.

    `tight` is the box without the margin that its detector leaves, in the window's pixels; `reach` bool
    [h, w] is where the defect may lie (that, and what a detector may have cut off), `ring` bool [h, w] the
    surroundings without any other box; `edges` names the sides of the picture that the box touches.
    `room_px`: what `tight` may be longer than its defect.
    """

    pixels: Field
    origin_xy: tuple[int, int]
    step: int
    tight: Box
    reach: Mask
    ring: Mask
    edges: tuple[str, ...]
    room_px: float

    def to_picture(self, points_xy: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Window points [n, 2] (pixel centres at integer + 0.5) as points of the picture."""
        return points_xy * self.step + np.asarray(self.origin_xy, np.float64)


def window_of_box(
    image: npt.NDArray[np.uint8],
    box: Box,
    others: Sequence[Box],
    *,
    box_margin_px: float = 0.0,
    has_template: bool = False,
) -> Window | None:
    """The window of a box in a picture uint8 [H, W] or [H, W, C]; None when no pixel of the box is inside."""
    height, width = image.shape[:2]
    x1, y1 = max(box[0], 0.0), max(box[1], 0.0)
    x2, y2 = min(box[2], float(width)), min(box[3], float(height))
    if not (x2 - x1 >= 1.0 and y2 - y1 >= 1.0):
        return None
    pad = _pad_px(max(x2 - x1, y2 - y1), box_margin_px, has_template)
    left, top = max(math.floor(x1 - pad), 0), max(math.floor(y1 - pad), 0)
    right, bottom = min(math.ceil(x2 + pad), width), min(math.ceil(y2 + pad), height)
    step = max(math.ceil(max(right - left, bottom - top) / MOST_PX), 1)
    right, bottom = left + (right - left) // step * step, top + (bottom - top) // step * step
    pixels = _as_field(image[top:bottom, left:right], step)
    inner = ((x1 - left) / step, (y1 - top) / step, (x2 - left) / step, (y2 - top) / step)
    at_edge = {"left": x1 < 1.0, "top": y1 < 1.0, "right": x2 > width - 1.0, "bottom": y2 > height - 1.0}
    tight = _without_margin(inner, box_margin_px / step, tuple(at_edge.values()))
    grown = max(3.0, 0.12 * min(max(tight[2] - tight[0], tight[3] - tight[1]), 60.0))
    grown += min(0.2 * box_margin_px / step, 2.0)
    reach = _inside(pixels.shape, tight, grown)
    whole, ring = reach.copy(), ~_inside(pixels.shape, tight, min(grown, 3.0))
    for other in others:
        beside = max(other[0] - right, left - other[2], other[1] - bottom, top - other[3])
        if beside > 2.0 * step:  # out of the window: of hundreds of boxes most are
            continue
        shifted = (
            (other[0] - left) / step,
            (other[1] - top) / step,
            (other[2] - left) / step,
            (other[3] - top) / step,
        )
        ring &= ~_inside(pixels.shape, shifted, 2.0)
        # Where a neighbour's box lies apart from this one, its pixels are the neighbour's.
        reach &= ~(_inside(pixels.shape, shifted, 0.0) & ~_inside(pixels.shape, tight, 0.0))
    if not reach.any():  # a box of a pixel, on no pixel's centre, in the midst of another
        reach = whole
    edges = tuple(name for name, is_at in at_edge.items() if is_at)
    room = min(_ROOM_PX / step, 0.5 * (inner[2] - inner[0]), 0.5 * (inner[3] - inner[1]))
    return Window(pixels, (left, top), step, tight, reach, ring, edges, room)


def _pad_px(longest_px: float, margin_px: float, has_template: bool) -> float:
    """How much of the picture is seen around a box; the margin in it is surroundings already."""
    least = _TEMPLATE_PAD_PX if has_template else _LEAST_PAD_PX
    most = max(_MOST_PAD_PX, 0.1 * longest_px) - min(margin_px, 20.0)
    return min(max(0.35 * longest_px - margin_px, least), most)


def _without_margin(box: Box, margin: float, at_edge: tuple[bool, ...]) -> Box:
    """The box less the margin on every side that is not the picture's; two pixels at least are left."""
    left, top, right, bottom = (0.0 if edge else margin for edge in at_edge)
    across = min(1.0, max(box[2] - box[0] - 2.0, 0.0) / max(left + right, 1e-6))
    down = min(1.0, max(box[3] - box[1] - 2.0, 0.0) / max(top + bottom, 1e-6))
    return (
        box[0] + across * left,
        box[1] + down * top,
        box[2] - across * right,
        box[3] - down * bottom,
    )


def template_in_window(template: npt.NDArray[np.uint8], window: Window) -> Field | None:
    """The template's pixels [h, w, channels] laid onto the window to sub-pixels, brightness matched.

    None where the template has another number of channels or is not large enough. Shift by the best
    normalised correlation within 6 pixels and a parabola through it; gain and lift by least squares outside
    the box.
    """
    height, width, channels = window.pixels.shape
    x, y, step = *window.origin_xy, window.step
    reach = _SEARCH_PX * step
    if template.shape[0] < y + height * step or template.shape[1] < x + width * step:
        return None
    if (1 if template.ndim == 2 else template.shape[2]) != channels:
        return None
    padded = _padded_crop(template, x - reach, y - reach, width * step + 2 * reach, height * step + 2 * reach)
    field = _as_field(padded, step)
    dx, dy = _shift_of(field, window)
    moved = cv2.warpAffine(
        field,
        np.array([[1, 0, dx], [0, 1, dy]], np.float64),
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return _same_light(np.asarray(moved, np.float32).reshape(height, width, channels), window)


def _shift_of(field: Field, window: Window) -> tuple[float, float]:
    """Where the window's top left pixel lies in the template's `field`, in pixels.

    The pixels outside the box decide: a large defect looks like nothing in the template.
    """
    nominal = float(_SEARCH_PX)
    rows, columns = np.nonzero(window.ring)
    if rows.size < 40:
        return nominal, nominal
    stride = max(rows.size // _MOST_VOTES, 1)
    rows, columns = rows[::stride], columns[::stride]
    seen, known = window.pixels.mean(axis=2)[rows, columns], field.mean(axis=2)
    if float(known.std()) < 4.0:
        return nominal, nominal  # nothing to hold on to: flat template
    shifts = np.arange(2 * _SEARCH_PX + 1)
    there = known[rows + shifts[:, None, None], columns + shifts[:, None]]  # [down, across, votes]
    there = there - there.mean(axis=2, keepdims=True)
    lengths = np.sqrt(np.maximum(np.einsum("yxn,yxn->yx", there, there), 1e-6))
    around = seen - seen.mean()
    score = there @ around / lengths / max(float(np.linalg.norm(around)), 1e-3)
    y, x = (int(place) for place in np.unravel_index(int(np.argmax(score)), score.shape))
    if not score[y, x] > max(0.3, score[_SEARCH_PX, _SEARCH_PX] + 1e-3):
        return nominal, nominal
    return x + _vertex(score[y], x), y + _vertex(score[:, x], y)


def _vertex(values: Field, at: int) -> float:
    """Where the parabola through the largest value and its neighbours has its top, from -0.5 to 0.5."""
    if at == 0 or at == len(values) - 1:
        return 0.0
    left, middle, right = (float(value) for value in values[at - 1 : at + 2])
    bend = left - 2 * middle + right
    return 0.0 if bend >= 0 else min(max(0.5 * (left - right) / bend, -0.5), 0.5)


def _same_light(moved: Field, window: Window) -> Field:
    """The template with the part's brightness: gain and lift a channel from the pixels outside the box."""
    if int(np.count_nonzero(window.ring)) < 40:
        return moved
    known, seen = moved[window.ring], window.pixels[window.ring]
    middle, target = known.mean(axis=0), seen.mean(axis=0)
    spread = ((known - middle) ** 2).mean(axis=0)
    gain = ((known - middle) * (seen - target)).mean(axis=0) / np.maximum(spread, 1e-6)
    gain = np.where(spread > 30.0, np.clip(gain, 0.5, 2.0), 1.0)
    return np.asarray((moved - middle) * gain + target, np.float32)


def _as_field(crop: npt.NDArray[Any], step: int) -> Field:
    """A crop as float32 [h, w, channels], `step` x `step` pixels averaged into one."""
    if step > 1:
        size = (crop.shape[1] // step, crop.shape[0] // step)
        crop = cv2.resize(crop.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    field = np.asarray(crop, np.float32)
    return field.reshape(*field.shape[:2], -1)


def _padded_crop(
    image: npt.NDArray[np.uint8], x: int, y: int, width: int, height: int
) -> npt.NDArray[np.uint8]:
    """`width` x `height` pixels from (x, y), the edge pixels repeated where the picture ends."""
    rows = np.clip(np.arange(y, y + height), 0, image.shape[0] - 1)
    columns = np.clip(np.arange(x, x + width), 0, image.shape[1] - 1)
    return image[rows[:, None], columns[None, :]]


def _inside(shape: tuple[int, ...], box: Box, grown: float) -> Mask:
    """Which pixel centres lie in the box grown by so many pixels, bool [h, w]."""
    x, y = np.arange(shape[1]) + 0.5, np.arange(shape[0]) + 0.5
    across = (x > box[0] - grown) & (x < box[2] + grown)
    down = (y > box[1] - grown) & (y < box[3] + grown)
    return down[:, None] & across[None, :]
