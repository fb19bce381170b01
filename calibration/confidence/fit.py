"""Which model states p(right) of a defect best, and how well: chosen by cross-validated log loss.

From simple to rich: `raw` (the detectors' own probability), `shift` (an offset on its logit: another share of
right answers than the detectors learnt with), `temperature` (one factor on its logit), `platt`
(factor and offset), `joint` (each detector on its own), `logistic` (their agreement, the type's margin and
the second look, too), `isotonic` (any rising curve over the raw one, where labels are many). The simplest is
taken whose loss lies within one standard error of the best one's and under that of every simpler one: on a
few hundred labels most differences are luck. The folds keep all defects of a picture together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...runtime.infer.judgement import ConfidenceModel
from .calibration_error import calibration_error, error_by_chance
from .logistic import Floats, fitted_weights, isotonic_knots, log_losses
from .part_rates import LabelledPart, part_rates

FOLDS = 5
LEAST_LABELS = 50
"""Fewer labelled defects fit nothing."""
WRONG_A_WEIGHT = 5
"""Wrong answers (or right ones, where those are rarer) for each weight that is fitted: with three wrong ones
of 250 luck chooses."""
ISOTONIC_LABELS, ISOTONIC_WRONG = 1000, 100
"""Labels, and wrong ones among them, from which a curve of any form is tried."""
BINS = 15
LEAST_PARTS = 20
"""Fewer labelled parts say nothing about clean ones."""
CLEAN_PRIOR = {"bias": 0.0, "rejected": -1.0}
"""Before any label: a part is as clean as its strongest rejected evidence is improbable."""

# method -> features with the weight that each has before any label is seen
LINEAR: dict[str, dict[str, float]] = {
    "raw": {"raw": 1.0},
    "shift": {"raw": 1.0, "bias": 0.0},
    "temperature": {"raw": 1.0},
    "platt": {"raw": 1.0, "bias": 0.0},
    "joint": {"bias": 0.0, "dense": 0.35, "words": 0.65, "dense_only": 0.0, "words_only": 0.0},
    "logistic": {"bias": 0.0, "dense": 0.35, "words": 0.65, "dense_only": 0.0, "words_only": 0.0,
                 "agreement": 0.0, "margin": 0.0, "shift": 0.0},
}
METHODS = (*LINEAR, "isotonic")
KEPT = {"shift": ("raw",)}
"""Weights that labels do not move."""


@dataclass(frozen=True)
class Labelled:
    """One answer: its features by name (judge/confidence.py), whether it was right, the picture it stands on
    (or its board, where there are many: folds do not part them), and how often it counts.
    """

    features: dict[str, float]
    right: bool
    picture: str
    count: float = 1.0


def fitted(method: str, rows: Sequence[Labelled]) -> ConfidenceModel:
    """One model of METHODS on all `rows`; ValueError for another name."""
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; expected one of {', '.join(METHODS)}")
    low, high = 1.0 / (len(rows) + 2.0), 1.0 - 1.0 / (len(rows) + 2.0)  # rule of succession
    prior = LINEAR.get(method, LINEAR["raw"])
    if method in ("raw", "isotonic"):
        weights = dict(prior)
    else:
        weights = _weights(prior, rows, KEPT.get(method, ()))
    model = ConfidenceModel(method, weights, (), low, high)
    if method != "isotonic":
        return model
    right = np.array([row.right for row in rows], np.float64)
    return ConfidenceModel(method, weights, isotonic_knots(stated(model, rows), right), low, high)


def fitted_linear(prior: dict[str, float], rows: Sequence[Labelled], method: str) -> ConfidenceModel:
    """A logistic model over the features of `prior`, whatever they are."""
    total = sum(row.count for row in rows)
    low, high = 1.0 / (total + 2.0), 1.0 - 1.0 / (total + 2.0)
    return ConfidenceModel(method, _weights(prior, rows), (), low, high)


def chosen_method(rows: Sequence[Labelled]) -> tuple[str, dict[str, float]]:
    """The method by the rule above, and every method's cross-validated log loss."""
    folds = np.array(_folds(rows, FOLDS))
    right = np.array([row.right for row in rows], np.float64)
    losses: dict[str, Floats] = {}
    for method in _possible(rows):
        held_out = cross_fitted(rows, folds, lambda part, method=method: fitted(method, part))  # type: ignore[misc]
        losses[method] = log_losses(held_out, right)
    means = {method: float(loss.mean()) for method, loss in losses.items()}
    best = min(means, key=lambda method: means[method])
    least = np.inf
    for method in losses:  # from simple to rich
        worse = losses[method] - losses[best]
        if means[method] < least and worse.mean() <= worse.std() / np.sqrt(len(worse)):
            return method, means
        least = min(least, means[method])
    return best, means


