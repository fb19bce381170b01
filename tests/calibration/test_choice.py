import json

import numpy as np
import pytest

from orinspect.calibration.choice import (
    Limits,
    LinearChoice,
    choose,
)
from orinspect.calibration.linears import Linear
from orinspect.calibration.ranges import InputStatistics, Magnitudes
from orinspect.calibration.rounding import (
    ALPHAS,
    linear_error,
    per_row_rows,
    quantised_weight,
    row_errors,
    static_rows,
)
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


def _loud_channels(rows: Floats, weight: Floats, factor: float = 200) -> tuple[Floats, Floats]:
    """Two channels loud in the activation and as quiet in the weight: the product stays as it was."""
    rows, weight = rows.copy(), weight.copy()
    rows[:, [3, 17]] *= factor
    weight[[3, 17]] /= factor
    return rows, weight


def _smoothed_rows(choice: LinearChoice, rows: Floats) -> Floats:
    assert choice.smoothing is not None
    rows = rows / choice.smoothing
    return per_row_rows(rows) if choice.mode == "per_row" else static_rows(rows, choice.clip or 0)


def _exact_and_rounded(choice: LinearChoice, rows: Floats, weight: Floats) -> tuple[Floats, Floats]:
    quantised, scale = quantised_weight(weight, choice.smoothing)
    return rows @ weight, _smoothed_rows(choice, rows) @ (quantised * scale)


def test_loud_channels_need_smoothing() -> None:
    rows, weight = _loud_channels(_normal(), _weight())
    (choice,) = choose([_statistics(rows)], {"fc": weight})
    assert (choice.mode, choice.alpha in ALPHAS) == ("static", True)
    assert choice.error_static is not None and choice.error_static > 0.1
    assert choice.error_per_row is not None and choice.error_per_row > 0.1
    assert choice.error is not None and choice.error < 0.03
    assert choice.error == choice.error_smoothed
    exact, measured = _exact_and_rounded(choice, rows, weight)
    assert linear_error(measured, exact) == pytest.approx(choice.error, rel=0.01)


def test_loud_rows_and_loud_channels_at_once_need_smoothing_by_row() -> None:
    rows, weight = _loud_channels(_spiked(), _weight())
    (choice,) = choose([_statistics(rows)], {"fc": weight})
    assert (choice.mode, choice.alpha in ALPHAS) == ("per_row", True)
    assert choice.error_per_row is not None and choice.error_per_row > 0.1
    assert choice.error is not None and choice.error < 0.03
    exact, measured = _exact_and_rounded(choice, rows, weight)
    assert row_errors(measured, exact).max() < 0.05


def test_smoothing_alone_changes_nothing() -> None:
    rows, weight = _loud_channels(_spiked(), _weight())
    (choice,) = choose([_statistics(rows)], {"fc": weight})
    assert choice.smoothing is not None
    assert choice.smoothing.dtype == np.float32 and (choice.smoothing > 0).all()
    again = (rows / choice.smoothing) @ (weight * choice.smoothing[:, None])
    np.testing.assert_allclose(again, rows @ weight, rtol=1e-4, atol=1e-4 * np.abs(rows @ weight).max())


def _wandering(rows: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """Every row has spikes in another pair of channels, which cancel in the product: nothing can help."""
    rows, weight = rows.copy(), weight.copy()
    weight[1::2] = weight[::2]
    random = np.random.default_rng(2)
    for row in rows:
        pair = 2 * random.integers(0, HIDDEN // 2)
        row[[pair, pair + 1]] += np.array([3000, -3000], np.float32)
    return rows, weight


def test_what_no_scale_can_hold_stays_float() -> None:
    rows, weight = _wandering(_normal(), _weight())
    (choice,) = choose([_statistics(rows)], {"fc": weight})
    assert (choice.mode, choice.alpha, choice.smoothing) == ("float", None, None)
    assert choice.error is not None and choice.error > Limits().float_limit


def test_a_hundredth_of_the_rows_must_not_be_lost() -> None:
    rows, weight = _normal(256), _weight()
    rows[[9, 50, 120, 200], 7] = 5000  # a token that spikes in a channel which the linear does not read
    weight[7] = 0
    (choice,) = choose([_statistics(rows)], {"fc": weight})
    by_row = row_errors(per_row_rows(rows) @ weight, rows @ weight)
    assert by_row.mean() < Limits().smooth_above < by_row.max() / 10  # the mean alone would not see it
    assert choice.alpha is not None
    exact, measured = _exact_and_rounded(choice, rows, weight)
    assert row_errors(measured, exact).max() < 0.1


def test_channels_that_never_spoke_are_not_blown_up() -> None:
    rows, weight = _loud_channels(_normal(), _weight())
    rows[:, 40] = 0  # silent in calibration, but not for ever
    (choice,) = choose([_statistics(rows)], {"fc": weight})
    rows[:, 40] = 1
    exact, measured = _exact_and_rounded(choice, rows, weight)
    error = linear_error(measured, exact)
    assert error is not None and error < 0.1


def test_smoothing_is_not_searched_where_nothing_calls_for_it() -> None:
    (even,) = choose([_statistics(_normal())], {"fc": _weight()})
    (spiked,) = choose([_statistics(_spiked())], {"fc": _weight()})
    assert even.error_smoothed is None is spiked.error_smoothed


def test_linears_of_one_input_are_chosen_together() -> None:
    rows = _spiked()
    choices = choose([_statistics(rows, "q", "k", "v")], {name: _weight(i) for i, name in enumerate("qkv")})
    assert {choice.mode for choice in choices} == {"per_row"}
    even = choose([_statistics(_normal(), "q", "k", "v")], {n: _weight(i) for i, n in enumerate("qkv")})
    assert {choice.mode for choice in even} == {"static"}
    assert len({choice.clip for choice in even}) == 1


def test_linears_of_one_input_share_their_smoothing() -> None:
    loud, _ = _loud_channels(_normal(), _weight())
    weights = {name: _loud_channels(_normal(), _weight(i))[1] for i, name in enumerate("qkv")}
    choices = choose([_statistics(loud, "q", "k", "v")], weights)
    assert len({(choice.mode, choice.alpha, choice.clip) for choice in choices}) == 1
    assert choices[0].smoothing is not None
    assert all(choice.smoothing is choices[0].smoothing for choice in choices)
    assert all(choice.error is not None and choice.error < 0.03 for choice in choices)


def test_a_linear_that_int8_ruins_does_not_drag_its_neighbours() -> None:
    rows, bad = _wandering(_normal(), _weight(1))
    good = np.tile(np.array([[1], [-1]], np.float32), (HIDDEN // 2, 32))  # the spikes add up
    choices = choose([_statistics(rows, "good", "bad")], {"good": good, "bad": bad})
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
    assert "smoothing" not in plain and plain["alpha"] is None
