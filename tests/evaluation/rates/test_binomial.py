"""Exact bounds against values from the literature and from scipy 1.18 (computed outside, quoted here)."""

import math

import pytest

from orinspect.evaluation.rates.binomial import (
    beta_quantile,
    clopper_pearson,
    incomplete_beta,
    mcnemar_p,
    share_with_bounds,
    upper_bound,
)

# scipy.stats.binomtest(count, trials).proportion_ci(0.95, "exact")
BOUNDS = [
    (0, 10, 0.0, 0.3084971078187608),
    (1, 10, 0.0025285785444617869, 0.44501611702819536),
    (10, 10, 0.6915028921812392, 1.0),
    (0, 10_000, 0.0, 0.0003688199146177713),
    (4, 10_000, 0.00010899694802693647, 0.0010238392865655287),
    (200, 311, 0.5870676354885229, 0.6963508206296045),
    (39_999, 40_000, 0.999860716874831, 0.9999993670551836),
]


@pytest.mark.parametrize(("count", "trials", "low", "high"), BOUNDS)
def test_bounds_are_those_of_clopper_and_pearson(count: int, trials: int, low: float, high: float) -> None:
    assert list(clopper_pearson(count, trials)) == pytest.approx([low, high], abs=1e-9)


def test_no_event_has_the_closed_form() -> None:
    # (1 - p)^n = 0.05; three over n is the rule of thumb.
    assert upper_bound(0, 10_000) == pytest.approx(1.0 - 0.05 ** (1 / 10_000), rel=1e-9)
    assert clopper_pearson(0, 311)[1] == pytest.approx(1.0 - 0.025 ** (1 / 311), rel=1e-9)


def test_a_bound_is_where_the_tail_is_what_the_level_says() -> None:
    low, high = clopper_pearson(7, 60, level=0.9)

    def at_most(count: int, share: float) -> float:
        return sum(math.comb(60, k) * share**k * (1 - share) ** (60 - k) for k in range(count + 1))

    assert at_most(7, high) == pytest.approx(0.05, rel=1e-9)
    assert 1.0 - at_most(6, low) == pytest.approx(0.05, rel=1e-9)


def test_the_beta_function_has_its_symmetry_and_closed_forms() -> None:
    assert incomplete_beta(0.3, 1, 1) == pytest.approx(0.3)
    assert incomplete_beta(0.3, 4, 1) == pytest.approx(0.3**4)
    for x, a, b in [(0.2, 0.5, 7.0), (0.9, 300.0, 40.0), (1e-5, 2.0, 40_000.0)]:
        assert incomplete_beta(x, a, b) == pytest.approx(1.0 - incomplete_beta(1.0 - x, b, a), abs=1e-9)
        assert incomplete_beta(beta_quantile(0.37, a, b), a, b) == pytest.approx(0.37, abs=1e-9)


def test_nothing_counted_says_nothing_and_nonsense_is_refused() -> None:
    assert share_with_bounds(0, 0) == {"count": 0, "parts": 0, "rate": None, "low": 0.0, "high": 1.0}
    with pytest.raises(ValueError, match="count is 3 of 2"):
        clopper_pearson(3, 2)


# scipy.stats.binomtest(only_first, only_first + only_second).pvalue
@pytest.mark.parametrize(("first", "second", "p"), [(0, 0, 1.0), (1, 0, 1.0), (3, 10, 0.09228515625),
                                                    (20, 25, 0.5514843298025198),
                                                    (500, 600, 0.0028195449914364284)])
def test_mcnemar_is_exact(first: int, second: int, p: float) -> None:
    assert mcnemar_p(first, second) == mcnemar_p(second, first) == pytest.approx(p, rel=1e-9)
