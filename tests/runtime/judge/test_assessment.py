"""The judge as a whole: what reaches the report, and that every such report is valid."""

from __future__ import annotations

import dataclasses
import itertools
import json
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest

from orinspect.runtime.capture.frame import Frame
from orinspect.runtime.infer.fuse import CandidateDefect
from orinspect.runtime.infer.inspector import Inspection
from orinspect.runtime.infer.judgement import ConfidenceModel, Judgement
from orinspect.runtime.judge import sampling
from orinspect.runtime.judge.assessment import Setup, report_from_inspection, report_not_inspected
from orinspect.runtime.judge.scale import PixelScale
from orinspect.runtime.limits import Band, ComplianceRule, DefectType, Grade, Measuring, QualityLimits, Review
from orinspect.runtime.limits import SampleRule as Sample
from orinspect.runtime.recipe import Recipe, Scale
from orinspect.runtime.report import Report
from orinspect.tests.report_cases import RECIPE, SCHEMA, candidate, inspection, setup, trigger

VALIDATOR = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
GRADES = (Grade("ignore", 0.3), Grade("minor", 1.0), Grade("major"))
SURFACE = dataclasses.replace(
    RECIPE,
    mode="single",
    scale=Scale(0.02, 0.00002),
    defects=(DefectType("scratch", "S1", "major", "length", GRADES),),
    review=Review(minor="pass"),
)
SITE = PixelScale(
    0.1,
    0.0001,
    calibration_id="scale-7",
    calibrated_at="2025-12-01T00:00:00Z",
    expires_at="2026-06-01T00:00:00Z",
    camera_id="cam0",
    picture_wh=(160, 120),
)


def frame(length_px: int = 30, blur: float = 0.8) -> Frame:
    image = np.full((120, 160, 3), (180, 190, 200), np.uint8)
    image[50:56, 40 : 40 + length_px] = (60, 70, 80)
    image = np.asarray(cv2.GaussianBlur(image, (0, 0), blur), np.uint8)
    return Frame(image, None, 1, 1767225600.25, 5_000_000_000, "folder:parts", "part-1", True)


def line(length_px: int = 30, confidence: float = 0.97) -> CandidateDefect:
    return candidate("scratch", (34.0, 44.0, 46.0 + length_px, 62.0), confidence)


def judged(
    found: Inspection | None = None, recipe: Recipe = SURFACE, *, picture: Frame | None = None, **beside: Any
) -> Report:
    """A report that the schema takes, with a reason for every null."""
    given: Setup = dataclasses.replace(setup(recipe), **beside)
    report = report_from_inspection(
        trigger(),
        7,
        picture or frame(),
        found or inspection([line()]),
        given,
        created_at=1767225600.5,
        capture_ms=1.0,
        total_ms=60.0,
        clock=itertools.count(0.0, 0.001).__next__,
    )
    table = json.loads(report.to_json())
    VALIDATOR.validate(table)
    assert "unknown" not in table["null_reasons"].values()
    return report


def test_a_measured_part_carries_sizes_severity_and_time() -> None:
    report = judged()
    (defect,) = report.defects
    assert defect.size_mm is not None
    assert defect.size_mm.length is not None
    assert defect.size_mm.length.value == pytest.approx(0.6, abs=0.03)
    assert (defect.severity, report.disposition) == ("minor", "pass")
    assert defect.measures["colour_rgb"] is not None
    assert report.timings_ms is not None
    assert report.timings_ms.measure is not None
    assert report.timings_ms.measure > 0
    assert report.timings_ms.total > 60.0 + report.timings_ms.measure
    assert report.scale.expanded_uncertainty == pytest.approx(0.00004)


@pytest.mark.parametrize(
    ("length_px", "severity", "outcome"), [(9, "ignore", "pass"), (90, "major", "reject")]
)
def test_the_size_decides_what_becomes_of_the_part(length_px: int, severity: str, outcome: str) -> None:
    report = judged(inspection([line(length_px)]), picture=frame(length_px))
    assert ([each.severity for each in report.defects], report.disposition) == ([severity], outcome)


def test_the_scale_of_the_site_goes_before_the_recipes_and_that_before_the_frames() -> None:
    assert judged(scale=SITE).scale == dataclasses.replace(
        judged().scale,
        mm_per_px=0.1,
        expanded_uncertainty=0.0002,
        calibration_id="scale-7",
        calibrated_at="2025-12-01T00:00:00Z",
        expires_at="2026-06-01T00:00:00Z",
    )
    assert judged(scale=SITE).defects[0].severity == "major"
    drawn = dataclasses.replace(frame(), mm_per_px=0.005)
    assert judged(picture=drawn).scale.mm_per_px == 0.02
    own = judged(recipe=dataclasses.replace(SURFACE, scale=Scale()), picture=drawn)
    assert (own.scale.mm_per_px, own.scale.k) == (0.005, None)
    assert own.defects[0].severity == "ignore"


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"expires_at": "2026-01-01T00:00:00Z"}, "expired"),
        ({"camera_id": "cam9"}, "belongs to camera 'cam9'"),
        ({"picture_wh": (640, 480)}, "640x480"),
    ],
)
def test_a_scale_that_must_not_be_used_leaves_sizes_null_and_asks_a_person(
    changed: dict[str, Any], named: str
) -> None:
    site = dataclasses.replace(SITE, **changed)
    report = judged(inspection([line(confidence=0.5)]), scale=site)
    table = report.to_table()
    assert report.scale.mm_per_px is None
    assert report.defects[0].size_mm is None
    assert "scale_uncertain" in report.review_reasons
    for reason in (table["null_reasons"]["scale.mm_per_px"], table["null_reasons"]["defects[].size_mm"]):
        assert named in reason
    assert named in report.review_details[0]
    clean = judged(inspection(), scale=site)
    assert clean.disposition == "pass"


