"""F of a float and an INT8 bundle on the same labelled parts, class by class, and how sure the change is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..inspected import EvaluatedPart
from ..scores import NamedBox, matches

RESAMPLES = 2000


@dataclass(frozen=True)
class FOfClass:
    """F of one defect type; None where neither truth nor detection has it."""

    f_float: float | None
    f_int8: float | None
    change: float | None
    truth: int


@dataclass(frozen=True)
class FChange:
    """F as reported by both detectors together, float and INT8, and the change (INT8 - float).

    `interval` holds 95 % of the changes when the parts are drawn again with replacement (paired, so that a
    hard part is hard for both). `resolution` is what one answer of one defect moves F by.
    """

    f_float: float
    f_int8: float
    change: float
    interval: tuple[float, float]
    resolution: float
    defects: int
    per_class: dict[str, FOfClass]

    def to_json(self) -> dict[str, Any]:
        """Plain values for the manifest."""
        return asdict(self)


def f_change(
    exact: Sequence[EvaluatedPart], int8: Sequence[EvaluatedPart], types: Sequence[str]
) -> FChange | None:
    """The change of F over the same parts in the same order; None when no part has a true box."""
    left = np.array([_counts(part, types) for part in exact])  # [parts, types, 3]: right, said, true
    right = np.array([_counts(part, types) for part in int8])
    if len(left) == 0 or not left[..., 2].any():
        return None
    drawn = np.random.default_rng(0).integers(len(left), size=(RESAMPLES, len(left)))
    both = np.stack([left.sum(axis=1), right.sum(axis=1)])  # [2, parts, 3]
    change = np.diff(_f(both[:, drawn].sum(axis=2)), axis=0)[0]
    low, high = np.percentile(change, [2.5, 97.5])
    whole = _f(both.sum(axis=1))
    said_and_true = both[0].sum(axis=0)[1:].sum()
    per_class = {}
    for column, name in enumerate(types):
        sums = np.stack([left[:, column].sum(axis=0), right[:, column].sum(axis=0)])
        known = [float(f) if row[1:].any() else None for f, row in zip(_f(sums), sums, strict=True)]
        moved = known[1] - known[0] if known[0] is not None and known[1] is not None else None
        per_class[name] = FOfClass(known[0], known[1], moved, int(sums[0, 2]))
    return FChange(
        float(whole[0]),
        float(whole[1]),
        float(whole[1] - whole[0]),
        (float(low), float(high)),
        float(2 / said_and_true),
        int(both[0, :, 2].sum()),
        per_class,
    )


def _counts(part: EvaluatedPart, types: Sequence[str]) -> npt.NDArray[np.int64]:
    """[types, 3]: right, said and true boxes of one part."""
    said = [
        NamedBox(one.type, tuple(map(float, one.bbox_xyxy)), float(one.confidence))
        for one in part.inspection.defects
    ]
    counts = np.zeros((len(types), 3), np.int64)
    column = {name: index for index, name in enumerate(types)}
    for box, found in zip(said, matches(said, part.truth), strict=True):
        counts[column[box.type], :2] += [found is not None, 1]
    for box in part.truth:
        if box.type in column:
            counts[column[box.type], 2] += 1
    return counts


def _f(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """F of [..., 3] counts; 0 where there is nothing to divide by."""
    right, total = counts[..., 0].astype(np.float64), counts[..., 1:].sum(axis=-1)
    return np.asarray(2 * right / np.maximum(total, 1))
