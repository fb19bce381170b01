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
    """One extent of one found defect in mm (area: mm2); `measured` may be None; the uncertainty has k = 2."""

    quantity: str
    type: str
    true: float
    measured: float | None
    expanded_uncertainty: float | None = None


def size_error_figures(sizes: Iterable[MeasuredSize]) -> dict[str, Any] | None:
    """For each quantity `{unit, n, unmeasured, median, p95, bias, inside, per_type}`; None without any.

    n counts what was measured, `unmeasured` what was found and has no size in the report. median and p95 are
    of the absolute error, bias is the mean of measured - true, `inside` the share whose error is within its
    expanded uncertainty, with bounds (k = 2 promises 95 %).
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
    known = [(row.measured - row.true, row.expanded_uncertainty) for row in rows if row.measured is not None]
    errors = np.array([error for error, _ in known])
    stated = [abs(error) <= uncertainty for error, uncertainty in known if uncertainty is not None]
    return {
        "n": len(known), "unmeasured": len(rows) - len(known),
        "median": float(np.median(np.abs(errors))) if known else None,
        "p95": float(np.percentile(np.abs(errors), 95)) if known else None,
        "bias": float(errors.mean()) if known else None,
        "inside": share_with_bounds(sum(stated), len(stated)) if stated else None,
    }
