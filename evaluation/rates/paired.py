"""Two bundles on the same rows: differences with their intervals, and exact tests of the discordant pairs.

Both are resampled together, so that a hard board is hard for both; McNemar's test looks only at defects (or
parts) that one of the two got right and the other did not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .binomial import mcnemar_p
from .resampling import percentile_interval, resampling_header
from .tally import Tally
from .verdicts import PartVerdict

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Contender:
    """One of the two: matches, verdicts, `figures` name -> value, `resampled` unit -> name -> [resamples]."""

    tally: Tally
    verdicts: Sequence[PartVerdict]
    figures: Mapping[str, float | None]
    resampled: Mapping[str, Mapping[str, Floats]]


def paired_figures(first: Contender, second: Contender, groups: Sequence[str]) -> dict[str, Any]:
    """`difference` (first - second, an interval a unit of resampling) and `mcnemar` on the same rows."""
    difference: dict[str, Any] = {}
    for name, value in first.figures.items():
        other = second.figures[name]
        difference[name] = {
            "first": value, "second": other,
            "difference": None if value is None or other is None else value - other,
            **{unit: percentile_interval(table[name] - second.resampled[unit][name])
               for unit, table in first.resampled.items()},
        }
    return {
        **resampling_header(groups),
        "difference": difference,
        "mcnemar": {
            "defects": discordance(first.tally.found, second.tally.found),
            "parts": discordance(_whole(first.tally), _whole(second.tally)),
            "verdicts": discordance(_held(first.verdicts), _held(second.verdicts)),
        },
    }


def discordance(first: Bools, second: Bools) -> dict[str, Any]:
    """`both, only_first, only_second, neither, p` of two lists of right or wrong over the same things."""
    if first.shape != second.shape:
        raise ValueError(f"{len(first)} answers beside {len(second)}: both must be about the same rows")
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    return {"both": int((first & second).sum()), "only_first": only_first, "only_second": only_second,
            "neither": int((~first & ~second).sum()), "p": mcnemar_p(only_first, only_second)}


def _whole(tally: Tally) -> Bools:
    """[parts]: every defect found with its type, and nothing else reported."""
    right, said, true = tally.counts.T
    return np.asarray((right == said) & (right == true))


def _held(verdicts: Sequence[PartVerdict]) -> Bools:
    """[parts]: a part with a defect did not pass, a good one got no defect."""
    return np.array([not one.is_escape and not one.is_false_alarm for one in verdicts], bool)
