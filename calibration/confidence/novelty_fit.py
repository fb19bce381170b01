"""The `novelty` section of `judgement.json`: how the encoder sees a recipe's calibration pictures.

A new board of the same product is not one of the boards that the statistics came from, and lies a little
farther out than they do. So every distance behind the limit is that of a part whose whole group (board, tile,
capture session) its model has not seen, and the share of parts that a new group will send to review is
stated: the mean share of each group under a limit to which that group contributed nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ...runtime.infer.engines.engine import FloatArray
from ...runtime.infer.signals.novelty import NoveltyModel

Floats = npt.NDArray[np.float64]

DIRECTIONS = 32
"""Directions with variances of their own, where there are four tiles for each (docs/confidence.md)."""
QUANTILE = 0.99
"""Share of the parts of unseen groups under the limit, where that is more than SMALLEST_LIMIT."""
LEAST_PARTS, LEAST_TILES = 20, 40
FOLDS = 5
LEAST_REST = 0.25
"""Share of the tiles that must be left when a group is left out; with a larger group parts are left out."""
SMALLEST_LIMIT = 4.0
"""Standard deviations of a part of an unseen group. What is really unlike lies at 7 to 40, and a quantile of
a few dozen parts says little about the next group's tail (docs/confidence.md)."""


def novelty_section(tokens: Sequence[FloatArray], groups: Sequence[str]) -> dict[str, Any] | None:
    """From the tokens [tiles, T, H] of each calibration part and its group; None where they are too few.

    Parts of one group are left out together, where there are two groups or more; `groups` says of how many,
    `expected_share` and `worst_share` what share of an unseen group's parts lies beyond the limit: the mean
    of the held-out folds, and the worst of them.
    """
    if len(tokens) != len(groups):
        raise ValueError(f"{len(tokens)} parts and {len(groups)} groups: give one of each a part")
    parts = [_Part(one.mean(axis=1, dtype=np.float64), group)
             for one, group in zip(tokens, groups, strict=True) if len(one)]
    tiles = sum(len(one.pooled) for one in parts)
    if len(parts) < LEAST_PARTS or tiles < LEAST_TILES:
        return None
    model = _fitted(parts)
    shares = []
    for own, rest in _left_out(parts):
        unaware = _fitted(rest)
        beyond = [unaware.novelty(float(one.sum()), len(one)) > 1 for one in _distances(unaware, own)]
        shares.append(float(np.mean(beyond)))
    return {
        **model.to_json(),
        "parts": len(parts),
        "tiles": tiles,
        "groups": len({one.group for one in parts}),
        "expected_share": round(float(np.mean(shares)), 6),
        "worst_share": round(max(shares), 6),
    }


@dataclass(frozen=True)
class _Part:
    """One part: the means of its tiles' tokens [tiles, H], and its group."""

    pooled: Floats
    group: str


def _fitted(parts: Sequence[_Part]) -> NoveltyModel:
    """The model of these parts, its scatter and its limit from parts left out with their groups."""
    distances = [one for own, rest in _left_out(parts) for one in _distances(_directions(rest), own)]
    every = np.concatenate(distances)
    mean, spread = float(every.mean()), max(float(every.std()), 1e-6)
    counts = np.array([len(one) for one in distances])
    excess = np.array([one.mean() for one in distances]) - mean
    # what the parts' means vary beyond what means of so many tiles do: of parts, and of their groups
    between = float(np.sqrt(max(float(np.mean(excess**2 - spread**2 / counts)), 0.0)))
    model = replace(_directions(parts), tile_mean=mean, tile_spread=spread, part_spread=between)
    scores = [model.score(float(one.sum()), len(one)) for one in distances]
    return replace(model, limit=max(float(np.quantile(scores, QUANTILE)), SMALLEST_LIMIT))


def _left_out(parts: Sequence[_Part]) -> list[tuple[list[_Part], list[_Part]]]:
    """Pairs of (parts left out, the others), so that each part is left out once, whole groups together."""
    names = [one.group for one in parts]
    if not _can_part(parts):
        names = [str(index) for index in range(len(parts))]
    known = {name: index % FOLDS for index, name in enumerate(dict.fromkeys(names))}
    pairs = []
    for fold in range(min(FOLDS, len(known))):
        own = [one for one, name in zip(parts, names, strict=True) if known[name] == fold]
        rest = [one for one, name in zip(parts, names, strict=True) if known[name] != fold]
        pairs.append((own, rest))
    return pairs


def _can_part(parts: Sequence[_Part]) -> bool:
    """Whether there are groups to leave out, and enough is left of the tiles without any one of them."""
    tiles: dict[str, int] = {}
    for one in parts:
        tiles[one.group] = tiles.get(one.group, 0) + len(one.pooled)
    return len(tiles) > 1 and max(tiles.values()) <= (1 - LEAST_REST) * sum(tiles.values())


def _distances(model: NoveltyModel, parts: Sequence[_Part]) -> list[Floats]:
    """[tiles] of each part."""
    return [model.tile_distances(one.pooled[:, None].astype(np.float32)) for one in parts]


def _directions(parts: Sequence[_Part]) -> NoveltyModel:
    """Mean, directions and variances of some parts' tiles; the rest is not known yet."""
    pooled = np.concatenate([one.pooled for one in parts])  # [tiles, H]
    mean = pooled.mean(axis=0)
    rows, variances = _principal(pooled - mean)
    kept = max(1, min(DIRECTIONS, len(pooled) // 4, len(mean) // 4))
    smallest = 1e-6 * float(variances[0]) + 1e-12  # constant tokens leave no variance at all
    residual = float(variances[kept:].sum() / max(len(mean) - kept, 1))
    return NoveltyModel(
        mean=mean.astype(np.float32),
        directions=rows[:kept].astype(np.float32),
        variances=np.maximum(variances[:kept], smallest).astype(np.float32),
        residual=max(residual, smallest),
        tile_mean=0.0,
        tile_spread=1.0,
        part_spread=0.0,
        limit=1.0,
        quantile=QUANTILE,
    )


def _principal(centred: Floats) -> tuple[Floats, Floats]:
    """(directions [k, H] orthonormal, variances [k]) of rows [n, H], the largest first.

    By the eigenvectors of the covariance where there are more rows than columns: a hundredth of the time.
    """
    count, hidden = centred.shape
    if count < hidden:
        _, singular, rows = np.linalg.svd(centred, full_matrices=False)
        return rows, singular**2 / max(count - 1, 1)
    found, vectors = np.linalg.eigh(centred.T @ centred / max(count - 1, 1))
    return np.ascontiguousarray(vectors.T[::-1]), np.maximum(found[::-1], 0.0)
