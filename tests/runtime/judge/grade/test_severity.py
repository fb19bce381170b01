"""Severity by the recipe's limits: at them, around them with an uncertainty, and without a size."""

from __future__ import annotations

import random
from decimal import Decimal

import pytest

from orinspect.runtime.judge.grade.severity import severity_of
from orinspect.runtime.judge.measure.measurement import Measure, Measurement, nothing_measured
from orinspect.runtime.limits import SEVERITIES, DefectType, Grade

SCRATCH = DefectType(
    "scratch", "S1", "major", "length", (Grade("ignore", 0.1), Grade("minor", 0.2), Grade("critical"))
)


def measured(
    value: float, uncertainty: float | None = 0.0, unit: str = "mm", name: str = "length", *notes: str
) -> Measurement:
    return Measurement(
        {name: Measure(value, unit, uncertainty)}, nulls={"size_mm": "not_calibrated"}, notes=notes
    )


@pytest.mark.parametrize(
    ("value", "uncertainty", "severity", "mildest"),
    [
        (0.0999999, 0.0, "ignore", "ignore"),
        (0.1, 0.0, "minor", "minor"),  # at the limit it belongs to the next grade
        (0.2, 0.0, "critical", "critical"),
        (0.15, 0.04, "minor", "minor"),
        (
            0.15,
            0.05,
            "critical",
            "minor",
        ),  # 0.15 + 0.05 reaches 0.2, 0.15 - 0.05 is 0.1 and no longer below it
        (0.15, 0.0500001, "critical", "ignore"),
        (0.09, 0.01, "minor", "ignore"),  # 0.09 + 0.01 is 0.1 exactly, though not in binary numbers
        (0.09, 0.0099, "ignore", "ignore"),
        (0.3, 0.1, "critical", "critical"),
        (0.3, 0.1000001, "critical", "minor"),
    ],
)
def test_limits_and_uncertainty(value: float, uncertainty: float, severity: str, mildest: str) -> None:
    graded = severity_of(SCRATCH, measured(value, uncertainty))
    assert (graded.severity, graded.mildest) == (severity, mildest)
    assert not graded.is_size_missing
    assert severity in graded.reason


def test_the_reason_holds_numbers_that_do_not_hide_a_limit() -> None:
    assert severity_of(SCRATCH, measured(0.15, 0.02)).reason == (
        "length 0.15 mm +- 0.02 mm: below 0.2 mm is minor"
    )
    assert "0.19999 mm" in severity_of(SCRATCH, measured(0.19999)).reason
    assert severity_of(SCRATCH, measured(5.0, 0.1)).reason.endswith("0.2 mm and more is critical")
    spanning = severity_of(SCRATCH, measured(0.19, 0.02)).reason
    assert "either side of 0.2 mm" in spanning
    assert "the worse" in spanning


def test_the_worse_grade_always_holds() -> None:
    """Over random sizes: the severity is that of value + U, and no size within +- U has a worse one."""
    draw = random.Random(4)
    for _ in range(2000):
        value, uncertainty = draw.uniform(0, 0.4), draw.uniform(0, 0.1)
        graded = severity_of(SCRATCH, measured(value, uncertainty))
        worst = severity_of(SCRATCH, measured(float(Decimal(repr(value)) + Decimal(repr(uncertainty)))))
        within = severity_of(SCRATCH, measured(max(value + draw.uniform(-1, 1) * uncertainty, 0.0)))
        assert graded.severity == worst.severity
        ranks = [SEVERITIES.index(each) for each in (graded.mildest, within.severity, graded.severity)]
        assert ranks == sorted(ranks)


@pytest.mark.parametrize(
    ("measurement", "named"),
    [
        (None, "not_measured"),
        (nothing_measured("no_contrast_in_box"), "no_contrast_in_box"),
        (measured(12.0, 0.5, "px"), "not_calibrated"),
        (measured(0.15, None), "uncertainty_unknown"),
        (measured(0.15, 0.01, name="width"), "not_calibrated"),
    ],
)
def test_without_a_size_the_types_own_severity_holds(measurement: Measurement | None, named: str) -> None:
    graded = severity_of(SCRATCH, measurement)
    assert (graded.severity, graded.mildest, graded.is_size_missing) == ("major", "major", True)
    assert named in graded.reason


def test_a_type_without_grades_has_its_own_severity() -> None:
    graded = severity_of(DefectType("rust", "R1", "minor"), measured(3.0))
    assert (graded.severity, graded.is_size_missing, graded.reason) == ("minor", False, "type_default")


def test_an_area_is_graded_in_square_millimetres() -> None:
    rust = DefectType("rust", "R1", "major", "area", (Grade("ignore", 1.0), Grade("major")))
    assert severity_of(rust, measured(0.5, 0.1, "mm2", "area")).severity == "ignore"
    assert severity_of(rust, measured(0.5, 0.1, "mm", "area")).is_size_missing


def test_a_defect_that_leaves_the_picture_is_at_least_that_long() -> None:
    graded = severity_of(SCRATCH, measured(0.12, 0.01, "mm", "length", "cut_at_picture_edge"))
    assert (graded.severity, graded.mildest) == ("critical", "minor")
    assert "at least 0.12 mm" in graded.reason
