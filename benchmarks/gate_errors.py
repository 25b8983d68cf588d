"""How often does the gate err? Simulates pairs whose true difference is known, and asks the gate's own rule.

`python -m benchmarks.gate_errors [--trials 2000] [--problems 3000] [--seed 0]`: each problem has a chance of being
solved, by the old pair and by the new one, alone and as a system; the chances of one problem are alike, and their mean differs
by what is stated. Tries are drawn from them as a round would see them: some samples of the policy and one search for each
problem. The rule reads them look by look. The last line is a JSON object: for each accuracy and true difference how often the
pair was promoted, found worse, and not decided, with 95 % intervals, and how many problems that took; the same where there are
few problems; and the accuracy after many rounds in which every new pair is a little worse, with and without a best pair that is
held on to.
"""

import argparse
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratchet.contracts.rounds import Gate
from ratchet.statistics import wilson
from services.trainer.gate import POLICY, SYSTEM, compare, is_best, is_decided, is_promoted, looks

Chances = NDArray[np.float64]

SAMPLES = 4
DIFFICULTY = 5.0
"""Standard deviation of the log-odds of problems. With it searches by two pairs that are as good disagree about 17 % of the
problems at an accuracy of one half, about 7 % at 90 %: on nano it was 6 to 12."""
CHANGE = 1.5
"""The same of what a training changes about each problem, beside the mean."""
ACCURACIES = (0.5, 0.9)
DIFFERENCES = (
    (0.05, 0.05),
    (0.02, 0.02),
    (0.0, 0.0),
    (-0.01, -0.01),
    (-0.02, -0.02),
    (-0.02, 0.05),
    (0.05, -0.02),
    (-0.05, -0.05),
)
"""True differences of the policy alone, and of the system. A pair that is worse in one alone is the hardest to refuse."""
CAPS = (200, 400, 1000)
ROUNDS, DRIFT = 20, -0.01


@dataclass(frozen=True)
class Outcome:
    """One pair before the gate."""

    promoted: bool
    decided: bool
    best: bool
    problems: int


def chances(rng: np.random.Generator, accuracy: float, difference: float, n: int) -> tuple[Chances, Chances]:
    """Chances of n problems to be solved by the old one and by the new one, their means as stated."""
    difficulty = rng.normal(0.0, DIFFICULTY, n)
    change = rng.normal(0.0, CHANGE, n)
    return _with_mean(difficulty, accuracy), _with_mean(difficulty + change, accuracy + difference)


def _with_mean(log_odds: Chances, mean: float) -> Chances:
    low, high = -20.0, 20.0
    for _ in range(50):
        middle = (low + high) / 2
        found = 1 / (1 + np.exp(-(log_odds + middle)))
        low, high = (middle, high) if found.mean() < mean else (low, middle)
    return found


def differences(rng: np.random.Generator, old: Chances, new: Chances, tries: int) -> list[float]:
    """Paired differences of the shares of right tries."""
    return [float(each) for each in (rng.binomial(tries, new) - rng.binomial(tries, old)) / tries]


def judge(
    rng: np.random.Generator, rules: Gate, accuracy: float, true: tuple[float, float], problems: int
) -> Outcome:
    """What the gate says of a pair that differs so much from the old one, alone and as a system."""
    alone, system = (chances(rng, accuracy, difference, problems) for difference in true)
    tried = {POLICY: differences(rng, *alone, SAMPLES), SYSTEM: differences(rng, *system, 1)}
    planned = looks(problems, rules.block)
    for look, done in enumerate(planned):
        found = {
            name: compare(values[:done], rules, len(tried), planned, look) for name, values in tried.items()
        }
        if is_decided(found):
            break
    return Outcome(is_promoted(found), is_decided(found), is_best(found), done)


def cell(
    rng: np.random.Generator,
    rules: Gate,
    accuracy: float,
    true: tuple[float, float],
    problems: int,
    trials: int,
) -> dict[str, Any]:
    """Shares of pairs, over so many trials."""
    found = [judge(rng, rules, accuracy, true, problems) for _ in range(trials)]
    used = np.array([each.problems for each in found])
    return {
        "accuracy": accuracy,
        "difference": list(true),
        "cap": problems,
        "promoted": _share([each.promoted for each in found]),
        "found_worse": _share([each.decided and not each.promoted for each in found]),
        "not_decided": _share([not each.decided for each in found]),
        "problems_mean": round(float(used.mean()), 1),
        "problems_90": float(np.quantile(used, 0.9)),
    }


def drift(
    rng: np.random.Generator, rules: Gate, *, hold_best: bool, problems: int, trials: int
) -> dict[str, Any]:
    """The accuracy that is left after rounds whose new pairs are each a little worse than the one that serves."""
    ends = []
    for _ in range(trials):
        serving = best = 0.5
        for _ in range(ROUNDS):
            made = serving + DRIFT
            outcome = judge(rng, rules, best, (made - best, made - best), problems)
            if outcome.promoted:
                serving = made
                best = made if outcome.best or not hold_best else best
        ends.append(serving - 0.5)
    return {
        "best_is_held": hold_best,
        "rounds": ROUNDS,
        "each_worse_by": -DRIFT,
        "trials": trials,
        "lost_mean": round(-float(np.mean(ends)), 4),
        "lost_95": round(-float(np.quantile(ends, 0.05)), 4),
    }


def _share(hits: list[bool]) -> dict[str, Any]:
    low, high = wilson(sum(hits), len(hits))
    return {"share": round(sum(hits) / len(hits), 4), "ci95": [round(low, 4), round(high, 4)]}


def main() -> None:
    """Simulate, and print the JSON object."""
    parser = argparse.ArgumentParser(description="How often does the gate err?")
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--problems", type=int, default=3000, help="development problems at hand")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, rules = np.random.default_rng(options.seed), Gate()
    cells = [
        cell(rng, rules, accuracy, true, options.problems, options.trials)
        for accuracy in ACCURACIES
        for true in DIFFERENCES
    ]
    capped = [
        cell(rng, rules, ACCURACIES[0], true, cap, options.trials)
        for cap in CAPS
        for true in ((0.08, 0.08), *DIFFERENCES)
    ]
    few = max(20, options.trials // 10)
    drifts = [drift(rng, rules, hold_best=held, problems=1000, trials=few) for held in (False, True)]
    print(
        json.dumps(
            {
                "rule": rules.model_dump(mode="json"),
                "samples": SAMPLES,
                "trials": options.trials,
                "seed": options.seed,
                "cells": cells,
                "capped": capped,
                "drift": drifts,
            }
        )
    )


if __name__ == "__main__":
    main()
