"""Scores by hand: small cases whose precision, recall and average precision are known."""

import numpy as np
import pytest

from orinspect.evaluation.scores import (
    NamedBox,
    ScoredPicture,
    average_precision,
    detection_scores,
    iou_matrix,
    matches,
    precision_recall_f,
    recall_by_size,
)


def _box(type_name: str, x: float, y: float, size: float = 30.0, confidence: float = 1.0) -> NamedBox:
    return NamedBox(type_name, (x, y, x + size, y + size), confidence)


def test_iou_of_equal_half_and_apart() -> None:
    boxes = [_box("open", 0, 0), NamedBox("open", (0, 0, 30, 15)), _box("open", 100, 100)]
    assert np.allclose(iou_matrix(boxes[:1], boxes), [[1.0, 0.5, 0.0]])


def test_one_true_box_is_found_once_and_by_the_most_confident() -> None:
    truth = [_box("open", 0, 0)]
    detections = [_box("open", 5, 0, confidence=0.6), _box("open", 0, 0, confidence=0.9)]
    assert matches(detections, truth) == [None, 0]
    scores = precision_recall_f([ScoredPicture(tuple(truth), tuple(detections))])
    assert scores == pytest.approx({"precision": 0.5, "recall": 1.0, "f": 2 / 3})


def test_a_detection_takes_the_second_box_when_the_best_is_taken() -> None:
    truth = [_box("open", 0, 0), _box("open", 12, 0)]
    detections = [_box("open", 3, 0, confidence=0.9), _box("open", 1, 0, confidence=0.8)]
    assert matches(detections, truth) == [0, 1]


def test_iou_must_be_above_and_not_at_a_third() -> None:
    truth = [NamedBox("spur", (0, 0, 100, 100))]
    assert matches([NamedBox("spur", (0, 0, 100, 33))], truth) == [None]
    assert matches([NamedBox("spur", (0, 0, 100, 34))], truth) == [0]


def test_a_wrong_class_counts_only_without_class() -> None:
    picture = ScoredPicture((_box("open", 0, 0),), (_box("short", 0, 0),))
    assert precision_recall_f([picture])["f"] == 0.0
    assert precision_recall_f([picture], with_class=False)["f"] == 1.0


def test_average_precision_of_a_known_curve() -> None:
    # Ranked: right, wrong, right; two of two found: precision 1, then 2/3 from recall 1/2 to 1.
    truth = (_box("open", 0, 0), _box("open", 100, 0))
    ranked = (_box("open", 0, 0, confidence=0.9), _box("open", 300, 0, confidence=0.8),
              _box("open", 100, 0, confidence=0.7))
    assert average_precision([ScoredPicture(truth, (), ranked)], "open") == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert average_precision([ScoredPicture(truth, (), ranked)], "spur") is None
    assert average_precision([ScoredPicture(truth, ())], "open") == 0.0


def test_average_precision_ranks_over_all_pictures() -> None:
    good = ScoredPicture((_box("open", 0, 0),), (_box("open", 0, 0, confidence=0.3),))
    bad = ScoredPicture((), (_box("open", 0, 0, confidence=0.8),))
    assert average_precision([good, bad], "open") == pytest.approx(0.5)


def test_nothing_said_and_nothing_true_is_zero_not_an_error() -> None:
    scores = detection_scores([ScoredPicture((), ())], ("open", "short"))
    assert scores["f"] == 0.0 and scores["map"] == 0.0


def test_recall_by_size_puts_the_longest_side_into_its_bucket() -> None:
    truth = (_box("open", 0, 0, 31), _box("open", 100, 0, 32), _box("open", 200, 0, 96),
             NamedBox("open", (300.0, 0.0, 310.0, 97.0)))
    table = recall_by_size([ScoredPicture(truth, (truth[1], truth[3]))])
    assert [(name, row["truth"], row["found"]) for name, row in table.items()] == [
        ("<32", 1, 0), ("32-48", 1, 1), ("48-64", 0, 0), ("64-96", 1, 0), (">96", 1, 1)]
    assert table["48-64"]["recall"] is None


def test_map_is_the_mean_over_classes_with_truth() -> None:
    picture = ScoredPicture((_box("open", 0, 0), _box("short", 100, 0)), (_box("open", 0, 0),))
    scores = detection_scores([picture], ("open", "short", "copper"))
    assert scores["map"] == pytest.approx(0.5)
    assert scores["per_class"]["copper"]["ap"] is None
    assert scores["per_class"]["open"]["f"] == 1.0


def test_a_box_without_four_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match="x1, y1, x2, y2"):
        NamedBox("open", (1.0, 2.0, 3.0))
