"""Is a pool of tokens worth anything? A batch of problems, each with its own budget, and the same with one for all.

`python -m benchmarks.token_pool results/rounds/nano-seed2 [--prm 4] [--tokens 200,400] [--seeds 0,1,2] [--problems 400]`
starts the stack of that folder and solves the run's held-out problems with the base policy through the Python client, without
their reference answers: once each search spends its whole budget (`alone`), and once they share (`pool`), so that a search
whose vote is as good as decided leaves its rest to those that have no answer of the level `agreement`.

Resumable: the output of each batch is kept in results/token_pool. The last line is a JSON object: for each budget
accuracies and tokens as measured, and the difference with its 95 % interval (Bonett and Price, clustered by problem) and the
exact sign-flip test.

Limit: the files know the settings of the searches, but not the code: after a change of it start over (`--fresh`).
"""

import argparse
import asyncio
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import orjson

import ratchet
from benchmarks.prm_value import base_policy, evaluated_rounds, hold
from benchmarks.strategies import chosen_prms, held_out
from ratchet.cli.evaluation.options import whole_numbers
from ratchet.client import BatchProgress, SolveOptions
from ratchet.clients import PolicyClient, PrmClient, SandboxClient, TrainerClient
from ratchet.contracts.rounds import RoundConfig
from ratchet.contracts.search import MAX_ROLLOUTS
from ratchet.contracts.serving import PRM1
from ratchet.problems import Problem
from ratchet.solutions.answers import same_answer
from ratchet.stack.config import StackConfig
from ratchet.stack.local import local_stack
from ratchet.statistics import clustered_wilson, paired_test

RESULTS = Path("results/token_pool")
ALONE, POOL = "alone", "pool"
SEARCH_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Bench:
    """The problems, and the services to ask."""

    problems: list[Problem]
    at_once: int
    fresh: bool
    client: ratchet.AsyncClient
    sandbox: SandboxClient

    async def solve(self, how: str, name: str, options: SolveOptions) -> tuple[list[bool], int]:
        """Whether each problem is solved, and the tokens that all took."""
        out = RESULTS / f"{name}-{how}.jsonl"
        if self.fresh:
            out.unlink(missing_ok=True)
        report = await self.client.batch(
            [each.text for each in self.problems],
            out,
            concurrency=self.at_once,
            pool=how == POOL,
            on_progress=_tell(f"{name} {how}"),
            **options,
        )
        results = {each["line"]: each["result"] for each in map(orjson.loads, out.read_bytes().splitlines())}

        async def grade(number: int, problem: Problem) -> bool:
            answer = results[number]["answer"]
            return answer is not None and await same_answer(self.sandbox, answer, problem.answer)

        right = await asyncio.gather(*(grade(*each) for each in enumerate(self.problems, 1)))
        return right, report.tokens


def _tell(name: str) -> Any:
    def tell(progress: BatchProgress) -> None:
        if progress.done % 100 == 0:
            print(f"{name}: {progress.done} of {progress.total}, {progress.tokens} tokens", flush=True)

    return tell


def options_of(how: str, tokens: int, seed: int, policy: str, prm: str, config: RoundConfig) -> SolveOptions:
    """Of each search of a batch; lengths and sampling as in the run's evaluation."""
    evaluation = config.evaluation
    return cast(
        SolveOptions,
        {
            "budget": {"tokens": tokens, "seconds": SEARCH_SECONDS},
            "parameters": {
                "rollouts": MAX_ROLLOUTS,
                "temperature": evaluation.temperature,
                "top_p": evaluation.top_p,
                "max_tokens": evaluation.max_tokens,
                "batch_rollouts": evaluation.batch_rollouts,
                "in_flight": 4,
                "early_stop": how == POOL,
            },
            "models": {"policy": policy, "prm": prm},
            "priority": "low",
            "seed": seed,
            # What counts as solved is the level alone: a calibration may be of searches that spent their budget.
            "min_confidence": 0.0,
        },
    )