@pytest.mark.parametrize(("length_px", "expected", "outcome"), [(30, True, "pass"), (90, False, "reject")])
def test_compliance_reaches_report_and_verdict(length_px: int, expected: bool, outcome: str) -> None:
    """0.6 mm and 1.8 mm against class c at 120 mm, which allows 0.8 mm; its type alone rejects nothing."""
    rule = ComplianceRule("ISO 2768-1", "c", 120.0)
    recipe = dataclasses.replace(SURFACE, compliance=rule, defects=(DefectType("scratch", "S1", "ignore"),))
    report = judged(inspection([line(length_px)]), recipe, picture=frame(length_px))
    assert (report.compliance, report.disposition) == (expected, outcome)
    compared = report.compliance_detail.compared
    assert compared is not None
    assert compared.value_mm == pytest.approx(length_px * 0.02, abs=0.03)
    assert f"allows {compared.upper_mm} mm" in report.compliance_detail.why


def test_compliance_that_is_not_decidable_goes_to_review() -> None:
    fine = ComplianceRule("ISO 286-1", "IT7", 120.0, of="width")
    recipe = dataclasses.replace(SURFACE, compliance=fine, defects=(DefectType("scratch", "S1", "ignore"),))
    for scale in (Scale(0.005, 0.001), Scale(0.0002, None), Scale()):
        report = judged(recipe=dataclasses.replace(recipe, scale=scale))
        assert (report.compliance, report.compliance_detail.decision) == (None, "not_decidable")
        assert report.review_reasons == ("compliance_undecided",)
        assert report.to_table()["null_reasons"]["compliance"] == "not_decidable"


def test_an_answer_that_was_cut_shows_no_conformity() -> None:
    rule = ComplianceRule("ISO 2768-1", "m", 120.0)
    report = judged(inspection(failed="cut"), dataclasses.replace(SURFACE, compliance=rule))
    assert (report.compliance, report.disposition) == (None, "review")
    assert "answer_failed" in report.compliance_detail.why


def test_a_picture_out_of_its_range_goes_to_review_whatever_is_on_it() -> None:
    certified = Judgement(quality={"limits": {"blur_px": {"max": 1.5}}})
    sharp = judged(inspection([line(90)]), picture=frame(90), judgement=certified)
    assert sharp.disposition == "reject"
    blurred = judged(inspection([line(90)]), picture=frame(90, blur=4.0), judgement=certified)
    assert blurred.review_reasons == ("image_quality",)
    assert blurred.review_details[0].startswith("blur_px")
    wider = dataclasses.replace(SURFACE, quality=QualityLimits(blur_px=Band(max=9.0)))
    assert (
        judged(inspection([line(90)]), wider, picture=frame(90, 4.0), judgement=certified).disposition
        == "reject"
    )
    darker = dataclasses.replace(SURFACE, quality=QualityLimits(brightness=Band(min=250.0)))
    assert judged(inspection(), darker).review_reasons == ("image_quality",)


def test_quality_and_measuring_can_be_switched_off() -> None:
    off = dataclasses.replace(SURFACE, quality=QualityLimits(enabled=False), measure=Measuring(enabled=False))
    report = judged(recipe=off)
    assert report.quality is None
    assert report.timings_ms is not None
    assert report.timings_ms.measure is None
    assert report.defects[0].severity == "major"


def test_calibrated_confidences_decide_and_raw_ones_are_kept() -> None:
    harsh = Judgement(
        defect=ConfidenceModel("temperature", {"raw": 0.2}), clean=ConfidenceModel("platt", {"bias": 0.0})
    )
    report = judged(inspection([line(90)]), picture=frame(90), judgement=harsh)
    assert report.review_reasons == ("low_confidence",)
    assert report.defects[0].raw_confidence == 0.97
    clean = judged(inspection(), judgement=harsh)
    assert (clean.review_reasons, clean.confidence) == (("low_confidence",), 0.5)


def test_a_share_of_confident_passes_is_drawn_as_iso_2859_1_says() -> None:
    everyone = dataclasses.replace(SURFACE, review=Review(sample=Sample(2, "III")))
    assert sampling.sample_size(2, "III") == 2
    assert judged(inspection(), everyone).review_reasons == ("sampled",)
    assert judged(inspection(), everyone).compliance is None
    few = dataclasses.replace(SURFACE, review=Review(sample=Sample(100_000, "S-1")))
    assert judged(inspection(), few).disposition == "pass"


def test_a_box_that_cannot_be_a_defect_is_no_clean_pass() -> None:
    report = judged(inspection(dropped=[line()]))
    assert report.review_reasons == ("unusable_box",)


def test_a_part_that_was_not_inspected_meets_no_standard() -> None:
    rule = ComplianceRule("ISO 2768-1", "m", 120.0)
    report = report_not_inspected(
        trigger(),
        7,
        setup(dataclasses.replace(SURFACE, compliance=rule)),
        created_at=1767225601.5,
        reason_code="not_inspected.restart",
        why="it stopped",
    )
    table = json.loads(report.to_json())
    VALIDATOR.validate(table)
    assert (report.compliance, report.compliance_detail.decision) == (None, "not_decidable")
    assert report.compliance_detail.why == "it stopped"
    assert table["null_reasons"]["compliance"] == "not_decidable"
    assert "unknown" not in table["null_reasons"].values()
