"""The search strategies as pure code: invariants that hold whatever the policy writes and in whatever order rollouts come."""

import math
import random
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.contracts.sandbox import StepStatus
from ratchet.contracts.search import SearchRequest
from ratchet.contracts.serving import PRM1
from ratchet.states import NodeState
from services.search.strategies import (
    Beam,
    BestOfN,
    Draw,
    Dvts,
    ExecutedStep,
    Gate,
    Greedy,
    Majority,
    Mcts,
    Rebase,
    Rollout,
    Strategy,
    Task,
    Tree,
    strategy_of,
)
from services.search.strategies.mcts import estimate
from services.search.strategies.tree import ROOT

MAX_DEPTH = 5


def step(
    text: str,
    *,
    ran: bool = True,
    answer: str | None = None,
    value: float | None = None,
    prm: float | None = None,
) -> ExecutedStep:
    return ExecutedStep(
        text=text,
        status=StepStatus.OK if ran else StepStatus.ERROR,
        stdout=answer or "",
        stderr="",
        prm_score=prm,
        prior=-0.5,
        tokens=10,
        seconds=0.5,
        answer=answer if ran else None,
        value=value,
    )


def rollout_of(task: Task, depth: int, rng: random.Random) -> Rollout:
    """A random world in which steps are few, so that tasks often find the same ones; fixed by the task's number."""
    if task.draw is Draw.STEP:
        return Rollout(task, ((random_step(rng),),) if rng.random() < 0.9 else ())
    length = rng.randint(0, MAX_DEPTH - depth)
    path = [random_step(rng, last=False, ran=True) for _ in range(length)]
    if path and rng.random() < 0.7:
        path[-1] = random_step(rng, last=True, ran=True)
    tried: list[tuple[ExecutedStep, ...]] = []
    if rng.random() < 0.3:
        tried.append((random_step(rng, last=False, ran=False),))
    if task.draw is Draw.STEPS and length and rng.random() < 0.5:
        at = rng.randrange(length)
        tried.append((*path[:at], replace(random_step(rng, ran=True), abandoned=True)))
    return Rollout(task, (*tried, tuple(path)))


def random_step(rng: random.Random, *, last: bool | None = None, ran: bool | None = None) -> ExecutedStep:
    ok = rng.random() < 0.8 if ran is None else ran
    prm = rng.random() if ok else None
    if ok and (rng.random() < 0.3 if last is None else last):
        answer = rng.randint(0, 2)
        return step(f"print({answer})", answer=str(answer), value=[-1.0, 0.25, 1.0][answer], prm=prm)
    return step(f"x = {rng.randint(0, 3)}", ran=ok, prm=prm)


def play(strategy: Strategy, seed: int, in_flight: int, tasks: int = 60) -> tuple[Tree, list[Rollout]]:
    """Run the strategy against the random world, rollouts told in random order."""
    rng = random.Random(seed)
    tree, waiting, told = Tree(), list[Task](), list[Rollout]()
    for _ in range(tasks):
        while len(waiting) < in_flight and (task := strategy.ask(tree)) is not None:
            waiting.append(task)
        if not waiting:
            break
        task = waiting.pop(rng.randrange(len(waiting)))
        rollout = rollout_of(task, tree.nodes[task.node].depth, random.Random(seed * 1000 + task.number))
        strategy.tell(tree, rollout)
        told.append(rollout)
    return tree, told


def value_of(rollout: Rollout) -> float:
    """Value of the trajectory that the rollout completes."""
    last = rollout.paths[-1]
    return last[-1].value if last and last[-1].value is not None else -1.0


def mcts(**changes: Any) -> Mcts:
    return Mcts(
        **{"rollouts": 40, "branching_factor": 3, "max_depth": MAX_DEPTH, "exploration": 1.4, **changes}
    )


def gated(**changes: Any) -> Mcts:
    return mcts(**{"branching_factor": 2, "widening": 0.6, "gate": 0.6, **changes})


worlds = given(seed=st.integers(0, 10_000), in_flight=st.integers(1, 6))
both = pytest.mark.parametrize("make", [mcts, gated])
Make = Callable[..., Mcts]


@both
@worlds
@settings(max_examples=150, deadline=None)
def test_visits_are_conserved_and_values_stay_in_range(make: Make, seed: int, in_flight: int) -> None:
    tree, told = play(make(), seed, in_flight)
    values = [value_of(rollout) for rollout in told]
    assert tree.root.visits == len(values)
    assert tree.root.value_sum == pytest.approx(sum(values))
    for node in tree.nodes.values():
        assert node.visits == node.ended + sum(child.visits for child in tree.children(node))
        assert -1.0 <= node.q <= 1.0
        assert -1.0 <= estimate(node) <= 1.0


