"""A tree that is written down and read again is the same tree, and the search goes on from it in the same way."""

from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.search.saved_tree import record_of, tree_of
from services.search.strategies import Majority, Node, Strategy, Tree
from tests.unit.test_strategies import MAX_DEPTH, gated, mcts, play
from tests.unit.test_strategies_levels import LEVEL_WISE

UNDER_WAY = {"in_flight": 0, "expanding": 0}


def written_and_read(tree: Tree, lost: int = 0) -> Tree:
    return tree_of(sorted(map(record_of, tree.nodes.values()), key=lambda r: (r.depth, r.ordinal)), lost=lost)


def at_rest(node: Node) -> dict[str, object]:
    """All of a node but what is under way, which is lost with a worker."""
    return asdict(node) | UNDER_WAY


@pytest.mark.parametrize(
    "strategy", [mcts(), mcts(rollouts=5), gated(), Majority(30, MAX_DEPTH), *LEVEL_WISE]
)
@given(seed=st.integers(0, 10_000), in_flight=st.integers(1, 6), tasks=st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_a_tree_survives_being_written_down(
    strategy: Strategy, seed: int, in_flight: int, tasks: int
) -> None:
    tree, _ = play(strategy, seed, in_flight, tasks)
    again = written_and_read(tree)
    assert again.nodes.keys() == tree.nodes.keys()
    for node_id, node in tree.nodes.items():
        assert at_rest(again.nodes[node_id]) == at_rest(node)
    assert not again.pending
    assert all(asdict(node)[name] == 0 for node in again.nodes.values() for name in UNDER_WAY)


@pytest.mark.parametrize("strategy", [mcts(), gated(), *LEVEL_WISE])
@given(seed=st.integers(0, 10_000), tasks=st.integers(0, 40))
@settings(max_examples=60, deadline=None)
def test_the_search_goes_on_as_if_nothing_had_happened(strategy: Strategy, seed: int, tasks: int) -> None:
    tree, _ = play(strategy, seed, in_flight=1, tasks=tasks)
    again = written_and_read(tree)
    mine, other = strategy.ask(tree), strategy.ask(again)
    assert (mine and (type(mine), mine.node)) == (other and (type(other), other.node))


@pytest.mark.parametrize("strategy", [mcts(), gated(), *LEVEL_WISE])
@given(seed=st.integers(0, 10_000), in_flight=st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_ordinals_are_unique_and_a_childs_follows_its_parents(
    strategy: Strategy, seed: int, in_flight: int
) -> None:
    tree, _ = play(strategy, seed, in_flight)
    ordinals = {node.id: record_of(node).ordinal for node in tree.nodes.values()}
    assert len(set(ordinals.values())) == len(ordinals)
    assert all(
        ordinals[node.parent] < ordinals[node.id] for node in tree.nodes.values() if node.parent is not None
    )


@pytest.mark.parametrize("strategy", [mcts(), gated(), *LEVEL_WISE])
@given(seed=st.integers(0, 10_000), in_flight=st.integers(1, 6), tasks=st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_a_new_worker_never_uses_the_number_of_a_task_that_was_counted(
    strategy: Strategy, seed: int, in_flight: int, tasks: int
) -> None:
    tree, told = play(strategy, seed, in_flight, tasks)
    again = written_and_read(tree, lost=in_flight)
    assert again.asked > max(outcome.task.number for outcome in told)
