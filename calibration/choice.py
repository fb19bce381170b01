"""static, per_row or float: how each linear runs in INT8, chosen by the error that it makes on held rows.

The error of a linear is the mean over rows of |y_int8 - y| / |y|, without bias. A mean of ratios, because a
few spiked rows would dominate one ratio of sums and hide that a static scale has ruined every other row.
Linears that read one tensor (q, k, v; gate, up) are chosen together, so that they share one QuantizeLinear.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from .linears import Linear
from .ranges import QUANTISED_MAX, InputStatistics
from .sessions import Floats

Mode: TypeAlias = Literal["static", "per_row", "float"]
_SLICE_VALUES = 1 << 20
ROW_FLOOR = 1e-10  # smallest divisor of a row: a row of zeros stays zeros


@dataclass(frozen=True)
class Limits:
    """When static is good enough, and when INT8 is not.

    static: its error is at most `static_factor` x per_row's (or under `static_free`, where the gain is not
    worth the extra operators) and at most `static_limit`. Otherwise per_row, up to `float_limit`; above it
    float.
    """

    static_factor: float = 2.0
    static_free: float = 0.01
    static_limit: float = 0.05
    float_limit: float = 0.10


@dataclass(frozen=True)
class LinearChoice:
    """How one linear runs. `clip` and `clip_from` are those of the best static scale, also where it lost.

    With `alpha` the linear is smoothed: `smoothing` [in] float32 > 0 divides the activation, multiplies the
    weight's rows, and `clip` holds for the smoothed activation.

    Errors are None where they could not be measured (no held row with an output): such a linear stays float.
    """

    name: str
    input: str
    mode: Mode
    clip: float | None
    clip_from: str | None
    error_static: float | None
    error_per_row: float | None
    rows: int
    in_features: int
    out_features: int
    alpha: float | None = None
    smoothing: Floats | None = field(default=None, compare=False, repr=False)

    def to_json(self) -> dict[str, str | float | int | None]:
        """Plain values for the bundle's manifest, without the factors of the smoothing."""
        plain = asdict(replace(self, smoothing=None))
        del plain["smoothing"]
        return plain


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
    largest = np.maximum(np.abs(rows).max(axis=1, keepdims=True), np.float32(ROW_FLOOR))
    quantised: Floats = np.rint(rows / largest * QUANTISED_MAX) * (largest / np.float32(QUANTISED_MAX))
    return quantised


def row_errors(measured: Floats, exact: Floats) -> Floats:
    """|measured - exact| / |exact| for each row [n]; rows with (nearly) no output are left out."""
    size = np.linalg.norm(exact, axis=1)
    used = size > 1e-6 * (size.max(initial=0) or 1)
    errors: Floats = np.linalg.norm(measured[used] - exact[used], axis=1) / size[used]
    return errors


def choose(
    statistics: Iterable[InputStatistics],
    weights: Mapping[str, Floats],
    *,
    limits: Limits | None = None,
    keep_float: Collection[str] = (),
) -> tuple[LinearChoice, ...]:
    """A choice for every linear of `statistics`; `weights` gives linear name -> [in, out] float32.

    Linears in `keep_float` are measured too but stay float.
    """
    limits = limits or Limits()
    choices: list[LinearChoice] = []
    for of_input in statistics:
        choices += _choose_for_input(of_input, weights, limits, keep_float)
    return tuple(choices)


@dataclass(frozen=True)
class _Measured:
    """A linear's errors: clip name -> static's, and per_row's; empty and None where no row has an output."""

    linear: Linear
    static: dict[str, float]
    per_row: float | None


def _choose_for_input(
    of_input: InputStatistics, weights: Mapping[str, Floats], limits: Limits, keep_float: Collection[str]
) -> list[LinearChoice]:
    clips = of_input.clips()
    static = {name: static_rows(of_input.sample, clip) for name, clip in clips.items()}
    by_row = per_row_rows(of_input.sample) if len(of_input.sample) else of_input.sample
    measured = [
        _measure(linear, weights[linear.name], of_input.sample, static, by_row) for linear in of_input.linears
    ]
    candidates = [
        m
        for m in measured
        if m.linear.name not in keep_float and m.per_row is not None and m.per_row <= limits.float_limit
    ]
    best = min(clips, key=lambda name: sum(m.static[name] for m in candidates), default=None)
    all_static = best is not None and all(_static_is_enough(m, best, limits) for m in candidates)
    choices = []
    for item in measured:
        error_static = item.static.get(best) if best is not None else None
        mode: Mode = "static" if all_static else "per_row"
        error = error_static if all_static else item.per_row
        if error is None or error > limits.float_limit or item.linear.name in keep_float:
            mode = "float"
        clip = clips[best] if best is not None else None
        linear = item.linear
        choices.append(
            LinearChoice(
                linear.name,
                linear.input,
                mode,
                clip,
                best,
                error_static,
                item.per_row,
                len(of_input.sample),
                linear.in_features,
                linear.out_features,
            )
        )
    return choices


def _measure(
    linear: Linear, weight: Floats, rows: Floats, static: dict[str, Floats], by_row: Floats
) -> _Measured:
    quantised, scale = quantised_weight(weight)
    rounded = quantised.astype(np.float32) * scale
    if not weight.any():  # nothing to lose
        return _Measured(linear, dict.fromkeys(static, 0.0), 0.0)
    exact = rows @ weight
    per_row = row_errors(by_row @ rounded, exact)
    if len(per_row) == 0:
        return _Measured(linear, {}, None)
    errors = {name: float(row_errors(values @ rounded, exact).mean()) for name, values in static.items()}
    return _Measured(linear, errors, float(per_row.mean()))


def _static_is_enough(item: _Measured, clip: str, limits: Limits) -> bool:
    error, per_row = item.static[clip], item.per_row
    if per_row is None or error > limits.static_limit:
        return False
    return error <= limits.static_free or error <= limits.static_factor * per_row
