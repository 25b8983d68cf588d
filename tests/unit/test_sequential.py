"""Looking again and again: the bounds keep the error rate that was asked for, over all looks together."""

import itertools
import math
from statistics import NormalDist

import numpy as np
import pytest

from services.trainer.sequential import bounds, spent, standardised


def test_one_look_is_the_test_of_fixed_size() -> None:
    [edge] = bounds((100,), 0.05)
    assert edge == pytest.approx(NormalDist().inv_cdf(0.95), abs=2e-3)


@pytest.mark.parametrize("level", [0.1, 0.025])
@pytest.mark.parametrize(
    "looks", [(50, 100, 150, 200), (50, 100, 150, 225, 337, 505, 757, 1135, 1703, 2555, 3000)]
)
def test_the_looks_together_err_as_often_as_was_asked_for(looks: tuple[int, ...], level: float) -> None:
    rng, trials = np.random.default_rng(5), 40_000
    steps = np.diff((0, *looks))
    sums = np.cumsum(rng.normal(0.0, np.sqrt(steps), (trials, len(looks))), axis=1)
    z = sums / np.sqrt(looks)
    crossed = (z >= np.array(bounds(looks, level))).any(axis=1).mean()
    error = math.sqrt(level * (1 - level) / trials)
    assert abs(crossed - level) < 4 * error
    assert (z >= NormalDist().inv_cdf(1 - level)).any(axis=1).mean() > level + 10 * error, (
        "naive looks do not"
    )


def test_the_error_rate_is_spent_by_the_last_look_and_never_before() -> None:
    rates = [spent(0.1, fraction) for fraction in (0.0, 0.1, 0.5, 1.0, 1.2)]
    assert rates[0] == 0
    assert rates[3] == rates[4] == pytest.approx(0.1)
    assert all(one < other for one, other in itertools.pairwise(rates[:4]))


def test_few_problems_that_all_agree_are_no_certainty() -> None:
    assert standardised([], 0.02) == 0.0
    assert standardised([0.0] * 10, 0.02) < 0.2
    assert standardised([0.0] * 1000, 0.02) > 3
