"""What a threshold makes of parts, before and after a calibration whose truth is known."""

from __future__ import annotations

import numpy as np

from orinspect.calibration.confidence.fit import Labelled, rates_report
from orinspect.calibration.confidence.part_rates import JudgedPart, LabelledPart, part_rates
from orinspect.runtime.judge.confidence import clean_features, logit

REST = {"bias": 1.0, "dense_only": 0.0, "words_only": 0.0, "agreement": 0.9, "margin": 0.9, "shift": 1.0}


def features(p: float) -> dict[str, float]:
    return {**REST, "raw": logit(p), "dense": logit(p), "words": logit(p)}


def test_each_disposition_is_counted_beside_its_truth() -> None:
    parts = [
        JudgedPart((0.9, 0.3), 0.1, has_defect=True),
        JudgedPart((0.9,), 0.1, has_defect=False),
        JudgedPart((0.8,), 1.0, has_defect=True),
        JudgedPart((), 0.84, has_defect=True),
        JudgedPart((), 0.85, has_defect=True),
        JudgedPart((), 0.99, has_defect=False),
    ]
    said = ["reject", "reject", "review", "review", "pass", "pass"]
    assert [one.disposition(0.85) for one in parts] == said
    assert part_rates(parts, 0.85) == {
        "review": 2, "escape": 1, "false_reject": 1, "parts": 6, "bad": 4, "good": 2,
    }
    assert part_rates([], 0.85)["parts"] == 0


def test_a_part_is_judged_raw_without_models() -> None:
    part = LabelledPart("p", (features(0.7),), (0.7,), 0.2, has_defect=True)
    assert part.judged(None, None) == JudgedPart((0.7,), 0.8, has_defect=True)


def test_reports_that_are_wrong_by_half_go_to_a_person_after_calibration() -> None:
    """Said with 0.9, right in half: before, all of them reject; after, on parts unseen by the fit, none."""
    rng = np.random.default_rng(1)
    parts, defects, clean = [], [], []
    for index in range(200):
        right = bool(rng.random() < 0.5)
        parts.append(LabelledPart(f"p{index}", (features(0.9),), (0.9,), 0.1, right))
        defects.append(Labelled(features(0.9), right, f"p{index}"))
        clean.append(Labelled(clean_features(0.05), True, f"p{index}"))
    report = rates_report(parts, defects, clean, 0.85)
    assert report["threshold"] == 0.85
    assert report["before"]["review"] == 0
    assert report["before"]["false_reject"] == report["before"]["good"] > 80
    assert report["after"]["review"] == 200 and report["after"]["false_reject"] == 0


def test_too_few_labels_leave_the_raw_verdicts() -> None:
    parts = [LabelledPart(f"p{index}", (features(0.9),), (0.9,), 0.1, True) for index in range(10)]
    defects = [Labelled(features(0.9), False, part.picture) for part in parts]
    report = rates_report(parts, defects, [], 0.85)
    assert report["after"] == report["before"]