def cell(tokens: int, tries: int, right: dict[str, list[int]], spent: dict[str, int]) -> dict[str, Any]:
    """The figures of one budget; `right` counts by problem how many seeds solved it."""
    n = len(right[ALONE])
    test = asdict(paired_test(right[POOL], tries, right[ALONE], tries))
    return {
        "tokens": tokens,
        "n": n,
        "seeds": tries,
        **{
            how: {
                "accuracy": round(sum(counts) / (n * tries), 4),
                "ci95": [round(edge, 4) for edge in clustered_wilson(counts, tries)],
                "tokens_per_problem": round(spent[how] / (n * tries), 1),
            }
            for how, counts in right.items()
        },
        "difference": round(test["difference"], 4),
        "ci95": [round(edge, 4) for edge in test["ci95"]],
        "better": test["better"],
        "worse": test["worse"],
        "p": round(test["p"], 5),
    }


async def compare(options: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    config = StackConfig(data=options.run, model=options.model, search_workers=2)
    async with (
        local_stack(config) as urls,
        TrainerClient(urls.trainer, key=urls.key) as trainer,
        PolicyClient(urls.policy, key=urls.token) as policy,
        PrmClient(urls.prm, key=urls.token) as prm,
        ratchet.AsyncClient(urls.search, key=urls.key) as client,
        SandboxClient(urls.sandbox, key=urls.token) as sandbox,
    ):
        rounds = await evaluated_rounds(trainer, options.run)
        last = RoundConfig.model_validate(rounds[-1].config)
        [version] = chosen_prms(rounds, [options.prm]).values()
        base = base_policy(rounds[0])
        await hold(policy, trainer, base)
        if version != PRM1:
            await hold(prm, trainer, version)
        held = held_out(last, options.problems)
        bench = Bench(list(held.problems), options.at_once, options.fresh, client, sandbox)
        cells = []
        for tokens in options.tokens:
            right = {how: [0] * len(held.problems) for how in (ALONE, POOL)}
            spent = dict.fromkeys(right, 0)
            for seed in options.seeds:
                for how, counts in right.items():
                    asked = options_of(how, tokens, seed, base, version, last)
                    found, used = await bench.solve(
                        how, f"{base}-{options.prm}-t{tokens}-s{seed}-n{len(counts)}", asked
                    )
                    right[how] = [count + one for count, one in zip(counts, found, strict=True)]
                    spent[how] += used
            cells.append(cell(tokens, len(options.seeds), right, spent))
            print(cells[-1], flush=True)
    return {
        "benchmark": "token_pool",
        "model": base,
        "prm": options.prm,
        "run": rounds[0].run,
        "data": held.spec,
        "seeds": options.seeds,
        "cells": cells,
    }


def main() -> None:
    """Read the options, measure, and print the JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="data folder of a finished run of rounds")
    parser.add_argument("--model", default="nano", help="what the stack was started with (default: nano)")
    parser.add_argument("--prm", default="4", help="prm1, or the number of a round (default: 4)")
    parser.add_argument("--tokens", type=whole_numbers, default=[200, 400])
    parser.add_argument("--seeds", type=whole_numbers, default=[0, 1, 2])
    parser.add_argument("--problems", type=int, help="default: all of the run's held-out source")
    parser.add_argument("--at-once", type=int, default=48, help="searches under way at once")
    parser.add_argument("--fresh", action="store_true", help="start over, even if there are results")
    options = parser.parse_args()
    if not (options.run / "postgres").is_dir():
        parser.error(f"{options.run} is no data folder of a stack: `make rounds` makes one in results/rounds")
    RESULTS.mkdir(parents=True, exist_ok=True)
    print(orjson.dumps(asyncio.run(compare(options))).decode(), flush=True)


if __name__ == "__main__":
    main()
