"""Registration of the golden template to the part, and where the two still differ.

One shift for the picture, then one for each tile, in whole pixels only: what remains under half a pixel, and
the bend inside one tile, the model has seen in training. What differs beyond a tolerance band after that is
gathered into clusters. Tiles are centred on them, so the network meets a defect where it has always met one,
and a part costs as many tiles as it has differences instead of a whole grid.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from ...errors import PictureError

ByteArray = npt.NDArray[np.uint8]
BoxInt = tuple[int, int, int, int]

CELL_PX = 64
"""Cells are registered one by one, each with a margin of half a cell around it."""

BAND_PX = 1
"""An edge may lie this far off on either side without being a difference."""

LIGHT_SAMPLE_PX = 50_000
DARKEST = 12.0
"""Grey levels under which a pixel of the template does not tell how bright the part is."""

LIGHT_SLACK = 1.05
"""Factor by which a part may be brighter or darker than its template and is compared as it is."""

WHOLE_PX = 1 << 20
"""Pixels that are all asked how the whole template lies; a larger picture is asked in bands of its rows."""

BANDS = 16

JOIN_PX = 9
"""Differing pixels closer than this belong to one cluster."""

# Mean squared grey difference that a pixel of shift must gain: a flat or a repeating tile stays where it is.
SHIFT_COST = 4.0


def shift_between(template: ByteArray, part: ByteArray, max_shift_px: int) -> tuple[int, int]:
    """(dx, dy) in pixels with part[y, x] ~ template[y + dy, x + dx], |dx|, |dy| <= max_shift_px.

    template and part: [H, W] uint8 of one size, else PictureError. Minimises the squared difference over the
    part less a border of `max_shift_px`; of a picture beyond WHOLE_PX over evenly spread bands of its rows.
    """
    if template.shape != part.shape:
        raise PictureError(
            f"template {template.shape} and part {part.shape} differ in size; take both at one scale"
        )
    border = max_shift_px
    if border == 0 or min(part.shape) <= 4 * border:
        return 0, 0
    if part.size <= WHOLE_PX:
        return _best_shift(template, part[border:-border, border:-border])
    rows = max(WHOLE_PX // BANDS // part.shape[1], 1)
    starts = np.linspace(border, part.shape[0] - border - rows, BANDS).astype(int)
    windows = [template[start - border : start + rows + border] for start in starts]
    return _best_shift(windows, [part[start : start + rows, border:-border] for start in starts])


def light_between(template: ByteArray, part: ByteArray) -> float:
    """How bright the part is beside its template: the median over pixels of their ratio, 1 alike.

    template and part: [H, W] uint8 of one size, at most a few pixels beside each other: most of a part is
    flat over more than that, so edges, wider lines and defects are the few that a median does not hear. Black
    pixels say nothing; a sample of the rest does.
    """
    step = max(1, math.ceil(math.sqrt(part.size / LIGHT_SAMPLE_PX)))
    before, after = (
        each[step // 2 :: step, step // 2 :: step].astype(np.float32) for each in (template, part)
    )
    lit = before > DARKEST
    return float(np.median(after[lit] / before[lit])) if lit.any() else 1.0


def relit(picture: ByteArray, light: float) -> ByteArray:
    """A picture of any shape as it would be with the light divided by `light`, clipped at white."""
    levels = np.clip(np.round(np.arange(256) / max(light, 1.0 / 255.0)), 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(picture, levels), np.uint8)


def fitting_corner(
    template: ByteArray, part_tile: ByteArray, left: int, top: int, max_shift_px: int
) -> tuple[int, int]:
    """(x, y) of the corner of the [S, S] window of `template` that fits `part_tile` at (left, top) best.

    `template` is [H, W] uint8; windows beyond its edge repeat the edge.
    """
    size = part_tile.shape[0] + 2 * max_shift_px
    dx, dy = _best_shift(window_at(template, left - max_shift_px, top - max_shift_px, size), part_tile)
    return left + dx, top + dy


def window_at(picture: ByteArray, left: int, top: int, size: int) -> ByteArray:
    """The [size, size] window with its corner at (left, top); beyond the picture its edge is repeated."""
    height, width = picture.shape[:2]
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + size, width), min(top + size, height)
    if x0 >= x1 or y0 >= y1:
        raise PictureError(f"window at ({left}, {top}) of {size} px lies outside a {width}x{height} picture")
    inner = picture[y0:y1, x0:x1]
    if inner.shape[:2] == (size, size):
        return inner
    padded = cv2.copyMakeBorder(
        inner, y0 - top, top + size - y1, x0 - left, left + size - x1, cv2.BORDER_REPLICATE
    )
    return np.asarray(padded, dtype=np.uint8)


def seen_after_shift(height: int, width: int, dx: int, dy: int) -> ByteArray:
    """[H, W] uint8: 1 where a template that `shifted` moved by (dx, dy) still shows the product, else 0."""
    return _window_or_nothing(np.ones((height, width), np.uint8), dx, dy, height, width)


def _window_or_nothing(seen: ByteArray, x: int, y: int, height: int, width: int) -> ByteArray:
    """[height, width] of `seen` from (x, y) on, 0 outside of it."""
    window: ByteArray = np.zeros((height, width), np.uint8)
    top, left = max(y, 0), max(x, 0)
    bottom, right = min(y + height, seen.shape[0]), min(x + width, seen.shape[1])
    if top < bottom and left < right:
        window[top - y : bottom - y, left - x : right - x] = seen[top:bottom, left:right]
    return window


def clusters_of_differences(
    template: ByteArray,
    part: ByteArray,
    difference: float,
    min_pixels: int,
    max_shift_px: int,
    seen: ByteArray | None = None,
) -> list[BoxInt]:
    """Tight boxes x1, y1, x2, y2 (exclusive) of the clusters of pixels that differ, top first, then left.

    template, part: [H, W] uint8, registered as a whole; `difference` in grey levels beyond the tolerance
    band; a cluster has at least `min_pixels` such pixels; cells are registered within `max_shift_px`. Where a
    moved template shows nothing but its repeated edge, nothing can be compared; `seen`: `seen_after_shift` of
    a template that was moved as a whole.
    """
    if seen is None:
        seen = np.ones(template.shape[:2], np.uint8)
    mask = _differing(template, part, difference, max_shift_px, seen)
    if not mask.any():
        return []
    joined = cv2.dilate(mask, np.ones((JOIN_PX, JOIN_PX), np.uint8))
    _, labels = cv2.connectedComponents(joined)
    x, y = cv2.findNonZero(mask).reshape(-1, 2).T  # in rows from the top
    label = labels[y, x]
    order = np.argsort(label, kind="stable")
    starts = np.flatnonzero(np.diff(label[order], prepend=0))  # label 0 is what does not differ
    counts = np.diff(starts, append=len(order))
    x, y = x[order], y[order]
    lows = [np.minimum.reduceat(axis, starts) for axis in (x, y)]
    highs = [np.maximum.reduceat(axis, starts) + 1 for axis in (x, y)]
    boxes = [
        (int(x1), int(y1), int(x2), int(y2))
        for x1, y1, x2, y2, count in zip(*lows, *highs, counts, strict=True)
        if count >= min_pixels
    ]
    return sorted(boxes, key=lambda box: (box[1], box[0]))


def outside_band(template: ByteArray, part: ByteArray) -> ByteArray:
    """[H, W] uint8: how far the part leaves the range of the template within BAND_PX of each pixel."""
    square = np.ones((2 * BAND_PX + 1, 2 * BAND_PX + 1), np.uint8)
    above = cv2.subtract(part, cv2.dilate(template, square))
    below = cv2.subtract(cv2.erode(template, square), part)
    return np.asarray(cv2.max(above, below), dtype=np.uint8)


def _differing(
    template: ByteArray, part: ByteArray, difference: float, max_shift_px: int, seen: ByteArray
) -> ByteArray:
    """[H, W] uint8, 1 where the part differs from the template after every cell that differs was moved to
    where it fits its surroundings best.
    """
    height, width = part.shape
    mask = _beyond(template, part, difference)
    tops, lefts = range(0, height, CELL_PX), range(0, width, CELL_PX)
    # [cells down, cells across], by rows first: a cell is a few hundred bytes then
    differs = np.bitwise_or.reduceat(np.bitwise_or.reduceat(mask, tops, axis=0), lefts, axis=1)
    cells = [(tops[row], lefts[column]) for row, column in zip(*np.nonzero(differs), strict=True)]
    moved, known = template.copy(), seen.copy()
    both_show = _extent(seen)
    margin = CELL_PX // 2
    for top, left in cells:
        cell = np.s_[top : top + CELL_PX, left : left + CELL_PX]
        x, y, size = left - margin, top - margin, 2 * CELL_PX
        dx, dy = _shift_of_cell(template, part, (x, y, x + size, y + size), both_show, max_shift_px)
        corner = (x + dx, y + dy)
        rows, columns = moved[cell].shape
        inner = np.s_[margin : margin + rows, margin : margin + columns]
        moved[cell] = window_at(template, *corner, size)[inner]
        known[cell] = _window_or_nothing(seen, *corner, size, size)[inner]
    known = np.asarray(cv2.erode(known, np.ones((2 * BAND_PX + 1, 2 * BAND_PX + 1), np.uint8)), np.uint8)
    if 4 * len(cells) > differs.size:
        return _beyond(moved, part, difference) & known
    for top, left in cells:  # what was moved changes the band of its neighbours' rims, too
        y1, x1 = max(top - BAND_PX, 0), max(left - BAND_PX, 0)
        y2, x2 = min(top + CELL_PX + BAND_PX, height), min(left + CELL_PX + BAND_PX, width)
        y0, x0 = max(y1 - BAND_PX, 0), max(x1 - BAND_PX, 0)
        around = np.s_[y0 : min(y2 + BAND_PX, height), x0 : min(x2 + BAND_PX, width)]
        own = _beyond(moved[around], part[around], difference)
        mask[y1:y2, x1:x2] = own[y1 - y0 : y2 - y0, x1 - x0 : x2 - x0]
    return mask & known


def _extent(seen: ByteArray) -> BoxInt:
    """x1, y1, x2, y2 (exclusive) of the rectangle that `seen_after_shift` marks; nothing is an empty one."""
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    if rows.size == 0:
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _shift_of_cell(
    template: ByteArray, part: ByteArray, window: BoxInt, both_show: BoxInt, max_shift_px: int
) -> tuple[int, int]:
    """The (dx, dy) at which the template fits the part in a window best, by what both show.

    A repeated edge would pull a cell at the rim to where it does not lie. With little to go by there is none.
    """
    x1, y1 = (max(a, b + max_shift_px) for a, b in zip(window[:2], both_show[:2], strict=True))
    x2, y2 = (min(a, b - max_shift_px) for a, b in zip(window[2:], both_show[2:], strict=True))
    if min(x2 - x1, y2 - y1) < CELL_PX // 2:
        return 0, 0
    reach = max_shift_px
    around = template[y1 - reach : y2 + reach, x1 - reach : x2 + reach]
    return _best_shift(around, part[y1:y2, x1:x2])


def _beyond(template: ByteArray, part: ByteArray, difference: float) -> ByteArray:
    """[H, W] uint8, 1 where the part leaves the template's band by more than `difference` grey levels."""
    return np.asarray(
        cv2.threshold(outside_band(template, part), math.floor(difference), 1, cv2.THRESH_BINARY)[1], np.uint8
    )


