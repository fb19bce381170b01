"""How close an INT8 graph stays to its float graph: the accuracy gate of the export."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .ranges import Progress
from .sessions import Feed, MaskedFeed, Session, inputs_of


@dataclass(frozen=True)
class OutputError:
    """An output of the INT8 graph against the float graph's over all held feeds."""

    cosine: float
    max_abs_error: float


def output_errors(
    float_model: Path,
    int8_model: Path,
    feeds: Iterable[Feed],
    *,
    threads: int = 2,
    progress: Progress | None = None,
) -> dict[str, OutputError]:
    """Run both graphs over `feeds`; cosine and largest absolute difference of every output.

    Rows that a feed's mask excludes do not count in outputs whose leading axes have the mask's shape.
    """
    sums: dict[str, npt.NDArray[np.float64]] = {}
    kept = list(feeds)
    with Session(float_model, threads=threads) as exact, Session(int8_model, threads=threads) as int8:
        for index, feed in enumerate(kept):
            expected, measured = exact.run(inputs_of(feed)), int8.run(inputs_of(feed))
            for name in expected:
                left, right = _counted(feed, expected[name]), _counted(feed, measured[name])
                total = sums.setdefault(name, np.zeros(4))
                total[:3] += [(left * right).sum(), (left * left).sum(), (right * right).sum()]
                total[3] = max(total[3], np.abs(left - right).max(initial=0))
            if progress is not None:
                progress("accuracy", index + 1, len(kept))
    return {name: OutputError(_cosine(total), float(total[3])) for name, total in sums.items()}


def _counted(feed: Feed, value: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    if isinstance(feed, MaskedFeed) and value.shape[: feed.counted.ndim] == feed.counted.shape:
        value = value[feed.counted]
    return value.astype(np.float64)


def _cosine(total: npt.NDArray[np.float64]) -> float:
    dot, left, right = float(total[0]), float(total[1]), float(total[2])
    if left == 0 or right == 0:
        return 1.0 if left == right else 0.0
    return dot / float(np.sqrt(left * right))
