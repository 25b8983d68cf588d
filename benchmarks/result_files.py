"""Result files of `ratchet eval` and `ratchet calibrate` beside one another: what each arm got right, and problem by problem.

`python -m benchmarks.result_files ARM=FILE[,FILE…] ARM=FILE…`: each arm's accuracy, coverage, tokens and seconds on all of its
problems, and the last arm against each other one on the problems that both have tried. The last line is a JSON object.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ratchet.cli.outcomes import GradedProblem, summarise
from ratchet.statistics import paired_test


def read_arm(argument: str) -> tuple[str, list[GradedProblem]]:
    """An arm's name and its lines. Raises ValueError where a problem is in it twice."""
    name, is_arm, files = argument.partition("=")
    if not is_arm:
        raise ValueError(f"{argument!r} is no ARM=FILE")
    lines = [
        GradedProblem.model_validate_json(line)
        for file in files.split(",")
        for line in Path(file).read_bytes().splitlines()
    ]
    if len({line.id for line in lines}) < len(lines):
        raise ValueError(f"{name} has a problem twice")
    return name, lines


def figures(lines: Sequence[GradedProblem]) -> dict[str, Any]:
    """What one arm did."""
    found = summarise(lines)
    return {
        "n": found.n,
        "right": found.right,
        "accuracy": round(found.accuracy, 4),
        "ci95": [round(edge, 4) for edge in found.ci95],
        "coverage": round(found.coverage, 4),
        "tokens_per_problem": round(found.tokens_per_problem, 1),
        "seconds_per_problem": round(found.seconds_per_problem, 1),
        "models": found.models,
    }


def against(ours: Sequence[GradedProblem], theirs: Sequence[GradedProblem]) -> dict[str, Any]:
    """One arm less another one, on the problems that both have tried."""
    other = {line.id: line.correct for line in theirs}
    both = [line for line in ours if line.id in other]
    test = paired_test([int(line.correct) for line in both], 1, [int(other[line.id]) for line in both], 1)
    return {
        "n": len(both),
        "better": test.better,
        "worse": test.worse,
        "difference": round(test.difference, 4),
        "ci95": [round(edge, 4) for edge in test.ci95],
        "p": round(test.p, 5),
    }


def measure(arms: Mapping[str, Sequence[GradedProblem]]) -> dict[str, Any]:
    """The JSON object."""
    *others, last = arms
    return {
        "benchmark": "result_files",
        "arms": {name: figures(lines) for name, lines in arms.items()},
        "paired": {f"{last} against {name}": against(arms[last], arms[name]) for name in others},
    }


def main() -> None:
    """Compare, and print the JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("arms", nargs="+", metavar="ARM=FILE[,FILE…]", type=read_arm)
    print(json.dumps(measure(dict(parser.parse_args().arms))))


if __name__ == "__main__":
    main()