def _best_shift(
    window: ByteArray | Sequence[ByteArray], part: ByteArray | Sequence[ByteArray]
) -> tuple[int, int]:
    """Shift of `part` inside the larger `window`, measured from the window's middle; of several alike, one
    shift for all.

    Whole numbers are summed, so that every machine finds the same shift; nearest shifts come first, and the
    search ends where the cost of the way alone exceeds the best score.
    """
    windows, parts = ([each] if isinstance(each, np.ndarray) else each for each in (window, part))
    height, width = parts[0].shape
    reach_y, reach_x = (windows[0].shape[0] - height) // 2, (windows[0].shape[1] - width) // 2
    pixels = len(parts) * parts[0].size
    best, found = np.inf, (0, 0)
    for away, dy, dx in _shifts(reach_y, reach_x):
        if SHIFT_COST * away >= best:
            break
        y, x = dy + reach_y, dx + reach_x
        squares = sum(
            cv2.norm(one[y : y + height, x : x + width], other, cv2.NORM_L2SQR)
            for one, other in zip(windows, parts, strict=True)
        )
        score = squares / pixels + SHIFT_COST * away
        if score < best:
            best, found = score, (dx, dy)
    return found


@functools.cache
def _shifts(reach_y: int, reach_x: int) -> tuple[tuple[float, int, int], ...]:
    """(distance, dy, dx) of every shift within reach, nearest first."""
    return tuple(
        sorted(
            (math.hypot(dx, dy), dy, dx)
            for dy in range(-reach_y, reach_y + 1)
            for dx in range(-reach_x, reach_x + 1)
        )
    )
