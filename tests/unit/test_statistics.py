"""Intervals and exact tests of counted successes."""

import pytest

from ratchet.statistics import binomial_tail, mcnemar, wilson


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (0, 0, 0.0, 1.0),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (
            4,
            24,
            0.0668,
            0.3585,
        ),  # as statsmodels.stats.proportion.proportion_confint(4, 24, method="wilson") gives it
        (50, 100, 0.4038, 0.5962),
    ],
)
def test_wilson_interval(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize(
    ("successes", "n", "p"),
    # C(4,3) + C(4,4) of 16; C(10,8) + C(10,9) + C(10,10) of 1024.
    [(0, 0, 1.0), (0, 7, 1.0), (1, 1, 0.5), (3, 4, 5 / 16), (8, 10, 56 / 1024), (5, 4, 0.0)],
)
def test_binomial_tail_is_that_of_a_fair_coin(successes: int, n: int, p: float) -> None:
    assert binomial_tail(successes, n) == pytest.approx(p)


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [(0, 0, 1.0), (1, 0, 1.0), (3, 3, 1.0), (10, 0, 2 / 1024), (0, 10, 2 / 1024), (4, 1, 0.375)],
)
def test_mcnemar_is_the_exact_two_sided_test(first: int, second: int, p: float) -> None:
    assert mcnemar(first, second) == pytest.approx(p)
