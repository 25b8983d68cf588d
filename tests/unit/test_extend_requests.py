"""What an extended search may use, and who gets what of a pool. Pure."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ratchet.client.pool import LEAST_SHARE, Spent, pooled, shares, spent
from ratchet.contracts.extending import ExtendRequest, Limits, ShrinkingBudgetError
from ratchet.contracts.search import MAX_NODES, Budget, SearchRequest

HAD = Limits(budget=Budget(tokens=1000, seconds=60, nodes=100), rollouts=16)


def limits(tokens: int, seconds: float, nodes: int, rollouts: int) -> Limits:
    return Limits(budget=Budget(tokens=tokens, seconds=seconds, nodes=nodes), rollouts=rollouts)


@pytest.mark.parametrize(
    ("asked", "then"),
    [
        ({"tokens": 2500}, limits(2500, 150, 250, 40)),
        ({"tokens": 2000, "rollouts": 16}, limits(2000, 120, 200, 16)),
        ({"seconds": 90.0, "tokens": 1000}, limits(1000, 90, 150, 24)),
        ({"rollouts": 17}, limits(1063, 64, 107, 17)),
        ({"tokens": 1000}, HAD),
        ({"rollouts": 60_000}, limits(3_750_000, 86_400, 375_000, 60_000)),
        ({"tokens": 10_000_000}, limits(10_000_000, 86_400, MAX_NODES, 65_536)),
    ],
)
def test_what_is_not_named_grows_in_proportion_up_to_what_may_be(asked: dict[str, Any], then: Limits) -> None:
    assert ExtendRequest.model_validate(asked).grown(HAD) == then


@pytest.mark.parametrize("field", ["tokens", "seconds", "nodes", "rollouts"])
def test_a_budget_only_grows(field: str) -> None:
    with pytest.raises(ShrinkingBudgetError, match="already") as caught:
        ExtendRequest.model_validate({field: 1, "tokens": 5000} | {field: 1}).grown(HAD)
    assert caught.value.field == field


def test_something_has_to_be_asked_for() -> None:
    for body in ({}, {"tokens": 0}, {"tokens": None}, {"token": 5}):
        with pytest.raises(ValidationError):
            ExtendRequest.model_validate(body)


def test_a_pooled_request_ends_by_its_tokens_alone() -> None:
    request = SearchRequest.model_validate(
        {"problem": "?", "parameters": {"rollouts": 3, "early_stop": False, "temperature": 0.5}}
    )
    asked = pooled(request)
    assert (asked.parameters.early_stop, asked.parameters.temperature) == (True, 0.5)
    assert (asked.budget.nodes, asked.budget.tokens) == (MAX_NODES, request.budget.tokens)


def test_what_a_result_has_spent() -> None:
    result: dict[str, Any] = {
        "state": "answered_unverified",
        "usage": {"policy": {"tokens": 70}},
        "asked": None,
    }
    assert spent(result, 80) == Spent(80, 70, unsolved=True)
    result |= {"asked": {"budget": {"tokens": 90}}, "state": "solved_verified"}
    assert spent(result, 80) == Spent(90, 70, unsolved=False)


def test_the_unsolved_share_alike_what_the_others_leave() -> None:
    own = dict.fromkeys(range(4), 100)
    found = {
        0: Spent(100, 20, False),
        1: Spent(100, 40, False),
        2: Spent(100, 105, True),
        3: Spent(100, 95, True),
    }
    assert shares(own, found, frozenset()) == {2: 175, 3: 165}
    assert shares(own, found, frozenset({2})) == {3: 200}, "at most twice as much in one pass"
    assert shares(own, found, frozenset({2, 3})) == {}
    assert shares(own, {2: found[2], 3: found[3]}, frozenset()) == {}, "nothing is left"


@given(
    st.lists(
        st.tuples(st.integers(1, 5000), st.floats(0, 1.2), st.floats(1, 3), st.booleans()),
        min_size=1,
        max_size=12,
    )
)
def test_a_pool_is_never_overdrawn_and_comes_to_an_end(
    problems: list[tuple[int, float, float, bool]],
) -> None:
    own = {line: tokens for line, (tokens, *_) in enumerate(problems)}
    found = {
        line: Spent(int(tokens * grown), int(tokens * used), unsolved)
        for line, (tokens, used, grown, unsolved) in enumerate(problems)
    }
    for _ in range(200):
        granted = shares(own, found, frozenset())
        if not granted:
            break
        left = sum(own.values()) - sum(each.tokens for each in found.values())
        assert 0 < sum(granted[line] - found[line].tokens for line in granted) <= left
        assert all(granted[line] > found[line].budget for line in granted)
        # Each uses all that it is given, and is as unsolved as before.
        found |= {line: Spent(tokens, tokens, True) for line, tokens in granted.items()}
    else:
        raise AssertionError("it goes on for ever")
    assert LEAST_SHARE > 0
