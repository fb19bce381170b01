"""Differences of components: what counts, what is padding, which feeds stay."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from orinspect.evaluation.gate.differences import (
    FEEDS_KEPT,
    ComparedEngine,
    Differences,
    RememberedEngine,
    ReplayedEngine,
)
from orinspect.runtime.infer.engines.engine import Dimensions, FloatArray


class Scaling:
    """The smallest engine there is: y = factor x."""

    inputs: Mapping[str, Dimensions] = {"x": ("n",)}
    outputs: Mapping[str, Dimensions] = {"y": ("n",)}

    def __init__(self, factor: float) -> None:
        self.factor, self.is_closed = factor, False

    def run(self, feeds: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        return {"y": feeds["x"] * np.float32(self.factor)}

    def close(self) -> None:
        self.is_closed = True


def test_the_compared_engine_answers_as_float_does() -> None:
    exact, measured, differences = Scaling(1.0), Scaling(1.25), Differences()
    engine = ComparedEngine(exact, measured, differences)
    assert engine.run({"x": np.array([[3.0, 4.0]], np.float32)})["y"].tolist() == [[3.0, 4.0]]
    error = differences.error()
    assert error is not None
    assert (error.output, error.feeds) == ("y", 1)
    assert error.cosine == pytest.approx(1.0)  # a wrong size has the right direction
    assert error.relative_error == pytest.approx(0.25)
    assert error.max_abs_error == pytest.approx(1.0)
    assert error.scale == pytest.approx(np.sqrt(12.5))
    engine.close()
    assert exact.is_closed and measured.is_closed


def test_padded_tokens_do_not_count() -> None:
    embeds = np.zeros((2, 3, 4), np.float32)
    embeds[0], embeds[1, 2] = 1.0, 1.0  # row 1 has one token, the last
    hidden = np.ones((2, 3, 4), np.float32)
    new_kv = np.ones((2, 5, 2, 1, 3, 6), np.float32)
    wrong_hidden, wrong_kv = hidden.copy(), new_kv.copy()
    wrong_hidden[1, :2], wrong_kv[1, ..., :2, :] = 99.0, -99.0
    differences = Differences()
    exact, measured = {"hidden": hidden, "new_kv": new_kv}, {"hidden": wrong_hidden, "new_kv": wrong_kv}
    differences.add({"embeds": embeds}, exact, measured)
    error = differences.error()
    assert error is not None and error.max_abs_error == 0.0
    wrong_kv[1, 3, 1, 0, 2, 5] = 7.0  # a real token
    differences.add({"embeds": embeds}, exact, measured)
    error = differences.error()
    assert error is not None and error.output == "new_kv" and error.max_abs_error == 6.0


def test_the_feeds_where_int8_did_worst_stay_as_they_were() -> None:
    differences = Differences()
    for index in range(FEEDS_KEPT + 3):
        x = np.array([[1.0, float(index)]], np.float32)
        differences.add({"x": x}, {"y": np.array([[1.0, 0.0]], np.float32)}, {"y": x})
        x[:] = -1.0  # the decoder's past is overwritten by the next call
    assert [feed.inputs["x"][0, 1] for feed in differences.worst] == [6.0, 5.0, 4.0, 3.0]


def test_not_a_number_is_no_good_cosine() -> None:
    differences = Differences()
    differences.add({}, {"y": np.ones(3, np.float32)}, {"y": np.array([1, np.nan, 1], np.float32)})
    error = differences.error()
    assert error is not None and not error.cosine >= 0.0


def test_not_a_number_in_a_later_output_is_not_hidden_by_a_healthy_one() -> None:
    ones, broken = np.ones((1, 3), np.float32), np.array([[1, np.nan, 1]], np.float32)
    differences = Differences()
    for _ in range(FEEDS_KEPT):
        differences.add({}, {"x": ones, "y": ones}, {"x": ones, "y": ones})
    differences.add({"feed": ones}, {"x": ones, "y": ones}, {"x": ones, "y": broken})
    error = differences.error()
    assert error is not None and error.output == "y"
    assert not error.cosine >= 0.0 and not error.max_abs_error >= 0.0
    assert "feed" in differences.worst[0].inputs  # and its feed is the first to be searched


def test_no_feed_is_copied_where_none_will_be_searched() -> None:
    differences, ones = Differences(keeps=0), np.ones((1, 2), np.float32)
    differences.add({"x": ones}, {"y": ones}, {"y": -ones})
    error = differences.error()
    assert differences.worst == [] and error is not None and error.cosine == pytest.approx(-1)


def test_what_one_engine_said_another_says_again() -> None:
    calls: list[dict[str, FloatArray]] = []
    first = RememberedEngine(Scaling(2.0), calls)
    said = [first.run({"x": np.full(2, value, np.float32)}) for value in (1.0, 5.0)]
    again = ReplayedEngine(calls)
    assert [again.run({"x": np.zeros(2, np.float32)})["y"].tolist() for _ in said] == [[2, 2], [10, 10]]


def test_an_engine_that_never_ran_has_no_error() -> None:
    assert Differences().error() is None
