"""static, per_row, smoothed or float: how each linear runs, chosen by the error that it makes on held rows.

The error of a linear is that of `rounding.linear_error`, without bias: a mean of the rows' ratios, because a
few spiked rows would dominate one ratio of sums and hide that a static scale has ruined every other row.
The cheapest way that is good enough wins: static, per_row, smoothed static, smoothed per_row, float.
Linears that read one tensor (q, k, v; gate, up) are chosen together, so that they share one QuantizeLinear.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Literal, TypeAlias

import numpy as np

from .linears import Linear
from .ranges import InputStatistics
from .rounding import (
    ROW_FLOOR,
    Smoothing,
    best_smoothings,
    linear_error,
    per_row_rows,
    quantised_weight,
    row_errors,
    some_columns,
    static_rows,
)
from .sessions import Floats

__all__ = [
    "ROW_FLOOR",
    "Limits",
    "LinearChoice",
    "Mode",
    "choose",
    "per_row_rows",
    "quantised_weight",
    "row_errors",
    "static_rows",
]

Mode: TypeAlias = Literal["static", "per_row", "float"]


@dataclass(frozen=True)
class Limits:
    """When a way is good enough, and when INT8 is not.

    static: its error is at most `static_factor` x the least (or under `static_free`, where the gain is not
    worth the extra operators) and at most `static_limit`; smoothed static likewise. per_row: at most
    `smooth_above`, or smoothing gains less than `smooth_factor`. Smoothing is searched only where neither
    reaches `smooth_above`. Above `float_limit` a linear stays float: sound linears stay under 0.035, also
    smoothed ones; three of the encoder's fc2 at 0.05 to 0.09 cost 2.5 % of the decoder's tokens.
    """

    static_factor: float = 2.0
    static_free: float = 0.01
    static_limit: float = 0.05
    smooth_above: float = 0.03
    smooth_factor: float = 1.5
    float_limit: float = 0.05


@dataclass(frozen=True)
class LinearChoice:
    """How one linear runs. `clip` and `clip_from` are those of the best static scale, also where it lost.

    With `alpha` the linear is smoothed: `smoothing` [in] float32 > 0 divides the activation, multiplies the
    weight's rows, and `clip` holds for the smoothed activation.

    Errors are None where they could not be measured (no held row with an output: such a linear stays float)
    or, for `error_smoothed`, where nothing called for smoothing; it is that of the chosen smoothed way, else
    the least of both.
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
    error_smoothed: float | None = None

    @property
    def error(self) -> float | None:
        """The error of the chosen way; of a linear kept float, the least that INT8 would make."""
        if self.mode == "float":
            errors = (self.error_static, self.error_per_row, self.error_smoothed)
            return min((error for error in errors if error is not None), default=None)
        if self.alpha is not None:
            return self.error_smoothed
        return self.error_static if self.mode == "static" else self.error_per_row

    def to_json(self) -> dict[str, str | float | int | None]:
        """Plain values for the bundle's manifest, without the factors of the smoothing."""
        plain = asdict(replace(self, smoothing=None))
        del plain["smoothing"]
        return plain


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


@dataclass(frozen=True, eq=False)
class _Way:
    """One way to run all linears of an input in INT8."""

    mode: Literal["static", "per_row"]
    clip: float | None
    clip_from: str | None
    smoothing: Smoothing | None


class _Group:
    """The linears of one input, and the error of each under every way that was measured."""

    def __init__(self, of_input: InputStatistics, weights: Mapping[str, Floats]) -> None:
        self.of_input, self._weights = of_input, weights
        self.ways: list[_Way] = []
        self.errors: dict[str, list[float | None]] = {linear.name: [] for linear in of_input.linears}

    def measure(self, ways: Sequence[_Way]) -> None:
        """Measure `ways`, which share one smoothing, on all rows; a weight is read and rounded once."""
        rows, smoothing = self.of_input.sample, ways[0].smoothing
        factors = None if smoothing is None else smoothing.factors
        smoothed = rows if factors is None else rows / factors
        rounded = [
            static_rows(smoothed, w.clip) if w.clip is not None else per_row_rows(smoothed) for w in ways
        ]
        for linear in self.of_input.linears:
            weight = self._weights[linear.name]
            exact = rows @ weight
            quantised, scale = quantised_weight(weight, factors)
            whole = quantised.astype(np.float32)
            silent = not weight.any()  # nothing to lose
            self.errors[linear.name] += [
                0.0 if silent else linear_error((values @ whole) * scale, exact) for values in rounded
            ]
        self.ways += ways

    def error(self, linear: str, way: _Way) -> float:
        """The error of `linear` under `way`, infinite where it could not be measured."""
        error = self.errors[linear][self.ways.index(way)]
        return float("inf") if error is None else error

    def least(self, linear: str) -> float:
        """The least error of any measured way."""
        return min(self.error(linear, way) for way in self.ways)

    def smoothings(self, linears: Collection[str]) -> list[_Way]:
        """The searched ways with smoothing, for the good of `linears`."""
        columns, largest = [], np.zeros(self.of_input.sample.shape[1], np.float32)
        for name in linears:
            columns.append(some_columns(self._weights[name]))
            np.maximum(largest, _row_maxima(self._weights[name]), out=largest)
        found = best_smoothings(self.of_input, columns, largest)
        return [
            _Way("static" if one.clip is not None else "per_row", one.clip, one.clip_from, one)
            for one in found
        ]