@both
@worlds
@settings(max_examples=150, deadline=None)
def test_no_step_is_expanded_twice_and_failed_steps_are_never_built_on(
    make: Make, seed: int, in_flight: int
) -> None:
    strategy = make()
    tree, told = play(strategy, seed, in_flight)
    for node in tree.nodes.values():
        steps = [(child.text, child.state is NodeState.FAILED) for child in tree.children(node)]
        assert len(steps) == len(set(steps)), "a step is one child, however often the policy writes it"
        begun = sum(rollout.task.node == node.id for rollout in told)
        assert node.expansions == begun
        assert node.id == ROOT or strategy.widening or begun <= strategy.branching_factor
        if node.state is NodeState.ABANDONED:
            assert node.visits == begun == 0
            assert not node.children
        if node.state is NodeState.FAILED:
            assert node.visits == 0
            assert not node.children
            assert node.answer is None
        assert node.depth <= MAX_DEPTH


@both
@worlds
@settings(max_examples=150, deadline=None)
def test_in_flight_counts_return_to_zero_when_all_is_told(make: Make, seed: int, in_flight: int) -> None:
    strategy = make(rollouts=10)
    tree, _ = play(strategy, seed, in_flight, tasks=10_000)
    assert not tree.pending
    assert all(node.in_flight == node.expanding == 0 for node in tree.nodes.values())
    assert tree.root.visits == 10


@both
@given(seed=st.integers(0, 10_000), order=st.randoms(use_true_random=False), ahead=st.integers(0, 30))
@settings(max_examples=150, deadline=None)
def test_any_order_of_tells_gives_the_same_tree(
    make: Make, seed: int, order: random.Random, ahead: int
) -> None:
    strategy = make()

    def grown(shuffle: bool) -> Tree:
        tree, _ = play(strategy, seed, in_flight=1, tasks=ahead)
        tasks = [task for _ in range(6) if (task := strategy.ask(tree)) is not None]
        rollouts = [
            rollout_of(task, tree.nodes[task.node].depth, random.Random(seed + task.number)) for task in tasks
        ]
        if shuffle:
            order.shuffle(rollouts)
        for rollout in rollouts:
            strategy.tell(tree, rollout)
        return tree

    plain, shuffled = grown(shuffle=False), grown(shuffle=True)
    assert plain.nodes.keys() == shuffled.nodes.keys()
    for node_id, node in plain.nodes.items():
        other = asdict(shuffled.nodes[node_id])
        for name, value in asdict(node).items():
            # Sums of floats differ in the last place by the order of addition.
            assert other[name] == (pytest.approx(value) if isinstance(value, float) else value), name


@both
@worlds
@settings(max_examples=50, deadline=None)
def test_telling_twice_changes_nothing(make: Make, seed: int, in_flight: int) -> None:
    strategy = make()
    tree, told = play(strategy, seed, in_flight)
    before = {node_id: asdict(node) for node_id, node in tree.nodes.items()}
    for rollout in told:
        assert strategy.tell(tree, rollout) == []
    assert before == {node_id: asdict(node) for node_id, node in tree.nodes.items()}


@both
@worlds
@settings(max_examples=50, deadline=None)
def test_the_same_world_gives_the_same_tree(make: Make, seed: int, in_flight: int) -> None:
    first, _ = play(make(), seed, in_flight)
    second, _ = play(make(), seed, in_flight)
    assert {k: asdict(v) for k, v in first.nodes.items()} == {k: asdict(v) for k, v in second.nodes.items()}


def tell(strategy: Mcts, tree: Tree, *path: ExecutedStep) -> str:
    """Tell the next task that it found this path; the node at which the task began."""
    task = strategy.ask(tree)
    assert task is not None
    strategy.tell(tree, Rollout(task, (path,)))
    return tree.nodes[task.node].text


def test_a_node_is_expanded_before_its_children_are_compared() -> None:
    strategy, tree = mcts(branching_factor=2), Tree()
    began = [tell(strategy, tree, step(f"a = {n}"), step("print(a)", answer="1", value=1.0)) for n in (1, 2)]
    assert began == ["", ""], "both from the root"
    assert tell(strategy, tree, step("print(3)", answer="3", value=0.0)) in {"a = 1", "a = 2"}


def test_uct_takes_the_better_child_when_it_does_not_explore() -> None:
    strategy, tree = mcts(branching_factor=2, exploration=0.0), Tree()
    tell(strategy, tree, step("a = 1"), step("print(a)", answer="1", value=-1.0))
    tell(strategy, tree, step("a = 2"), step("print(a)", answer="2", value=1.0))
    assert tell(strategy, tree, step("b = 1"), step("print(b)", answer="1", value=1.0)) == "a = 2"


