"""From a window to one number a pixel: how far it is from its surroundings, towards the defect."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

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
    return _signal(raw, difference, background, two_sided, window)


def unseen_signal(window: Window) -> Signal:
    """The surroundings alone, no signal yet: for what is sought in another way than by its height."""
    background = surround_plane(window)
    grey = (window.pixels - background).mean(axis=2)
    return Signal(grey, 1.0, 0.0, 0.0, spread_of(grey[window.ring]), background, False)


def signal_towards_mask(signal: Signal, window: Window, mask: Mask) -> Signal:
    """The signal along the direction in colour that tells the pixels of `mask` best from the surroundings.

    Fisher's: the difference of the means, whitened by what varies inside and outside. Light and dark rust
    have their hue in common.
    """
    if signal.is_two_sided:
        return signal
    difference = window.pixels - signal.background
    core = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(np.bool_)
    core = core if int(np.count_nonzero(core)) >= 12 else mask
    far = ~cv2.dilate(mask.astype(np.uint8), np.ones((7, 7), np.uint8)).astype(np.bool_) & window.ring
    if int(np.count_nonzero(core)) < 6 or int(np.count_nonzero(far)) < 40:
        return signal
    calm = np.asarray(cv2.GaussianBlur(difference, (0, 0), 0.8), np.float32).reshape(difference.shape)
    inside, around = clipped(_few(calm[core])), clipped(_few(calm[far]))
    mean, middle = inside.mean(axis=0), around.mean(axis=0)
    varies = 0.5 * np.cov(inside.T) + 0.5 * np.cov(around.T) + 0.5 * np.eye(len(mean))
    weight = np.linalg.solve(varies, mean - middle)
    weight *= float(np.linalg.norm(mean - middle)) / max(float((mean - middle) @ weight), 1e-9)
    raw = (difference - middle.astype(np.float32)) @ weight.astype(np.float32)
    return _signal(np.ascontiguousarray(raw, np.float32), difference, signal.background, False, window)


def _few(values: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    return values[:: max(len(values) // _MOST_SAMPLES, 1)]


def _signal(raw: Field, difference: Field, background: Field, two_sided: bool, window: Window) -> Signal:
    """Smoothed as little as its noise allows, and what is left in the surroundings."""
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


def smoothed_further(signal: Signal, window: Window, sigma_px: float) -> Signal:
    """The same signal under more blur, `sigma_px` in all: where an edge is soft it costs nothing."""
    more = sigma_px**2 - signal.smoothing_px**2
    if more <= 0:
        return signal
    field = _smoothed(signal.field, math.sqrt(more))
    return replace(signal, field=field, noise=spread_of(field[window.ring]), smoothing_px=sigma_px)


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
        weights = 1.0 / np.maximum(1.0, away / max(1.5 * quantile(away, 0.5), 1e-3))
    x = (np.arange(width) / width - 0.5)[None, :, None]
    y = (np.arange(height) / height - 0.5)[:, None, None]
    return np.asarray(factors[0] + x * factors[1] + y * factors[2], np.float32)


def _smoothed(raw: Field, sigma: float) -> Field:
    return np.asarray(cv2.GaussianBlur(raw, (0, 0), sigma), np.float32)


def quantile(values: npt.NDArray[np.floating], share: float) -> float:
    """The value that `share` of the values lie under, one of them; NumPy's own takes five times as long."""
    at = min(int(share * values.size), values.size - 1)
    return float(np.partition(values, at, axis=None)[at])


def clipped(values: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Samples [n, channels] with what lies beyond the 3rd and the 97th percentile of a channel pulled in."""
    low, high = int(0.03 * len(values)), int(0.97 * len(values))
    ordered = np.partition(values, (low, high), axis=0)
    return np.asarray(np.clip(values, ordered[low], ordered[high]), np.float64)


def spread_of(values: npt.NDArray[np.floating]) -> float:
    """Standard deviation by the median of absolute deviations; never 0, as pixels are quantised."""
    if values.size == 0:
        return 1.0
    stride = max(values.size // _MOST_SAMPLES, 1)
    few = values[::stride]
    return max(1.4826 * quantile(np.abs(few - np.float32(quantile(few, 0.5))), 0.5), 12**-0.5 * 0.3)


def _towards_defect(difference: Field, window: Window) -> tuple[Field, bool]:
    """The difference [h, w, channels] along the defect's own direction in colour, in grey levels of it."""
    channels = difference.shape[2]
    calm = np.asarray(cv2.GaussianBlur(difference, (0, 0), 1.0), np.float32).reshape(difference.shape)
    around, inside = calm[window.ring], calm[window.reach]
    spread = np.eye(channels)
    if around.shape[0] > 20:
        few = around[:: max(around.shape[0] // _MOST_SAMPLES, 1)]
        spread = np.atleast_2d(np.cov(clipped(few).T)) + 0.25 * np.eye(channels)
    inverse = np.linalg.inv(spread)
    strength = np.einsum("nc,cd,nd->n", inside, inverse, inside)
    strongest = inside[strength >= quantile(strength, 0.9)].astype(np.float64)
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
    x1, y1, x2, y2 = window.tight
    across = 2 * int(min(max(0.2 * min(x2 - x1, y2 - y1), 1.0), 15.0)) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (across, across))
    closed = cv2.morphologyEx(cv2.GaussianBlur(strength, (0, 0), 1.0), cv2.MORPH_CLOSE, kernel)
    closed = closed - (np.median(closed[window.ring]) if np.any(window.ring) else 0.0)
    return np.asarray(closed, np.float32)


def _height_of(field: Field, reach: Mask) -> float:
    """A first guess of the defect's height above its surroundings."""
    return quantile(field[reach], 0.96) if np.any(reach) else 0.0
