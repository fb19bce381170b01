"""Each reason for review fires by its number and not without; confidences follow their models."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orinspect.runtime.infer.fuse import CandidateDefect
from orinspect.runtime.infer.judgement import UNJUDGED, ConfidenceModel, Judgement
from orinspect.runtime.judge import confidence as rules
from orinspect.runtime.judge.confidence import (
    clean_confidence,
    defect_features,
    defect_reasons,
    judged_confidence,
    review_reasons,
)

FINE = CandidateDefect(
    "open",
    (10.0, 10.0, 40.0, 40.0),
    0.9,
    "both",
    dense_confidence=0.8,
    words_confidence=0.95,
    agreement_iou=0.9,
    type_margin=0.9,
    shift_iou=0.9,
)
THRESHOLD = 0.85


@pytest.mark.parametrize(
    ("reason", "just_fires", "just_not"),
    [
        ("low_type_margin", {"type_margin": 0.499}, {"type_margin": 0.5}),
        ("box_unstable", {"shift_iou": 0.499}, {"shift_iou": 0.5}),
        ("box_unstable", {"shift_iou": 0.0}, {"shift_iou": None}),
        ("detectors_disagree", {"agreement_iou": 0.399}, {"agreement_iou": 0.4}),
        ("detectors_disagree", {"reason": "the words do not name it"}, {"reason": None}),
        ("at_tile_edge", {"at_tile_edge": True}, {"at_tile_edge": False}),
    ],
)
def test_a_defects_reason_fires_by_its_number(
    reason: str, just_fires: dict[str, Any], just_not: dict[str, Any]
) -> None:
    assert defect_reasons(FINE) == ()
    assert defect_reasons(replace(FINE, **just_fires)) == (reason,)
    assert defect_reasons(replace(FINE, **just_not)) == ()


def test_the_numbers_are_those_of_the_documentation() -> None:
    numbers = (rules.LEAST_TYPE_MARGIN, rules.LEAST_SHIFT_IOU, rules.LEAST_AGREEMENT_IOU, rules.MOST_NOVELTY)
    assert numbers == (0.5, 0.5, 0.4, 1.0)


def test_a_sure_defect_decides_whatever_speaks_against_others() -> None:
    doubtful = replace(FINE, type_margin=0.0)
    assert review_reasons([(doubtful, 0.5), (FINE, THRESHOLD)], 1.0, THRESHOLD) == ()
    unsure = review_reasons([(doubtful, 0.5), (FINE, THRESHOLD - 0.01)], 1.0, THRESHOLD)
    assert unsure == ("low_confidence", "low_type_margin")


@pytest.mark.parametrize(("clean", "reasons"), [(THRESHOLD, ()), (THRESHOLD - 0.01, ("low_confidence",))])
def test_a_part_without_defects_passes_from_the_threshold_on(clean: float, reasons: tuple[str, ...]) -> None:
    assert review_reasons([], clean, THRESHOLD) == reasons


@pytest.mark.parametrize(("novelty", "reasons"), [(None, ()), (1.0, ()), (1.01, ("unlike_training",))])
def test_a_part_unlike_the_training_pictures_goes_to_a_person_whatever_was_found(
    novelty: float | None, reasons: tuple[str, ...]
) -> None:
    assert review_reasons([(FINE, 0.99)], 1.0, THRESHOLD, novelty=novelty) == reasons
    assert review_reasons([], 1.0, THRESHOLD, novelty=novelty) == reasons


def test_without_a_fit_confidences_are_raw() -> None:
    assert judged_confidence(FINE, UNJUDGED) == FINE.confidence
    assert clean_confidence(0.2, UNJUDGED) == pytest.approx(0.8)


def test_a_temperature_moves_a_confidence_and_never_their_order() -> None:
    soft = Judgement(defect=ConfidenceModel("temperature", {"raw": 0.5}))
    stated = [judged_confidence(replace(FINE, confidence=p), soft) for p in (0.3, 0.6, 0.9)]
    assert stated == sorted(stated)
    assert 0.5 < stated[2] < 0.9
    assert stated[0] > 0.3
    one = Judgement(defect=ConfidenceModel("raw", {"raw": 1.0}))
    assert judged_confidence(FINE, one) == pytest.approx(0.9)


def test_a_model_states_nothing_beyond_what_its_labels_prove() -> None:
    bounded = Judgement(defect=ConfidenceModel("raw", {"raw": 9.0}, low=0.02, high=0.98))
    assert judged_confidence(FINE, bounded) == 0.98
    assert judged_confidence(replace(FINE, confidence=0.01), bounded) == 0.02


def test_an_isotonic_model_is_a_line_between_its_knots() -> None:
    model = ConfidenceModel("isotonic", {"raw": 1.0}, ((0.4, 0.2), (0.8, 0.6), (0.9, 0.95)))
    stated = [
        judged_confidence(replace(FINE, confidence=p), Judgement(model)) for p in (0.1, 0.4, 0.6, 0.9, 0.99)
    ]
    assert stated == pytest.approx([0.2, 0.2, 0.4, 0.95, 0.95])


def test_what_only_one_detector_sees_is_told_from_what_both_see() -> None:
    alone = defect_features(replace(FINE, detector="words", dense_confidence=None, agreement_iou=None))
    both = defect_features(FINE)
    assert (alone["words_only"], alone["dense_only"], alone["agreement"]) == (1.0, 0.0, 0.0)
    assert alone["dense"] < defect_features(replace(FINE, dense_confidence=0.06))["dense"] < both["dense"]
    assert (both["words_only"], both["agreement"]) == (0.0, 0.9)
