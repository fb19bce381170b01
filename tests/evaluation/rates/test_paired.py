"""Two detectors on the same rows: a real difference is seen, and a detector does not differ from itself."""

import numpy as np
import pytest

from orinspect.evaluation.rates.paired import Contender, discordance, paired_figures
from orinspect.evaluation.rates.resampling import group_weights
from orinspect.evaluation.rates.tally import Tally
from orinspect.evaluation.rates.verdicts import PartVerdict
from orinspect.evaluation.scores import ScoredPicture
from orinspect.tests.evaluation.rates.scored import drawn_pictures

GROUPS = [str(index // 2) for index in range(60)]


def _contender(pictures: list[ScoredPicture]) -> Contender:
    tally = Tally.of(pictures)
    verdicts = [PartVerdict("part", True, "reject" if one.detections else "pass", len(one.detections), (), 0)
                for one in pictures]
    f = tally.precision_recall_f(group_weights(GROUPS))[2]
    return Contender(tally, verdicts, {"f": float(tally.precision_recall_f(np.ones((1, 60)))[2][0])},
                     {"group": {"f": f}})


def _worse(pictures: list[ScoredPicture]) -> list[ScoredPicture]:
    """Every third picture loses its detections."""
    return [one if index % 3 else ScoredPicture(one.truth, ()) for index, one in enumerate(pictures)]


def test_a_detector_that_lost_answers_is_worse_beyond_chance() -> None:
    pictures = drawn_pictures(60, seed=9)
    table = paired_figures(_contender(pictures), _contender(_worse(pictures)), GROUPS)
    low, high = table["difference"]["f"]["group"]
    assert 0.0 < low < table["difference"]["f"]["difference"] < high
    assert table["mcnemar"]["defects"]["only_second"] == 0
    assert table["mcnemar"]["defects"]["only_first"] > 20 and table["mcnemar"]["defects"]["p"] < 1e-6
    assert table["mcnemar"]["verdicts"]["only_first"] > 0


def test_a_detector_does_not_differ_from_itself() -> None:
    pictures = drawn_pictures(60, seed=10)
    table = paired_figures(_contender(pictures), _contender(pictures), GROUPS)
    assert table["difference"]["f"] == {"first": pytest.approx(table["difference"]["f"]["second"]),
                                        "second": table["difference"]["f"]["second"], "difference": 0.0,
                                        "group": (0.0, 0.0)}
    assert {row["p"] for row in table["mcnemar"].values()} == {1.0}


def test_answers_about_other_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="same rows"):
        discordance(np.ones(3, bool), np.ones(4, bool))