def cross_fitted(
    rows: Sequence[Labelled],
    folds: npt.NDArray[np.int64],
    fit: Callable[[Sequence[Labelled]], ConfidenceModel],
) -> Floats:
    """[n] what is stated of each row by a model fitted on the other folds."""
    held_out = np.zeros(len(rows))
    for fold in np.unique(folds):
        model = fit([row for row, own in zip(rows, folds, strict=True) if own != fold])
        for index in map(int, np.flatnonzero(folds == fold)):
            held_out[index] = model.probability(rows[index].features)
    return held_out


def calibration_report(rows: Sequence[Labelled], raw: Floats) -> dict[str, Any]:
    """ECE before (`raw` [n]) and after, each fold of the pictures stated by a fit on the others, whose method
    is chosen there too; by 15 bins of equal width and of equal mass. `ece_by_chance`: the mean and the 95 %
    quantile that so many true confidences have.
    """
    folds = np.array(_folds(rows, FOLDS))
    held_out = cross_fitted(rows, folds, lambda part: fitted(chosen_method(part)[0], part))
    right = np.array([row.right for row in rows], np.float64)
    report: dict[str, Any] = {"labels": len(rows), "right": int(right.sum()), "bins": BINS}
    for name, stated_by in (("before", raw), ("after", held_out)):
        report[name] = {
            "ece": calibration_error(stated_by, right > 0, bins=BINS),
            "ece_equal_mass": calibration_error(stated_by, right > 0, bins=BINS, binning="equal_mass"),
            "ece_by_chance": list(error_by_chance(stated_by, bins=BINS) or ()),
            "log_loss": float(log_losses(stated_by, right).mean()),
        }
    return report


def rates_report(
    parts: Sequence[LabelledPart], defects: Sequence[Labelled], clean: Sequence[Labelled], threshold: float
) -> dict[str, Any]:
    """What `threshold` makes of the parts `before` and `after` calibration: each fold of the pictures judged
    by models of the others, raw where those have too few labels. Folds are those of the parts.
    """
    places = {name: place for place, name in enumerate(dict.fromkeys(part.picture for part in parts))}
    after = []
    for fold in range(FOLDS):
        others = [row for row in defects if places[row.picture] % FOLDS != fold]
        passing = [row for row in clean if places[row.picture] % FOLDS != fold]
        defect = fitted(chosen_method(others)[0], others) if len(others) >= LEAST_LABELS else None
        passes = fitted_linear(CLEAN_PRIOR, passing, "logistic") if len(passing) >= LEAST_PARTS else None
        after += [part.judged(defect, passes) for part in parts if places[part.picture] % FOLDS == fold]
    before = [part.judged(None, None) for part in parts]
    return {"threshold": threshold, "before": part_rates(before, threshold),
            "after": part_rates(after, threshold)}


def stated(model: ConfidenceModel, rows: Sequence[Labelled]) -> Floats:
    """[n] what a model states of rows."""
    return np.array([model.probability(row.features) for row in rows], np.float64)


def _weights(
    prior: dict[str, float], rows: Sequence[Labelled], kept: Sequence[str] = ()
) -> dict[str, float]:
    """All weights of `prior`, fitted but for the `kept` ones."""
    free = [name for name in prior if name not in kept]
    table = np.array([[row.features[name] for name in free] for row in rows], np.float64)
    given = np.array([sum(prior[name] * row.features[name] for name in kept) for row in rows], np.float64)
    right = np.array([row.right for row in rows], np.float64)
    counts = np.array([row.count for row in rows], np.float64)
    found = fitted_weights(table, right, [prior[name] for name in free], counts=counts, given=given)
    return prior | {name: float(f"{weight:.6g}") for name, weight in zip(free, found, strict=True)}


def _possible(rows: Sequence[Labelled]) -> list[str]:
    """The methods that so many labels allow, by the rarer kind of answer."""
    right = sum(row.right for row in rows)
    rarer = min(right, len(rows) - right)
    found = [
        method
        for method, prior in LINEAR.items()
        if method == "raw" or rarer >= WRONG_A_WEIGHT * (len(prior) - len(KEPT.get(method, ())))
    ]
    is_many = len(rows) >= ISOTONIC_LABELS and len(rows) - right >= ISOTONIC_WRONG
    return [*found, "isotonic"] if is_many else found


def _folds(rows: Sequence[Labelled], folds: int) -> list[int]:
    """A fold for every row, the same for all rows of a picture; pictures are dealt out in order."""
    places: dict[str, int] = {}
    return [places.setdefault(row.picture, len(places)) % folds for row in rows]
