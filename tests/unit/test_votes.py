"""Votes: trajectories grouped by answer, weighted as the strategy says, and when the first cannot be overtaken."""

import pytest

from ratchet.solutions.votes import count_votes
from ratchet.states import NodeState
from ratchet.store.nodes import NodeRecord
from services.search.strategies import BestOfN, ExecutedStep, Majority, Rollout, Tree
from services.search.strategies.mcts import start_rollout
from services.search.votes import (
    Group,
    Independence,
    hardly_overtaken,
    tally,
)
from services.trainer.stages.evaluate import leading_answer
from tests.unit.test_strategies import mcts, step


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


def test_trajectories_that_share_their_first_step_are_one_find() -> None:
    tree, strategy = Tree(), mcts()
    paths = [says("7"), says("7"), (step("y = 1"), step("print(7)", answer="7", value=0.0))]
    first, second, other = (strategy.ask(tree) for _ in paths)
    for task, path in zip((first, second, other), paths, strict=True):
        assert task is not None
        strategy.tell(tree, Rollout(task, (path,)))
    [same, _] = tree.children(tree.root)
    for text in ("print(x + 0)", "print(x - 0)"):
        task = start_rollout(tree, same, 0)
        strategy.tell(tree, Rollout(task, ((step(text, answer="7", value=0.0),),)))
    [group] = tally(tree, strategy)
    assert group.votes == 5
    assert Independence().count(group.trajectories) == 2
    counted = Independence()
    assert sum(counted.count([each]) for each in group.trajectories) == 2
    assert counted.count(group.trajectories) == 0
