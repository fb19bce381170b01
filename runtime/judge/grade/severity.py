"""How bad a defect is: the recipe's limits on its measured size, the uncertainty counted against the part.

A size below a limit belongs to that grade, at the limit to the next. Where the uncertainty spans a limit the
worse grade holds, and `mildest` says what it may be as well: whether that needs a person is decided by what
the two would do to the part (disposition.py). Without a size the type's own severity holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from ...limits import DefectType, Severity
from ..measure.measurement import Measurement
from .interval import Interval, exact, interval_of, shown


@dataclass(frozen=True)
class Graded:
    """severity: the one that holds; mildest: the mildest that the uncertainty allows; reason: with the
    numbers; is_size_missing: the recipe grades this type by a size that is not known."""

    severity: Severity
    mildest: Severity
    reason: str
    is_size_missing: bool = False


def severity_of(entry: DefectType, measurement: Measurement | None) -> Graded:
    """The severity of one defect of this type."""
    if entry.measure is None or not entry.grades:
        return Graded(entry.severity, entry.severity, "type_default")
    size = interval_of(measurement, entry.measure)
    if not isinstance(size, Interval):
        reason = f"{entry.measure} is not known ({size}): {entry.severity}, the type's own, holds"
        return Graded(entry.severity, entry.severity, reason, is_size_missing=True)
    worst, mildest = _step_at(entry, size.high), _step_at(entry, size.low)
    limits = [exact(step.below) for step in entry.grades if step.below is not None]
    text = f"{entry.measure} {shown(size, limits)}"
    severity = entry.grades[worst].severity
    if worst == mildest:
        return Graded(severity, severity, f"{text}: {_range(entry, worst)} is {severity}")
    spanned = ", ".join(f"{step.below:g} {size.unit}" for step in entry.grades[mildest:worst])
    reason = f"{text} may lie on either side of {spanned}: {severity}, the worse, holds"
    return Graded(severity, entry.grades[mildest].severity, reason)


def _step_at(entry: DefectType, size: Decimal) -> int:
    """Index of the first grade whose limit the size stays below; the last one has none."""
    for index, step in enumerate(entry.grades):
        if step.below is None or size < exact(step.below):
            return index
    raise AssertionError("the recipe's check lets no grades pass that end")


def _range(entry: DefectType, index: int) -> str:
    """`below 0.2 mm`, or `0.2 mm and more` for the last grade."""
    unit = "mm2" if entry.measure == "area" else "mm"
    below = entry.grades[index].below
    if below is not None:
        return f"below {below:g} {unit}"
    return f"{entry.grades[index - 1].below:g} {unit} and more" if index else "any size"
