"""Coarse to fine on planted pictures: what is tried, what is given up, and bounds that rise."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from orinspect.calibration.limits.certified import certified_points
from orinspect.calibration.limits.disturbance import KINDS
from orinspect.calibration.limits.monotone import growing
from orinspect.evaluation.scores import NamedBox, ScoredPicture
from orinspect.evaluation.sweeps.steps import Looked, between_strengths, has_failed, tried_strengths
from orinspect.runtime.capture.quality import Quality

CLEAN = Quality(120.0, 150.0, 1.0, 2.0, 0.0, 0.0, 1.0, 1.0, 0.2, 0.0)
COUNT, BOXES = 60, 5


def looked(missed: Callable[[int, int], bool], count: int = COUNT) -> Looked:
    """`count` pictures of BOXES defects each; `missed` says of (picture, box) whether it is not found."""
    pictures = []
    for picture in range(count):
        truth = tuple(NamedBox("open", (50.0 * n, 0.0, 50.0 * n + 30, 30.0)) for n in range(BOXES))
        found = tuple(box for n, box in enumerate(truth) if not missed(picture, n))
        pictures.append(ScoredPicture(truth, found))
    return Looked(tuple(pictures), (CLEAN,) * count)


PERFECT = looked(lambda picture, box: False)
NAMES = [str(index) for index in range(COUNT)]


def test_strengths_are_refined_between_what_held_and_what_did_not() -> None:
    """F holds up to a blur of 1.7: the ladder has 1.5 and 2.0, two steps more come to 1.61 < 1.7 < 1.73."""
    asked: list[float] = []

    def look(strength: float) -> Looked:
        asked.append(strength)
        return looked(lambda picture, box: strength > 1.7 and box == 0)

    points = tried_strengths("blur", look, PERFECT, NAMES, 0.01)
    assert asked == [*KINDS["blur"][1], 1.73, 1.61]
    assert [point.strength for point in points] == sorted(asked)
    held = certified_points(points, 0.01)
    assert points[held - 1].strength == 1.61 and points[held].strength == 1.73


def test_a_strength_that_is_given_up_ends_its_kind() -> None:
    asked: list[float] = []

    def look(strength: float) -> Looked:
        asked.append(strength)
        return looked(lambda picture, box: box == 0, 16) if strength < 0.6 else PERFECT

    points = tried_strengths("low_light", look, PERFECT, NAMES, 0.01)
    assert asked == [0.8, 0.65, 0.5, 0.57, 0.609]
    assert [point.strength for point in points] == [0.8, 0.65, 0.609, 0.57, 0.5]
    assert [len(point.qualities) for point in points] == [COUNT, COUNT, COUNT, 16, 16]
    assert certified_points(points, 0.01) == 3


def test_a_kind_that_always_holds_stays_open_and_one_that_never_holds_is_halved() -> None:
    points = tried_strengths("glare", lambda strength: PERFECT, PERFECT, NAMES, 0.01)
    assert [point.strength for point in points] == list(KINDS["glare"][1])
    half = looked(lambda picture, box: box == 0)
    points = tried_strengths("glare", lambda strength: half, PERFECT, NAMES, 0.01)
    assert [point.strength for point in points][:3] == [0.0005, 0.001, 0.002]
    assert certified_points(points, 0.01) == 0


def test_one_defect_lost_at_a_weak_strength_does_not_end_the_range() -> None:
    """Three of 300 are lost at the first strength only: its own bound is beyond a point, pooled it is not."""
    first = KINDS["noise"][1][0]

    def look(strength: float) -> Looked:
        return looked(lambda picture, box: strength == first and picture < 3 and box == 0)

    points = tried_strengths("noise", look, PERFECT, NAMES, 0.01)
    assert points[0].loss > 0.003
    assert certified_points(points, 0.01) == len(KINDS["noise"][1])
    assert all(weak.loss_high <= strong.loss_high for weak, strong in itertools.pairwise(points))


def test_a_failure_is_only_called_where_it_is_sure() -> None:
    assert has_failed(looked(lambda picture, box: box == 0, 16), PERFECT, NAMES, 0.01)
    assert not has_failed(looked(lambda picture, box: picture == 0 and box == 0, 16), PERFECT, NAMES, 0.01)
    assert not has_failed(looked(lambda picture, box: False, 16), PERFECT, NAMES, 0.01)


@pytest.mark.parametrize(
    ("weaker", "stronger", "middle"), [(1.0, 0.64, 0.8), (0.0, 3.0, 1.5), (2.0, 8.0, 4.0)]
)
def test_the_middle_of_two_strengths(weaker: float, stronger: float, middle: float) -> None:
    assert between_strengths(weaker, stronger) == middle


def test_a_growing_curve_is_the_nearest_one() -> None:
    """Against pooling adjacent violators by hand, a draw at a time."""
    losses = np.random.default_rng(7).normal(size=(8, 40))
    risen = growing(losses)
    assert (np.diff(risen, axis=0) >= -1e-12).all()
    for column in range(losses.shape[1]):
        blocks: list[list[float]] = []
        for value in losses[:, column]:
            blocks.append([value])
            while len(blocks) > 1 and np.mean(blocks[-2]) >= np.mean(blocks[-1]):
                last = blocks.pop()
                blocks[-1] += last
        by_hand = [float(np.mean(block)) for block in blocks for _ in block]
        assert risen[:, column] == pytest.approx(by_hand)
