"""What parts got as verdicts: escapes, false alarms, reviews, each with exact bounds, and the trade-off.

An escape is a part with a true defect that passed. A false alarm is a part without any on which a defect was
reported, whatever became of it; a false reject one that was rejected outright. Review is counted apart: a
person sees those parts, so that they are neither.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .binomial import clopper_pearson, share_with_bounds
from .resampling import percentile_interval

Floats = npt.NDArray[np.float64]
# Places of the curve that are looked up: shares of good parts that may raise an alarm.
FALSE_ALARM_LIMITS = (0.001, 0.01, 0.03, 0.05, 0.12)
MOST_POINTS = 60
MOST_NAMES = 20


@dataclass(frozen=True)
class PartVerdict:
    """One part: whether it truly has a defect, what became of it, and how strong the evidence was (0..1).

    `has_defect` is None where all that is marked on the part is out of scoring: it is neither good nor bad.
    """

    name: str
    has_defect: bool | None
    disposition: str
    reported: int
    reasons: tuple[str, ...]
    evidence: float

    @property
    def is_escape(self) -> bool:
        """A part with a defect that passed."""
        return self.has_defect is True and self.disposition == "pass"

    @property
    def is_false_alarm(self) -> bool:
        """A good part with a reported defect."""
        return self.has_defect is False and self.reported > 0


def verdict_rates(parts: Sequence[PartVerdict]) -> dict[str, Any]:
    """`dispositions, escape, false_alarm, false_reject, review, review_share`; bounds hold at 95 %.

    Shares of an escape are of the defective parts, of a false alarm of the good ones, of a review of all.
    """
    bad = [part for part in parts if part.has_defect]
    good = [part for part in parts if part.has_defect is False]
    reviewed = [part for part in parts if part.disposition == "review"]
    reasons = Counter(reason for part in reviewed for reason in part.reasons)
    return {
        "dispositions": {kind: {"defective": sum(part.disposition == kind for part in bad),
                                "good": sum(part.disposition == kind for part in good)}
                         for kind in ("pass", "reject", "review")},
        "escape": _counted([part for part in bad if part.is_escape], len(bad)),
        "false_alarm": _counted([part for part in good if part.is_false_alarm], len(good)),
        "false_reject": _counted([part for part in good if part.disposition == "reject"], len(good)),
        "review": {**share_with_bounds(len(reviewed), len(parts)), "reasons": dict(reasons.most_common()),
                   "of_defective": sum(part.has_defect is True for part in reviewed),
                   "of_good": sum(part.has_defect is False for part in reviewed)},
        "review_share": len(reviewed) / len(parts) if parts else 0.0,
    }


def alarm_curve(parts: Sequence[PartVerdict], weights: Floats | None = None) -> dict[str, Any] | None:
    """Escapes against false alarms when a part is stopped from some strength of evidence on.

    `points`: the curve from the highest threshold down, each with Clopper-Pearson bounds; `at`: the fewest
    escapes with at most that share of false alarms; `auc`: chance that a defective part shows more evidence
    than a good one, with the 2.5 and 97.5 percentiles over `weights` [resamples, parts]. Parts that are
    neither good nor bad are left out. None where all others are good, or none is.
    """
    known = np.flatnonzero([part.has_defect is not None for part in parts])
    has_defect = np.array([part.has_defect is True for part in parts], bool)[known]
    evidence = np.array([part.evidence for part in parts], np.float64)[known]
    bad, good = np.sort(evidence[has_defect]), np.sort(evidence[~has_defect])
    if not len(bad) or not len(good):
        return None
    corners = _corners(bad, good)
    points = [_point(threshold, bad, good) for threshold in _thinned(corners, MOST_POINTS)]
    interval: tuple[float | None, float | None] = (None, None)
    if weights is not None:
        interval = percentile_interval(_auc(evidence, has_defect, weights[:, known]))
    auc = float(_auc(evidence, has_defect, np.ones((1, len(known))))[0])
    at = [{"limit": limit, **_point(_strictest(limit, corners, bad, good), bad, good)}
          for limit in FALSE_ALARM_LIMITS]
    return {"defective": len(bad), "good": len(good), "auc": auc, "auc_low": interval[0],
            "auc_high": interval[1], "at": at, "points": points}


def _strictest(limit: float, corners: list[float], bad: Floats, good: Floats) -> float:
    """The threshold with the fewest escapes among those with at most `limit` false alarms, then the fewest of
    those; `bad` and `good` in rising order."""
    allowed = [one for one in corners if _alarms(one, good) / len(good) <= limit]
    return min(allowed, key=lambda one: (_escapes(one, bad), _alarms(one, good)))


def _corners(bad: Floats, good: Floats) -> list[float]:
    """Thresholds at which escapes or false alarms change, highest first; the first one stops no part."""
    values = np.unique(np.concatenate([bad, good]))[::-1]
    return [float("inf"), *map(float, values)]


def _thinned(values: list[float], most: int) -> list[float]:
    """`most` of them at the most, evenly by rank, first and last among them."""
    if len(values) <= most:
        return values
    return [values[round(index * (len(values) - 1) / (most - 1))] for index in range(most)]


def _point(threshold: float, bad: Floats, good: Floats) -> dict[str, Any]:
    """One threshold: shares of the defective parts below it and of the good parts at or above it."""
    escapes, alarms = _escapes(threshold, bad), _alarms(threshold, good)
    low, high = clopper_pearson(escapes, len(bad))
    alarm_low, alarm_high = clopper_pearson(alarms, len(good))
    return {"threshold": None if threshold == float("inf") else threshold,
            "escape": escapes / len(bad), "escape_low": low, "escape_high": high,
            "false_alarm": alarms / len(good), "false_alarm_low": alarm_low, "false_alarm_high": alarm_high}


def _escapes(threshold: float, bad: Floats) -> int:
    return int(np.searchsorted(bad, threshold, side="left"))


def _alarms(threshold: float, good: Floats) -> int:
    return len(good) - int(np.searchsorted(good, threshold, side="left"))


def _auc(evidence: Floats, has_defect: npt.NDArray[np.bool_], weights: Floats) -> Floats:
    """[resamples] area under the curve, equal evidence counted half; NaN where a kind was not drawn."""
    values, place = np.unique(evidence, return_inverse=True)
    sums = np.zeros((2, len(weights), len(values)))
    for kind in (0, 1):
        own = np.flatnonzero(has_defect == bool(kind))
        np.add.at(sums[kind].T, place[own], weights[:, own].T)
    good, bad = sums
    below = np.cumsum(good, axis=1) - good
    wins = (bad * (below + 0.5 * good)).sum(axis=1)
    pairs = good.sum(axis=1) * bad.sum(axis=1)
    return np.where(pairs > 0, wins / np.maximum(pairs, 1e-12), np.nan)


def _counted(parts: Sequence[PartVerdict], of: int) -> dict[str, Any]:
    """How many, their share with bounds, and the first names to look at."""
    return {**share_with_bounds(len(parts), of), "images": [part.name for part in parts[:MOST_NAMES]]}
