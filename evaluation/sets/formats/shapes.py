"""Outlines of annotation files as masks: polygons, circles, run lengths. Pixel centres lie at n + 0.5."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..example import Mask
from .marks import Outline

Points = npt.NDArray[np.float64]


def polygons_outline(polygons: Sequence[Points]) -> Outline:
    """The pixels whose centres lie inside one of `polygons` (each [n, 2] x, y px)."""

    def mask(height: int, width: int) -> Mask:
        filled = np.zeros((height, width), np.bool_)
        for polygon in polygons:
            filled |= _filled(polygon, height, width)
        return filled

    return mask


def circle_outline(centre_xy: Sequence[float], radius_px: float) -> Outline:
    """The pixels whose centres are at most `radius_px` away from the centre."""

    def mask(height: int, width: int) -> Mask:
        rows, columns = np.ogrid[:height, :width]
        squares = (columns + 0.5 - centre_xy[0]) ** 2 + (rows + 0.5 - centre_xy[1]) ** 2
        return np.asarray(squares <= radius_px**2, np.bool_)

    return mask


def runs_outline(runs: Sequence[int], size_hw: tuple[int, int]) -> Outline:
    """COCO's run lengths: down the columns, background first. ValueError when they do not fill `size_hw`."""
    if any(run < 0 for run in runs) or sum(runs) != size_hw[0] * size_hw[1]:
        raise ValueError(f"the runs cover {sum(runs)} pixels of {size_hw[0]} x {size_hw[1]}")
    values = np.arange(len(runs)) % 2 == 1
    whole = np.repeat(values, np.asarray(runs, np.int64)).reshape(size_hw[1], size_hw[0]).T

    def mask(height: int, width: int) -> Mask:
        if (height, width) != size_hw:
            raise ValueError(f"the runs are of {size_hw[1]} x {size_hw[0]} pixels, not {width} x {height}")
        return np.ascontiguousarray(whole)

    return mask


def runs_from_text(text: str) -> list[int]:
    """COCO's packed run lengths: six bits a character from "0" on, five of them the number, the sixth says
    that more follow, the lowest come first, signed; from the third run on, the difference to the one before
    the last (cocoapi, common/maskApi.c, rleFrString). ValueError for other characters or a cut number.
    """
    runs: list[int] = []
    value, shift = 0, 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64:
            raise ValueError(f"the character {character!r} is none of packed run lengths")
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value, shift = 0, 0
    if shift:
        raise ValueError("packed run lengths are cut in the middle of a number")
    return runs


def extents(points: Points) -> tuple[float, float, float, float]:
    """x1, y1, x2, y2 around points [n, 2]."""
    low, high = points.min(axis=0), points.max(axis=0)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def points_from(values: object, least: int) -> Points:
    """[n, 2] px from a flat list or from pairs; ValueError for fewer than `least` or for other things."""
    array = np.asarray(values, np.float64).reshape(-1, 2)
    if len(array) < least or not np.isfinite(array).all():
        raise ValueError(f"expected at least {least} points x, y; found {values!r:.80}")
    return array


def _filled(polygon: Points, height: int, width: int) -> Mask:
    """Row by row: a centre is inside when an odd number of edges lies to its left."""
    mask = np.zeros((height, width), np.bool_)
    x, y = polygon[:, 0], polygon[:, 1]
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    for row in range(max(0, math.floor(y.min())), min(height, math.ceil(y.max()))):
        level = row + 0.5
        crossed = (y <= level) != (next_y <= level)
        share = (level - y[crossed]) / (next_y[crossed] - y[crossed])
        borders = np.sort(x[crossed] + share * (next_x[crossed] - x[crossed]))
        columns = np.clip(np.ceil(borders - 0.5), 0, width).astype(np.int64)
        for first, last in zip(columns[::2], columns[1::2], strict=True):
            mask[row, first:last] = True
    return mask
