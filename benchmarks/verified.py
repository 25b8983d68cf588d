"""Is what is called verified right? Calibrates a model on some development problems, and counts on others.

`python -m benchmarks.verified DATA --data FOLDER [--model small] [--fit 200] [--limit 200] [--offset 0] [--tokens 1000]`:
problems from `--offset` on of the set, shuffled with `--seed`. The first `--fit` of them calibrate the model
(`ratchet calibrate`), the next `--limit` are searched with it as a person's problems are (`ratchet eval`, early stop and all);
no search knows a reference answer. Both go on where they were broken off. The last line is a JSON object: of how many answers
it is said that they are solved and verified at the default, how many of these are right, the calibration error of all stated
probabilities, and the same for `before`: the level `agreement` alone, on the same searches.

With `--stored FIT.jsonl REPORT.jsonl` no search is run: the trees of searches that are over (`python -m
benchmarks.stored_trees`) take their place. As the vote chooses the answer, and the calibration only says how probable it is,
the answers and their levels are those of the searches. With one file, where searches are dear, each tenth of it is counted by
a calibration of the other nine: nothing is fitted on what it is counted on.
"""

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.stored_trees import StoredTree, load_trees
from benchmarks.votes import vote_of_tree
from ratchet.cli.outcomes import GradedProblem
from ratchet.contracts.search import VerificationLevel
from ratchet.solutions.aggregator import probabilities
from ratchet.solutions.answers import answer_key
from ratchet.solutions.calibration import calibrate, reliability
from ratchet.states import SearchState
from ratchet.statistics import wilson

FOLDS = 10


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said of a problem's answer, and whether that is right."""

    right: bool
    answered: bool
    verified: bool
    agreed: bool
    """At the level `agreement`."""
    confidence: float | None


def answers_of_results(file: Path) -> list[Answer]:
    """Those of a result file of `ratchet eval`."""
    lines = [GradedProblem.model_validate_json(line) for line in file.read_bytes().splitlines()]
    return [
        Answer(
            right=line.correct,
            answered=line.answer is not None,
            verified=line.state is SearchState.SOLVED_VERIFIED,
            agreed=line.level is VerificationLevel.AGREEMENT,
            confidence=line.confidence,
        )
        for line in lines
    ]


def answers_of_trees(fit: Sequence[StoredTree], trees: Sequence[StoredTree]) -> tuple[list[Answer], float]:
    """Those of stored trees, with a calibration that is fitted to others; and what it asks for."""
    [(policy, prm)] = {(tree.policy, tree.prm) for tree in [*fit, *trees] if tree.policy and tree.prm}
    calibration = calibrate(policy, prm, [vote_of_tree(tree).labelled() for tree in fit], "stored trees")
    found: list[Answer] = []
    for tree in trees:
        labelled = vote_of_tree(tree).labelled()
        stated = probabilities(labelled.groups, calibration) or []
        same = bool(stated) and answer_key(tree.answer or "") == labelled.groups[0].key
        agreed = same and tree.level == VerificationLevel.AGREEMENT
        found.append(
            Answer(
                right=bool(stated) and labelled.right[0],
                answered=bool(stated),
                verified=agreed and stated[0] >= calibration.min_confidence,
                agreed=agreed,
                confidence=stated[0] if stated else None,
            )
        )
    return found, calibration.min_confidence


def answers_crosswise(trees: Sequence[StoredTree]) -> tuple[list[Answer], float]:
    """Those of stored trees, each tenth with a calibration that is fitted to the others; what one of all asks for."""
    mixed = random.Random(0).sample(list(trees), len(trees))
    found: list[Answer] = []
    for fold in range(FOLDS):
        others = [tree for place, tree in enumerate(mixed) if place % FOLDS != fold]
        found += answers_of_trees(others, mixed[fold::FOLDS])[0]
    return found, answers_of_trees(mixed, [])[1]


def share(hits: Sequence[bool]) -> dict[str, Any]:
    """A share with its interval."""
    n, count = len(hits), sum(hits)
    edges = [round(edge, 4) for edge in wilson(count, n)]
    return {"n": n, "right": count, "share": round(count / n, 4) if n else None, "ci95": edges}


