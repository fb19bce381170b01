"""Escapes, false alarms and reviews of parts; the curve between them."""

import time

import numpy as np
import pytest

from orinspect.evaluation.rates.verdicts import PartVerdict, alarm_curve, verdict_rates


def _part(has_defect: bool | None, disposition: str, reported: int = 0, evidence: float = 0.0,
          reasons: tuple[str, ...] = ()) -> PartVerdict:
    return PartVerdict("part", has_defect, disposition, reported, reasons, evidence)


def test_an_escape_passed_a_false_alarm_was_reported_a_review_is_neither() -> None:
    rates = verdict_rates([
        _part(True, "reject", 1), _part(True, "pass"), _part(True, "review", 0, reasons=("low_confidence",)),
        _part(False, "pass"), _part(False, "review", 1, reasons=("low_confidence",)),
        _part(False, "reject", 2), _part(False, "review", 0, reasons=("sampled",)),
    ])
    assert (rates["escape"]["count"], rates["escape"]["parts"]) == (1, 3)
    assert (rates["false_alarm"]["count"], rates["false_alarm"]["parts"]) == (2, 4)
    assert rates["false_reject"]["count"] == 1
    assert rates["review"]["count"] == 3 and rates["review_share"] == pytest.approx(3 / 7)
    assert rates["review"]["reasons"] == {"low_confidence": 2, "sampled": 1}
    assert rates["dispositions"]["reject"] == {"defective": 1, "good": 1}
    assert rates["escape"]["low"] < 1 / 3 < rates["escape"]["high"]


def test_parts_of_one_kind_have_no_curve() -> None:
    assert alarm_curve([_part(True, "pass")]) is None
    assert verdict_rates([_part(True, "pass")])["false_alarm"]["rate"] is None


def test_the_curve_goes_from_no_alarm_to_no_escape() -> None:
    parts = [_part(True, "reject", 1, evidence) for evidence in (0.9, 0.8, 0.3)]
    parts += [_part(False, "pass", 0, evidence) for evidence in (0.0, 0.0, 0.5, 0.1)]
    curve = alarm_curve(parts)
    assert curve is not None
    corners = [(point["threshold"], point["escape"], point["false_alarm"]) for point in curve["points"]]
    assert corners[0] == (None, 1.0, 0.0) and corners[-1] == (0.0, 0.0, 1.0)
    assert (0.8, pytest.approx(1 / 3), 0.0) in corners and (0.3, 0.0, 0.25) in corners
    assert curve["auc"] == pytest.approx(11 / 12)  # of 12 pairs only (0.3, 0.5) stands the wrong way round
    strict = next(row for row in curve["at"] if row["limit"] == 0.01)
    assert strict["escape"] == pytest.approx(1 / 3) and strict["escape_low"] < 1 / 3 < strict["escape_high"]


def test_the_area_counts_ties_half_and_its_interval_holds_it() -> None:
    rng = np.random.default_rng(7)
    parts = [_part(bool(bad), "pass", 0, round(float(rng.normal(bad, 1.0)), 1)) for bad in [1, 0] * 60]
    curve = alarm_curve(parts, rng.multinomial(120, np.full(120, 1 / 120), size=300).astype(float))
    assert curve is not None
    bad = np.array([one.evidence for one in parts if one.has_defect])[:, None]
    good = np.array([one.evidence for one in parts if not one.has_defect])[None]
    assert curve["auc"] == pytest.approx(float(np.mean((bad > good) + 0.5 * (bad == good))))
    assert curve["auc_low"] < curve["auc"] < curve["auc_high"]
    assert len(curve["points"]) <= 60 and curve["points"][-1]["escape"] == 0.0


def test_a_part_that_is_out_of_scoring_is_neither_good_nor_bad() -> None:
    parts = [_part(True, "pass", 0, 0.9), _part(False, "pass", 0, 0.1), _part(False, "pass", 0, 0.2)]
    unknown = [_part(None, "pass", 0, 0.0), _part(None, "review", 1, 1.0)]
    rates, more = verdict_rates(parts), verdict_rates([*parts, *unknown])
    assert more["escape"] == rates["escape"] and more["false_alarm"] == rates["false_alarm"]
    assert more["review"]["count"] == 1
    assert more["review"]["of_good"] == 0 and more["review"]["of_defective"] == 0
    weights = np.ones((3, 5))
    assert alarm_curve([*parts, *unknown], weights) == alarm_curve(parts, weights[:, :3])


def test_the_curve_of_thousands_of_parts_takes_no_minutes() -> None:
    """Bounds are computed where they are shown, not at each of 3,000 thresholds."""
    rng = np.random.default_rng(3)
    parts = [_part(index % 2 == 0, "pass", 0, float(rng.random())) for index in range(3000)]
    started = time.process_time()
    curve = alarm_curve(parts)
    assert curve is not None and time.process_time() - started < 5.0  # 20 s when bounds were everywhere
    bad = np.array([one.evidence for one in parts if one.has_defect])
    good = np.array([one.evidence for one in parts if not one.has_defect])
    for row in curve["at"]:
        assert row["false_alarm"] == np.mean(good >= row["threshold"]) <= row["limit"]
        lower = min(good[good > np.quantile(good, 1 - row["limit"], method="higher")], default=None)
        assert lower is None or row["escape"] <= np.mean(bad < lower)
