"""Bootstrap: whole groups are drawn, intervals cover as they promise, few groups are said to be few."""

import numpy as np
import pytest

from orinspect.evaluation.rates.resampling import (
    group_weights,
    percentile_interval,
    resampling_header,
    resampling_units,
    trusted_unit,
)


def test_parts_of_a_group_are_drawn_together_and_as_many_groups_as_there_are() -> None:
    groups = ["a", "a", "b", "c", "b"]
    weights = group_weights(groups, replicates=200, seed=1)
    assert (weights[:, 0] == weights[:, 1]).all() and (weights[:, 2] == weights[:, 4]).all()
    assert (weights[:, [0, 2, 3]].sum(axis=1) == 3).all()
    assert (group_weights(groups, replicates=200, seed=1) == weights).all()


def test_an_interval_covers_about_as_often_as_it_says() -> None:
    # 100 experiments of 60 groups: the mean of a standard normal lies inside 95 % of the intervals, less what
    # the percentile bootstrap lacks at 60; binomial spread (2 sigma) 4 %.
    rng = np.random.default_rng(5)
    inside = 0
    for trial in range(100):
        values = rng.normal(size=60)
        weights = group_weights([str(i) for i in range(60)], replicates=400, seed=trial)
        low, high = percentile_interval(weights @ values / 60)
        inside += low <= 0.0 <= high
    assert 88 <= inside <= 99


def test_dependent_parts_widen_the_interval_over_groups() -> None:
    rng = np.random.default_rng(6)
    values = np.repeat(rng.normal(size=30), 6)  # six exposures of one tile say the same
    tiles = [f"tile {index // 6}" for index in range(180)]
    widths = {}
    for unit, names in resampling_units(tiles).items():
        low, high = percentile_interval(group_weights(names) @ values / 180)
        widths[unit] = high - low
    assert widths["group"] / widths["part"] == pytest.approx(6**0.5, rel=0.2)


def test_units_are_what_can_be_drawn() -> None:
    assert list(resampling_units(["a", "a", "b"])) == ["group", "part"]
    assert list(resampling_units(["a", "b"])) == ["group"]
    assert list(resampling_units(["a", "a"])) == ["part"]
    assert resampling_header(["a", "a"])["note"] == "one group only: parts are drawn"
    assert "2 groups are too few" in str(resampling_header(["a", "b", "b"])["note"])
    many = resampling_header([str(index) for index in range(12)])
    assert many["note"] is None and trusted_unit(many) == "group"
    assert trusted_unit(resampling_header(["a", "b", "b"])) == "part"


def test_what_cannot_be_told_is_left_out() -> None:
    assert percentile_interval(np.array([np.nan, 1.0, 1.0])) == (1.0, 1.0)
    assert np.isnan(percentile_interval(np.array([np.nan]))).all()
