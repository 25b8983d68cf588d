"""Intervals and exact tests of counted successes."""

import itertools
import random

import pytest

from ratchet.statistics import (
    binomial_tail,
    clustered_wilson,
    mcnemar,
    paired_interval,
    sign_flip,
    wilson,
)


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


def test_tries_that_always_agree_count_once_and_independent_ones_all() -> None:
    once = [1] * 30 + [0] * 70
    assert clustered_wilson(once, 1) == pytest.approx(wilson(30, 100))
    assert clustered_wilson([3 * each for each in once], 3) == pytest.approx(wilson(30, 100))
    # As many problems with 0, 1 and 2 of 2 tries as independent tries of probability 1/2 give.
    independent = [0] * 25 + [1] * 50 + [2] * 25
    assert clustered_wilson(independent, 2) == pytest.approx(wilson(100, 200))
    between = [0] * 35 + [1] * 30 + [2] * 35
    low, high = clustered_wilson(between, 2)
    assert wilson(50, 100)[0] < low < wilson(100, 200)[0] < 0.5 < high


def test_a_clustered_interval_of_nothing_or_of_no_success_is_no_error() -> None:
    assert clustered_wilson([], 3) == (0.0, 1.0)
    assert clustered_wilson([0] * 50, 3) == pytest.approx(wilson(0, 50))


def test_the_paired_interval_is_bonett_and_prices() -> None:
    # Bonett and Price (2012): n, only the first, only the second: their formula by hand.
    n, first, second = 60, 10, 3
    p12, p21 = (first + 1) / (n + 2), (second + 1) / (n + 2)
    spread = 1.959963984540054 * ((p12 + p21 - (p12 - p21) ** 2) / (n + 2)) ** 0.5
    differences = [1.0] * first + [-1.0] * second + [0.0] * (n - first - second)
    assert paired_interval(differences) == pytest.approx((p12 - p21 - spread, p12 - p21 + spread))


def test_problems_without_a_difference_leave_an_interval_around_0() -> None:
    low, high = paired_interval([0.0] * 100)
    assert low == pytest.approx(-high)
    assert 0.01 < high < 0.05
    assert paired_interval([]) == (-1.0, 1.0)


def test_the_paired_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    draw = random.Random(20_000)
    held = 0
    for _ in range(2000):
        # Three tries of each of 40 problems, which differ in how hard they are; the second solver is better by 0.1.
        differences = []
        for _ in range(40):
            chance = draw.uniform(0, 0.9)
            first = sum(draw.random() < chance for _ in range(3))
            second = sum(draw.random() < chance + 0.1 for _ in range(3))
            differences.append((second - first) / 3)
        low, high = paired_interval(differences)
        held += low <= 0.1 <= high
    assert 0.93 < held / 2000 < 0.985


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (3, 3), (10, 0), (4, 1), (40, 25)])
def test_the_sign_flip_test_of_single_tries_is_mcnemars(first: int, second: int) -> None:
    differences = [1] * first + [-1] * second + [0] * 20
    assert sign_flip(differences) == pytest.approx(mcnemar(first, second))


@pytest.mark.parametrize("differences", [[3, -1, 2, 2, 0, -3, 1, 1], [2, 2, 2], [1, -1, 3], [-2, -4, 6, -1]])
def test_the_sign_flip_test_counts_all_signs(differences: list[int]) -> None:
    observed = abs(sum(differences))
    sums = [
        sum(sign * each for sign, each in zip(signs, differences, strict=True))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    assert sign_flip(differences) == pytest.approx(sum(abs(each) >= observed for each in sums) / len(sums))
