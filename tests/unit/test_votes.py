"""Votes: trajectories grouped by answer, weighted as the strategy says, and when the first cannot be overtaken."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.contracts.sandbox import StepStatus
from ratchet.solutions.votes import count_votes
from ratchet.states import NodeState
from ratchet.store.nodes import NodeRecord
from services.search.strategies import BestOfN, ExecutedStep, Majority, Rollout, Tree
from services.search.strategies.base import Draw
from services.search.strategies.recording import start_task
from services.search.votes import (
    CERTAIN_ENOUGH,
    Group,
    Independence,
    free_draws,
    hardly_overtaken,
    tally,
)
from services.trainer.stages.evaluate import leading_answer
from tests.unit.test_strategies import mcts, play, step


def test_the_heaviest_answer_leads_and_of_equals_the_first_given() -> None:
    voters = [("7", 1.0), ("42", 0.75), ("42.0", 0.25), ("84/2", 0.5), ("8", 1.0)]
    counted = count_votes(voters, lambda voter: voter[0], lambda voter: voter[1])
    assert [(votes.voters[0][0], votes.weight) for votes in counted] == [("42", 1.5), ("7", 1.0), ("8", 1.0)]
    assert [voter[0] for voter in counted[0].voters] == ["42", "42.0", "84/2"]


def ended(ordinal: int, answer: str, prm_score: float | None) -> NodeRecord:
    return NodeRecord(
        f"n{ordinal}",
        "n0",
        ordinal,
        1,
        NodeState.TERMINAL,
        "print(x)",
        answer=answer,
        prm_score=prm_score,
        visits=1,
    )


def test_an_evaluation_counts_an_unscored_trajectory_as_the_search_does() -> None:
    ends = [ended(2, "8", 0.9), ended(1, "7", None)]
    scored, unscored = says("8", 0.9), says("7")
    assert BestOfN(2, 8).weight([], 1) == 0.5
    assert (
        leading_answer(ends, by_prm=True)
        == tally(*grown(unscored, scored, strategy=BestOfN))[0].answer
        == "8"
    )
    assert leading_answer(ends, by_prm=False) == tally(*grown(unscored, scored))[0].answer == "7"
    assert leading_answer([], by_prm=True) is None


def grown(
    *trajectories: tuple[ExecutedStep, ...], strategy: type[Majority | BestOfN] = Majority
) -> tuple[Tree, Majority | BestOfN]:
    """A tree with these trajectories, each from one rollout."""
    how, tree = strategy(len(trajectories), 8), Tree()
    for path in trajectories:
        task = how.ask(tree)
        assert task is not None
        how.tell(tree, Rollout(task, (path,)))
    return tree, how


def says(answer: str, prm: float = 0.5, way: str = "") -> tuple[ExecutedStep, ...]:
    return (step(f"x = {way or answer!r}", prm=prm), step("print(x)", answer=answer, value=0.0, prm=prm))


def counted(*votes: int) -> list[Group]:
    """Groups with so many votes each, the first leading."""
    paths = [says(str(number)) for number, count in enumerate(votes) for _ in range(count)]
    return tally(*grown(*paths))


def test_equal_numbers_are_one_group_and_the_most_votes_lead() -> None:
    first, second = tally(*grown(says("7"), says("42"), says("42.0", way="a"), says("84/2", way="b")))
    assert (first.votes, second.votes) == (3, 1)
    assert (first.share, second.share) == (0.75, 0.25)
    assert len(first.trajectories) == 3
    assert first.key != second.key


def test_the_best_trajectory_speaks_for_its_answer_and_ties_go_to_the_first_found() -> None:
    leading, _ = tally(*grown(says("1", 0.2), says("1.0", 0.9, way="a"), says("2", 0.1)))
    assert leading.answer == "1.0"
    assert [group.answer for group in tally(*grown(says("5"), says("3")))] == ["5", "3"]


def test_the_prm_share_counts_each_trajectory_with_its_score() -> None:
    groups = {group.answer: group for group in tally(*grown(says("1", 0.9), says("2", 0.3), says("2", 0.3)))}
    assert groups["1"].prm_share == pytest.approx(0.6)
    assert groups["2"].prm_share == pytest.approx(0.4)
    assert groups["2"].votes == 2


def test_no_answer_no_groups() -> None:
    assert tally(Tree(), Majority(1, 8)) == []
    assert not hardly_overtaken([], 2)


def test_independent_draws_of_one_beginning_count_each_and_branches_of_one_draw_once() -> None:
    tree, strategy = Tree(), mcts()
    paths = [says("7"), says("7"), (step("y = 1"), step("print(7)", answer="7", value=0.0))]
    first, second, other = (strategy.ask(tree) for _ in paths)
    for task, path in zip((first, second, other), paths, strict=True):
        assert task is not None
        strategy.tell(tree, Rollout(task, (path,)))
    [same, _] = tree.children(tree.root)
    for text in ("print(x + 0)", "print(x - 0)"):
        task = start_task(tree, same, Draw.TRAJECTORY)
        strategy.tell(tree, Rollout(task, ((step(text, answer="7", value=0.0),),)))
    [group] = tally(tree, strategy)
    assert group.votes == 5
    assert Independence(free_draws(tree, sampled=True)).count(group.trajectories) == 3
    assert Independence(free_draws(tree, sampled=False)).count(group.trajectories) == 2
    counted = Independence(free_draws(tree, sampled=True))
    assert [counted.count([each], 1) for each in group.trajectories].count(1) == 3


@given(seed=st.integers(0, 5_000), in_flight=st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_draws_of_first_steps_are_the_rollouts_that_began_at_the_root(seed: int, in_flight: int) -> None:
    strategy = mcts()
    tree, told = play(strategy, seed, in_flight)
    draws = free_draws(tree, sampled=True)
    from_root = [rollout for rollout in told if rollout.task.node == tree.root.id]
    started = [r for r in from_root if r.paths[-1] and r.paths[-1][0].status is StepStatus.OK]
    assert sum(draws.values()) == len(started)
    for group in tally(tree, strategy):
        assert 1 <= Independence(draws).count(group.trajectories) <= group.votes


@given(seed=st.integers(0, 5_000), in_flight=st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_every_answer_is_counted_once_and_shares_sum_to_one(seed: int, in_flight: int) -> None:
    strategy = mcts()
    tree, _ = play(strategy, seed, in_flight)
    groups = tally(tree, strategy)
    assert sum(group.votes for group in groups) == sum(end.visits for end in tree.terminals())
    assert len({group.key for group in groups}) == len(groups)
    assert [group.share for group in groups] == sorted((group.share for group in groups), reverse=True)
    if groups:
        assert sum(group.share for group in groups) == pytest.approx(1)
        assert sum(group.prm_share for group in groups) == pytest.approx(1)


def ahead(first: int, second: int) -> float:
    """P(p > 1/2) for p ~ Beta(first + 1, second + 1), by Simpson's rule over the density."""
    points = 2_000
    norm = math.exp(math.lgamma(first + second + 2) - math.lgamma(first + 1) - math.lgamma(second + 1))

    def density(p: float) -> float:
        return norm * p**first * (1 - p) ** second

    width = 0.5 / points
    inner = sum((4 if number % 2 else 2) * density(0.5 + number * width) for number in range(1, points))
    return width / 3 * (density(0.5) + inner + density(1.0))


@pytest.mark.parametrize("second", [0, 1, 2, 5, 9])
def test_the_leader_is_hardly_overtaken_exactly_when_the_beta_integral_says_so(second: int) -> None:
    for first in range(max(2, second), 24):
        said = hardly_overtaken(counted(*([first, second] if second else [first])), 2)
        assert said == (first > second and ahead(first, second) >= CERTAIN_ENOUGH), (first, second)


def test_too_few_votes_never_suffice_and_a_third_answer_does_not_matter() -> None:
    assert not hardly_overtaken(counted(4), 5)
    assert hardly_overtaken(counted(5), 5)
    assert hardly_overtaken(counted(9, 2), 2) == hardly_overtaken(counted(9, 2, 2, 1), 2) is True
