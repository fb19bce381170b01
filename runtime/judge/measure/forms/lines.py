"""Thin lines (scratches, cracks) in a texture: the field along every pixel's own best direction."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

from ..signal import Signal, clipped, quantile, spread_of
from ..window import Field, Mask, Window

LINE_TYPES = ("scratch", "crack")
"""Types that are thin lines."""

_DIRECTIONS = 12
_ALONG_PX = 2.5  # sigma along the line: kinks of a crack are longer
_FINE_PX = 0.85  # sigma of the smoothing in which the outline is drawn
_ACROSS_PX, _AROUND_PX = 1.0, 5.0  # sigma of the smoothing across a line, and of what is its surroundings
_REACH = 5
_CLIMB, _CLIMB_COST = 2, 0.7  # rows a column that a path may climb, and what a row costs in sigmas
_MOST_WORTH = 7.0  # sigmas that a pixel counts at most: a glint is no line
_SEEN = 2.2


@cache
def _kernels() -> tuple[Field, ...]:
    """A line of every direction, float32 [11, 11], falling off to its ends, sum 1."""
    steps = np.arange(-_REACH, _REACH + 1)
    x, y = np.meshgrid(steps, steps)
    kernels = []
    for turn in np.arange(_DIRECTIONS) * (math.pi / _DIRECTIONS):
        along, aside = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
        weights = np.exp(-0.5 * (along / _ALONG_PX) ** 2) * np.clip(1.0 - np.abs(aside), 0.0, None)
        kernels.append((weights / weights.sum()).astype(np.float32))
    return tuple(kernels)


def line_signal(signal: Signal, window: Window) -> tuple[Signal, Signal]:
    """The window as a signal that lines stand out in.

    Every direction counts by what the surroundings show in that very direction: on a brushed or turned
    surface the lay itself is no line. The polarity is that of the strongest line in the box.
    """
    difference = window.pixels - signal.background
    calm = cv2.GaussianBlur(difference, (0, 0), _ACROSS_PX)
    calm = (calm - cv2.GaussianBlur(difference, (0, 0), _AROUND_PX)).reshape(difference.shape)
    x1, y1, x2, y2 = window.tight
    most = max(int(0.5 * max(x2 - x1, y2 - y1)), 4)
    weight = _colour_direction(calm[window.ring], calm[window.reach], most)
    one = np.ascontiguousarray(calm @ weight, np.float32)
    stack = np.stack(
        [cv2.filter2D(one, cv2.CV_32F, kernel, borderType=cv2.BORDER_REFLECT) for kernel in _kernels()]
    )
    spreads = np.array([max(spread_of(one[window.ring]), 1e-3) for one in stack], np.float32)
    shares = stack / spreads[:, None, None]
    inside = shares[:, window.reach]
    at = -min(most, inside.shape[1])
    above, below = (np.partition(one, at)[at] for one in (inside.max(axis=0), -inside.min(axis=0)))
    if below > above:
        stack, shares, weight = -stack, -shares, -weight
    best = np.argmax(shares, axis=0)
    field = np.take_along_axis(stack, best[None], 0)[0] * (float(np.median(spreads)) / spreads[best])
    around = field[window.ring]
    field = field - np.float32(quantile(around, 0.5)) if around.size else field
    noise = spread_of(field[window.ring])
    found = replace(signal, field=np.ascontiguousarray(field, np.float32), noise=noise, is_two_sided=False)
    raw = np.ascontiguousarray(difference @ weight, np.float32)
    field = np.asarray(cv2.GaussianBlur(raw, (0, 0), _FINE_PX), np.float32)
    fine = replace(found, field=field, noise=spread_of(field[window.ring]), smoothing_px=_FINE_PX)
    return found, fine


def _colour_direction(around: Field, inside: Field, most: int) -> Field:
    """Weights [channels] along which the strongest pixels of the box leave what the surroundings vary by."""
    channels = around.shape[1]
    if channels == 1 or len(around) < 20:
        return np.full(channels, 1.0 / channels, np.float32)
    few = around[:: max(len(around) // 1500, 1)]
    unit = np.linalg.inv(np.linalg.cholesky(np.cov(clipped(few).T) + 0.1 * np.eye(channels))).T
    white = inside.astype(np.float64) @ unit
    strongest = white[np.argsort((white**2).sum(axis=1))[-most:]]
    axis = np.linalg.eigh(strongest.T @ strongest)[1][:, -1]
    weight = unit @ axis
    return np.asarray(weight / max(float(np.abs(weight).sum()), 1e-9), np.float32)


def line_mask(signal: Signal, window: Window, *, has_branches: bool) -> tuple[Mask, float] | None:
    """The strongest line through the box, bool [h, w], and the standard uncertainty of its ends together, px.

    A path over the longer side of the box, a pixel a column, that gathers most signal and climbs little; of
    it the stretch that lies above half of its own height, whatever gaps are in between. How far the ends move
    when half is a third or two thirds is their uncertainty. None when nothing stands out.
    """
    x1, y1, x2, y2 = window.tight
    is_tall = y2 - y1 > x2 - x1
    field, reach = signal.field, window.reach
    if is_tall:
        field, reach = field.T, reach.T
    columns, rows = np.flatnonzero(reach.any(axis=0)), np.flatnonzero(reach.any(axis=1))
    left, top = int(columns[0]), int(rows[0])
    inner = np.s_[top : int(rows[-1]) + 1, left : int(columns[-1]) + 1]
    part, most = field[inner], max(int(0.5 * columns.size), 4)
    strong = float(np.sort(field[reach])[-min(most, int(np.count_nonzero(reach)))])
    worth = np.where(reach[inner], part / max(signal.noise, 0.2 * strong), -3.0)
    path = _best_path(np.clip(worth, -1.0, _MOST_WORTH).astype(np.float32))
    steps = np.arange(part.shape[1])
    along = part[path, steps]
    height = quantile(along, 0.75)
    if height < _SEEN * signal.noise:
        return None
    # The detector saw both ends: within its box a faint stretch is rather the line's, beyond it rather not.
    start, end = (y1, y2) if is_tall else (x1, x2)
    beyond = np.maximum(start - (steps + left + 0.5), steps + left + 0.5 - end)
    share = np.interp(beyond, [-3.0, 0.0, 4.0], [0.35, 0.5, 0.8]) * height
    first, last = _best_stretch(along - share)
    starts, ends = zip(*(_best_stretch(along - factor * share) for factor in (0.65, 1.0, 1.4)), strict=True)
    ends_px = math.hypot(max(starts) - min(starts), max(ends) - min(ends)) / math.sqrt(12)
    drawn = np.zeros(field.shape, np.uint8)
    points = np.stack([steps[first : last + 1] + left, path[first : last + 1] + top], axis=1)
    cv2.polylines(drawn, [points.astype(np.int32).reshape(-1, 1, 2)], False, (1,), 1)
    line = cv2.dilate(drawn, np.ones((3, 3), np.uint8)) > 0
    if has_branches:
        ring = window.ring.T if is_tall else window.ring
        line |= _branches(field, line, max(0.35 * height, 3.0 * signal.noise), reach, ring)
    return np.ascontiguousarray(line.T if is_tall else line), ends_px


def _branches(field: Field, line: Mask, low: float, reach: Mask, ring: Mask) -> Mask:
    """Pieces beside a line that carry more signal than any that the surroundings show, bool [h, w]."""
    band = _grown(line, 3)
    count, labels = cv2.connectedComponents(((field > low) & (reach | ring) & ~band).astype(np.uint8))
    flat = labels.ravel()
    whole = np.bincount(flat, field.ravel(), count)
    within = np.bincount(flat, (field * reach).ravel(), count)
    texture = float(np.max(np.where(within < 0.3 * whole, whole, 0.0)[1:], initial=0.0))
    kept = (within > 1.3 * texture) & (np.bincount(flat, _grown(line, 7).ravel(), count) > 0)
    kept[0] = False
    if not kept.any():
        return np.zeros_like(line)
    branches = kept[labels] & reach
    return np.asarray(branches | (band & _grown(branches, 5)))


def _grown(mask: Mask, across_px: int) -> Mask:
    return np.asarray(cv2.dilate(mask.astype(np.uint8), np.ones((across_px, across_px), np.uint8)) > 0)


def _best_path(worth: Field) -> npt.NDArray[np.int64]:
    """The row of every column of `worth` [h, w] on the path that gathers most; a row of climb costs."""
    height, width = worth.shape
    total = worth[:, 0].copy()
    came = np.zeros((width, height), np.int8)
    padded = np.full(height + 2 * _CLIMB, -np.inf, np.float32)
    costs = np.abs(np.arange(-_CLIMB, _CLIMB + 1, dtype=np.float32))[:, None] * _CLIMB_COST
    windows = np.lib.stride_tricks.sliding_window_view(padded, height)
    for column in range(1, width):
        padded[_CLIMB : _CLIMB + height] = total
        choices = windows - costs
        best = choices.argmax(axis=0)
        came[column] = best
        total = choices.max(axis=0) + worth[:, column]
    path = np.zeros(width, np.int64)
    path[-1] = int(total.argmax())
    for column in range(width - 1, 0, -1):
        path[column - 1] = path[column] + came[column, path[column]] - _CLIMB
    return path


def _best_stretch(gain: npt.NDArray[np.floating]) -> tuple[int, int]:
    """First and last index of the stretch with the greatest sum."""
    sums = np.concatenate([[0.0], np.cumsum(gain)])
    lowest = np.minimum.accumulate(sums)
    last = int(np.argmax(sums[1:] - lowest[:-1]))
    return int(np.argmin(sums[: last + 1])), last
