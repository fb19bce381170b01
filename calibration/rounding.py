"""What INT8 leaves of weights and activations, how wrong a linear becomes by it, and smoothing against that.

Smoothing divides an activation's channels by factors that multiply the weight's rows, so x @ w stays x @ w.
As in SmoothQuant (Xiao et al. 2022, equation 4) a factor is max|x|^alpha / max|w|^(1 - alpha), channel by
channel: it moves outliers of fixed channels from the activation into the weight, where there is room for
them. alpha is searched, and so is what max|x| means: over all rows, or over rows that were scaled to the same
size first (with scales by row only a channel's share of its row matters). The search runs on few rows and few
of the weight's columns; the caller measures the winner in full.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .ranges import QUANTISED_MAX, InputStatistics, Magnitudes
from .sessions import Floats

ROW_FLOOR = 1e-10  # smallest divisor of a row: a row of zeros stays zeros
TAIL_PERCENT = 99
TAIL_WEIGHT = 0.25
ALPHAS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
SEARCH_ROWS = 64
SEARCH_COLUMNS = 256
_SLICE_VALUES = 1 << 20
_ACTIVATION_FLOOR = 0.25  # of the median channel: what calibration saw little of must not be blown up
_WEIGHT_FLOOR = 1e-4  # of the median channel: a weight of zeros takes any activation


def quantised_weight(weight: Floats, smoothing: Floats | None = None) -> tuple[npt.NDArray[np.int8], Floats]:
    """weight [in, out], rows times `smoothing` [in] -> int8 [in, out] in -127..127, scales [out] float32 > 0.

    Worked on in slices of rows: beside the result it needs a few MB, whatever the weight's size.
    """
    rows = max(1, _SLICE_VALUES // max(1, weight.shape[1]))
    slices = [slice(first, first + rows) for first in range(0, weight.shape[0], rows)]

    def smoothed(part: slice) -> Floats:
        return weight[part] if smoothing is None else weight[part] * smoothing[part, None]

    largest = np.zeros(weight.shape[1], np.float32)
    for part in slices:
        np.maximum(largest, np.abs(smoothed(part)).max(axis=0), out=largest)
    scale = np.where(largest > 0, largest / QUANTISED_MAX, 1).astype(np.float32)
    quantised = np.empty(weight.shape, np.int8)
    for part in slices:
        steps = smoothed(part) / scale
        np.rint(steps, out=steps)
        quantised[part] = np.clip(steps, -QUANTISED_MAX, QUANTISED_MAX, out=steps)
    return quantised, scale


def static_rows(rows: Floats, clip: float) -> Floats:
    """`rows` after one static scale clip / 127: what QuantizeLinear and DequantizeLinear leave of them."""
    step = np.float32(clip / QUANTISED_MAX)
    quantised: Floats = np.clip(np.rint(rows / step), -QUANTISED_MAX - 1, QUANTISED_MAX) * step
    return quantised


def per_row_rows(rows: Floats) -> Floats:
    """`rows` after a scale of their own each, max|row| / 127."""
    largest = np.maximum(np.abs(rows).max(axis=1, keepdims=True, initial=0), np.float32(ROW_FLOOR))
    quantised: Floats = np.rint(rows / largest * QUANTISED_MAX) * (largest / np.float32(QUANTISED_MAX))
    return quantised


def row_errors(measured: Floats, exact: Floats) -> Floats:
    """|measured - exact| / |exact| for each row [n]; rows with (nearly) no output are left out."""
    size, used = _sizes(exact)
    errors: Floats = np.linalg.norm(measured[used] - exact[used], axis=1) / size[used]
    return errors


def linear_error(measured: Floats, exact: Floats) -> float | None:
    """One figure for a linear's outputs [rows, out]; None where no row has an output.

    The mean of the rows' errors, or a quarter of their 99th percentile where that is more: one kind of row
    (the token behind a picture) may be a hundredth of all and still must not be lost. In the percentile a
    row's error counts against the median row's output at least, so that rows which put out next to nothing do
    not decide.
    """
    size, used = _sizes(exact)
    if not used.any():
        return None
    wrong, size = np.linalg.norm(measured[used] - exact[used], axis=1), size[used]
    tail = np.percentile(wrong / np.maximum(size, np.median(size)), TAIL_PERCENT, method="lower")
    return max(float((wrong / size).mean()), TAIL_WEIGHT * float(tail))


def _sizes(exact: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """|row| for each row, and which rows have an output."""
    size: Floats = np.linalg.norm(exact, axis=1)
    return size, size > 1e-6 * (size.max(initial=0) or 1)


@dataclass(frozen=True, eq=False)
class Smoothing:
    """Factors [in] float32 > 0 that divide the activation; their geometric mean is 1.

    `clip` (with its origin, abs_max or mse) is the best static clip of the smoothed activation, None where
    the scales are by row.
    """

    alpha: float
    factors: Floats
    clip: float | None
    clip_from: str | None


def best_smoothings(
    of_input: InputStatistics, columns: Sequence[Floats], weight_max: Floats
) -> tuple[Smoothing, Smoothing]:
    """The best smoothing for a static scale and the best for scales by row, over all linears of one input.

    `columns` are some columns [in, n] of each linear's weight, `weight_max` [in] the largest |w| of each
    channel over the linears.
    """
    rows = of_input.sample[:: max(1, len(of_input.sample) // SEARCH_ROWS)][:SEARCH_ROWS]
    exact = [rows @ some for some in columns]
    static: tuple[float, Smoothing] | None = None
    by_row: tuple[float, Smoothing] | None = None
    for alpha, factors in _candidates(of_input, weight_max):
        smoothed = rows / factors
        rounded = [_rounded(some, factors) for some in columns]
        error = _error(per_row_rows(smoothed), rounded, exact)
        if by_row is None or error < by_row[0]:
            by_row = error, Smoothing(alpha, factors, None, None)
        for name, clip in _clips(of_input, factors, smoothed).items():
            error = _error(static_rows(smoothed, clip), rounded, exact)
            if static is None or error < static[0]:
                static = error, Smoothing(alpha, factors, clip, name)
    assert static is not None and by_row is not None  # there is always an alpha, and always abs_max
    return static[1], by_row[1]


def some_columns(weight: Floats) -> Floats:
    """At most SEARCH_COLUMNS columns of a weight [in, out], evenly spread."""
    step = max(1, weight.shape[1] // SEARCH_COLUMNS)
    return np.ascontiguousarray(weight[:, ::step][:, :SEARCH_COLUMNS])


def _candidates(of_input: InputStatistics, weight_max: Floats) -> Iterator[tuple[float, Floats]]:
    sizes = np.abs(of_input.sample)
    shares = (sizes / np.maximum(sizes.max(axis=1, keepdims=True), np.float32(ROW_FLOOR))).max(axis=0)
    weights = _floored(weight_max, _WEIGHT_FLOOR)
    for channels in (of_input.channel_max, shares):
        activations = _floored(channels, _ACTIVATION_FLOOR)
        for alpha in ALPHAS:
            logarithm = alpha * np.log(activations) - (1 - alpha) * np.log(weights)
            yield alpha, np.exp(logarithm - logarithm.mean()).astype(np.float32)


def _floored(channels: Floats, share: float) -> Floats:
    """`channels` raised to a share of their median (of their largest where the median is 0)."""
    middle = float(np.median(channels)) or float(channels.max(initial=0)) or 1.0
    floored: Floats = np.maximum(channels, np.float32(share * middle))
    return floored


def _clips(of_input: InputStatistics, factors: Floats, smoothed: Floats) -> dict[str, float]:
    """Clips of the smoothed activation: over all counted rows, and by squared error on the sample."""
    magnitudes = Magnitudes()
    magnitudes.add(smoothed)
    clips = {"abs_max": float((of_input.channel_max / factors).max()), "mse": magnitudes.mse_clip()}
    return {name: clip for name, clip in clips.items() if clip > 0} or {"abs_max": 1.0}


def _rounded(weight: Floats, factors: Floats) -> Floats:
    quantised, scale = quantised_weight(weight, factors)
    return quantised * scale


def _error(rows: Floats, rounded: Sequence[Floats], exact: Sequence[Floats]) -> float:
    """The linears' errors together; a linear without output adds nothing."""
    measured = zip(rounded, exact, strict=True)
    return sum(linear_error(rows @ weight, expected) or 0.0 for weight, expected in measured)
