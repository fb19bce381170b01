"""How far measured sizes are from known ones, and how honest their stated uncertainty is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .binomial import share_with_bounds

UNITS = {"length": "mm", "width": "mm", "area": "mm2"}


@dataclass(frozen=True)
class MeasuredSize:
    """One extent of one found defect, `quantity` in mm (area: mm2); `expanded_uncertainty` with k = 2.

    `source`: "calipers", or "box" where nothing was measured and the box less its margin stands in.
    """

    quantity: str
    type: str
    measured: float
    true: float
    expanded_uncertainty: float | None = None
    source: str = "calipers"


def size_error_figures(sizes: Iterable[MeasuredSize]) -> dict[str, Any] | None:
    """For each quantity `{n, unit, median, p95, bias, inside, source, per_type}`; None without any.

    median and p95 are of the absolute error, bias is the mean of measured - true, `inside` the share whose
    error is within its expanded uncertainty (with bounds), of those that state one.
    """
    rows = list(sizes)
    found = {quantity: [row for row in rows if row.quantity == quantity] for quantity in UNITS}
    table = {
        quantity: {"unit": UNITS[quantity], **_figures(own),
                   "per_type": {name: _figures([row for row in own if row.type == name])
                                for name in sorted({row.type for row in own})}}
        for quantity, own in found.items() if own
    }
    return table or None


def _figures(rows: Sequence[MeasuredSize]) -> dict[str, Any]:
    """The figures of one quantity."""
    errors = np.array([row.measured - row.true for row in rows])
    stated = [row for row in rows if row.expanded_uncertainty is not None]
    inside = sum(abs(row.measured - row.true) <= (row.expanded_uncertainty or 0.0) for row in stated)
    return {
        "n": len(rows), "source": "/".join(sorted({row.source for row in rows})),
        "median": float(np.median(np.abs(errors))), "p95": float(np.percentile(np.abs(errors), 95)),
        "bias": float(errors.mean()),
        "inside": share_with_bounds(inside, len(stated)) if stated else None,
    }
