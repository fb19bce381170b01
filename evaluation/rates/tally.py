"""One detector's matches as arrays, so that F and mAP of a thousand resamples cost a few products.

A resample gives every picture a weight (how often it was drawn); everything here is linear in those weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..scores import NamedBox, ScoredPicture, matches

Floats = npt.NDArray[np.float64]
# Resamples that are ranked together: bounds the memory to a few MB a class.
CHUNK = 128


@dataclass(frozen=True)
class RankedType:
    """One type's candidates over all pictures, most confident first: `right`, `picture` [n]; truth [P]."""

    right: npt.NDArray[np.bool_]
    picture: npt.NDArray[np.int64]
    truth: Floats


@dataclass(frozen=True)
class Tally:
    """`counts` [pictures, 3]: right, said, true; `ranked`: a RankedType a type that has truth or candidates.

    `found`: for every true box, picture by picture, whether it was found.
    """

    counts: Floats
    ranked: dict[str, RankedType]
    found: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, pictures: Sequence[ScoredPicture]) -> Tally:
        """Match every picture once."""
        counts, found = [], []
        for picture in pictures:
            hits = {index for index in matches(picture.detections, picture.truth) if index is not None}
            counts.append((len(hits), len(picture.detections), len(picture.truth)))
            found += [index in hits for index in range(len(picture.truth))]
        names = dict.fromkeys(box.type for picture in pictures for box in (*picture.truth, *_ranked(picture)))
        ranked = {name: _ranked_type(pictures, name) for name in names}
        return cls(np.array(counts, np.float64).reshape(-1, 3), ranked, np.array(found, bool))

    def precision_recall_f(self, weights: Floats) -> tuple[Floats, Floats, Floats]:
        """[resamples] each, for weights [resamples, pictures]; 0 where there is nothing to divide by."""
        right, said, true = (weights @ self.counts).T
        return _share(right, said), _share(right, true), _share(2.0 * right, said + true)

    def mean_average_precision(self, weights: Floats) -> Floats:
        """[resamples]: mean over the types that have truth in the resample; 0 where none has."""
        areas = np.stack([_average_precision(one, weights) for one in self.ranked.values()] or
                         [np.full(len(weights), np.nan)])
        known = np.isfinite(areas)
        return _share(np.where(known, areas, 0.0).sum(axis=0), known.sum(axis=0).astype(np.float64))


def curve_of_type(ranked: RankedType) -> tuple[Floats, Floats]:
    """(recall, precision) [n] after each candidate of one type, most confident first; empty without truth."""
    true = float(ranked.truth.sum())
    if not true:
        return np.zeros(0), np.zeros(0)
    right = np.cumsum(ranked.right, dtype=np.float64)
    return right / true, right / np.arange(1, len(right) + 1)


def _ranked_type(pictures: Sequence[ScoredPicture], name: str) -> RankedType:
    """The candidates of one type, matched among themselves as `average_precision` does."""
    rows: list[tuple[float, bool, int]] = []
    truth = np.zeros(len(pictures))
    for index, picture in enumerate(pictures):
        boxes = [box for box in _ranked(picture) if box.type == name]
        own = [box for box in picture.truth if box.type == name]
        truth[index] = len(own)
        rows += [(box.confidence, hit is not None, index)
                 for box, hit in zip(boxes, matches(boxes, own), strict=True)]
    rows.sort(key=lambda row: -row[0])
    right = np.array([row[1] for row in rows], bool)
    return RankedType(right, np.array([row[2] for row in rows], np.int64), truth)


def _average_precision(ranked: RankedType, weights: Floats) -> Floats:
    """[resamples] area under the all-point precision-recall curve; NaN where the type has no truth."""
    areas = []
    for first in range(0, len(weights), CHUNK):
        chosen = weights[first : first + CHUNK]
        drawn = chosen[:, ranked.picture]  # [chunk, n]
        right = np.cumsum(drawn * ranked.right, axis=1)
        precision = _share(right, np.cumsum(drawn, axis=1))
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        true = chosen @ ranked.truth
        area = (drawn * ranked.right * envelope).sum(axis=1)
        areas.append(np.where(true > 0, area / np.maximum(true, 1e-12), np.nan))
    return np.concatenate(areas) if areas else np.zeros(0)


def _ranked(picture: ScoredPicture) -> tuple[NamedBox, ...]:
    return picture.ranked or picture.detections


def _share(part: Floats, whole: Floats) -> Floats:
    return np.asarray(np.divide(part, whole, out=np.zeros_like(part), where=whole > 0))
