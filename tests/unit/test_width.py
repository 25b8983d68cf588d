"""How many tasks of a search are under way at once."""

import random

import pytest

from ratchet.contracts.search import SearchRequest, StrategyName
from services.search.run import SPARED, WAITING, WIDEST, most_in_flight
from services.search.strategies import Tree, strategy_of
from tests.unit.test_strategies import MAX_DEPTH, rollout_of


def request_of(strategy: str, **parameters: object) -> SearchRequest:
    return SearchRequest.model_validate({"problem": "1 + 1", "strategy": strategy, "parameters": parameters})


@pytest.mark.parametrize(
    ("free", "early_stop", "most"),
    [(True, False, WIDEST), (True, True, SPARED), (False, False, WAITING), (False, True, WAITING)],
)
def test_what_need_not_wait_is_drawn_wide_and_wider_where_it_cannot_be_spared(
    *, free: bool, early_stop: bool, most: int
) -> None:
    request = request_of("mcts", early_stop=early_stop)
    assert most_in_flight(request, free=free) == most
    named = request_of("mcts", early_stop=early_stop, in_flight=3)
    assert most_in_flight(named, free=free) == 3


def test_the_first_rollouts_of_mcts_need_not_wait() -> None:
    request = request_of("mcts", branching_factor=5, rollouts=16, max_depth=MAX_DEPTH)
    strategy, tree, rng = strategy_of(request, None), Tree(), random.Random(0)
    first = []
    while strategy.is_free(tree):
        task = strategy.ask(tree)
        assert task is not None
        first.append(task)
    assert [task.node for task in first] == ["root"] * 5
    for task in first:
        strategy.tell(tree, rollout_of(task, 0, rng))
    assert not strategy.is_free(tree), "now its children are compared"
    gated = request_of("mcts", branching_factor=5, gate=0.6)
    assert not strategy_of(gated, None).is_free(Tree()), (
        "the gate of a first step is the usual score of those before"
    )


@pytest.mark.parametrize("name", [StrategyName.BEST_OF_N, StrategyName.MAJORITY, StrategyName.BEAM])
def test_independent_draws_and_those_of_a_level_need_not_wait(name: StrategyName) -> None:
    strategy, tree = strategy_of(request_of(name, width=6), None), Tree()
    for _ in range(6):
        assert strategy.is_free(tree)
        assert strategy.ask(tree) is not None
