"""Votes: trajectories grouped by answer, and weighed; what a tree's mass is; when the first answer cannot be overtaken."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.contracts.sandbox import StepStatus
from ratchet.contracts.search import StrategyName
from ratchet.solutions.independence import Independence, free_draws
from ratchet.solutions.votes import End, by_count, by_prm, count_votes, find_ends, vote_of
from services.search.saved_tree import record_of
from services.search.strategies import BestOfN, ExecutedStep, Rollout, Tree
from services.search.strategies.base import Draw
from services.search.strategies.recording import start_task
from services.search.votes import (
    CERTAIN_ENOUGH,
    hardly_overtaken,
    tally,
)
from tests.unit.test_strategies import mcts, play, step

MAJORITY = StrategyName.MAJORITY


def end(answer: str, score: float | None = None, votes: int = 1, mass: float = 1.0) -> End:
    return End(answer, answer, () if score is None else (score,), votes, mass)


def test_the_heaviest_answer_leads_and_of_equals_the_first_given() -> None:
    ends = [end("7", mass=1.0), end("42", mass=0.75), end("42.0", mass=0.25), end("84/2", mass=0.5), end("8")]
    counted = count_votes(ends, by_prm)
    assert [(group.ends[0].answer, group.weight) for group in counted] == [
        ("42", 0.75),
        ("7", 0.5),
        ("8", 0.5),
    ]
    assert [each.answer for each in counted[0].ends] == ["42", "42.0", "84/2"]


def test_answers_in_other_spellings_are_one_group() -> None:
    spellings = [
        ["sqrt(2)/2", "1/sqrt(2)", r"\frac{\sqrt{2}}{2}"],
        ["[1, 2]", "{2, 1}"],
        ["0.5", "1/2"],
    ]
    counted = count_votes([end(each) for group in spellings for each in group], by_count)
    assert [[each.answer for each in group.ends] for group in counted] == spellings


@pytest.mark.parametrize("strategy", StrategyName)
def test_evaluation_and_search_choose_the_same_answer_of_the_same_tree(strategy: StrategyName) -> None:
    tree = grown(says("7", 0.3), says("8", 0.9), says("7", 0.3, way="a"))
    records = [record_of(node) for node in tree.nodes.values()]
    # As the store gives them: parents before children, and not in the order in which they were made.
    stored = sorted(records, key=lambda record: (record.depth, record.id))
    found = count_votes(find_ends(stored), vote_of(strategy))[0].ends[0].answer
    assert found == tally(tree, strategy)[0].answer
    assert found == ("7" if strategy in (StrategyName.MAJORITY, StrategyName.GREEDY) else "8")
    assert count_votes([], vote_of(strategy)) == []


def test_rollouts_that_begin_deeper_give_a_node_no_mass() -> None:
    """Three of four draws begin with a; six more rollouts from a go to 8 and 9, and one ends in an error."""
    tree, strategy = Tree(), mcts(branching_factor=99)
    a, b = (step("a = 1"),), (step("b = 1"),)
    eight, nine = (step("print(8)", answer="8", value=0.0),), (step("print(9)", answer="9", value=0.0),)
    wrong = (step("1 / 0", ran=False),)
    for path in (a + eight, a + nine, a + nine, b + eight):
        task = start_task(tree, tree.root, Draw.TRAJECTORY)
        strategy.tell(tree, Rollout(task, (path,)))
    [first, _] = tree.children(tree.root)
    rollouts: list[tuple[tuple[ExecutedStep, ...], ...]] = [(eight,)] * 4 + [(nine,), (wrong, ())]
    for paths in rollouts:
        strategy.tell(tree, Rollout(start_task(tree, first, Draw.TRAJECTORY), paths))
    found = find_ends(tree.nodes.values())
    assert [(each.answer, each.votes) for each in found] == [("8", 5), ("9", 3), ("8", 1)]
    assert [each.mass for each in found] == pytest.approx([3 / 4 * 5 / 9, 3 / 4 * 3 / 9, 1 / 4])


@given(seed=st.integers(0, 5_000), in_flight=st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_the_mass_of_all_ends_is_that_of_the_draws_that_gave_an_answer(seed: int, in_flight: int) -> None:
    tree, _ = play(mcts(), seed, in_flight)
    ends = find_ends(tree.nodes.values())
    assert sum(found.mass for found in ends) <= 1 + 1e-9
    assert all(0 < found.mass <= 1 for found in ends)
    independent = grown(says("1"), says("2"), says("2"), says("3", way="a"))
    assert [found.mass for found in find_ends(independent.nodes.values())] == [0.25, 0.5, 0.25]


def grown(*trajectories: tuple[ExecutedStep, ...]) -> Tree:
    """A tree with these trajectories, each from one rollout."""
    how, tree = BestOfN(len(trajectories), 8), Tree()
    for path in trajectories:
        task = how.ask(tree)
        assert task is not None
        how.tell(tree, Rollout(task, (path,)))
    return tree


def says(answer: str, prm: float = 0.5, way: str = "") -> tuple[ExecutedStep, ...]:
    return (step(f"x = {way or answer!r}", prm=prm), step("print(x)", answer=answer, value=0.0, prm=prm))


def test_equal_numbers_are_one_group_and_the_most_votes_lead() -> None:
    first, second = tally(
        grown(says("7"), says("42"), says("42.0", way="a"), says("84/2", way="b")), MAJORITY
    )
    assert (first.votes, second.votes) == (3, 1)
    assert (first.share, second.share) == (0.75, 0.25)
    assert len(first.trajectories) == 3
    assert first.key != second.key


def test_the_best_trajectory_speaks_for_its_answer_and_ties_go_to_the_first_found() -> None:
    leading, _ = tally(grown(says("1", 0.2), says("1.0", 0.9, way="a"), says("2", 0.1)), MAJORITY)
    assert leading.answer == "1.0"
    assert [group.answer for group in tally(grown(says("5"), says("3")), MAJORITY)] == ["5", "3"]


def test_the_prm_share_counts_each_trajectory_with_its_score() -> None:
    groups = {
        group.answer: group
        for group in tally(grown(says("1", 0.9), says("2", 0.3), says("2", 0.3)), MAJORITY)
    }
    assert groups["1"].prm_share == pytest.approx(0.6)
    assert groups["2"].prm_share == pytest.approx(0.4)
    assert groups["2"].votes == 2


def test_no_answer_no_groups() -> None:
    assert tally(Tree(), MAJORITY) == []
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
    [group] = tally(tree, StrategyName.MCTS)
    assert group.votes == 5
    assert Independence(free_draws(tree.nodes.values(), sampled=True)).count(group.trajectories) == 3
    assert Independence(free_draws(tree.nodes.values(), sampled=False)).count(group.trajectories) == 2
    counted = Independence(free_draws(tree.nodes.values(), sampled=True))
    assert [counted.count([each], 1) for each in group.trajectories].count(1) == 3


@given(seed=st.integers(0, 5_000), in_flight=st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_draws_of_first_steps_are_the_rollouts_that_began_at_the_root(seed: int, in_flight: int) -> None:
    strategy = mcts()
    tree, told = play(strategy, seed, in_flight)
    draws = free_draws(tree.nodes.values(), sampled=True)
    from_root = [rollout for rollout in told if rollout.task.node == tree.root.id]
    started = [r for r in from_root if r.paths[-1] and r.paths[-1][0].status is StepStatus.OK]
    assert sum(draws.values()) == len(started)
    for group in tally(tree, StrategyName.MCTS):
        assert 1 <= Independence(draws).count(group.trajectories) <= group.votes


@given(seed=st.integers(0, 5_000), in_flight=st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_every_answer_is_counted_once_and_shares_sum_to_one(seed: int, in_flight: int) -> None:
    strategy = mcts()
    tree, _ = play(strategy, seed, in_flight)
    groups = tally(tree, StrategyName.MCTS)
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
        said = hardly_overtaken([first, second], 2)
        assert said == (first > second and ahead(first, second) >= CERTAIN_ENOUGH), (first, second)


def test_too_few_votes_never_suffice_and_a_third_answer_does_not_matter() -> None:
    assert not hardly_overtaken([4], 5)
    assert hardly_overtaken([5], 5)
    assert hardly_overtaken([9, 2], 2) == hardly_overtaken([9, 2, 2, 1], 2) is True
