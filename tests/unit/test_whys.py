"""What a strategy says of why it asked for a task: true, in numbers and in words, and without any effect."""

import copy
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.contracts.journal import Rule
from ratchet.contracts.journal import Why as Told
from ratchet.states import NodeState
from services.search.strategies import (
    Beam,
    BestOfN,
    Dvts,
    ExecutedStep,
    Mcts,
    Rebase,
    Rollout,
    Strategy,
    Task,
    Tree,
    Why,
)
from tests.unit.test_strategies import MAX_DEPTH, gated, mcts, rollout_of, step

STRATEGIES: dict[str, Strategy] = {
    "mcts": mcts(),
    "gated": gated(),
    "beam": Beam(30, 6, 3, MAX_DEPTH),
    "dvts": Dvts(30, 6, 3, MAX_DEPTH),
    "rebase": Rebase(30, 6, 3, MAX_DEPTH),
    "best_of_n": BestOfN(20, MAX_DEPTH),
}


def told_whys(strategy: Strategy, seed: int, in_flight: int) -> list[tuple[Tree, Task, Why]]:
    """A search of the random world; each task with the tree as it was when it was asked for."""
    rng, tree, waiting = random.Random(seed), Tree(), list[Task]()
    found: list[tuple[Tree, Task, Why]] = []
    for _ in range(40):
        while len(waiting) < in_flight:
            before = copy.deepcopy(tree)
            task = strategy.ask(tree)
            if task is None:
                break
            asked = copy.deepcopy(tree)
            found.append((before, task, strategy.explain(tree, task)))
            assert tree == asked, "to explain changes nothing"
            waiting.append(task)
        if not waiting:
            break
        task = waiting.pop(rng.randrange(len(waiting)))
        depth = tree.nodes[task.node].depth
        strategy.tell(tree, rollout_of(task, depth, random.Random(seed * 1000 + task.number)))
    return found


@pytest.mark.parametrize("name", STRATEGIES)
@given(seed=st.integers(0, 10_000), in_flight=st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_every_task_of_every_strategy_has_a_reason_that_is_true(name: str, seed: int, in_flight: int) -> None:
    strategy = STRATEGIES[name]
    for tree, task, why in told_whys(strategy, seed, in_flight):
        assert why.words.endswith(".")
        assert Told.model_validate(why.terms()).rule is why.rule
        path = [node.id for node in tree.path(task.node)]
        match why.rule:
            case Rule.UCT:
                assert [choice.node for choice in why.steps] == path
                assert path
            case Rule.LEVEL | Rule.SHARE:
                assert [choice.node for choice in why.steps] == path[-1:]
            case _:
                assert (why.steps, path) == ((), [])
        for choice in why.steps:
            assert 1 <= choice.rank <= choice.of
            assert tree.nodes[choice.node].state is NodeState.OPEN
            if choice.runner_up is not None:
                assert choice.runner_up.node != choice.node
            if why.rule is Rule.UCT and isinstance(strategy, Mcts) and choice.score is not None:
                assert choice.score == pytest.approx(choice.estimate + (choice.explore or 0.0))
                if choice.rank == 1 and choice.runner_up is not None:
                    assert choice.runner_up.score is not None, "what was never visited goes first"
                    assert choice.score >= choice.runner_up.score


def solution(text: str, prm: float, value: float) -> tuple[ExecutedStep, ...]:
    return step(text, prm=prm), step(f"print('{text}')", answer="1", value=value, prm=prm)


def test_uct_is_told_with_its_terms_and_the_runner_up() -> None:
    strategy, tree = mcts(branching_factor=2, exploration=1.0, rollouts=9), Tree()
    words: list[str] = []
    for text, prm, value in (("x = 1", 0.9, 1.0), ("x = 2", 0.2, -1.0), ("y = 3", 0.5, 0.0)):
        task = strategy.ask(tree)
        assert task is not None
        why = strategy.explain(tree, task)
        words.append(why.words)
        strategy.tell(tree, Rollout(task, (solution(text, prm, value),)))
    assert words[0] == (
        "The search begins a solution here: it gets rollout 1 of 2 of its own before its children are compared."
    )
    assert why.rule is Rule.UCT
    [choice] = why.steps
    better, worse = tree.children(tree.root)[:2]
    assert (choice.node, choice.rank, choice.of) == (better.id, 1, 2)
    # (seed 0.8 + value 1) / 2, and sqrt(ln 2 / 1).
    assert choice.estimate == pytest.approx(0.9)
    assert choice.explore == pytest.approx(0.83255, abs=1e-5)
    assert choice.score == pytest.approx(0.9 + 0.83255, abs=1e-5)
    assert choice.runner_up is not None
    assert choice.runner_up.node == worse.id
    assert choice.runner_up.score == pytest.approx((-0.6 - 1) / 2 + 0.83255, abs=1e-5)
    assert "UCT led here in 1 step; it gets rollout 1 of 2" in why.words


@pytest.mark.parametrize(
    ("name", "rule", "words"),
    [
        ("beam", Rule.LEVEL, "The 2 best steps of 3 on this level go on, and this is number 1: draw 1 of 3."),
        ("dvts", Rule.LEVEL, "The best of 3 steps goes on in each of 1 subtree: draw 1 of 3."),
        ("rebase", Rule.SHARE, "By its score 4 of the 6 draws of this level fall to this step: draw 1 of 4."),
    ],
)
def test_a_level_is_told_with_its_candidates(name: str, rule: Rule, words: str) -> None:
    strategy, tree = STRATEGIES[name], Tree()
    scores = iter([0.9, 0.7, 0.5, 0.9, 0.7, 0.5])
    for _ in range(6):
        task = strategy.ask(tree)
        assert task is not None
        assert strategy.explain(tree, task).words.startswith("The first level begins here: draw ")
        prm = next(scores)
        strategy.tell(tree, Rollout(task, ((step(f"x = {prm}", prm=prm),),)))
    task = strategy.ask(tree)
    assert task is not None
    why = strategy.explain(tree, task)
    assert (why.rule, why.words) == (rule, words)
    [choice] = why.steps
    assert (choice.rank, choice.of, choice.estimate) == (1, 3, 0.9)
    assert choice.runner_up is not None


def test_what_is_drawn_for_itself_says_so() -> None:
    strategy, tree = BestOfN(4, MAX_DEPTH), Tree()
    task = strategy.ask(tree)
    assert task is not None
    why = strategy.explain(tree, task)
    assert why.rule is Rule.FRESH
    assert why.words.startswith("Solution 1 of 4, drawn for itself")
