"""A logistic model with few weights and a prior, and isotonic regression on top of one: numpy only.

The prior pulls the weights to given values (a Gaussian around them), so that few labels change little, and
labels without a single wrong answer do not send a slope to infinity.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

MOST_STEPS = 100
SETTLED = 1e-9
KNOTS = 12
"""Most knots of an isotonic fit in the bundle: more would retell the labels one by one."""


def fitted_weights(
    features: Floats, right: Floats, prior: Sequence[float], strength: float = 1.0,
    counts: Floats | None = None, given: Floats | None = None,
) -> Floats:
    """[k] weights for features [n, k] and answers [n] (0 or 1), by Newton's method with halved steps.

    `prior` [k]: the weights without any label; `strength`: how many standard deviations of a weight make one
    unit, squared; `counts` [n]: how often each row counts, once for None; `given` [n]: what is added to each
    row's score whatever the weights, nothing for None.
    """
    start = np.asarray(prior, np.float64)
    counted = np.ones(len(right)) if counts is None else counts
    offset = np.zeros(len(right)) if given is None else given
    weights = start.copy()

    def penalised(tried: Floats) -> float:
        scores = features @ tried + offset
        losses = np.logaddexp(0.0, scores) - right * scores
        return float((counted * losses).sum() + strength / 2 * ((tried - start) ** 2).sum())

    loss = penalised(weights)
    for _ in range(MOST_STEPS):
        p = probabilities(features @ weights + offset)
        slope = features.T @ (counted * (p - right)) + strength * (weights - start)
        curve = (features * (counted * p * (1 - p))[:, None]).T @ features + strength * np.eye(len(start))
        step = np.linalg.solve(curve, slope)
        while True:
            moved = weights - step
            new = penalised(moved)
            if new <= loss or np.abs(step).max() < SETTLED:
                break
            step = step / 2
        weights, gained, loss = moved, loss - new, new
        if gained < SETTLED:
            break
    return weights


def isotonic_knots(values: Floats, right: Floats) -> tuple[tuple[float, float], ...]:
    """(value, share right) in rising order: the rising step function nearest to the answers, by pooling
    adjacent violators, thinned to at most KNOTS blocks of equal mass first.
    """
    order = np.argsort(values, kind="stable")
    pieces = [piece for piece in np.array_split(order, KNOTS) if len(piece)]
    blocks: list[list[float]] = []  # [sum of values, sum of right, count]
    for piece in pieces:
        blocks.append([float(values[piece].sum()), float(right[piece].sum()), float(len(piece))])
        while len(blocks) > 1 and blocks[-2][1] / blocks[-2][2] >= blocks[-1][1] / blocks[-1][2]:
            last = blocks.pop()
            blocks[-1] = [a + b for a, b in zip(blocks[-1], last, strict=True)]
    # one more right and one more wrong a block: a block of 50 right answers is no proof of 1
    return tuple((total / count, (hits + 1.0) / (count + 2.0)) for total, hits, count in blocks)


def probabilities(scores: Floats) -> Floats:
    """The logistic of each score."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(scores, -60.0, 60.0))))


def log_losses(stated: Floats, right: Floats) -> Floats:
    """[n] minus the logarithm of the probability given to what was the case; 0 and 1 count as 1e-6 off."""
    kept = np.clip(stated, 1e-6, 1 - 1e-6)
    return np.asarray(-(right * np.log(kept) + (1 - right) * np.log(1 - kept)))
