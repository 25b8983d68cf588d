"""PRM1's scores: in [0, 1], higher for steps that the policy was surer of, and fixed by the steps up to each."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.prm.likelihood import INTERCEPT, SLOPE, step_scores

logprobs = st.lists(st.floats(-1e6, 0), max_size=20)


@given(logprobs)
def test_every_step_has_a_score_between_0_and_1(given_logprobs: list[float]) -> None:
    scores = step_scores(given_logprobs)
    assert len(scores) == len(given_logprobs)
    assert all(0.0 <= score <= 1.0 for score in scores)


@given(logprobs, logprobs)
def test_later_steps_do_not_change_earlier_scores(first: list[float], later: list[float]) -> None:
    assert step_scores(first + later)[: len(first)] == step_scores(first)


@given(st.floats(-3, 0), st.floats(-3, 0))
def test_a_surer_step_has_no_lower_score(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert step_scores([low]) <= step_scores([high])


def test_the_score_is_logistic_in_the_mean_over_steps() -> None:
    assert step_scores([0.0])[0] == pytest.approx(0.549834, abs=1e-6)
    # Each step counts once: the mean of -0.1 and -0.3.
    assert step_scores([-0.1, -0.3])[1] == step_scores([-0.2])[0]
    assert pytest.approx(-2.2) == INTERCEPT + SLOPE * -0.2
    assert step_scores([-0.2])[0] == pytest.approx(0.099750, abs=1e-6)


def test_a_log_probability_above_0_counts_as_certain() -> None:
    assert step_scores([1e-9]) == step_scores([0.0])
