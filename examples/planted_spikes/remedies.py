"""The remedies, each alone and for every linear; and ours, which chooses linear by linear.

naive       one static scale a tensor from its largest value
percentile  the same from the 99.99th percentile
mse         the same from the clip with the least squared error
per row     a scale of its own for every row
smoothed    one static scale behind smoothing with the best alpha
worst float naive, with the eight linears of a component that lose most kept float
ours        `calibration/choice.py`
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from orinspect.calibration.choice import LinearChoice, choose, static_rows
from orinspect.calibration.linears import Linear
from orinspect.calibration.ranges import InputStatistics
from orinspect.calibration.rounding import best_smoothings, linear_error, quantised_weight, some_columns
from orinspect.calibration.sessions import Floats

WORST = 8
Statistics = Sequence[InputStatistics]
Weights = Mapping[str, Floats]


def naive(statistics: Statistics, weights: Weights) -> tuple[LinearChoice, ...]:
    """Static, clipped nowhere."""
    return _static(statistics, "abs_max")


def percentile(statistics: Statistics, weights: Weights) -> tuple[LinearChoice, ...]:
    """Static, clipped at the 99.99th percentile."""
    return _static(statistics, "percentile")


def mse(statistics: Statistics, weights: Weights) -> tuple[LinearChoice, ...]:
    """Static, clipped where the squared error is least."""
    return _static(statistics, "mse")


def per_row(statistics: Statistics, weights: Weights) -> tuple[LinearChoice, ...]:
    """Every linear by row."""
    return tuple(replace(choice, mode="per_row") for choice in _static(statistics, "abs_max"))


def smoothed(statistics: Statistics, weights: Weights) -> tuple[LinearChoice, ...]:
    """Every linear static behind the best smoothing of its input."""
    choices = []
    for one in statistics:
        names = [linear.name for linear in one.linears]
        largest = np.max([np.abs(weights[name]).max(axis=1) for name in names], axis=0)
        best, _ = best_smoothings(one, [some_columns(weights[name]) for name in names], largest)
        choices += [
            replace(
                _choice(one, linear, best.clip or 1.0, best.clip_from or "abs_max"),
                alpha=best.alpha,
                smoothing=best.factors,
            )
            for linear in one.linears
        ]
    return tuple(choices)


def worst_float(statistics: Statistics, weights: Weights) -> tuple[LinearChoice, ...]:
    """Naive, but for the WORST linears."""
    errors = {}
    for one in statistics:
        rounded = static_rows(one.sample, one.abs_max)
        for linear in one.linears:
            weight = weights[linear.name]
            quantised, scale = quantised_weight(weight)
            error = linear_error(rounded @ quantised.astype(np.float32) * scale, one.sample @ weight)
            errors[linear.name] = error or 0.0
    worst = sorted(errors, key=lambda name: -errors[name])[:WORST]
    return tuple(
        replace(choice, mode="float") if choice.name in worst else choice
        for choice in _static(statistics, "abs_max")
    )


def ours(statistics: Statistics, weights: Weights) -> tuple[LinearChoice, ...]:
    """What the export does."""
    return choose(statistics, weights)


Remedy = Callable[[Statistics, Weights], tuple[LinearChoice, ...]]
REMEDIES: Mapping[str, Remedy] = {
    "naive": naive,
    "percentile": percentile,
    "mse": mse,
    "per row": per_row,
    "smoothed": smoothed,
    "worst float": worst_float,
    "ours": ours,
}


def _static(statistics: Statistics, which: str) -> tuple[LinearChoice, ...]:
    return tuple(
        _choice(one, linear, getattr(one, which) or 1.0, which)
        for one in statistics
        for linear in one.linears
    )


def _choice(one: InputStatistics, linear: Linear, clip: float, clip_from: str) -> LinearChoice:
    return LinearChoice(
        linear.name,
        linear.input,
        "static",
        clip,
        clip_from,
        None,
        None,
        len(one.sample),
        linear.in_features,
        linear.out_features,
    )
