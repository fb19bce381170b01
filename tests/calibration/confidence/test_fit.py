"""Fits on answers whose true probability is known: made by drawing, so that being right is no accident."""

from __future__ import annotations

import math

import numpy as np
import pytest

from orinspect.calibration.confidence.calibration_error import calibration_error
from orinspect.calibration.confidence.fit import (
    ISOTONIC_LABELS,
    LEAST_LABELS,
    LEAST_PARTS,
    Labelled,
    calibration_report,
    chosen_method,
    cross_fitted,
    fitted,
    stated,
)
from orinspect.calibration.confidence.logistic import fitted_weights, isotonic_knots, probabilities
from orinspect.calibration.confidence.sections import confidence_section
from orinspect.runtime.infer.judgement import ConfidenceModel
from orinspect.runtime.judge.confidence import clean_features, logit

REST = {"bias": 1.0, "dense_only": 0.0, "words_only": 0.0, "agreement": 0.9, "margin": 0.9, "shift": 1.0}


def answers(seed: int, count: int, slope: float = 1.0, offset: float = 0.0) -> list[Labelled]:
    """Four answers a picture; the logit of being right is `slope` times the raw one plus `offset`."""
    rng = np.random.default_rng(seed)
    rows = []
    for index in range(count):
        p = min(max(float(rng.beta(4.0, 0.8)), 0.05), 0.999)
        raw = logit(p)
        right = bool(rng.random() < 1 / (1 + math.exp(-(slope * raw + offset))))
        noise = rng.normal(size=2) * 0.3
        features = {**REST, "raw": raw, "dense": raw + noise[0], "words": raw + noise[1]}
        rows.append(Labelled(features, right, f"p{index // 4}"))
    return rows


