"""Strategies compared at equal budgets, from graded outcomes alone."""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from ratchet.cli.evaluation.comparison import ArmOutcomes, best_strategy, compare, measured, paired
from ratchet.cli.evaluation.plan import Comparison
from ratchet.cli.evaluation.plot import write_plots
from ratchet.cli.evaluation.tables import arms_table, pairs_table
from ratchet.cli.outcomes import GradedProblem
from ratchet.contracts.search import StrategyName
from ratchet.statistics import clustered_wilson, mcnemar
from tests.unit.test_evaluation import line


def outcomes(right: str, covered: str | None = None, tokens: int = 300) -> list[GradedProblem]:
    """A line for each digit: whether the problem is solved, and whether a right answer is in the tree."""
    return [
        line(
            id=str(place),
            correct=one == "1",
            right_trajectories=int(found),
            trajectories=4,
            tokens=tokens,
        )
        for place, (one, found) in enumerate(zip(right, covered or right, strict=True))
    ]


def arm(strategy: StrategyName, tokens: int, *seeds: Sequence[GradedProblem]) -> ArmOutcomes:
    return ArmOutcomes(strategy, tokens, seeds)


def test_an_arm_tells_accuracy_coverage_and_what_the_vote_loses() -> None:
    figures = measured(
        arm(StrategyName.MCTS, 300, outcomes("11000", "11100", 290), outcomes("10000", "10010", 310))
    )
    assert (figures.n, figures.seeds, figures.accuracy, figures.coverage) == (5, 2, 0.3, 0.5)
    assert (figures.lost_by_vote, figures.tokens_per_search, figures.trajectories_per_search) == (0.2, 300, 4)
    assert figures.ci95 == clustered_wilson([2, 1, 0, 0, 0], 2)


def test_with_one_seed_the_paired_test_is_mcnemars() -> None:
    one = arm(StrategyName.MCTS, 300, outcomes("1111100010"))
    other = arm(StrategyName.BEST_OF_N, 300, outcomes("1000011000"))
    pair = paired(one, other)
    assert (pair.n, pair.better, pair.worse) == (10, 5, 2)
    assert pair.difference == pytest.approx(0.3)
    assert pair.p == pytest.approx(mcnemar(5, 2))
    assert pair.ci95[0] < 0.3 < pair.ci95[1]


def test_several_seeds_of_a_problem_are_one_problem() -> None:
    one = arm(StrategyName.MCTS, 300, *[outcomes("1100")] * 3)
    other = arm(StrategyName.BEST_OF_N, 300, *[outcomes("0100")] * 3)
    pair, single = (
        paired(one, other),
        paired(
            arm(StrategyName.MCTS, 300, outcomes("1100")), arm(StrategyName.BEST_OF_N, 300, outcomes("0100"))
        ),
    )
    assert (pair.difference, pair.p, pair.better) == (0.25, 1.0, 1)
    assert pair.ci95 == pytest.approx(single.ci95)


def test_greedy_has_one_seed_and_stands_beside_every_budget_of_the_baseline() -> None:
    greedy = arm(StrategyName.GREEDY, 600, outcomes("1000"))
    arms = [greedy]
    arms += [arm(StrategyName.BEST_OF_N, tokens, outcomes("1100"), outcomes("1110")) for tokens in (300, 600)]
    arms += [arm(StrategyName.MCTS, tokens, outcomes("1111"), outcomes("1110")) for tokens in (300, 600)]
    pairs = compare(arms, StrategyName.BEST_OF_N)
    assert [(pair.strategy, pair.tokens) for pair in pairs] == [
        ("greedy", 300),
        ("mcts", 300),
        ("greedy", 600),
        ("mcts", 600),
    ]
    assert pairs[0].difference == pytest.approx(-0.375)
    assert [pair.tokens for pair in compare(arms, StrategyName.GREEDY)] == [300, 600, 300, 600]
    assert best_strategy([measured(each) for each in arms]) is StrategyName.MCTS


def test_greedy_is_searched_once_and_the_others_at_each_budget_with_each_seed() -> None:
    comparison = Comparison((StrategyName.MCTS, StrategyName.GREEDY), (600, 300), (0, 1), StrategyName.MCTS)
    assert [(each.strategy, each.tokens, each.seeds) for each in comparison.arms()] == [
        ("greedy", 600, (0,)),
        ("mcts", 300, (0, 1)),
        ("mcts", 600, (0, 1)),
    ]


def test_tables_fit_on_a_narrow_screen_and_plots_are_the_same_again(tmp_path: Path) -> None:
    arms = [
        arm(strategy, tokens, outcomes(right, tokens=tokens))
        for strategy, right in ((StrategyName.BEST_OF_N, "1000"), (StrategyName.MCTS, "1100"))
        for tokens in (300, 600)
    ]
    figures = [measured(each) for each in arms]
    console = Console(file=io.StringIO(), width=80)
    console.print(arms_table(figures), pairs_table(compare(arms, StrategyName.BEST_OF_N)))
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert shown.count("mcts") == 4
    assert "+25.0" in shown
    assert "…" not in shown
    first = write_plots(figures, "four_problems.jsonl, $x$", tmp_path / "first@1.2")
    assert [path.name for path in first] == ["first@1.2.png", "first@1.2.svg"]
    again = write_plots(figures, "four_problems.jsonl, $x$", tmp_path / "again")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    assert "best_of_n" in first[1].read_text()


def test_figures_are_plain_json() -> None:
    figures = measured(arm(StrategyName.MCTS, 300, outcomes("10")))
    assert json.loads(figures.model_dump_json())["strategy"] == "mcts"
