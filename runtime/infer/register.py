"""Registration of the golden template to the part: one shift for the picture, then one for each tile.

Whole pixels only: what remains under half a pixel, and the bend inside one tile, the model has seen in
training.
"""

from __future__ import annotations

import functools
import math

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import PictureError

ByteArray = npt.NDArray[np.uint8]

# Mean squared grey difference that a pixel of shift must gain: a flat or a repeating tile stays where it is.
SHIFT_COST = 4.0


def shift_between(template: ByteArray, part: ByteArray, max_shift_px: int) -> tuple[int, int]:
    """(dx, dy) in pixels with part[y, x] ~ template[y + dy, x + dx], |dx|, |dy| <= max_shift_px.

    template and part: [H, W] uint8 of one size, else PictureError. Minimises the squared difference over the
    part less a border of `max_shift_px`.
    """
    if template.shape != part.shape:
        raise PictureError(
            f"template {template.shape} and part {part.shape} differ in size; take both at one scale"
        )
    border = max_shift_px
    if border == 0 or min(part.shape) <= 4 * border:
        return 0, 0
    return _best_shift(template, part[border:-border, border:-border])


def template_tile(
    template: ByteArray, part_tile: ByteArray, left: int, top: int, max_shift_px: int
) -> ByteArray:
    """The [S, S] window of `template` that fits `part_tile`, whose corner lies at (left, top), best.

    `template` is [H, W] uint8; windows beyond its edge repeat the edge.
    """
    x, y = fitting_corner(template, part_tile, left, top, max_shift_px)
    return window_at(template, x, y, part_tile.shape[0])


def fitting_corner(
    template: ByteArray, part_tile: ByteArray, left: int, top: int, max_shift_px: int
) -> tuple[int, int]:
    """(x, y) of the corner of the window that `template_tile` gives."""
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


def _best_shift(window: ByteArray, part: ByteArray) -> tuple[int, int]:
    """Shift of `part` inside the larger `window`, measured from the window's middle.

    Whole numbers are summed, so that every machine finds the same shift; nearest shifts come first, and the
    search ends where the cost of the way alone exceeds the best score.
    """
    height, width = part.shape
    reach_y, reach_x = (window.shape[0] - height) // 2, (window.shape[1] - width) // 2
    best, found = np.inf, (0, 0)
    for away, dy, dx in _shifts(reach_y, reach_x):
        if SHIFT_COST * away >= best:
            break
        y, x = dy + reach_y, dx + reach_x
        squares = cv2.norm(window[y : y + height, x : x + width], part, cv2.NORM_L2SQR)
        score = squares / part.size + SHIFT_COST * away
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
