"""Beam search, DVTS and REBASE: what they keep of a level, and invariants that hold whatever the policy writes."""

import random
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.states import NodeState
from services.search.strategies import Beam, Draw, Dvts, ExecutedStep, Rebase, Rollout, Strategy, Task, Tree
from services.search.strategies.levels import LevelWise
from services.search.strategies.tree import ROOT, Node
from tests.unit.test_strategies import MAX_DEPTH, play, rollout_of, step

LEVEL_WISE: list[LevelWise] = [kind(40, 4, 2, MAX_DEPTH) for kind in (Beam, Dvts, Rebase)]
all_three = pytest.mark.parametrize("strategy", LEVEL_WISE, ids=["beam", "dvts", "rebase"])
worlds = given(seed=st.integers(0, 10_000), in_flight=st.integers(1, 6))


def grow(strategy: Strategy, write: Callable[[str, int], ExecutedStep], draws: int) -> Tree:
    """Draw so many steps one after another; `write(text of the node, number of the draw)` is the policy."""
    tree = Tree()
    for number in range(draws):
        task = strategy.ask(tree)
        assert task is not None
        assert task.draw is Draw.STEP
        strategy.tell(tree, Rollout(task, ((write(tree.nodes[task.node].text, number),),)))
    return tree


def drawn_from(strategy: Strategy, tree: Tree, draws: int) -> list[str]:
    """The texts of the nodes from which the next steps are drawn."""
    tasks = [task for _ in range(draws) if (task := strategy.ask(tree)) is not None]
    return [tree.nodes[task.node].text for task in tasks]


SCORES = [0.9, 0.1, 0.8, 0.7]


def first_steps(text: str, number: int) -> ExecutedStep:
    assert text == ""
    return step(f"a = {number}", prm=SCORES[number])


def test_beam_keeps_the_best_of_a_level() -> None:
    strategy = Beam(40, 4, 2, MAX_DEPTH)
    tree = grow(strategy, first_steps, 4)
    assert drawn_from(strategy, tree, 9) == ["a = 0"] * 2 + ["a = 2"] * 2


def test_dvts_keeps_the_best_of_each_subtree() -> None:
    scores = [0.9, 0.8, 0.2, 0.1]
    strategy = Dvts(40, 4, 2, MAX_DEPTH)
    tree = grow(strategy, lambda _, number: step(f"a = {number}", prm=scores[number]), 4)
    assert drawn_from(strategy, tree, 9) == ["a = 0"] * 2 + ["a = 2"] * 2


def test_rebase_allots_the_draws_by_the_softmax_of_the_scores() -> None:
    strategy = Rebase(40, 4, 2, MAX_DEPTH)
    tree = grow(strategy, first_steps, 4)
    # exp(score / 0.2) are in the proportion 2.7 : 0.05 : 1.6 : 1, of four draws.
    assert drawn_from(strategy, tree, 9) == ["a = 0"] * 2 + ["a = 2"] + ["a = 3"]


@all_three
def test_a_level_waits_for_all_of_its_steps(strategy: LevelWise) -> None:
    tree = Tree()
    tasks = [strategy.ask(tree) for _ in range(5)]
    assert [task.node if task else None for task in tasks] == [ROOT] * 4 + [None]
    for number, task in enumerate(tasks[:3]):
        assert task is not None
        strategy.tell(tree, Rollout(task, ((step(f"a = {number}", prm=0.5),),)))
        assert strategy.ask(tree) is None
    last = tasks[3]
    assert last is not None
    strategy.tell(tree, Rollout(last, ((step("a = 3", prm=0.5),),)))
    assert strategy.ask(tree) is not None


@all_three
def test_what_has_ended_or_does_not_run_is_not_drawn_from(strategy: LevelWise) -> None:
    made = [
        step("print(1)", answer="1", value=1.0, prm=0.9),
        step("a = 1", ran=False),
        step("a = 2", prm=0.5),
        step("a = 2", prm=0.5),
    ]
    tree = grow(strategy, lambda _, number: made[number], 4)
    [end] = tree.terminals()
    assert (end.answer, end.visits, tree.root.visits) == ("1", 1, 1)
    below = [text for text in drawn_from(strategy, tree, 4) if text]
    assert set(below) <= {"a = 2"}
    assert below or isinstance(strategy, Dvts), "in the only subtree the end was the best"


