"""From candidates to findings: the plant's codes, the calipers in between, and what cannot be listed."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from orinspect.runtime.infer.fuse import CandidateDefect
from orinspect.runtime.infer.judgement import ConfidenceModel, Judgement
from orinspect.runtime.judge.findings import Findings, findings_from_candidates, null_reasons_of
from orinspect.runtime.judge.scale import plain_scale
from orinspect.runtime.limits import DefectType, Grade, Measuring
from orinspect.runtime.recipe import Recipe
from orinspect.tests.report_cases import RECIPE, candidate

GRADED = dataclasses.replace(
    RECIPE,
    mode="single",
    defects=(
        DefectType(
            "scratch", "S1", "major", "length", (Grade("ignore", 0.5), Grade("minor", 2.0), Grade("major"))
        ),
        DefectType("pit", "P1", "critical"),
    ),
)


def picture(length_px: int = 60) -> np.ndarray:
    """A dark horizontal line, 6 px high and `length_px` long, on even ground."""
    image = np.full((120, 160), 190, np.uint8)
    image[50:56, 40 : 40 + length_px] = 60
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 0.8), np.uint8)


def line(type: str = "scratch", length_px: int = 60) -> CandidateDefect:
    return candidate(type, (34.0, 44.0, 46.0 + length_px, 62.0))


def findings(*found: CandidateDefect, recipe: Recipe = GRADED, **more: object) -> Findings:
    given = {"image": picture(), "template": None, "scale": plain_scale(0.02), "clock": lambda: 0.0, **more}
    return findings_from_candidates(found, recipe, **given)  # type: ignore[arg-type]


def test_a_measured_size_decides_the_severity() -> None:
    (found,) = findings(line()).listed
    defect = found.defect()
    assert defect.size_mm is not None
    assert defect.size_mm.length is not None
    assert defect.size_mm.length.value == pytest.approx(60 * 0.02, abs=0.03)
    assert defect.severity == "minor"
    assert "below 2 mm" in defect.severity_reason
    assert defect.measures["length"] is not None
    assert defect.measures["depth"] is None


def test_another_scale_another_severity() -> None:
    severities = [
        findings(line(), scale=plain_scale(scale)).listed[0].graded.severity for scale in (0.002, 0.02, 0.2)
    ]
    assert severities == ["ignore", "minor", "major"]


def test_without_a_scale_the_types_severity_holds_and_says_why() -> None:
    found = findings(line(), scale=None, why_no_scale="the calibration expired")
    defect = found.listed[0].defect()
    assert (defect.severity, defect.size_mm) == ("major", None)
    assert "the calibration expired" in defect.severity_reason
    assert null_reasons_of(found.listed)["defects[].size_mm"] == "the calibration expired"
    assert defect.measures["length"] is not None
    assert defect.measures["length"].unit == "px"


def test_defects_carry_the_plants_words_in_reading_order_and_stay_in_the_picture() -> None:
    low = candidate("pit", (10.0, 70.0, 20.0, 80.0))
    high = candidate("scratch", (90.04, -3.0, 190.0, 10.0))
    defects = [each.defect() for each in findings(low, high).listed]
    assert [(each.defect_id, each.defect_code) for each in defects] == [("d1", "S1"), ("d2", "P1")]
    assert defects[0].bbox == (90.0, 0.0, 160.0, 10.0)
    assert defects[1].severity == "critical"


def test_what_cannot_be_listed_becomes_a_reason() -> None:
    found = findings(
        candidate("rust"), candidate("pit", (5.0, 5.0, 5.0, 9.0)), candidate("pit", (300, 1, 310, 9))
    )
    assert found.listed == ()
    assert set(found.unlisted) == {"unknown_type", "unusable_box"}


def test_measuring_can_be_switched_off_and_is_bounded() -> None:
    off = findings(line(), recipe=dataclasses.replace(GRADED, measure=Measuring(enabled=False)))
    assert off.measure_ms is None
    assert off.listed[0].measurement.measures == {}
    assert off.listed[0].graded.is_size_missing
    bounded = findings(
        line(), line("pit"), recipe=dataclasses.replace(GRADED, measure=Measuring(max_defects=1))
    )
    assert [bool(each.measurement.measures) for each in bounded.listed] == [True, False]
    assert "more_defects" in null_reasons_of(bounded.listed)["defects[].measures.length"]


def test_the_confidence_is_the_calibrated_one_and_the_raw_one_stays() -> None:
    model = ConfidenceModel("temperature", {"raw": 0.5})
    (found,) = findings(line(), judgement=Judgement(defect=model)).listed
    defect = found.defect()
    assert defect.raw_confidence == 0.97
    assert defect.confidence is not None
    assert 0.8 < defect.confidence < 0.9


def test_a_defect_that_leaves_the_picture_is_at_least_that_long() -> None:
    image = np.full((120, 160), 190, np.uint8)
    image[50:56, 100:160] = 60
    found = findings(candidate("scratch", (95.0, 44.0, 160.0, 62.0)), image=image).listed[0]
    assert found.defect().notes == ("cut_at_picture_edge",)
    assert (found.graded.severity, found.graded.mildest) == ("major", "minor")
    assert "at least" in found.graded.reason


def test_the_calipers_know_the_type_because_the_shade_of_a_dent_is_no_outline() -> None:
    recipe = dataclasses.replace(
        GRADED, defects=(DefectType("dent", "D1", "major"), DefectType("stain", "T1", "major"))
    )
    sizes = {}
    for type in ("dent", "stain"):
        (found,) = findings(line(type), recipe=recipe).listed
        sizes[type] = found.measurement.measures["length"].expanded_uncertainty or 0.0
    assert sizes["dent"] > 2 * sizes["stain"] > 0


def test_a_defect_that_the_calipers_cannot_measure_does_not_stop_the_line() -> None:
    """It is what a defect without a size is: of its type's severity, with the reason."""
    scale = dataclasses.replace(plain_scale(0.02), homography=((1.0, 0.0), (0.0, 1.0)))  # no 3 x 3: broken
    (found,) = findings(line(), scale=scale).listed
    assert found.graded.severity == "major"
    assert found.graded.is_size_missing
    assert null_reasons_of([found])["defects[].size_mm"] == "calipers_failed"