def test_the_prm_seeds_the_value_of_a_node() -> None:
    strategy, tree = mcts(branching_factor=2, exploration=0.0), Tree()
    for number, prm in ((1, 0.9), (2, 0.1)):
        tell(strategy, tree, step(f"a = {number}", prm=prm), step("print(a)", answer="1", value=0.0))
    assert tell(strategy, tree, step("print(3)", answer="3", value=0.0)) == "a = 1"
    good, bad = tree.children(tree.root)
    assert estimate(good) == pytest.approx((0.8 + 0.0 + 0.0) / 3)
    assert estimate(bad) == pytest.approx((-0.8 + 0.0) / 2)


def test_uct_explores_what_was_visited_less() -> None:
    strategy, tree = mcts(branching_factor=2, exploration=100.0), Tree()
    tell(strategy, tree, step("a = 1"), step("print(a)", answer="1", value=1.0))
    tell(strategy, tree, step("a = 2"), step("print(a)", answer="2", value=-1.0))
    good, bad = tree.children(tree.root)
    good.visits, good.value_sum, tree.root.visits = 9, 9.0, 10
    task = strategy.ask(tree)
    assert task is not None
    assert task.node == bad.id
    assert math.sqrt(math.log(10) / 1) > math.sqrt(math.log(10) / 9)


def test_rollouts_under_way_spread_the_next_ones_out() -> None:
    strategy, tree = mcts(branching_factor=2, exploration=1.0), Tree()
    for number in (1, 2):
        tell(strategy, tree, step(f"a = {number}"), step("print(a)", answer="1", value=0.0))
    asked = [strategy.ask(tree) for _ in range(2)]
    assert {tree.nodes[task.node].text for task in asked if task} == {"a = 1", "a = 2"}


def test_the_same_step_found_twice_is_one_node() -> None:
    strategy, tree = mcts(), Tree()
    for text in ("# one way\na = 1", "# another\na   =  1", "a = 2"):
        tell(strategy, tree, step(text))
    assert [node.text for node in tree.children(tree.root)] == ["# one way\na = 1", "a = 2"]
    assert [node.visits for node in tree.children(tree.root)] == [2, 1]


def test_a_tree_in_which_every_way_was_tried_is_begun_anew_from_the_root() -> None:
    strategy, tree = mcts(rollouts=4, branching_factor=1), Tree()
    began = [tell(strategy, tree, step("print(1)", answer="1", value=1.0)) for _ in range(4)]
    assert began == [""] * 4
    assert [node.visits for node in tree.terminals()] == [4]
    assert strategy.ask(tree) is None, "the rollouts are used up"


def test_nothing_below_the_depth_limit_is_selected() -> None:
    strategy, tree = mcts(max_depth=1, branching_factor=1), Tree()
    tell(strategy, tree, step("a = 1"))
    [child] = tree.children(tree.root)
    assert child.state is NodeState.EXHAUSTED
    assert tell(strategy, tree, step("a = 2")) == ""


@pytest.mark.parametrize(("kind", "tasks"), [(BestOfN, 5), (Majority, 5)])
def test_independent_strategies_roll_out_from_the_root(kind: type[BestOfN | Majority], tasks: int) -> None:
    strategy, tree = kind(5, MAX_DEPTH), Tree()
    asked = [strategy.ask(tree) for _ in range(tasks + 1)]
    assert asked[-1] is None
    assert all(task and task.node == ROOT and task.retries == 0 for task in asked[:-1])


def test_a_node_is_widened_by_the_power_of_its_visits() -> None:
    strategy, tree = gated(branching_factor=1, widening=0.5, exploration=0.0, rollouts=100), Tree()
    began = [
        tell(strategy, tree, step(f"a = {n}"), step(f"print({n})", answer="1", value=0.0)) for n in range(20)
    ]
    # After v visits the root has had about sqrt(v) rollouts of its own.
    assert began.count("") == math.ceil(math.sqrt(19))


def test_the_gate_asks_for_the_ratio_to_the_parent() -> None:
    gate = Gate(ratio=0.6, redraws=2)
    assert gate.passes(0.6, 1.0)
    assert not gate.passes(0.59, 1.0)
    assert gate.passes(0.01, 0.0)
    assert gate.passes(None, 0.9)
    assert gate.passes(0.1, None)


