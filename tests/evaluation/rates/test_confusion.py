"""Which type is taken for which."""

import pytest

from orinspect.evaluation.rates.confusion import class_accuracy, confusion_matrix
from orinspect.evaluation.scores import ScoredPicture, precision_recall_f, scores_by_size, scores_per_class
from orinspect.tests.evaluation.rates.scored import TYPES, box, drawn_pictures


def test_missed_invented_and_mistaken_have_their_places() -> None:
    truth = (box("open", 0), box("short", 100), box("spur", 200))
    said = (box("open", 0), box("spur", 100), box("open", 500))
    matrix = confusion_matrix([ScoredPicture(truth, said)], TYPES)
    assert matrix["rows"] == {"open": {"open": 1}, "short": {"spur": 1}, "spur": {"missed": 1},
                              "invented": {"open": 1}}


def test_the_diagonal_is_what_recall_counts() -> None:
    pictures = drawn_pictures(40, seed=8)
    rows = confusion_matrix(pictures, TYPES)["rows"]
    per_class = scores_per_class(pictures, TYPES)
    for name in TYPES:
        assert rows[name].get(name, 0) == pytest.approx(per_class[name]["recall"] * per_class[name]["truth"])
        assert sum(rows[name].values()) == per_class[name]["truth"]


def test_the_strongest_sum_names_the_picture() -> None:
    # The third has no evidence and is wrong, the fourth has no label and does not count.
    accuracy = class_accuracy(["open", "short", "spur", None],
                              [{"open": 0.6, "short": 0.5}, {"open": 0.9, "short": 0.3}, {}, {"open": 1.0}])
    assert accuracy is not None
    assert (accuracy["right"], accuracy["pictures"], accuracy["undecided"]) == (1, 3, 1)
    assert accuracy["rows"] == {"open": {"open": 1}, "short": {"open": 1}, "spur": {"missed": 1}}
    assert accuracy["low"] < 1 / 3 < accuracy["high"]
    assert class_accuracy([None], [{}]) is None


def test_sizes_split_what_all_sizes_count() -> None:
    small, large = box("open", 0, side=30.0), box("open", 200, side=120.0)
    invented = box("spur", 500, 0.5, side=50.0)
    picture = ScoredPicture((small, large), (box("open", 0, 0.9, side=34.0), invented))
    sizes = scores_by_size([picture], TYPES)
    # What found the small box counts there, although it is larger itself.
    assert (sizes["<32"]["truth"], sizes["<32"]["detections"], sizes["<32"]["f"]) == (1, 1, 1.0)
    assert (sizes["48-64"]["truth"], sizes["48-64"]["detections"]) == (0, 1)
    assert sizes["48-64"]["recall"] is None and sizes["48-64"]["ap"] is None
    assert sizes[">96"]["recall"] == 0.0 and sizes[">96"]["per_class"]["open"]["recall"] == 0.0
    assert precision_recall_f([picture])["recall"] == 0.5
