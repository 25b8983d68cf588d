"""What is each part of `mcts` worth? The same searches with one part changed, beside those with none.

`python -m benchmarks.search_parts results/rounds/nano-seed2 [--prm 4] [--tokens 400] [--seeds 0] [--problems 400]
[--only "no gate"]` starts the stack of that folder and searches problems of the run's *development* source with the base
policy, without their reference answers and without early stop; the budget of tokens alone ends a search. All that is not
named is at its default, lengths and sampling are those of the run's own evaluation.

Resumable like `benchmarks.strategies`, whose files in results/strategies it shares. The last line is a JSON object: for each
budget and each part the accuracy, the difference to the search with nothing changed with its 95 % interval (Bonett and Price,
clustered by problem) and the exact sign-flip test, coverage, trajectories and tokens as measured.
"""

import argparse
import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console

from benchmarks.strategies import open_run, open_way, parameters_of, request_of, run_or_exit
from ratchet.cli.evaluation.comparison import ArmOutcomes, measured, paired
from ratchet.cli.evaluation.options import whole_numbers
from ratchet.cli.evaluation.searching import Run, search_all
from ratchet.cli.session import EXIT_INTERRUPTED, Interrupts, complain
from ratchet.contracts.search import StrategyName
from ratchet.problems import load, sample


@dataclass(frozen=True, slots=True)
class Part:
    """What is changed in a search."""

    name: str
    changes: tuple[str, ...] = ()
    """Parameters, `name=value`."""
    strategy: StrategyName = StrategyName.MCTS


PARTS = (
    Part("nothing"),
    Part("no tree, no gate: best_of_n", strategy=StrategyName.BEST_OF_N),
    Part("no gate: whole trajectories", ("gate=0",)),
    Part("no gate: single steps, none left", ("redraws=0",)),
    Part("one redraw (two)", ("redraws=1",)),
    Part("four redraws (two)", ("redraws=4",)),
    Part("no tree: all rollouts from the root", ("branching_factor=64",)),
    Part("narrow: branching factor 2 (8)", ("branching_factor=2",)),
    Part("progressive widening, exponent 0.5 (0), from 2", ("branching_factor=2", "widening=0.5")),
    Part("no exploration: c = 0 (2)", ("exploration=0",)),
    Part("c = 1 (2)", ("exploration=1",)),
    Part("one rollout at a time (4)", ("in_flight=1",)),
    Part("16 rollouts at once (4)", ("in_flight=16",)),
    Part("no PRM", ("prm=none",)),
)
"""The first is what the others are compared with."""


async def measure(options: argparse.Namespace, interrupts: Interrupts) -> int:
    """Measure, and print the JSON object; gives the exit code."""
    parts = [PARTS[0], *(each for each in PARTS[1:] if not options.only or each.name in options.only)]
    async with open_run(options.run, options.model, options.workers, [options.prm]) as opened:
        [(prm, version)] = opened.prms.items()
        source = load(opened.last.development.spec).require_any()
        source = replace(source, problems=sample(source.problems, seed=0, limit=options.problems))
        with contextlib.ExitStack() as files:
            ways = {
                (tokens, part): [
                    open_way(
                        request_of(
                            part.strategy,
                            opened.policy,
                            version,
                            tokens,
                            seed,
                            parameters_of(opened.last.evaluation, part.changes),
                        ),
                        source,
                        f"{part.name}, {tokens} tokens",
                        options.fresh,
                        files,
                    )
                    for seed in options.seeds
                ]
                for tokens in options.tokens
                for part in parts
            }
            every = [way for several in ways.values() for way in several]
            work = Run(source.problems, every, with_reference=False, concurrency=options.at_once)
            if not await search_all(work, opened.services, Console(stderr=True), interrupts):
                complain("interrupted; the same command goes on from there.")
                return EXIT_INTERRUPTED
            arms = {
                key: ArmOutcomes(key[1].strategy, key[0], [work.done(way) for way in several])
                for key, several in ways.items()
            }
    facts = {
        "benchmark": "search_parts",
        "model": opened.policy,
        "run": opened.rounds[0].run,
        "prm": prm,
        "data": source.spec,
        "problems": len(source.problems),
        "seeds": list(options.seeds),
        "rows": [
            row(part, arms[tokens, part], arms[tokens, PARTS[0]])
            for tokens in options.tokens
            for part in parts
        ],
    }
    print(orjson.dumps(facts).decode(), flush=True)
    return 0


def row(part: Part, arm: ArmOutcomes, whole: ArmOutcomes) -> dict[str, Any]:
    """The figures of one changed part, beside the search with nothing changed."""
    figures = measured(arm)
    found: dict[str, Any] = {
        "changed": part.name,
        "tokens": figures.tokens,
        "n": figures.n,
        "accuracy": round(figures.accuracy, 4),
        "coverage": round(figures.coverage, 4),
        "trajectories": round(figures.trajectories_per_search, 1),
        "tokens_measured": round(figures.tokens_per_search, 1),
        "failed": figures.failed,
    }
    if arm is whole:
        return found
    pair = paired(arm, whole)
    return found | {
        "difference": round(pair.difference, 4),
        "ci95": [round(edge, 4) for edge in pair.ci95],
        "better": pair.better,
        "worse": pair.worse,
        "p": round(pair.p, 5),
    }


def main() -> None:
    """Read the options, and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="data folder of a finished run of rounds")
    parser.add_argument("--model", default="nano", help="what the stack was started with (default: nano)")
    parser.add_argument(
        "--prm", default="4", help="prm1, or the number of the round that made it (default: 4)"
    )
    parser.add_argument("--tokens", type=whole_numbers, default=[400])
    parser.add_argument("--seeds", type=whole_numbers, default=[0])
    parser.add_argument("--problems", type=int, default=400)
    parser.add_argument("--only", action="append", choices=[each.name for each in PARTS[1:]], help="a part")
    parser.add_argument("--at-once", type=int, default=48, help="searches under way at once")
    parser.add_argument("--workers", type=int, default=2, help="search workers of the stack")
    parser.add_argument("--fresh", action="store_true", help="start over, even if there are results")
    options = parser.parse_args()
    run_or_exit(parser, lambda interrupts: measure(options, interrupts))


if __name__ == "__main__":
    main()
