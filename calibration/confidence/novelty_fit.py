"""The `novelty` section of `judgement.json`: how the encoder sees a recipe's calibration pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...runtime.infer.engines.engine import FloatArray
from ...runtime.infer.signals.novelty import NoveltyModel

DIRECTIONS = 32
"""Directions with variances of their own, where there are four tiles for each (docs/confidence.md)."""
QUANTILE = 0.99
"""Share of the calibration parts under the limit: the others of a hundred go to a person for it."""
LEAST_PARTS, LEAST_TILES = 20, 40
FOLDS = 5
SMALLEST_LIMIT = 2.0
"""Standard deviations: a limit from few parts must not be lower, or normal scatter would pass it."""


def novelty_section(tokens: Sequence[FloatArray]) -> dict[str, Any] | None:
    """From the tokens [tiles, T, H] of each calibration part; None where they are too few.

    Distances behind the limit are taken from parts that their model has not seen, each fifth in turn.
    """
    parts = [one for one in tokens if len(one)]
    tiles = sum(len(one) for one in parts)
    if len(parts) < LEAST_PARTS or tiles < LEAST_TILES:
        return None
    distances: list[np.ndarray[Any, np.dtype[np.float64]]] = []
    for fold in range(FOLDS):
        seen = [part for index, part in enumerate(parts) if index % FOLDS != fold]
        model = _directions(seen)
        distances += [model.tile_distances(part) for part in parts[fold::FOLDS]]
    every = np.concatenate(distances)
    mean, spread = float(every.mean()), float(every.std())
    counts = np.array([len(one) for one in distances])
    excess = np.array([one.mean() for one in distances]) - mean
    # what the parts' means vary beyond what means of so many tiles do
    between = float(np.sqrt(max(float(np.mean(excess**2 - spread**2 / counts)), 0.0)))
    whole = _directions(parts)
    model = _with(whole, mean, spread, between, limit=1.0)
    scores = [model.score(float(one.sum()), len(one)) for one in distances]
    limit = max(float(np.quantile(scores, QUANTILE)), SMALLEST_LIMIT)
    return {**_with(whole, mean, spread, between, limit).to_json(), "parts": len(parts), "tiles": tiles}


def _directions(parts: Sequence[FloatArray]) -> NoveltyModel:
    """Mean, directions and variances of some parts' tiles; the rest is not known yet."""
    pooled = np.concatenate([part.mean(axis=1, dtype=np.float64) for part in parts])  # [tiles, H]
    mean = pooled.mean(axis=0)
    _, singular, rows = np.linalg.svd(pooled - mean, full_matrices=False)
    variances = singular**2 / max(len(pooled) - 1, 1)
    kept = max(1, min(DIRECTIONS, len(pooled) // 4, len(mean) // 4))
    smallest = 1e-6 * float(variances[0]) + 1e-12  # constant tokens leave no variance at all
    residual = float(variances[kept:].sum() / max(len(mean) - kept, 1))
    return NoveltyModel(
        mean.astype(np.float32),
        rows[:kept].astype(np.float32),
        np.maximum(variances[:kept], smallest).astype(np.float32),
        max(residual, smallest),
        0.0,
        1.0,
        0.0,
        1.0,
        QUANTILE,
    )


def _with(model: NoveltyModel, mean: float, spread: float, between: float, limit: float) -> NoveltyModel:
    return replace(
        model, tile_mean=mean, tile_spread=max(spread, 1e-6), part_spread=between, limit=limit
    )
