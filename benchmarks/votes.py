"""Which vote turns trajectories into the right answer? Aggregations counted on stored trees; no search is run.

`python -m benchmarks.votes SOURCE…`: each source is the data folder of a run of rounds whose stack is down, or a file that
`python -m benchmarks.stored_trees` has written. The aggregation with the most right answers on development problems is named;
what it is worth is reported on the held-out problems of the same pairs of policy and PRM. Aggregations that learn are fitted to
the development trees of their pair. The last line is a JSON object: right answers for each pair, strategy and aggregation, and
differences to `visits_last` (each visit of an end, by its last score) with paired 95 % intervals (Bonett and Price): of each
aggregation over all held-out cells, and of the vote that searches use in each cell. `probable`: the held-out answers that are
probable enough to count as solved by the calibration of their pair, and how many of them are right.

Limits: a pair's development trees are of `mcts` alone, so what learns was fitted to no other strategy. Differences over all
cells count a problem once for each pair and strategy; their interval takes these together.
"""

import argparse
import asyncio
import json
import math
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.stored_trees import StoredTree, dump, load_trees
from ratchet.contracts.calibration import AnswerCalibration
from ratchet.contracts.search import StrategyName
from ratchet.solutions.aggregator import probabilities
from ratchet.solutions.calibration import CalibrationError, LabelledVote, calibrate, reliability
from ratchet.solutions.votes import AnswerGroup, End, Weigh, by_count, by_prm, count_votes, log_odds
from ratchet.statistics import paired_interval, wilson

BASELINE, OURS = "visits_last", "mass_last"
DEVELOPMENT, HELD_OUT = "development", "held_out"
Pair: TypeAlias = tuple[str, str]
Cell: TypeAlias = tuple[str, str, StrategyName, str]
"""Policy, PRM, strategy, split."""


def product(end: End) -> float:
    """Of the scores along the path."""
    return math.prod(end.scores) if end.scores else end.score


def weighed(weight: Callable[[End], float]) -> Weigh:
    """The vote in which each end weighs so much."""
    return lambda groups: [sum(weight(end) for end in ends) for ends in groups]


FIXED: dict[str, Weigh] = {
    "majority": by_count,
    BASELINE: weighed(lambda end: end.votes * end.score),
    "visits_squared": weighed(lambda end: end.votes * end.score**2),
    "visits_product": weighed(lambda end: end.votes * product(end)),
    "mass": weighed(lambda end: end.mass),
    OURS: by_prm,
    "mass_squared": weighed(lambda end: end.mass * end.score**2),
    "mass_product": weighed(lambda end: end.mass * product(end)),
    "ends_last": weighed(lambda end: end.score),
}
LEARNT = ("log_odds", "aggregator")


@dataclass(frozen=True, slots=True)
class Vote:
    """A stored tree: its ends, and which answers are right."""

    problem: str
    ends: list[End]
    right: dict[str, bool]

    def says(self, weigh: Weigh) -> bool:
        """Whether the leading answer is right."""
        counted = count_votes(self.ends, weigh)
        return bool(counted) and self.right[counted[0].ends[0].answer]

    def labelled(self) -> LabelledVote:
        """As a calibration takes it."""
        counted = count_votes(self.ends, by_prm)
        return LabelledVote(counted, [self.right[group.ends[0].answer] for group in counted])


def vote_of_tree(tree: StoredTree) -> Vote:
    """The vote over a stored tree."""
    return Vote(
        tree.problem,
        [end.end(number) for number, end in enumerate(tree.ends)],
        {end.answer: end.right for end in tree.ends},
    )


def calibration_of(votes: Sequence[Vote], pair: Pair) -> AnswerCalibration | None:
    """The calibration of a pair's development trees; None where there is too little of them."""
    try:
        return calibrate(*pair, [vote.labelled() for vote in votes], "development")
    except CalibrationError:
        return None


def learnt_votes(votes: Sequence[Vote], calibration: AnswerCalibration) -> dict[str, Weigh]:
    """The aggregations that are fitted to a pair's development trees."""

    def aggregator(groups: Sequence[Sequence[End]]) -> list[float]:
        counted = [AnswerGroup("", tuple(ends), 0.0) for ends in groups]
        return probabilities(counted, calibration) or [0.0] * len(groups)

    slope, intercept = _platt(
        [(log_odds(end.score), vote.right[end.answer]) for vote in votes for end in vote.ends]
    )
    return {
        "log_odds": weighed(lambda end: end.mass * (slope * log_odds(end.score) + intercept)),
        "aggregator": aggregator,
    }


def _platt(points: Sequence[tuple[float, bool]]) -> tuple[float, float]:
    """Slope and intercept of right ends on their log-odds, by Newton's method; a prior keeps both finite."""
    slope, intercept = 1.0, 0.0
    for _ in range(50):
        g0, g1, h00, h01, h11 = -0.01 * intercept, -0.01 * slope, 0.01, 0.0, 0.01
        for x, right in points:
            p = 1.0 / (1.0 + math.exp(-max(-50.0, min(50.0, slope * x + intercept))))
            w = p * (1 - p)
            g0, g1 = g0 + right - p, g1 + (right - p) * x
            h00, h01, h11 = h00 + w, h01 + w * x, h11 + w * x * x
        determinant = h00 * h11 - h01 * h01
        intercept += (h11 * g0 - h01 * g1) / determinant
        slope += (h00 * g1 - h01 * g0) / determinant
    return slope, intercept


