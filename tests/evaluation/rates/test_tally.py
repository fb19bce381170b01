"""The tally of a resample is what the plain scores say of the pictures drawn."""

import numpy as np
import pytest

from orinspect.evaluation.rates.tally import Tally, curve_of_type
from orinspect.evaluation.scores import ScoredPicture, detection_scores
from orinspect.tests.evaluation.rates.scored import TYPES, box, drawn_pictures


def test_weights_of_one_give_the_plain_scores() -> None:
    pictures = drawn_pictures(30, seed=1)
    scores, tally = detection_scores(pictures, TYPES), Tally.of(pictures)
    ones = np.ones((1, len(pictures)))
    assert [float(values[0]) for values in tally.precision_recall_f(ones)] == pytest.approx(
        [scores["precision"], scores["recall"], scores["f"]])
    assert float(tally.mean_average_precision(ones)[0]) == pytest.approx(scores["map"])


def test_a_weight_is_a_picture_seen_so_often() -> None:
    pictures = drawn_pictures(12, seed=2)
    rng = np.random.default_rng(3)
    weights = rng.multinomial(12, np.full(12, 1 / 12), size=5).astype(float)
    tally = Tally.of(pictures)
    for row, f, area in zip(weights, tally.precision_recall_f(weights)[2],
                            tally.mean_average_precision(weights), strict=True):
        drawn = [one for one, times in zip(pictures, row, strict=True) for _ in range(int(times))]
        scores = detection_scores(drawn, TYPES)
        assert f == pytest.approx(scores["f"]) and area == pytest.approx(scores["map"])


def test_found_says_of_every_true_box_whether_it_was_found() -> None:
    pictures = [ScoredPicture((box("open", 0), box("short", 100)), (box("short", 100), box("spur", 0)))]
    assert Tally.of(pictures).found.tolist() == [False, True]


def test_nothing_at_all_is_zero() -> None:
    tally = Tally.of([ScoredPicture((), ())])
    assert tally.mean_average_precision(np.ones((2, 1))).tolist() == [0.0, 0.0]
    assert [values.tolist() for values in tally.precision_recall_f(np.ones((1, 1)))] == [[0.0]] * 3


def test_the_curve_ends_at_the_recall_of_all_candidates() -> None:
    pictures = drawn_pictures(30, seed=4, hit=0.6)
    recall, precision = curve_of_type(Tally.of(pictures).ranked["open"])
    assert (np.diff(recall) >= 0).all() and 0.5 < recall[-1] < 1.0
    assert precision[0] in (0.0, 1.0)
