"""Pass, reject or review: every rule, and that nothing unclear is ever a pass."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from orinspect.runtime.infer.fuse import CandidateDefect
from orinspect.runtime.judge.disposition import Circumstances, Verdict, verdict_from_findings
from orinspect.runtime.judge.findings import Finding, floored
from orinspect.runtime.judge.grade.severity import Graded
from orinspect.runtime.judge.measure.measurement import nothing_measured
from orinspect.runtime.limits import DefectType, MinorRule, Review, Severity
from orinspect.runtime.report import Compared, Compliance
from orinspect.tests.report_cases import RECIPE

SURE = RECIPE.thresholds.review_confidence
UNSURE = SURE - 1e-9


def finding(
    severity: Severity = "major",
    confidence: float = SURE,
    *,
    mildest: Severity | None = None,
    is_size_missing: bool = False,
    doubts: tuple[str, ...] = (),
    defect_id: str = "d1",
) -> Finding:
    candidate = CandidateDefect("open", (10.0, 12.0, 40.0, 44.0), confidence, "both", None)
    graded = Graded(severity, mildest or severity, "type_default", is_size_missing)
    entry = DefectType("open", "E1")
    return Finding(
        defect_id,
        candidate,
        entry,
        (10.0, 12.0, 40.0, 44.0),
        confidence,
        nothing_measured("x"),
        graded,
        doubts,
    )


def verdict(
    *found: Finding, minor: MinorRule = "reject", compliance: Compliance | None = None, **beside: Any
) -> Verdict:
    recipe = dataclasses.replace(RECIPE, review=Review(minor=minor))
    return verdict_from_findings(found, recipe, Circumstances(**beside), compliance)


def statement(decision: Any, defect_id: str = "d1") -> Compliance:
    compared = Compared(defect_id, "length", 0.1, 0.01, None, 0.035, 0.29)
    return Compliance("ISO 286-1:2010", "ISO 14253-1", "numbers", decision, "IT7", 120.0, compared)


LOW = ("low_confidence",)
CASES = [
    # 1 the answer failed
    (verdict(failed=True), "review", ("answer_failed",)),
    (verdict(finding(), failed=True, picture=("image_quality",)), "review", ("answer_failed",)),
    # 2 the picture is in doubt, whatever was found
    (verdict(picture=("image_quality",)), "review", ("image_quality",)),
    (verdict(finding("critical"), picture=("unlike_training",)), "review", ("unlike_training",)),
    # 3 a sure defect that rejects
    (verdict(finding()), "reject", ()),
    (verdict(finding("critical")), "reject", ()),
    (verdict(finding("minor")), "reject", ()),
    (verdict(finding(), finding(confidence=0.1, defect_id="d2"), unlisted=("unusable_box",)), "reject", ()),
    (verdict(finding("critical", mildest="major")), "reject", ()),
    (verdict(finding("ignore"), compliance=statement("does_not_conform")), "reject", ()),
    (verdict(finding("major", is_size_missing=True)), "reject", ()),
    # 4 doubts
    (verdict(finding(confidence=UNSURE)), "review", LOW),
    (verdict(finding(confidence=UNSURE, doubts=("box_unstable",))), "review", (*LOW, "box_unstable")),
    (verdict(finding("minor"), finding(confidence=UNSURE, defect_id="d2"), minor="pass"), "review", LOW),
    (verdict(clean=UNSURE), "review", LOW),
    (verdict(finding("ignore"), clean=UNSURE), "review", LOW),
    (verdict(finding("minor"), minor="pass", clean=UNSURE), "review", LOW),
    (verdict(unlisted=("unknown_type",)), "review", ("unknown_type",)),
    (verdict(finding("minor", mildest="ignore")), "review", ("scale_uncertain",)),
    (verdict(finding("major", mildest="minor"), minor="pass"), "review", ("scale_uncertain",)),
    (verdict(finding("minor", mildest="ignore"), minor="review"), "review", ("scale_uncertain",)),
    (verdict(finding("ignore", is_size_missing=True)), "review", ("scale_uncertain",)),
    (verdict(finding("minor", is_size_missing=True), minor="pass"), "review", ("scale_uncertain",)),
    (verdict(compliance=statement("not_decidable")), "review", ("compliance_undecided",)),
    (verdict(finding("ignore", UNSURE), compliance=statement("does_not_conform")), "review", LOW),
    (verdict(finding("ignore", UNSURE, doubts=("low_type_margin",))), "review", ("low_type_margin",)),
    # 5 minor defects only
    (verdict(finding("minor"), minor="pass"), "pass", ()),
    (verdict(finding("minor"), minor="review"), "review", ("minor_defect",)),
    (verdict(finding("minor", mildest="ignore"), minor="pass"), "pass", ()),
    # 6 the sample
    (verdict(is_sampled=True), "review", ("sampled",)),
    (verdict(finding("ignore"), is_sampled=True), "review", ("sampled",)),
    (verdict(finding(), is_sampled=True), "reject", ()),
    (verdict(finding(confidence=UNSURE), is_sampled=True), "review", LOW),
    # 7 nothing, or nothing but what is ignored
    (verdict(), "pass", ()),
    (verdict(clean=SURE), "pass", ()),
    (verdict(finding("ignore")), "pass", ()),
    (verdict(finding("ignore", 0.1)), "pass", ()),
    (verdict(finding("ignore", 0.1, doubts=("detectors_disagree", "box_unstable"))), "pass", ()),
    (verdict(compliance=statement("conforms")), "pass", ()),
]


@pytest.mark.parametrize(("given", "disposition", "reasons"), CASES)
def test_the_rules(given: Verdict, disposition: str, reasons: tuple[str, ...]) -> None:
    assert (given.disposition, given.review_reasons) == (disposition, reasons)
    assert given.evaluation == {"pass": "ok", "reject": "not_ok", "review": "not_decidable"}[disposition]
    assert (given.disposition == "review") == bool(given.review_reasons)
    if given.confidence is None:
        assert given.review_reasons == ("answer_failed",)


def test_every_reason_that_applies_is_named_once_and_at_its_defect() -> None:
    found = (
        finding(confidence=0.5, doubts=("at_tile_edge",)),
        finding("minor", 0.5, mildest="ignore", defect_id="d2"),
    )
    given = verdict(*found, unlisted=("unusable_box",), compliance=statement("not_decidable"))
    expected = ("low_confidence", "at_tile_edge", "scale_uncertain", "compliance_undecided", "unusable_box")
    assert given.review_reasons == expected
    assert [each.review_reasons for each in given.defects] == [
        ("low_confidence", "at_tile_edge"),
        ("low_confidence", "scale_uncertain"),
    ]


def test_a_refused_scale_is_said_where_a_size_would_have_decided() -> None:
    graded = finding("major", confidence=UNSURE, is_size_missing=True)
    assert verdict(graded, is_scale_unusable=True).review_reasons == ("low_confidence", "scale_uncertain")
    assert verdict(finding(confidence=UNSURE), is_scale_unusable=True).review_reasons == LOW
    assert verdict(is_scale_unusable=True).disposition == "pass"


@pytest.mark.parametrize("reason", ["low", "picture"])
def test_nothing_is_shown_to_conform_on_a_part_in_doubt(reason: str) -> None:
    beside: dict[str, Any] = {"clean": UNSURE} if reason == "low" else {"picture": ("image_quality",)}
    given = verdict(compliance=statement("conforms"), **beside)
    assert given.compliance.decision == "not_decidable"
    assert "numbers" in given.compliance.why
    sampled = verdict(compliance=statement("conforms"), is_sampled=True)
    assert sampled.compliance.decision == "conforms"
    disproved = verdict(finding(confidence=UNSURE), compliance=statement("does_not_conform"))
    assert disproved.compliance.decision == "does_not_conform"


def test_a_reject_is_as_sure_as_the_defect_that_rejects() -> None:
    given = verdict(finding("ignore", 0.99), finding("major", 0.9, defect_id="d2"))
    assert given.confidence == 0.9
    assert verdict(clean=0.97).confidence == 0.97
    assert verdict(finding("minor", 0.9), clean=0.97, minor="pass").confidence == 0.9


@pytest.mark.parametrize(
    ("value", "text"), [(0.849999, 0.8499), (0.85, 0.85), (0.29, 0.29), (1.2, 1.0), (-0.1, 0.0)]
)
def test_a_confidence_is_cut_and_never_rounded_over_the_threshold(value: float, text: float) -> None:
    assert floored(value) == text


@pytest.mark.parametrize("unseen", [{"unlisted": ("unknown_type",)}, {"clean": UNSURE}])
def test_a_sure_reject_does_not_state_that_what_was_not_listed_conforms(unseen: dict[str, Any]) -> None:
    given = verdict(finding("critical"), compliance=statement("conforms"), **unseen)
    assert (given.disposition, given.review_reasons) == ("reject", ())
    assert given.compliance.decision == "not_decidable"
    assert verdict(finding("critical"), compliance=statement("conforms")).compliance.decision == "conforms"
