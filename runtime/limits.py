"""What the plant allows: the sections of a recipe by which a part is judged, and their checks.

`[[defect]]` with its grades, `[measure]`, `[compliance]`, `[review]`, `[quality]`. docs/grades.md explains
them; sizes are mm, areas mm2.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .errors import RecipeError
from .tolerance.standards import Dimension, Tolerance, Zone, tolerance_of

Severity = Literal["ignore", "minor", "major", "critical"]
Measured = Literal["length", "width", "area"]
DecisionRule = Literal["ISO 14253-1", "simple"]
MinorRule = Literal["pass", "review", "reject"]
InspectionLevel = Literal["S-1", "S-2", "S-3", "S-4", "I", "II", "III"]

SEVERITIES: tuple[Severity, ...] = ("ignore", "minor", "major", "critical")
"""From harmless to worst."""


@dataclass(frozen=True)
class Grade:
    """One step of a type's grades: `severity` for a size `below` this many mm (mm2); None: any size."""

    severity: Severity
    below: float | None = None


@dataclass(frozen=True)
class DefectType:
    """One type of defect: the word that the model says, the plant's code for it, and how bad it is.

    With `measure` and `grades` its measured size decides; `severity` holds where the size is not known.
    """

    type: str
    code: str
    severity: Severity = "major"
    measure: Measured | None = None
    grades: tuple[Grade, ...] = ()


@dataclass(frozen=True)
class Measuring:
    """[measure]: whether defects are measured, and how many of a part at most, so that time is bounded."""

    enabled: bool = True
    max_defects: int = 100


@dataclass(frozen=True)
class ComplianceRule:
    """[compliance]: which standard a part must meet, what is compared with it, and how doubt is decided.

    `grade`: IT5 to IT14 of ISO 286-1, or class f, m, c, v of ISO 2768-1 (TOML may say `class`). `of`: length
    or width of the defects of `types`, of all types when empty. `compared`: "deviation": that measure is a
    deviation from the nominal form and must not exceed the tolerance; "size": it is the size of a feature and
    must lie in the tolerance zone: around the nominal size (`zone` "js"), above it ("H") or below it ("h").
    `dimension`: "radius" for external radii and chamfer heights of ISO 2768-1. `rule`: "ISO 14253-1": the
    expanded uncertainty guards every limit; "simple": it does not. `max_uncertainty_ratio`: expanded
    uncertainty over the width of the tolerance above which nothing is shown to comply; 0.25 is a measurement
    capability index of 2 (JCGM 106, 7.6.3).
    """

    standard: str
    grade: str
    nominal_mm: float
    of: Literal["length", "width"] = "length"
    compared: Literal["deviation", "size"] = "deviation"
    types: tuple[str, ...] = ()
    dimension: Dimension = "linear"
    zone: Zone = "js"
    rule: DecisionRule = "ISO 14253-1"
    max_uncertainty_ratio: float = 0.25

    @property
    def tolerance(self) -> Tolerance:
        """What the standard allows; RecipeError when it has no such grade or size."""
        return tolerance_of(self.standard, self.grade, self.nominal_mm, dimension=self.dimension)


@dataclass(frozen=True)
class SampleRule:
    """How many confident passes of a lot a person sees: the sample size of ISO 2859-1, single sampling, for
    `lot_size` parts at an inspection `level`."""

    lot_size: int
    level: InspectionLevel = "II"


@dataclass(frozen=True)
class Review:
    """[review]: what becomes of a part with minor defects only, the sample of passes that is reviewed, and
    whether uncertain defects are looked at again with the tile moved a little (docs/confidence.md)."""

    minor: MinorRule = "reject"
    sample: SampleRule | None = None
    second_look: bool = True


@dataclass(frozen=True)
class Band:
    """Least and most that a quantity may be; None: no limit on that side."""

    min: float | None = None
    max: float | None = None


@dataclass(frozen=True)
class QualityLimits:
    """[quality]: bands that replace those certified in the bundle; None keeps the bundle's.

    The quantities are those of `capture/quality.py`: `[quality.blur_px]` with `max = 2.5`. With `enabled` off
    pictures are not measured.
    """

    enabled: bool = True
    brightness: Band | None = None
    contrast: Band | None = None
    blur_px: Band | None = None
    noise_sigma: Band | None = None
    glare_share: Band | None = None
    dark_share: Band | None = None
    light_ratio: Band | None = None
    contrast_ratio: Band | None = None
    blur_added_px: Band | None = None
    noise_added: Band | None = None

    @property
    def bands(self) -> dict[str, Band]:
        """The bands that the recipe gives, by quantity."""
        found = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        return {name: band for name, band in found.items() if isinstance(band, Band)}


