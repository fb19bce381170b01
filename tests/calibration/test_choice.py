import json

import numpy as np
import pytest

from orinspect.calibration.choice import (
    Limits,
    choose,
    per_row_rows,
    quantised_weight,
    row_errors,
    static_rows,
)
from orinspect.calibration.linears import Linear
from orinspect.calibration.ranges import InputStatistics, Magnitudes
from orinspect.calibration.sessions import Floats

HIDDEN = 64


def _statistics(rows: Floats, *names: str) -> InputStatistics:
    values, maxima = Magnitudes(), Magnitudes()
    values.add(rows)
    maxima.add(np.abs(rows).max(axis=1))
    linears = tuple(Linear(name, "x", rows.shape[1], 32) for name in names or ("fc",))
    return InputStatistics(
        "x",
        linears,
        len(rows),
        values.largest,
        values.percentile(99.99),
        values.mse_clip(),
        maxima.percentile(50),
        maxima.largest,
        rows,
        np.abs(rows).max(axis=0),
    )


def _weight(seed: int = 5) -> Floats:
    return np.random.default_rng(seed).normal(size=(HIDDEN, 32)).astype(np.float32)


def _normal(rows: int = 64) -> Floats:
    return np.random.default_rng(3).normal(size=(rows, HIDDEN)).astype(np.float32)


def _spiked() -> Floats:
    rows = _normal()
    rows[:2] *= 300
    return rows


def test_weight_rounding_is_symmetric_and_exact_within_half_a_step() -> None:
    weight = _weight()
    weight[:, 7] = 0
    quantised, scale = quantised_weight(weight)
    assert quantised.dtype == np.int8
    assert np.abs(quantised.astype(int)).max() == 127
    assert (scale > 0).all() and scale.shape == (32,)
    assert np.abs(quantised * scale - weight).max() <= scale.max() / 2 * 1.0001
    assert not quantised[:, 7].any()


def test_per_row_keeps_the_other_rows_when_two_of_64_are_spiked() -> None:
    rows, weight = _spiked(), _weight()
    exact = rows @ weight
    static = row_errors(static_rows(rows, float(np.abs(rows).max())) @ weight, exact)[2:].mean()
    per_row = row_errors(per_row_rows(rows) @ weight, exact)[2:].mean()
    assert static > 0.5
    assert per_row < 0.02
    assert static > 30 * per_row


def test_rows_of_zeros_stay_zeros() -> None:
    rows = _normal(4)
    rows[1] = 0
    assert np.isfinite(per_row_rows(rows)).all()
    assert not per_row_rows(rows)[1].any()


def test_even_rows_are_static_and_spiked_rows_are_per_row() -> None:
    weights = {"fc": _weight()}
    (even,) = choose([_statistics(_normal())], weights)
    (spiked,) = choose([_statistics(_spiked())], weights)
    assert (even.mode, spiked.mode) == ("static", "per_row")
    assert even.error_static is not None and even.error_static < 0.03
    assert spiked.error_per_row is not None and spiked.error_per_row < 0.03
    assert spiked.error_static is not None and spiked.error_static > 5 * spiked.error_per_row


def test_one_spiked_feature_that_int8_cannot_hold_stays_float() -> None:
    rows, weight = _normal(), _weight()
    rows[:, 0] *= 2000  # every row is spiked in one channel, whose weight is small: per_row cannot help
    weight[0] *= 1e-4
    (choice,) = choose([_statistics(rows)], {"fc": weight})
    assert choice.mode == "float"
    assert choice.error_per_row is not None and choice.error_per_row > Limits().float_limit


def test_linears_of_one_input_are_chosen_together() -> None:
    rows = _spiked()
    choices = choose([_statistics(rows, "q", "k", "v")], {name: _weight(i) for i, name in enumerate("qkv")})
    assert {choice.mode for choice in choices} == {"per_row"}
    even = choose([_statistics(_normal(), "q", "k", "v")], {n: _weight(i) for i, n in enumerate("qkv")})
    assert {choice.mode for choice in even} == {"static"}
    assert len({choice.clip for choice in even}) == 1


def test_a_linear_that_int8_ruins_does_not_drag_its_neighbours() -> None:
    rows, bad = _normal(), _weight(1)
    rows[:, 0] *= 40
    good = np.zeros_like(bad)
    good[0] = 1.0  # reads the loud channel only
    bad[0] = 0  # reads the quiet ones only
    limits = Limits(float_limit=0.05)
    choices = choose([_statistics(rows, "good", "bad")], {"good": good, "bad": bad}, limits=limits)
    assert {choice.name: choice.mode for choice in choices} == {"good": "static", "bad": "float"}


def test_keep_float_keeps_and_still_measures() -> None:
    (choice,) = choose([_statistics(_normal())], {"fc": _weight()}, keep_float={"fc"})
    assert choice.mode == "float"
    assert choice.error_static is not None


def test_inputs_of_zeros_stay_float_and_weights_of_zeros_do_not() -> None:
    (silent,) = choose([_statistics(np.zeros((8, HIDDEN), np.float32))], {"fc": _weight()})
    assert (silent.mode, silent.error_static, silent.error_per_row) == ("float", None, None)
    (empty,) = choose([_statistics(_normal())], {"fc": np.zeros((HIDDEN, 32), np.float32)})
    assert (empty.mode, empty.error_static) == ("static", 0.0)


def test_a_choice_is_plain_json() -> None:
    (choice,) = choose([_statistics(_normal())], {"fc": _weight()})
    plain = json.loads(json.dumps(choice.to_json()))
    assert plain["mode"] == "static"
    assert plain["error_static"] == pytest.approx(choice.error_static)
    assert (plain["in_features"], plain["out_features"], plain["rows"]) == (HIDDEN, 32, 64)