def raw(rows: list[Labelled]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return probabilities(np.array([row.features["raw"] for row in rows]))


def test_honest_confidences_are_left_as_they_are() -> None:
    method, losses = chosen_method(answers(1, 600))
    assert method == "raw"
    assert losses["raw"] < losses["logistic"] + 0.01


def test_confidences_that_are_too_sure_are_calmed() -> None:
    """Half the logit: raw 0.95 is right in four of five. ECE falls from 0.1 to what 2000 answers can show."""
    rows, others = answers(2, 600, slope=0.4), answers(3, 2000, slope=0.4)
    method, _ = chosen_method(rows)
    assert method in ("temperature", "platt")
    right = [row.right for row in others]
    before = calibration_error(raw(others), right, bins=15)
    after = calibration_error(stated(fitted(method, rows), others), right, bins=15)
    assert before is not None and after is not None
    assert before > 0.08
    assert after < 0.04


@pytest.mark.parametrize("method", ["temperature", "platt", "joint", "logistic"])
def test_a_fit_finds_the_slope_that_made_the_answers(method: str) -> None:
    weights = fitted(method, answers(4, 4000, slope=0.5)).weights
    slope = weights.get("raw", weights.get("dense", 0.0) + weights.get("words", 0.0))
    assert slope == pytest.approx(0.5, abs=0.06)


def test_another_share_of_right_answers_is_an_offset_and_nothing_else() -> None:
    """A line with a tenth of the defects: the odds of every report are lower by one factor."""
    rows, others = answers(13, 400, offset=-1.5), answers(14, 3000, offset=-1.5)
    model = fitted("shift", rows)
    assert model.weights["raw"] == 1.0
    assert model.weights["bias"] == pytest.approx(-1.5, abs=0.4)
    assert chosen_method(rows)[0] in ("shift", "temperature")
    right = [row.right for row in others]
    before = calibration_error(raw(others), right, bins=15)
    after = calibration_error(stated(model, others), right, bins=15)
    assert before is not None and after is not None and after < before / 3


def test_few_labels_without_a_wrong_one_change_little() -> None:
    rows = [Labelled({**REST, "raw": 2.0, "dense": 2.0, "words": 2.0}, True, f"p{n}") for n in range(60)]
    for method in ("shift", "temperature", "platt", "joint", "logistic"):
        model = fitted(method, rows)
        assert 0.85 < model.probability(rows[0].features) <= 1 - 1 / 62
        assert all(abs(weight) < 3 for weight in model.weights.values())


def test_a_curve_is_tried_only_where_labels_are_many() -> None:
    few, many = answers(5, ISOTONIC_LABELS - 4, 0.3), answers(5, ISOTONIC_LABELS + 400, 0.3)
    assert "isotonic" not in chosen_method(few)[1]
    assert "isotonic" in chosen_method(many)[1]


@pytest.mark.parametrize(
    ("wrong", "richest"), [(4, "raw"), (5, "temperature"), (10, "platt"), (25, "joint"), (40, "logistic")]
)
def test_each_weight_takes_five_wrong_answers(wrong: int, richest: str) -> None:
    rows = answers(15, 400)
    rows = [Labelled(row.features, index >= wrong, row.picture) for index, row in enumerate(rows)]
    assert list(chosen_method(rows)[1])[-1] == richest


def test_isotonic_knots_rise_and_pool_what_falls() -> None:
    rng = np.random.default_rng(6)
    values = rng.random(2000)
    right = (rng.random(2000) < np.where(values < 0.5, 0.3, 0.8)).astype(float)
    knots = isotonic_knots(values, right)
    x, y = zip(*knots, strict=True)
    assert list(x) == sorted(x) and list(y) == sorted(y)
    model = ConfidenceModel("isotonic", {"raw": 1.0}, knots)
    assert model.probability({"raw": logit(0.2)}) == pytest.approx(0.3, abs=0.06)
    assert model.probability({"raw": logit(0.8)}) == pytest.approx(0.8, abs=0.06)


def test_no_picture_is_on_both_sides_of_a_fold() -> None:
    rows = answers(7, 40)
    folds = np.array([int(row.picture[1:]) % 5 for row in rows])
    seen: list[set[str]] = []

    def fit(part: object) -> ConfidenceModel:
        seen.append({row.picture for row in part})  # type: ignore[attr-defined]
        return ConfidenceModel("raw", {"raw": 1.0})

    cross_fitted(rows, folds, fit)
    pictures = {row.picture for row in rows}
    assert [len(one) for one in seen] == [8] * 5
    assert all(not (pictures - one) & one for one in seen)


def test_the_report_is_of_pictures_held_out() -> None:
    """Labels that have nothing to do with the features cannot look calibrated by learning them by heart."""
    rows = answers(8, 800, slope=0.4)
    report = calibration_report(rows, raw(rows))
    assert report["labels"] == 800
    assert report["right"] == sum(row.right for row in rows)
    assert report["after"]["ece"] < report["before"]["ece"]
    assert report["after"]["log_loss"] < report["before"]["log_loss"]


def test_newton_settles_where_the_slope_is_zero() -> None:
    rng = np.random.default_rng(9)
    table = np.column_stack([np.ones(500), rng.normal(size=500) * 4])
    right = (rng.random(500) < probabilities(table @ np.array([0.5, 2.0]))).astype(float)
    counts = rng.integers(1, 4, 500).astype(float)
    weights = fitted_weights(table, right, [0.0, 1.0], 1.0, counts)
    slope = table.T @ (counts * (probabilities(table @ weights) - right)) + weights - np.array([0.0, 1.0])
    assert np.abs(slope).max() < 1e-3


def test_too_few_labels_fit_nothing_and_say_so() -> None:
    rows = answers(10, LEAST_LABELS - 1)
    section = confidence_section(rows, raw(rows), [], LEAST_PARTS - 1, "here")
    assert section["defect"] is None and section["clean"] is None
    assert "at least" in section["report"]["defect"] and "at least" in section["report"]["clean"]


def test_a_clean_part_is_less_sure_the_more_evidence_was_rejected() -> None:
    rng = np.random.default_rng(11)
    clean = [Labelled(clean_features(float(rng.random() * 0.2)), True, f"p{n}") for n in range(100)]
    missed = 0.2 + 0.6 * rng.random(20)
    clean += [Labelled(clean_features(float(near)), False, f"p{n}", 0.2) for n, near in enumerate(missed)]
    rows = answers(12, 200)
    section = confidence_section(rows, raw(rows), clean, 100, "here")
    model = ConfidenceModel.from_json(section["clean"])
    said = [model.probability(clean_features(evidence)) for evidence in (0.0, 0.1, 0.3, 0.6, 0.9)]
    assert said == sorted(said, reverse=True)
    assert said[0] > 0.95 and said[-1] < 0.6
    assert section["report"]["clean"]["missed_defects"] == 20
