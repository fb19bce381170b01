"""From a window to one number a pixel: how far it is from its surroundings, towards the defect."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from .window import Field, Mask, Window

_MOST_SAMPLES = 1500
_LEAST_SMOOTHING_PX, _MOST_SMOOTHING_PX = 0.6, 2.2
_QUIET_SHARE = 0.1  # noise over contrast that smoothing aims at


@dataclass(frozen=True)
class Signal:
    """`field` float32 [h, w]: positive in the defect, about 0 around it, smoothed by `smoothing_px` (sigma).

    `noise` is the standard deviation of `field` in the surroundings, their texture included; `unevenness` the
    root mean square of what is left there beyond it (edges, spots, a template that lies badly); `raw_noise`
    the same in grey levels before smoothing (grey: the mean of the channels). `background` float32
    [h, w, channels] is the surroundings carried on under the defect. `is_two_sided`: it has bright and dark
    parts.
    """

    field: Field
    noise: float
    unevenness: float
    smoothing_px: float
    raw_noise: float
    background: Field
    is_two_sided: bool


def signal_of_window(window: Window, template: Field | None) -> Signal:
    """The signal against `template` [h, w, channels], or against a plane through the surroundings."""
    background = template if template is not None else surround_plane(window)
    difference = window.pixels - background
    if template is not None and np.any(window.ring):
        difference = difference - np.median(difference[window.ring], axis=0)
    raw, two_sided = _towards_defect(difference, window)
    grey = difference.mean(axis=2)
    smoothing = _LEAST_SMOOTHING_PX
    field = _smoothed(raw, smoothing)
    noise = spread_of(field[window.ring])
    height = _height_of(field, window.reach)
    if height > 0 and noise / height > _QUIET_SHARE:
        smoothing = min(smoothing * noise / height / _QUIET_SHARE, _MOST_SMOOTHING_PX)
        field = _smoothed(raw, smoothing)
        noise = spread_of(field[window.ring])
    around = field[window.ring]
    rest = float(np.mean(np.minimum(np.abs(around), height) ** 2)) - noise**2 if around.size else 0.0
    return Signal(
        field,
        noise,
        math.sqrt(max(rest, 0.0)),
        smoothing,
        spread_of(grey[window.ring]),
        background,
        two_sided,
    )


def surround_plane(window: Window) -> Field:
    """A plane a channel through the surroundings, carried on under the defect: [h, w, channels].

    Least squares with Huber weights (three rounds): neither other defects nor texture pull it.
    """
    height, width, _ = window.pixels.shape
    rows, columns = np.nonzero(window.ring)
    if rows.size < 12:
        rows, columns = np.nonzero(np.ones((height, width), np.bool_))
    stride = max(rows.size // _MOST_SAMPLES, 1)
    rows, columns = rows[::stride], columns[::stride]
    design = np.stack([np.ones(rows.size), columns / width - 0.5, rows / height - 0.5], axis=1)
    values = window.pixels[rows, columns].astype(np.float64)
    weights = np.ones(rows.size)
    for _ in range(3):
        weighted = design * weights[:, None]
        factors = np.linalg.lstsq(weighted.T @ design, weighted.T @ values, rcond=None)[0]
        away = np.abs(values - design @ factors).max(axis=1)
        weights = 1.0 / np.maximum(1.0, away / max(1.5 * float(np.median(away)), 1e-3))
    x = (np.arange(width) / width - 0.5)[None, :, None]
    y = (np.arange(height) / height - 0.5)[:, None, None]
    return np.asarray(factors[0] + x * factors[1] + y * factors[2], np.float32)


def _smoothed(raw: Field, sigma: float) -> Field:
    return np.asarray(cv2.GaussianBlur(raw, (0, 0), sigma), np.float32)


def spread_of(values: npt.NDArray[np.floating]) -> float:
    """Standard deviation by the median of absolute deviations; never 0, as pixels are quantised."""
    if values.size == 0:
        return 1.0
    stride = max(values.size // _MOST_SAMPLES, 1)
    few = values[::stride]
    return max(float(1.4826 * np.median(np.abs(few - np.median(few)))), 12**-0.5 * 0.3)


def _towards_defect(difference: Field, window: Window) -> tuple[Field, bool]:
    """The difference [h, w, channels] along the defect's own direction in colour, in grey levels of it."""
    channels = difference.shape[2]
    calm = cv2.GaussianBlur(difference, (0, 0), 1.0).reshape(difference.shape)
    around, inside = calm[window.ring], calm[window.reach]
    spread = np.eye(channels)
    if around.shape[0] > 20:
        few = around[:: max(around.shape[0] // _MOST_SAMPLES, 1)]
        few = np.clip(few, *np.percentile(few, (3, 97), axis=0)).astype(np.float64)
        spread = np.atleast_2d(np.cov(few.T)) + 0.25 * np.eye(channels)
    inverse = np.linalg.inv(spread)
    strength = np.einsum("nc,cd,nd->n", inside, inverse, inside)
    strongest = inside[strength >= np.percentile(strength, 90)].astype(np.float64)
    axis = np.linalg.eigh(strongest.T @ strongest)[1][:, -1]
    side = inside.astype(np.float64) @ inverse @ axis
    above, below = (
        float(np.sum(np.clip(sign * side - 3 * np.sqrt(axis @ inverse @ axis), 0, None))) for sign in (1, -1)
    )
    towards = axis if above >= below else -axis
    chosen = strongest[strongest @ inverse @ towards > 0]
    mean = chosen.mean(axis=0) if chosen.shape[0] else towards
    weight = inverse @ mean
    weight *= float(np.linalg.norm(mean)) / max(float(mean @ weight), 1e-9)
    raw = difference @ weight.astype(np.float32)
    two_sided = min(above, below) > 0.4 * max(above, below) > 0
    if two_sided:
        raw = _closed(np.abs(raw).astype(np.float32), window)
    return np.ascontiguousarray(raw, np.float32), two_sided


def _closed(strength: Field, window: Window) -> Field:
    """Shade without its sign, the seam between a bright and a dark flank closed: a dent is one piece."""
    x1, y1, x2, y2 = window.box
    across = 2 * int(min(max(0.2 * min(x2 - x1, y2 - y1), 1.0), 15.0)) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (across, across))
    closed = cv2.morphologyEx(cv2.GaussianBlur(strength, (0, 0), 1.0), cv2.MORPH_CLOSE, kernel)
    closed = closed - (np.median(closed[window.ring]) if np.any(window.ring) else 0.0)
    return np.asarray(closed, np.float32)


def _height_of(field: Field, reach: Mask) -> float:
    """A first guess of the defect's height above its surroundings."""
    return float(np.percentile(field[reach], 96)) if np.any(reach) else 0.0