def figures(answers: Sequence[Answer]) -> dict[str, Any]:
    """The JSON object, without what it is of."""
    verified = share([each.right for each in answers if each.verified])
    before = share([each.right for each in answers if each.agreed])
    stated = [(each.confidence, each.right) for each in answers if each.confidence is not None]
    found = reliability([p for p, _ in stated], [right for _, right in stated])
    n = len(answers)
    return {
        "n": n,
        "verified": verified["n"],
        "precision": verified["share"],
        "precision_ci95": verified["ci95"],
        "coverage": round(verified["n"] / n, 4) if n else None,
        "ece": found.ece,
        "brier": found.brier,
        "accuracy": round(sum(each.right for each in answers) / n, 4) if n else None,
        "accuracy_ci95": share([each.right for each in answers])["ci95"],
        "answered": sum(each.answered for each in answers),
        "before": {
            "verified": before["n"],
            "precision": before["share"],
            "precision_ci95": before["ci95"],
            "coverage": round(before["n"] / n, 4) if n else None,
        },
        "reliability": [each.model_dump(mode="json") for each in found.bins],
    }


def run(options: argparse.Namespace) -> tuple[list[Answer], float]:
    """Calibrate, then search the other problems; the answers, and what the calibration asks for."""
    folder: Path = options.data
    folder.mkdir(parents=True, exist_ok=True)
    offset = options.offset + options.fit
    fitted = _ratchet(options, "calibrate", options.fit, options.offset, folder / "fit.jsonl")
    _ratchet(options, "eval", options.limit, offset, folder / "report.jsonl", "--early-stop")
    return answers_of_results(folder / "report.jsonl"), fitted["min_confidence"]


def _ratchet(
    options: argparse.Namespace, command: str, limit: int, offset: int, output: Path, *more: str
) -> dict[str, Any]:
    """Run a command of ours, its progress on stderr; the JSON object on its last line. Ends the program where it fails."""
    shared = {"model": options.model, "seed": options.seed, "tokens": options.tokens, "data": options.data}
    shared |= {"concurrency": options.at_once, "limit": limit, "offset": offset, "output": output}
    named = [text for name, value in shared.items() for text in (f"--{name}", str(value))]
    done = subprocess.run(
        [sys.executable, "-m", "ratchet.cli.main", command, options.problems, *named, *more],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.returncode)
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main() -> None:
    """Measure, and print the JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("problems", nargs="?", help="a problem set, as `ratchet eval` takes it")
    parser.add_argument(
        "--data", type=Path, default=Path("results/verified"), help="data folder of the stack"
    )
    parser.add_argument(
        "--stored",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="count stored trees instead: FIT and REPORT, or one file, crosswise",
    )
    parser.add_argument("--model", default="small")
    parser.add_argument("--fit", type=int, default=200, help="so many problems calibrate")
    parser.add_argument("--limit", type=int, default=200, help="so many others are counted")
    parser.add_argument("--offset", type=int, default=0, help="so many of the shuffled set are passed over")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tokens", type=int, default=1000, help="budget of one search")
    parser.add_argument("--at-once", type=int, default=8, help="searches under way at once")
    options = parser.parse_args()
    if options.stored is None and options.problems is None:
        parser.error("say which problems, or --stored FIT REPORT")
    if options.stored is not None:
        if len(options.stored) > 2:
            parser.error("--stored takes one file or two")
        counted = load_trees(options.stored[-1:])
        if crosswise := len(options.stored) == 1:
            answers, least = answers_crosswise(counted)
            fitted_on = len(counted) - len(counted) // FOLDS
        else:
            fit = load_trees(options.stored[:1])
            answers, least = answers_of_trees(fit, counted)
            fitted_on = len(fit)
        facts = {"problems": counted[0].split, "model": counted[0].policy, "fitted_on": fitted_on}
        facts |= {"crosswise": crosswise}
        facts |= {"prm": counted[0].prm, "token_budget": counted[0].token_budget}
    else:
        answers, least = run(options)
        facts = {"problems": options.problems, "model": options.model, "fitted_on": options.fit}
        facts |= {"offset": options.offset, "seed": options.seed, "token_budget": options.tokens}
    facts |= {"benchmark": "verified", "min_confidence": least}
    print(json.dumps(facts | figures(answers)))


if __name__ == "__main__":
    main()