def test_a_first_step_is_gated_by_the_median_of_those_seen() -> None:
    strategy, tree = gated(), Tree()
    first = strategy.ask(tree)
    assert first is not None
    assert first.draw is Draw.STEPS
    assert first.gate == Gate(0.6, 2, None), "nothing was seen yet"
    paths = (
        (replace(step("a = 1", prm=0.1), abandoned=True),),
        (step("a = 2", prm=0.5), step("b = 1", prm=0.9)),
    )
    strategy.tell(tree, Rollout(first, paths))
    tell(strategy, tree, step("a = 3", prm=0.7))
    later = strategy.ask(tree)
    assert later is not None
    assert later.gate == Gate(0.6, 2, 0.5)


def test_without_a_gate_a_rollout_is_one_piece() -> None:
    task = mcts().ask(Tree())
    assert task is not None
    assert (task.draw, task.gate) == (Draw.TRAJECTORY, None)


def test_an_abandoned_step_is_kept_and_never_selected() -> None:
    strategy, tree = gated(branching_factor=1, widening=0.0), Tree()
    task = strategy.ask(tree)
    assert task is not None
    left = replace(step("a = 1", prm=0.1), abandoned=True)
    good = (step("a = 2", prm=0.8), step("print(a)", answer="2", value=1.0, prm=0.8))
    strategy.tell(tree, Rollout(task, ((left,), good)))
    bad, taken = tree.children(tree.root)
    assert (bad.state, bad.prm_score, bad.tokens, bad.visits) == (NodeState.ABANDONED, 0.1, 10, 0)
    assert (taken.state, taken.visits) == (NodeState.OPEN, 1)
    assert tell(strategy, tree, step("print(3)", answer="3", value=0.0)) == "a = 2"


@pytest.mark.parametrize("accepted_first", [True, False])
def test_a_step_that_one_rollout_left_and_another_took_is_taken(accepted_first: bool) -> None:
    strategy, tree = gated(), Tree()
    tasks = [strategy.ask(tree), strategy.ask(tree)]
    left = ((replace(step("a = 1", prm=0.3), abandoned=True),), (step("a = 2", prm=0.8),))
    took = ((step("a = 1", prm=0.3), step("print(a)", answer="1", value=0.0)),)
    told = list(zip(tasks, (left, took), strict=True))
    for task, paths in reversed(told) if accepted_first else told:
        assert task is not None
        strategy.tell(tree, Rollout(task, paths))
    assert {node.text: node.state for node in tree.children(tree.root)} == {
        "a = 1": NodeState.OPEN,
        "a = 2": NodeState.OPEN,
    }


@pytest.mark.parametrize(
    ("asked", "prm", "gate"),
    [
        ({}, "small-prm@1", 0.6),
        ({}, f"{PRM1}@small@1", 0.0),
        ({}, None, 0.0),
        ({"gate": 0.3}, PRM1, 0.3),
        ({"gate": 0.0}, "small-prm@1", 0.0),
        ({"gate": 0.3, "prm": "none"}, "small-prm@1", 0.0),
    ],
)
def test_the_gate_is_that_of_the_request_or_of_the_prm(
    asked: dict[str, Any], prm: str | None, gate: float
) -> None:
    request = SearchRequest.model_validate({"problem": "1 + 1", "parameters": asked})
    strategy = strategy_of(request, prm)
    assert isinstance(strategy, Mcts)
    assert strategy.gate == gate


@pytest.mark.parametrize("strategy", ["best_of_n", "majority"])
@pytest.mark.parametrize(
    ("asked", "prm", "draw"),
    [
        ({"shared_draws": True}, "small-prm@1", Draw.STEPS),
        ({"shared_draws": True}, PRM1, Draw.TRAJECTORY),
        ({"shared_draws": True}, None, Draw.TRAJECTORY),
        ({"shared_draws": True, "gate": 0.0}, "small-prm@1", Draw.TRAJECTORY),
        ({}, "small-prm@1", Draw.TRAJECTORY),
    ],
)
def test_independent_solutions_are_drawn_as_mcts_draws_where_they_share(
    strategy: str, asked: dict[str, Any], prm: str | None, draw: Draw
) -> None:
    fields = {"problem": "1 + 1", "strategy": strategy, "parameters": asked}
    task = strategy_of(SearchRequest.model_validate(fields), prm).ask(Tree())
    assert task is not None
    assert (task.draw, task.gate) == (draw, None)
    tree = strategy_of(SearchRequest.model_validate(fields | {"strategy": "mcts"}), prm).ask(Tree())
    assert tree is not None
    if asked.get("shared_draws"):
        assert tree.draw is draw


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("greedy", Greedy),
        ("majority", Majority),
        ("best_of_n", BestOfN),
        ("beam", Beam),
        ("dvts", Dvts),
        ("rebase", Rebase),
    ],
)
def test_a_request_names_its_strategy(name: str, kind: type[Strategy]) -> None:
    assert type(strategy_of(SearchRequest.model_validate({"problem": "1", "strategy": name}), None)) is kind
