"""Expected calibration error: how far stated confidences are from the share that is right.

Confidences are put into bins; the error is the mean over all of |share right - mean confidence| of their bin
(Naeini, Cooper and Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning", AAAI 2015).
Bins of equal width are the usual figure; bins of equal mass (Nguyen and O'Connor, EMNLP 2015) do not hide
that nearly all confidences of a good detector lie in the topmost bin.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Binning = Literal["equal_width", "equal_mass"]
BINS = 10
CHANCE_DRAWS = 200


def calibration_error(
    confidences: Sequence[float] | npt.NDArray[np.float64], right: Sequence[bool] | npt.NDArray[np.bool_], *,
    bins: int = BINS, binning: Binning = "equal_width",
) -> float | None:
    """ECE of confidences [n] (0..1) whose answers were `right` [n] or not; None for no answers.

    ValueError for lists of unequal length or a confidence outside 0..1.
    """
    rows = reliability_bins(confidences, right, bins=bins, binning=binning)
    total = sum(row["count"] for row in rows)
    if total == 0:
        return None
    return float(sum(row["count"] * abs(row["right"] - row["confidence"]) for row in rows) / total)


def reliability_bins(
    confidences: Sequence[float] | npt.NDArray[np.float64], right: Sequence[bool] | npt.NDArray[np.bool_], *,
    bins: int = BINS, binning: Binning = "equal_width",
) -> list[dict[str, Any]]:
    """The filled bins, lowest first: `low, high` (edges), `count`, `confidence` (mean), `right` (share).

    A confidence on an edge belongs to the bin below, as (low, high]; 0 to the first. Equal confidences never
    part: bins of equal mass are cut at the nearest change of value, so that there may be fewer.
    """
    values = np.asarray(confidences, np.float64).reshape(-1)
    hits = np.asarray(right, np.float64).reshape(-1)
    if values.shape != hits.shape:
        raise ValueError(f"{len(values)} confidences and {len(hits)} answers: give one of each an answer")
    if values.size and not (values.min() >= 0.0 and values.max() <= 1.0):
        raise ValueError(f"confidences must lie in 0..1; received {values.min()}..{values.max()}")
    edges = np.linspace(0.0, 1.0, bins + 1)
    if binning == "equal_mass" and values.size:
        tops = np.unique(np.sort(values)[[-(-values.size * k // bins) - 1 for k in range(1, bins + 1)]])
        edges = np.concatenate([[0.0], tops[tops > 0.0]]) if tops[-1] > 0.0 else np.array([0.0, 1.0])
    places = np.clip(np.searchsorted(edges, values, side="left") - 1, 0, len(edges) - 2)
    rows = []
    for index in np.unique(places):
        own = places == index
        rows.append({"low": float(edges[index]), "high": float(edges[index + 1]), "count": int(own.sum()),
                     "confidence": float(values[own].mean()), "right": float(hits[own].mean())})
    return rows


def error_by_chance(
    confidences: Sequence[float] | npt.NDArray[np.float64], *,
    bins: int = BINS, binning: Binning = "equal_width", draws: int = CHANCE_DRAWS, seed: int = 1,
) -> tuple[float, float] | None:
    """(mean, 95 % quantile) of the ECE that perfectly calibrated confidences [n] have with so few answers.

    A share of few answers misses its own probability by chance, and the ECE counts every miss: below the
    quantile it shows nothing. Answers are drawn from the confidences; None for no answers.
    """
    values = np.asarray(confidences, np.float64).reshape(-1)
    if not values.size:
        return None
    rng = np.random.default_rng(seed)
    found = [calibration_error(values, rng.random(values.size) < values, bins=bins, binning=binning)
             for _ in range(draws)]
    errors = np.array(found, np.float64)
    return float(errors.mean()), float(np.quantile(errors, 0.95))
