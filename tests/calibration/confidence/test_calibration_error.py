"""Expected calibration error by hand, and on confidences that are honest by construction."""

import numpy as np
import pytest

from orinspect.calibration.confidence.calibration_error import (
    calibration_error,
    error_by_chance,
    reliability_bins,
)


def test_one_bin_is_the_gap_between_what_was_said_and_what_was_right() -> None:
    assert calibration_error([0.95] * 10, [True] * 9 + [False]) == pytest.approx(0.05)
    assert calibration_error([0.95] * 10, [True] * 9 + [False], binning="equal_mass") == pytest.approx(0.05)


def test_bins_weigh_by_what_lies_in_them() -> None:
    # Three at 0.25, none right: 0.25. One at 0.85, right: 0.15. (3 * 0.25 + 0.15) / 4.
    said, right = [0.25, 0.25, 0.25, 0.85], [False, False, False, True]
    assert calibration_error(said, right) == pytest.approx(0.225)
    rows = reliability_bins(said, right)
    assert [(row["count"], row["right"]) for row in rows] == [(3, 0.0), (1, 1.0)]
    assert rows[0]["low"] == pytest.approx(0.2) and rows[0]["high"] == pytest.approx(0.3)


@pytest.mark.parametrize("binning", ["equal_width", "equal_mass"])
def test_honest_confidences_have_next_to_none(binning: str) -> None:
    rng = np.random.default_rng(0)
    said = rng.uniform(size=20_000) ** 0.2
    right = rng.uniform(size=20_000) < said
    honest = calibration_error(said, right, binning=binning)  # type: ignore[arg-type]
    boastful = calibration_error(np.sqrt(said), right, binning=binning)  # type: ignore[arg-type]
    assert honest is not None and honest < 0.01
    assert boastful is not None and boastful > 0.05


def test_equal_mass_looks_into_the_topmost_bin() -> None:
    # Half say 0.91 and are right always, half say 0.99 and are right in 90 of 100: equal width cannot see it.
    said = [0.91] * 100 + [0.99] * 100
    right = [True] * 100 + [True] * 90 + [False] * 10
    assert calibration_error(said, right) == pytest.approx(0.0, abs=1e-9)
    assert calibration_error(said, right, binning="equal_mass") == pytest.approx(0.09)


def test_bins_of_equal_mass_hold_equally_many_and_never_part_equals() -> None:
    rows = reliability_bins(np.arange(1, 101) / 100.0, [True] * 100, binning="equal_mass")
    assert [row["count"] for row in rows] == [10] * 10
    rows = reliability_bins([0.5] * 95 + [0.9] * 5, [True] * 100, binning="equal_mass")
    assert [row["count"] for row in rows] == [95, 5]


def test_edges_belong_to_the_bin_below_and_zero_and_one_to_the_ends() -> None:
    rows = reliability_bins([0.0, 0.1, 1.0], [False, False, True])
    assert [(row["low"], row["count"]) for row in rows] == [(0.0, 2), (pytest.approx(0.9), 1)]
    assert reliability_bins([0.0], [False], binning="equal_mass")[0]["count"] == 1


def test_nothing_said_has_no_error_and_nonsense_is_refused() -> None:
    assert calibration_error([], []) is None
    with pytest.raises(ValueError, match=r"0\.\.1"):
        calibration_error([1.2], [True])
    with pytest.raises(ValueError, match="2 confidences and 1"):
        calibration_error([0.1, 0.2], [True])


def test_true_confidences_have_an_error_by_chance_that_falls_with_their_number() -> None:
    """About 0.04 of 64 and a sixth of that of 2,500; a drawn set lies below the quantile 19 times in 20."""
    rng = np.random.default_rng(3)
    found = {}
    for count in (64, 2500):
        stated = rng.beta(8.0, 0.6, count)
        chance = error_by_chance(stated, bins=15)
        assert chance is not None and 0 < chance[0] < chance[1]
        found[count] = chance
        errors = [calibration_error(stated, rng.random(count) < stated, bins=15) for _ in range(100)]
        assert 85 <= sum(error is not None and error <= chance[1] for error in errors) <= 100
    assert 0.02 < found[64][0] < 0.08
    assert found[2500][0] < found[64][0] / 3
    assert error_by_chance([]) is None
