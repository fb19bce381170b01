"""Exact statements about counts: Clopper-Pearson bounds of a share, McNemar's test for pairs.

Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial",
Biometrika 26, 1934: the bounds are quantiles of beta distributions, found here by bisection of the
regularised incomplete beta function (continued fraction DLMF 8.17.22). They hold for independent trials only:
six pictures of one tile are not six trials.
"""

from __future__ import annotations

import math

LEVEL = 0.95
# Bisection halves 0..1 this often; a double has 53 digits, and small bounds need a few more.
HALVINGS = 80
MOST_TERMS = 20_000
TINY = 1e-300


def clopper_pearson(count: int, trials: int, level: float = LEVEL) -> tuple[float, float]:
    """(low, high) two-sided bounds of the share behind `count` of `trials`; (0, 1) for no trials.

    ValueError unless 0 <= count <= trials and 0 < level < 1.
    """
    _check(count, trials, level)
    tail = (1.0 - level) / 2.0
    low = 0.0 if count == 0 else beta_quantile(tail, count, trials - count + 1)
    high = 1.0 if count == trials else beta_quantile(1.0 - tail, count + 1, trials - count)
    return low, high


def upper_bound(count: int, trials: int, level: float = LEVEL) -> float:
    """The one-sided upper bound: with no event in n trials about 3 / n at 95 %. ValueError as above."""
    _check(count, trials, level)
    return 1.0 if count == trials else beta_quantile(level, count + 1, trials - count)


def share_with_bounds(count: int, trials: int, level: float = LEVEL) -> dict[str, float | int | None]:
    """`{count, parts, rate, low, high}`; `rate` is None where there is nothing to count."""
    low, high = clopper_pearson(count, trials, level)
    return {"count": count, "parts": trials, "rate": count / trials if trials else None, "low": low,
            "high": high}


def mcnemar_p(only_first: int, only_second: int) -> float:
    """Exact two-sided p of McNemar's test: how likely the discordant pairs fall so unevenly by chance alone.

    Twice the tail of Binomial(only_first + only_second, 1/2), at most 1; 1 when no pair is discordant.
    """
    total = only_first + only_second
    tail = sum(math.comb(total, k) for k in range(min(only_first, only_second) + 1))
    return min(1.0, float(2 * tail / (1 << total)))  # whole numbers: exact for any count


def beta_quantile(share: float, a: float, b: float) -> float:
    """x with I_x(a, b) = `share`, by bisection: it cannot miss, whatever a and b."""
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2.0
        if incomplete_beta(middle, a, b) < share:
            low = middle
        else:
            high = middle
    return (low + high) / 2.0


def incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b) for a, b > 0."""
    if x <= 0.0 or x >= 1.0:
        return 0.0 if x <= 0.0 else 1.0
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    if x > (a + 1.0) / (a + b + 2.0):  # the fraction converges fast on the other side only
        return 1.0 - math.exp(log_front) * _fraction(1.0 - x, b, a) / b
    return math.exp(log_front) * _fraction(x, a, b) / a


def _fraction(x: float, a: float, b: float) -> float:
    """The continued fraction of DLMF 8.17.22, evaluated forwards (modified Lentz)."""
    value, c, d = 1.0, 1.0, 0.0
    for term in range(MOST_TERMS):
        half = term // 2
        if term == 0:
            numerator = 1.0
        elif term % 2:
            numerator = -(a + half) * (a + b + half) * x / ((a + 2 * half) * (a + 2 * half + 1))
        else:
            numerator = half * (b - half) * x / ((a + 2 * half - 1) * (a + 2 * half))
        d = 1.0 / _away_from_zero(1.0 + numerator * d)
        c = _away_from_zero(1.0 + numerator / c)
        value *= c * d
        if term and abs(1.0 - c * d) < 1e-15:
            break
    return value - 1.0  # the forward evaluation starts with a leading one


def _away_from_zero(value: float) -> float:
    return value if abs(value) > TINY else TINY


def _check(count: int, trials: int, level: float) -> None:
    if not (0 <= count <= trials and 0.0 < level < 1.0):
        raise ValueError(f"count is {count} of {trials} trials at level {level}: give 0 <= count <= trials")
