"""What does it cost a trained PRM to score the next steps of many searches? Read together, one by one, and from the start.

`python -m benchmarks.prm_reading CHECKPOINT [--searches 32] [--steps 6] [--repeats 3]` loads a PRM that Ratchet trained, in
this process, and scores trajectories as searches by single steps do: of each the next step, when those before it are scored.
`together` reads them in one pass behind the kept keys and values of their prefixes, as the service does; `alone` in a pass
each; `whole` in one pass that keeps nothing. The last line is a JSON object: scored steps a second of each (the median of
the repeats), their ratios, and the largest difference of a logit to `whole`.

Limit: the problems are made up, all of a like length, and come at the same moment.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson

from services.prm.head import Question, TrainedHead

WORDS = ("apples", "books", "chairs", "doors", "eggs", "forks", "gates", "hats")
Read = Callable[[Sequence[Question]], list[list[float]]]


def texts(number: int, steps: int) -> tuple[str, list[str]]:
    """A problem of some sixty tokens, and its steps of some twenty-five."""
    thing = WORDS[number % len(WORDS)]
    problem = (
        f"A shop has {number + 12} boxes with {2 * number + 7} {thing} each. In the morning {number + 3} {thing} are sold, in "
        f"the afternoon twice as many, and {number + 1} are brought back. How many {thing} are in the shop in the evening?"
    )
    return problem, [
        f"# Count the {thing} of part {place}, and add what came before.\n"
        f"part_{place} = {number + place} * {place + 2} + {place}"
        for place in range(steps)
    ]


def read_all(head: TrainedHead, searches: int, steps: int, read: Read) -> tuple[float, list[float]]:
    """Seconds for all steps of all searches, and the logits."""
    asked = [texts(number, steps) for number in range(searches)]
    found: list[float] = []
    began = time.perf_counter()
    for known in range(steps):
        questions = [head.question(problem, row[: known + 1], known=known) for problem, row in asked]
        found += [row[0] for row in read(questions)]
    return time.perf_counter() - began, found


def compare(checkpoint: Path, searches: int, steps: int, repeats: int) -> dict[str, Any]:
    """All figures. The ways take turns, each with a head that has kept nothing yet."""
    parameters = TrainedHead(checkpoint, kept_bytes=0).parameters
    seconds: dict[str, list[float]] = {"together": [], "alone": [], "whole": []}
    logits: dict[str, list[float]] = {}
    for _ in range(repeats):
        for way, taken in seconds.items():
            head = TrainedHead(checkpoint, kept_bytes=0 if way == "whole" else None)

            def one_by_one(questions: Sequence[Question], head: TrainedHead = head) -> list[list[float]]:
                return [head.logits([each])[0] for each in questions]

            spent, logits[way] = read_all(
                head, searches, steps, one_by_one if way == "alone" else head.logits
            )
            taken.append(spent)
            print(f"{way}: {searches * steps / spent:.1f} steps/s", flush=True)
    rates = {way: searches * steps / statistics.median(taken) for way, taken in seconds.items()}
    return {
        "benchmark": "prm_reading",
        "parameters": parameters,
        "searches": searches,
        "steps": steps,
        "repeats": repeats,
        "steps_per_second": {way: round(rate, 1) for way, rate in rates.items()},
        "ratios": {f"together/{way}": round(rates["together"] / rates[way], 2) for way in ("alone", "whole")},
        "largest_difference": {
            way: round(max(abs(a - b) for a, b in zip(logits[way], logits["whole"], strict=True)), 5)
            for way in ("together", "alone")
        },
    }


def main() -> None:
    """Read the options, measure, and print the JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, help="the folder of a PRM, as round-1/prm/model of a run")
    parser.add_argument("--searches", type=int, default=32)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    figures = compare(options.checkpoint, options.searches, options.steps, options.repeats)
    print(orjson.dumps(figures).decode(), flush=True)


if __name__ == "__main__":
    main()
