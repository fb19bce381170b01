"""A measured value with its uncertainty, exact to the last digit that a report shows.

Limits are decimal numbers that people write, and 0.1 + 0.2 <= 0.3 must hold at a limit. So values become
Decimals of their shortest text, the text that the report carries: what is read there is what was compared.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from ...report import Measure
from ..measure.calipers import CUT
from ..measure.measurement import Measurement

UNITS = {"length": "mm", "width": "mm", "area": "mm2"}


@dataclass(frozen=True)
class Interval:
    """Value and expanded uncertainty (k = 2) in `unit`; `is_least`: the defect goes on beyond the picture."""

    value: Decimal
    uncertainty: Decimal
    unit: str
    is_least: bool = False

    @property
    def low(self) -> Decimal:
        """The least that the quantity may be."""
        return self.value - self.uncertainty

    @property
    def high(self) -> Decimal:
        """The most that the quantity may be."""
        return Decimal("Infinity") if self.is_least else self.value + self.uncertainty


def exact(value: float) -> Decimal:
    """The number that its shortest text shows."""
    return Decimal(repr(float(value)))


def interval_of(measurement: Measurement | None, name: str) -> Interval | str:
    """Length, width or area in mm or mm2, or why there is none."""
    if measurement is None:
        return "not_measured"
    measure = measurement.measures.get(name)
    if measure is None:
        return measurement.nulls.get(name) or measurement.nulls.get("size_mm") or "not_measured"
    if measure.unit != UNITS[name]:
        return measurement.nulls.get("size_mm", "not_calibrated")
    return _interval(measure, CUT in measurement.notes)


def shown(interval: Interval, limits: Iterable[Decimal]) -> str:
    """`0.15 mm +- 0.02 mm`, with as many digits as keep value and both ends on their side of every limit."""
    limits = tuple(limits)
    value = uncertainty = ""
    for digits in range(3, 18):
        value, uncertainty = (f"{part:.{digits}g}" for part in (interval.value, interval.uncertainty))
        middle, spread = Decimal(value), Decimal(uncertainty)
        pairs = (
            (interval.value, middle),
            (interval.low, middle - spread),
            (interval.value + interval.uncertainty, middle + spread),
        )
        if all(true.compare(limit) == text.compare(limit) for true, text in pairs for limit in limits):
            break
    least = "at least " if interval.is_least else ""
    return f"{least}{Decimal(value):f} {interval.unit} +- {Decimal(uncertainty):f} {interval.unit}"


def _interval(measure: Measure, is_least: bool) -> Interval | str:
    if not isinstance(measure.value, int | float):
        return "not_a_size"
    if measure.expanded_uncertainty is None:
        return "uncertainty_unknown"
    return Interval(exact(measure.value), exact(measure.expanded_uncertainty), measure.unit, is_least)
