"""The uncertainty budget of a pixel scale: named relative contributions, combined as JCGM 100 (GUM) says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ...runtime.judge.scale import Floats

REFERENCE_C = 20.0
"""Lengths hold at 20 degrees Celsius (ISO 1)."""

Distribution = Literal["normal", "rectangular", "U-shaped"]
COVERED = math.erf(math.sqrt(2.0))
"""What k = 2 covers of a normal distribution: 95.45 %."""
_STEP, _BINS = 0.01, 500  # of the total's standard deviation: +-5 of them
_NEGLIGIBLE = 0.02  # of the total's standard deviation: a narrower one is a needle on this grid
_EXPANSION_SHARE = 0.1  # a coefficient of expansion is known to about 10 %, rectangular


@dataclass(frozen=True)
class Contribution:
    """One line of the budget: a relative standard uncertainty (k = 1), its distribution, its source."""

    name: str
    relative: float
    distribution: Distribution
    source: str


@dataclass(frozen=True)
class Dimension:
    """What is known of the thing in the picture: its size, tolerance (one side) and temperature.

    expansion_ppm: parts per million a kelvin. None: not known, and then not in the budget.
    """

    nominal_mm: float
    tolerance_mm: float | None = None
    temperature_c: float | None = None
    temperature_tolerance_c: float = 2.0
    expansion_ppm: float = 11.5

    @property
    def actual_mm(self) -> float:
        """The size at the stated temperature; the nominal size holds at 20 degrees."""
        if self.temperature_c is None:
            return self.nominal_mm
        return self.nominal_mm * (1 + self.expansion_ppm * 1e-6 * (self.temperature_c - REFERENCE_C))

    def contributions(self) -> list[Contribution]:
        """What tolerance and temperature contribute."""
        found = []
        if self.tolerance_mm is not None:
            share = self.tolerance_mm / self.nominal_mm / math.sqrt(3)
            source = f"tolerance +-{self.tolerance_mm:g} mm of {self.nominal_mm:g} mm"
            found.append(Contribution("dimension", share, "rectangular", source))
        if self.temperature_c is not None:
            expansion = self.expansion_ppm * 1e-6
            warm = expansion * self.temperature_tolerance_c / math.sqrt(3)
            slack = _EXPANSION_SHARE * expansion * abs(self.temperature_c - REFERENCE_C) / math.sqrt(3)
            source = (
                f"{self.temperature_c:g} +-{self.temperature_tolerance_c:g} C at {self.expansion_ppm:g}"
                " ppm/K, the coefficient known to 10 %"
            )
            found.append(Contribution("temperature", math.hypot(warm, slack), "rectangular", source))
        return found

    def unknown(self) -> list[str]:
        """Sentences on what nobody stated, for `not_in_budget`."""
        found = []
        if self.tolerance_mm is None:
            found.append("the tolerance of the dimension (--tolerance-mm)")
        if self.temperature_c is None:
            found.append("the temperature of the part (--temperature-c); steel grows 11.5 ppm a kelvin")
        return found


def combined(contributions: Sequence[Contribution]) -> float:
    """The combined relative standard uncertainty, such that k = 2 covers 95.45 %.

    The root of the sum of squares where all is normal. A bounded contribution cannot leave its bounds: where
    it rules, twice that root would cover everything, so here the sum's own interval is taken (JCGM 101: the
    distributions are propagated, not only their variances) and halved, as `widened` does for few degrees of
    freedom.
    """
    total = math.sqrt(sum(one.relative**2 for one in contributions))
    if total == 0.0 or not math.isfinite(total):
        return total
    return total * _half_interval(
        math.sqrt(sum(one.relative**2 for one in contributions if one.distribution == "normal")) / total,
        [(one.distribution, one.relative / total) for one in contributions if one.distribution != "normal"],
    ) / 2.0


def _half_interval(normal: float, bounded: Sequence[tuple[Distribution, float]]) -> float:
    """w such that a sum of standard deviation 1 lies within +-w with COVERED; exactly 2 of a normal one.

    `normal`: standard deviation of its normal part; the bounded ones by distribution and their own.
    """
    if all(deviation < _NEGLIGIBLE for _, deviation in bounded):
        return 2.0
    edges: Floats = (np.arange(2 * _BINS + 2, dtype=np.float64) - _BINS - 0.5) * _STEP
    mass: Floats = np.diff(_normal_below(edges, normal))
    for distribution, deviation in bounded:
        if deviation >= _NEGLIGIBLE:
            of_one: Floats = np.diff(_bounded_below(edges, distribution, deviation))
            mass = np.convolve(mass, of_one, mode="same")
    beside = np.cumsum(mass[_BINS + 1 :] + mass[_BINS - 1 :: -1])
    within = mass[_BINS] + np.concatenate([[0.0], beside])
    widths = (np.arange(len(within)) + 0.5) * _STEP
    return float(np.interp(COVERED, within, widths))


def _normal_below(edges: Floats, deviation: float) -> Floats:
    if deviation < _NEGLIGIBLE:
        return (edges > 0).astype(np.float64)
    return np.array([0.5 * math.erfc(-edge / deviation / math.sqrt(2)) for edge in edges])


def _bounded_below(edges: Floats, distribution: Distribution, deviation: float) -> Floats:
    """The distribution function of a rectangular or U-shaped (arc sine) contribution."""
    if distribution == "rectangular":
        return np.clip(0.5 + edges / (2 * math.sqrt(3) * deviation), 0.0, 1.0)
    return 0.5 + np.arcsin(np.clip(edges / (math.sqrt(2) * deviation), -1.0, 1.0)) / math.pi


def widened(freedom: int) -> float:
    """Factor of a standard uncertainty from `freedom` degrees of freedom, so that k = 2 covers 95 %.

    Student's factor over the normal one (JCGM 100, G.3), by its series in 1 / freedom.
    """
    nu = max(freedom, 2)
    return 1 + (2.372 / nu + 2.823 / nu**2) / 1.96
