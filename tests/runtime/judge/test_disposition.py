"""Pass, reject or review: the rules, and that nothing unclear is ever a pass."""

from __future__ import annotations

import pytest

from orinspect.runtime.infer.fuse import CandidateDefect
from orinspect.runtime.judge.disposition import Verdict, verdict_from_candidates
from orinspect.tests.report_cases import RECIPE, candidate

SURE, UNSURE = RECIPE.thresholds.review_confidence, RECIPE.thresholds.review_confidence - 0.01


def _verdict(*found: CandidateDefect, failed: bool = False, dropped: int = 0, near: float = 0.0) -> Verdict:
    return verdict_from_candidates(
        found, RECIPE, width=100, height=80, failed=failed, dropped=dropped, strongest_rejected=near
    )


@pytest.mark.parametrize(
    ("verdict", "disposition", "reasons"),
    [
        (_verdict(), "pass", ()),
        (_verdict(near=RECIPE.thresholds.presence - 0.01), "pass", ()),
        (_verdict(near=RECIPE.thresholds.presence), "review", ("low_confidence",)),
        (_verdict(candidate(confidence=SURE)), "reject", ()),
        (_verdict(candidate(confidence=UNSURE)), "review", ("low_confidence",)),
        (_verdict(candidate(confidence=UNSURE), candidate(confidence=SURE)), "reject", ()),
        (_verdict(candidate("scratch")), "review", ("unknown_type",)),
        (_verdict(candidate(box=(5.0, 5.0, 5.0, 9.0))), "review", ("unusable_box",)),
        (_verdict(candidate(box=(200.0, 5.0, 300.0, 9.0))), "review", ("unusable_box",)),
        (_verdict(dropped=1), "review", ("unusable_box",)),
        (_verdict(candidate(confidence=SURE), dropped=1), "reject", ()),
        (_verdict(failed=True), "review", ("answer_failed",)),
        (_verdict(candidate(confidence=SURE), failed=True), "review", ("answer_failed",)),
    ],
)
def test_the_rules(verdict: Verdict, disposition: str, reasons: tuple[str, ...]) -> None:
    assert (verdict.disposition, verdict.review_reasons) == (disposition, reasons)
    expected = {"pass": "ok", "reject": "not_ok", "review": "not_decidable"}[disposition]
    assert verdict.evaluation == expected
    assert (verdict.disposition == "review") == bool(verdict.review_reasons)


def test_every_reason_that_applies_is_named() -> None:
    verdict = _verdict(candidate(confidence=0.5), candidate("scratch"), candidate(box=(1.0, 1.0, 1.0, 1.0)))
    assert set(verdict.review_reasons) == {"low_confidence", "unknown_type", "unusable_box"}
    assert len(verdict.defects) == 1


def test_defects_carry_the_plants_words_in_reading_order_and_stay_in_the_picture() -> None:
    low = candidate("short", (10.0, 50.0, 20.0, 60.0))
    high = candidate("open", (90.04, -3.0, 120.0, 10.0))
    defects = _verdict(low, high).defects
    assert [(d.defect_id, d.defect_code, d.severity) for d in defects] == [
        ("d1", "PCB-OPEN", "critical"),
        ("d2", "PCB-SHORT", "major"),
    ]
    assert defects[0].bbox == (90.0, 0.0, 100.0, 10.0)


def test_a_pass_says_how_near_the_nearest_rejected_candidate_came() -> None:
    assert _verdict(near=0.25).confidence == 0.75
    assert _verdict(failed=True).confidence is None
