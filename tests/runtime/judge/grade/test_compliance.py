"""Compliance: what a decision rule says at its limits, and that no doubt is ever conformity."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

import pytest

from orinspect.runtime.judge.grade.compliance import Sized, compliance_of, decision_on, undecided
from orinspect.runtime.judge.grade.interval import Interval
from orinspect.runtime.judge.measure.measurement import Measure, Measurement, nothing_measured
from orinspect.runtime.limits import ComplianceRule

IT7 = ComplianceRule("ISO 286-1", "IT7", 120.0, of="width")  # 0.035 mm
LIMIT = Decimal("0.035")


def rule(**keys: Any) -> ComplianceRule:
    return ComplianceRule(
        **{"standard": "ISO 286-1", "grade": "IT7", "nominal_mm": 120.0, "of": "width", **keys}
    )


def sized(value: float, uncertainty: float = 0.001, defect_id: str = "d1", type: str = "scratch") -> Sized:
    return Sized(defect_id, type, Measurement({"width": Measure(value, "mm", uncertainty)}))


def interval(value: float, uncertainty: float) -> Interval:
    return Interval(Decimal(repr(value)), Decimal(repr(uncertainty)), "mm")


@pytest.mark.parametrize(
    ("value", "uncertainty", "guarded", "simple"),
    [
        (0.03, 0.004, "conforms", "conforms"),
        (0.03, 0.005, "conforms", "conforms"),  # 0.03 + 0.005 is the limit, and the limit is inside
        (0.03, 0.0050001, "not_decidable", "conforms"),
        (0.035, 0.0, "conforms", "conforms"),
        (0.0350001, 0.0, "does_not_conform", "does_not_conform"),
        (0.035, 0.001, "not_decidable", "conforms"),
        (0.0355, 0.001, "not_decidable", "does_not_conform"),
        (
            0.04,
            0.005,
            "not_decidable",
            "does_not_conform",
        ),  # 0.04 - 0.005 is the limit: not shown to exceed it
        (0.04, 0.0049999, "does_not_conform", "does_not_conform"),
        (0.0, 0.00875, "conforms", "conforms"),  # U/T is 0.25
        (0.0, 0.0087501, "not_decidable", "not_decidable"),  # too coarse to show anything
        (0.1, 0.05, "does_not_conform", "does_not_conform"),  # coarse, and still clearly beyond
        (0.03, 0.02, "not_decidable", "not_decidable"),
    ],
)
def test_a_deviation_against_its_limit(value: float, uncertainty: float, guarded: str, simple: str) -> None:
    found = interval(value, uncertainty)
    assert decision_on(found, None, LIMIT, rule()) == guarded
    assert decision_on(found, None, LIMIT, rule(rule="simple")) == simple


@pytest.mark.parametrize(
    ("value", "uncertainty", "guarded", "simple"),
    [
        (119.9875, 0.005, "conforms", "conforms"),  # its lower end is 119.9825, the lower limit
        (119.987, 0.005, "not_decidable", "conforms"),
        (119.98, 0.005, "not_decidable", "does_not_conform"),
        (119.97, 0.005, "does_not_conform", "does_not_conform"),
        (120.0175, 0.0, "conforms", "conforms"),
        (120.02, 0.001, "does_not_conform", "does_not_conform"),
        (120.0, 0.01, "not_decidable", "not_decidable"),  # U/T is 0.286
    ],
)
def test_a_size_against_both_limits(value: float, uncertainty: float, guarded: str, simple: str) -> None:
    lower, upper = IT7.tolerance.zone_mm("js")
    found = interval(value, uncertainty)
    assert decision_on(found, lower, upper, rule()) == guarded
    assert decision_on(found, lower, upper, rule(rule="simple")) == simple


def test_under_the_guard_band_nothing_conforms_that_may_exceed_the_limit() -> None:
    """Over random values: conforms only if value + U <= limit, and does not conform only if value - U >
    limit; a value that conforms still conforms with a smaller U."""
    draw = random.Random(14253)
    seen = set()
    for _ in range(20000):
        value, uncertainty = round(draw.uniform(0, 0.06), 5), round(draw.uniform(0, 0.012), 5)
        exact, spread = Decimal(repr(value)), Decimal(repr(uncertainty))
        decision = decision_on(interval(value, uncertainty), None, LIMIT, IT7)
        seen.add(decision)
        if exact + spread > LIMIT:
            assert decision != "conforms"
        if exact - spread <= LIMIT:
            assert decision != "does_not_conform"
        if decision == "conforms":
            assert spread <= LIMIT / 4
            assert decision_on(interval(value, uncertainty / 2), None, LIMIT, IT7) == "conforms"
    assert seen == {"conforms", "does_not_conform", "not_decidable"}


def test_the_statement_carries_its_numbers() -> None:
    statement = compliance_of(IT7, [sized(0.0355, 0.002)])
    assert statement.decision == "not_decidable"
    assert (statement.standard, statement.grade, statement.nominal_mm) == ("ISO 286-1:2010", "IT7", 120.0)
    assert statement.rule == "ISO 14253-1, guard band of the expanded uncertainty (k = 2)"
    for number in ("0.0355 mm", "0.002 mm", "IT7 at 120 mm allows 0.035 mm", "U/T is 0.057", "d1"):
        assert number in statement.why
    assert statement.compared is not None
    assert statement.compared.upper_mm == 0.035
    assert statement.compared.lower_mm is None
    assert statement.compared.uncertainty_ratio == pytest.approx(0.002 / 0.035)


def test_digits_are_added_until_the_sentence_agrees_with_the_decision() -> None:
    assert "0.0350001 mm" in compliance_of(IT7, [sized(0.0350001, 0.0)]).why


def test_the_worst_defect_decides() -> None:
    good, unclear, bad, worse = (
        sized(value, defect_id=name)
        for name, value in (("good", 0.01), ("unclear", 0.035), ("bad", 0.05), ("worse", 0.07))
    )
    for found, named in (
        ([good, unclear], "unclear"),
        ([bad, unclear, good], "bad"),
        ([bad, worse, good], "worse"),
        ([good], "good"),
    ):
        compared = compliance_of(IT7, found).compared
        assert compared is not None
        assert compared.defect_id == named
    unmeasured = Sized("dark", "scratch", nothing_measured("no_contrast_in_box"))
    assert "no_contrast_in_box" in compliance_of(IT7, [good, unclear, unmeasured]).why
    assert compliance_of(IT7, [unmeasured, bad]).decision == "does_not_conform"


def test_only_the_named_types_count() -> None:
    named = rule(types=("hole",))
    assert compliance_of(named, [sized(0.9)]).decision == "conforms"
    assert compliance_of(named, [sized(0.9, type="hole")]).decision == "does_not_conform"


def test_without_a_standard_there_is_no_statement() -> None:
    statement = compliance_of(None, [sized(0.9)])
    assert (statement.standard, statement.decision) == (None, None)
    assert statement.why == "no_standard_in_recipe"


def test_no_deviation_conforms_and_no_feature_does_not() -> None:
    assert compliance_of(IT7, []).decision == "conforms"
    assert "no defect was found" in compliance_of(IT7, []).why
    missing = compliance_of(rule(compared="size", types=("hole",)), [])
    assert missing.decision == "not_decidable"
    assert "hole was found: the feature was not measured" in missing.why


def test_without_a_size_or_with_an_unknown_scale_it_is_not_decidable() -> None:
    unmeasured = [Sized("d1", "scratch", None)]
    in_pixels = [Sized("d1", "scratch", Measurement({"width": Measure(9.0, "px", 0.1)}))]
    for defects in (unmeasured, in_pixels):
        assert compliance_of(IT7, defects).decision == "not_decidable"
    unknown = compliance_of(IT7, [sized(0.001)], is_uncertainty_known=False)
    assert unknown.decision == "not_decidable"
    assert "calibrate the scale" in unknown.why


@pytest.mark.parametrize("name", ["ISO 14253-1", "simple"])
def test_a_defect_that_leaves_the_picture_never_conforms(name: Any) -> None:
    cut = Measurement({"width": Measure(0.01, "mm", 0.001)}, notes=("cut_at_picture_edge",))
    assert compliance_of(rule(rule=name), [Sized("d1", "scratch", cut)]).decision == "not_decidable"
    long = Measurement({"width": Measure(0.1, "mm", 0.001)}, notes=("cut_at_picture_edge",))
    assert compliance_of(rule(rule=name), [Sized("d1", "scratch", long)]).decision == "does_not_conform"


def test_a_feature_is_compared_with_the_place_of_its_zone() -> None:
    hole = [sized(120.02, type="hole")]
    for zone, decision in (("H", "conforms"), ("js", "does_not_conform"), ("h", "does_not_conform")):
        given = rule(compared="size", types=("hole",), zone=zone)
        assert compliance_of(given, hole).decision == decision


def test_the_note_of_a_chinese_standard_stands_in_why() -> None:
    statement = compliance_of(rule(standard="GB/T 1800.1-2018"), [sized(0.01)])
    assert statement.standard == "GB/T 1800.1-2020"
    assert "was read as GB/T 1800.1-2020" in statement.why


def test_a_part_in_doubt_keeps_its_numbers_and_loses_its_conformity() -> None:
    good, bad = compliance_of(IT7, [sized(0.01)]), compliance_of(IT7, [sized(0.9)])
    assert undecided(good, ["image_quality"]).decision == "not_decidable"
    assert "image_quality" in undecided(good, ["image_quality"]).why
    assert undecided(bad, ["image_quality"]) == bad