def _row_maxima(weight: Floats) -> Floats:
    """max|row| [in] of a weight, without a copy of it."""
    largest: Floats = np.maximum(weight.max(axis=1, initial=0), -weight.min(axis=1, initial=0))
    return largest


def _choose_for_input(
    of_input: InputStatistics, weights: Mapping[str, Floats], limits: Limits, keep_float: Collection[str]
) -> list[LinearChoice]:
    clips = of_input.clips()
    if not clips:  # nothing but zeros came: nothing can be measured
        return [_choice(linear, of_input, None, None, None) for linear in of_input.linears]
    group = _Group(of_input, weights)
    static = [_Way("static", clip, name, None) for name, clip in clips.items()]
    per_row = _Way("per_row", None, None, None)
    group.measure([*static, per_row])
    wanted = [linear.name for linear in of_input.linears if linear.name not in keep_float]
    wanted = [name for name in wanted if group.errors[name][0] is not None]
    best_static = min(static, key=lambda way: sum(group.error(name, way) for name in wanted))
    ways = [best_static, per_row]
    if any(min(group.error(name, way) for way in ways) > limits.smooth_above for name in wanted):
        for way in group.smoothings(wanted):
            group.measure([way])
            ways.append(way)
    way = _cheapest_good_way(group, ways, wanted, limits)
    choices = []
    for linear in of_input.linears:
        is_int8 = linear.name in wanted and group.error(linear.name, way) <= limits.float_limit
        choices.append(_choice(linear, of_input, group, ways, way if is_int8 else None))
    return choices


def _cheapest_good_way(group: _Group, ways: list[_Way], wanted: list[str], limits: Limits) -> _Way:
    """The first of `ways` that is good enough for every linear that INT8 can hold; else the one that keeps
    the most of them, and then the most accurate.
    """
    able = [name for name in wanted if group.least(name) <= limits.float_limit]
    for way in ways:
        if all(_is_good_enough(group, name, way, limits) for name in able):
            return way

    def loss(way: _Way) -> tuple[int, float]:
        errors = [group.error(name, way) for name in able]
        return sum(error > limits.float_limit for error in errors), sum(errors)

    return min(ways, key=loss)


def _is_good_enough(group: _Group, linear: str, way: _Way, limits: Limits) -> bool:
    error, least = group.error(linear, way), group.least(linear)
    if way.mode == "static":
        return error <= limits.static_limit and error <= max(limits.static_free, limits.static_factor * least)
    if way.smoothing is not None:
        return error <= limits.float_limit
    return error <= limits.float_limit and error <= max(limits.smooth_above, limits.smooth_factor * least)


def _choice(
    linear: Linear, of_input: InputStatistics, group: _Group | None, ways: list[_Way] | None, way: _Way | None
) -> LinearChoice:
    """`way` None: float. `ways` are static, per_row and, where searched, the smoothed ones."""
    measured = [] if group is None or ways is None else ways
    errors = [None if group is None else group.errors[linear.name][group.ways.index(one)] for one in measured]
    chosen = None if way is None else way.smoothing
    smoothed = errors[2:] if way is None or chosen is None else [errors[measured.index(way)]]
    told = way if chosen is not None else (measured[0] if measured else None)
    return LinearChoice(
        linear.name,
        linear.input,
        "float" if way is None else way.mode,
        None if told is None else told.clip,
        None if told is None else told.clip_from,
        errors[0] if measured else None,
        errors[1] if measured else None,
        len(of_input.sample),
        linear.in_features,
        linear.out_features,
        None if chosen is None else chosen.alpha,
        None if chosen is None else chosen.factors,
        min((error for error in smoothed if error is not None), default=None),
    )