def compliance_table(table: Any, where: str) -> Any:
    """The [compliance] table with `class` read as `grade`; RecipeError for what no tolerance grade is."""
    if not isinstance(table, dict):
        return table
    for key in table:
        name = str(key).lower()
        if name.split("_")[0] in ("ra", "rz", "roughness"):
            raise RecipeError(
                f"{where}: compliance.{key}: a limit of surface roughness is not a tolerance grade, and a"
                " camera does not measure it; remove it, and check it with a roughness tester"
            )
        if "inch" in name or name in ("unit", "units", "nominal_in", "nominal"):
            raise RecipeError(
                f"{where}: compliance.{key}: sizes are in mm; give nominal_mm (1 inch is 25.4 mm)"
            )
    if "class" not in table:
        return table
    if "grade" in table:
        raise RecipeError(f"{where}: compliance has both 'grade' and 'class'; keep one of them")
    return {("grade" if key == "class" else key): value for key, value in table.items()}


def check_grades(defects: Sequence[DefectType], where: str) -> None:
    """Grades that leave a size undecided, or contradict each other."""
    for entry in defects:
        place = f"{where}: defect {entry.type!r}"
        if not entry.grades:
            continue
        if entry.measure is None:
            raise RecipeError(f"{place} has grades and no measure; add measure = 'length', 'width' or 'area'")
        *steps, last = entry.grades
        if last.below is not None:
            raise RecipeError(
                f"{place}: its last grade ends at {last.below:g}; add one without 'below' for any larger size"
            )
        previous = 0.0
        for step in steps:
            if step.below is None:
                raise RecipeError(f"{place}: only its last grade may have no 'below'")
            if not (math.isfinite(step.below) and step.below > previous):
                raise RecipeError(
                    f"{place}: 'below' is {step.below:g} after {previous:g}; the limits must rise from 0"
                )
            previous = step.below
        ranks = [SEVERITIES.index(step.severity) for step in entry.grades]
        if ranks != sorted(ranks):
            named = ", ".join(step.severity for step in entry.grades)
            raise RecipeError(
                f"{place}: a larger size is milder ({named}); order the severities from mild to bad"
            )


def check_compliance(rule: ComplianceRule | None, types: Sequence[str], where: str) -> None:
    """A standard, grade or size that the tables do not have, and types that the recipe does not have."""
    if rule is None:
        return
    try:
        tolerance = rule.tolerance
    except RecipeError as error:
        raise RecipeError(f"{where}: compliance: {error}") from error
    unknown = [name for name in rule.types if name not in types]
    if unknown:
        raise RecipeError(
            f"{where}: compliance.types names {unknown[0]!r}; the recipe's types are {', '.join(types)}"
        )
    if rule.compared == "size" and not rule.types:
        raise RecipeError(f"{where}: compliance compares the size of a feature; name its type in types")
    if rule.zone != "js" and (tolerance.is_symmetric or rule.compared == "deviation"):
        raise RecipeError(
            f"{where}: compliance.zone is {rule.zone!r}; it places the zone of an IT grade that a size is"
            " compared with, remove it"
        )
    ratio = rule.max_uncertainty_ratio
    if not 0 < ratio <= 1:
        raise RecipeError(f"{where}: compliance.max_uncertainty_ratio is {ratio:g}; it must be in 0 .. 1")


def check_judging(measuring: Measuring, review: Review, quality: QualityLimits, where: str) -> None:
    """Numbers of [measure], [review] and [quality] outside their range."""
    if measuring.max_defects < 1:
        raise RecipeError(f"{where}: measure.max_defects is {measuring.max_defects}; it must be at least 1")
    if review.sample is not None and review.sample.lot_size < 2:
        raise RecipeError(
            f"{where}: review.sample.lot_size is {review.sample.lot_size}; ISO 2859-1 has lots of 2 and more"
        )
    for name, band in quality.bands.items():
        least = -math.inf if band.min is None else band.min
        most = math.inf if band.max is None else band.max
        if not least <= most:
            raise RecipeError(
                f"{where}: quality.{name} is {least:g} to {most:g}; no picture lies in that band"
            )