def measure(trees: Sequence[StoredTree]) -> dict[str, Any]:
    """The JSON object."""
    cells: dict[Cell, list[Vote]] = defaultdict(list)
    development: dict[Pair, list[Vote]] = defaultdict(list)
    for tree in trees:
        if tree.strategy is StrategyName.GREEDY or not tree.prm:
            continue
        vote = vote_of_tree(tree)
        cells[tree.policy, tree.prm, tree.strategy, tree.split].append(vote)
        if tree.split == DEVELOPMENT:
            development[tree.policy, tree.prm].append(vote)
    calibrations = {pair: calibration_of(votes, pair) for pair, votes in development.items()}
    learnt = {
        pair: learnt_votes(development[pair], calibration)
        for pair, calibration in calibrations.items()
        if calibration is not None
    }
    outcomes: dict[Cell, dict[str, list[bool]]] = {}
    for cell, votes in cells.items():
        # What is fitted to these very trees says nothing about them.
        fitted = learnt.get(cell[:2], {}) if cell[3] != DEVELOPMENT else {}
        outcomes[cell] = {
            name: [vote.says(weigh) for vote in votes] for name, weigh in (FIXED | fitted).items()
        }
    shown = sorted(outcomes, key=lambda cell: (cell[3], cell[0], cell[1], cell[2]))
    on_development = totals({cell: outcomes[cell] for cell in shown if cell[3] == DEVELOPMENT})
    held_out = [cell for cell in shown if cell[3] != DEVELOPMENT and cell[:2] in learnt]
    return {
        "benchmark": "votes",
        "n": sum(len(cells[cell]) for cell in shown),
        "chosen": max(FIXED, key=lambda name: on_development.get(name, 0)),
        "development": on_development,
        "held_out": {
            name: _difference(name, held_out, cells, outcomes) for name in (*FIXED, *LEARNT) if held_out
        },
        "probable": [
            probable(cell, cells[cell], calibration)
            for cell in held_out
            if (calibration := calibrations[cell[:2]]) is not None
        ],
        "cells": [_cell(cell, cells[cell], outcomes[cell]) for cell in shown],
    }


def totals(outcomes: dict[Cell, dict[str, list[bool]]]) -> dict[str, int]:
    """Right answers over all cells, by aggregation."""
    found: dict[str, int] = defaultdict(int)
    for of_cell in outcomes.values():
        for name, says in of_cell.items():
            found[name] += sum(says)
    return dict(found)


def _difference(
    name: str,
    held_out: Sequence[Cell],
    cells: dict[Cell, list[Vote]],
    outcomes: dict[Cell, dict[str, list[bool]]],
) -> dict[str, Any]:
    """Right answers on held-out problems, and the difference to the baseline, problem by problem over all cells."""
    some = [cell for cell in held_out if name in outcomes[cell]]
    by_problem: dict[str, list[int]] = defaultdict(list)
    for cell in some:
        for vote, new, old in zip(cells[cell], outcomes[cell][name], outcomes[cell][BASELINE], strict=True):
            by_problem[vote.problem].append(new - old)
    means = [sum(each) / len(each) for each in by_problem.values()]
    right, n = sum(sum(outcomes[cell][name]) for cell in some), sum(len(cells[cell]) for cell in some)
    low, high = paired_interval(means)
    return {
        "right": right,
        "n": n,
        "difference": round(sum(means) / max(1, len(means)), 4),
        "ci95": [round(low, 4), round(high, 4)],
    }


def probable(cell: Cell, votes: Sequence[Vote], calibration: AnswerCalibration) -> dict[str, Any]:
    """The answers whose probability counts as solved, whatever their level, and how many of them are right."""
    answers = [vote.labelled() for vote in votes if vote.ends]
    stated = [(probabilities(each.groups, calibration) or [0.0])[0] for each in answers]
    right = [each.right[0] for each in answers]
    solved = [truth for p, truth in zip(stated, right, strict=True) if p >= calibration.min_confidence]
    found = reliability(stated, right)
    return {
        "policy": cell[0],
        "prm": cell[1],
        "strategy": cell[2],
        "fitted_on": calibration.problems,
        "n": len(votes),
        "right": sum(right),
        "min_confidence": calibration.min_confidence,
        "solved": len(solved),
        "solved_right": sum(solved),
        "ci95": [round(edge, 4) for edge in wilson(sum(solved), len(solved))],
        "ece": found.ece,
        "brier": found.brier,
    }


def _cell(cell: Cell, votes: Sequence[Vote], outcomes: dict[str, list[bool]]) -> dict[str, Any]:
    """Right answers by aggregation, and the product's vote beside the baseline."""
    policy, prm, strategy, split = cell
    differences = [new - old for new, old in zip(outcomes[OURS], outcomes[BASELINE], strict=True)]
    return {
        "policy": policy,
        "prm": prm,
        "strategy": strategy,
        "split": split,
        "n": len(votes),
        "covered": sum(any(vote.right.values()) for vote in votes),
        "right": {name: sum(says) for name, says in outcomes.items()},
        "difference": round(sum(differences) / len(votes), 4),
        "ci95": [round(edge, 4) for edge in paired_interval(differences)],
    }


def read(sources: Sequence[Path]) -> list[StoredTree]:
    """The trees of data folders and of files."""
    found: list[StoredTree] = []
    for source in sources:
        if source.is_dir():
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder) / "trees.jsonl"
                asyncio.run(dump(source, out, None))
                found += load_trees([out])
        else:
            found += load_trees([source])
    return found


def main() -> None:
    """Measure, and print the JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "sources", type=Path, nargs="+", help="data folders of rounds, or files of stored trees"
    )
    print(json.dumps(measure(read(parser.parse_args().sources))))


if __name__ == "__main__":
    main()