@all_three
def test_the_width_grows_when_all_levels_are_done(strategy: LevelWise) -> None:
    tree = grow(strategy, lambda _, number: step(f"print({number})", answer=str(number), value=0.0), 8)
    assert tree.root.expansions == 8
    assert drawn_from(strategy, tree, 5) == [""] * 4, "and waits for the third four"


@all_three
def test_no_more_is_asked_once_the_rollouts_are_used_up(strategy: LevelWise) -> None:
    tree = grow(strategy, lambda _, number: step(f"print({number})", answer=str(number), value=0.0), 40)
    assert tree.root.visits == 40
    assert strategy.ask(tree) is None


@all_three
@worlds
@settings(max_examples=80, deadline=None)
def test_ends_are_conserved_and_only_what_may_go_on_is_drawn_from(
    strategy: LevelWise, seed: int, in_flight: int
) -> None:
    tree, told = play(strategy, seed, in_flight)
    for node in tree.nodes.values():
        assert node.visits == node.ended + sum(child.visits for child in tree.children(node))
        assert node.expansions == sum(rollout.task.node == node.id for rollout in told)
        assert (node.ended > 0) == (node.answer is not None)
        if node.state is not NodeState.OPEN:
            assert node.expansions == 0


@all_three
@given(seed=st.integers(0, 10_000), order=st.randoms(use_true_random=False), ahead=st.integers(0, 40))
@settings(max_examples=80, deadline=None)
def test_any_order_of_tells_gives_the_same_tree(
    strategy: LevelWise, seed: int, order: random.Random, ahead: int
) -> None:
    def grown(shuffle: bool) -> Tree:
        tree, _ = play(strategy, seed, in_flight=1, tasks=ahead)
        tasks = [task for _ in range(6) if (task := strategy.ask(tree)) is not None]
        rollouts = [one_step(task, tree, seed) for task in tasks]
        if shuffle:
            order.shuffle(rollouts)
        for rollout in rollouts:
            assert strategy.tell(tree, rollout)
            assert strategy.tell(tree, rollout) == [], "telling twice changes nothing"
        return tree

    plain, shuffled = grown(shuffle=False), grown(shuffle=True)
    assert plain.nodes.keys() == shuffled.nodes.keys()
    for node_id, node in plain.nodes.items():
        other = asdict(shuffled.nodes[node_id])
        for name, value in asdict(node).items():
            # Sums of floats differ in the last place by the order of addition.
            assert other[name] == (pytest.approx(value) if isinstance(value, float) else value), name


def one_step(task: Task, tree: Tree, seed: int) -> Rollout:
    return rollout_of(task, tree.nodes[task.node].depth, random.Random(seed + task.number))


@all_three
@worlds
@settings(max_examples=40, deadline=None)
def test_where_it_has_come_to_is_found_anew(strategy: LevelWise, seed: int, in_flight: int) -> None:
    """Also where a branch ends because the policy reads no more, and another one takes its place."""
    rng, tree, waiting = random.Random(seed), Tree(), list[Task]()
    for _ in range(80):
        known = tree.frontier
        if len(waiting) == in_flight:
            task = waiting.pop(rng.randrange(in_flight))
            full = task.node != ROOT and rng.random() < 0.2
            rollout = rollout_of(task, tree.nodes[task.node].depth, random.Random(seed * 1000 + task.number))
            strategy.tell(tree, Rollout(task, (), "no room") if full else rollout)
            continue
        forgetful = deepcopy(tree)
        forgetful.frontier = None
        asked, other = strategy.ask(tree), strategy.ask(forgetful)
        assert asked == other, known
        if asked is None:
            break
        waiting.append(asked)


@all_three
def test_what_is_done_is_not_looked_at_again(strategy: LevelWise) -> None:
    looked_at = 0

    class Looking(dict[str, Node]):
        def __getitem__(self, key: str) -> Node:
            nonlocal looked_at
            looked_at += 1
            return super().__getitem__(key)

    wide = replace(strategy, width=64, rollouts=10**6, max_depth=8)
    tree = Tree()
    tree.nodes = Looking(tree.nodes)
    rng, draws = random.Random(0), 2_000
    for number in range(draws):
        task = wide.ask(tree)
        assert task is not None
        wide.tell(tree, Rollout(task, ((step(f"x = {number}", prm=rng.random()),),)))
    # Without what it remembers it looks at some hundreds of nodes for each draw.
    assert looked_at < 200 * draws
