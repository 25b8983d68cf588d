"""What is a trained PRM worth to a policy? The same policy with each PRM that a finished run of rounds has made.

Searches the run's held-out problems with one policy (the base, unless told otherwise), without references, in three ways: the
most frequent of independent trajectories, which needs no PRM; weighted best-of-N; and MCTS. The last two are measured with
PRM1, which needs no training, and with each round's PRM. All have the run's own evaluation settings, so as many generated
tokens.

`python -m benchmarks.prm_value results/rounds/nano-seed1 [--policy VERSION] [--problems N] [--at-once 32]` starts the
stack of that folder. The last line is a JSON object. Accuracies have Wilson intervals; each PRM is compared with the majority
and with PRM1 problem by problem (exact two-sided McNemar test).
"""

import argparse
import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from ratchet.clients import (
    ModelServiceClient,
    PolicyClient,
    PrmClient,
    SandboxClient,
    SearchClient,
    TrainerClient,
)
from ratchet.contracts.rounds import RoundConfig, RoundView
from ratchet.contracts.search import StrategyName
from ratchet.contracts.serving import PRM1, LoadModel
from ratchet.solutions.answers import same_answer
from ratchet.stack.config import StackConfig
from ratchet.stack.local import local_stack
from ratchet.states import SEARCH_TRANSITIONS, SearchState, is_end
from ratchet.statistics import mcnemar, wilson
from ratchet.store.engine import make_engine
from ratchet.store.rounds import RoundProblem, RoundStore
from services.trainer.pairs import Pair
from services.trainer.stages.measuring import Plan

WAIT_SECONDS = 1800.0
"""For one search; a longer one ends the measurement."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One strategy with one PRM on all problems."""

    right: list[bool]
    tokens: float

    def figures(self) -> dict[str, Any]:
        """Accuracy with its interval, and generated tokens a problem."""
        count = sum(self.right)
        return {
            "right": count,
            "accuracy": round(count / len(self.right), 4),
            "ci95": [round(edge, 4) for edge in wilson(count, len(self.right))],
            "tokens": round(self.tokens, 1),
        }


def against(one: Measured, other: Measured) -> dict[str, Any]:
    """Problems that only the one, and only the other, solves; exact two-sided McNemar test."""
    pairs = list(zip(one.right, other.right, strict=True))
    better, worse = pairs.count((True, False)), pairs.count((False, True))
    return {"better": better, "worse": worse, "p": round(mcnemar(better, worse), 5)}


@dataclass(frozen=True, slots=True)
class Bench:
    """The problems, and the services to ask."""

    problems: Sequence[RoundProblem]
    config: RoundConfig
    policy: str
    at_once: int
    search: SearchClient
    sandbox: SandboxClient

    async def measure(self, strategy: StrategyName, prm: str) -> Measured:
        """Search all problems, as a round measures its pairs. Only the grader sees the reference answers."""
        slots, plan = asyncio.Semaphore(self.at_once), Plan("held_out", strategy)

        async def one(problem: RoundProblem) -> tuple[bool, int]:
            request = plan.request(problem, Pair(self.policy, prm), self.config)
            async with slots:
                result = await self.search.create(request.model_copy(update={"wait": WAIT_SECONDS}))
                if not is_end(SEARCH_TRANSITIONS, result.state) or result.state is SearchState.FAILED:
                    raise SystemExit(
                        f"Search {result.id} is {result.state} after {WAIT_SECONDS:.0f} s at most: {result.reason}"
                    )
                right = result.answer is not None and await same_answer(
                    self.sandbox, result.answer, problem.answer
                )
                return right, result.usage.policy.tokens

        found = await asyncio.gather(*(one(each) for each in self.problems))
        return Measured([right for right, _ in found], sum(tokens for _, tokens in found) / len(found))


async def hold(client: ModelServiceClient, trainer: TrainerClient, version: str) -> None:
    """Have the service hold a version of the registry."""
    model = await trainer.model(version)
    await client.load(version, LoadModel(uri=model.uri, sha256=model.sha256))


async def compare(options: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    if not (options.run / "postgres").is_dir():
        raise SystemExit(
            f"{options.run} is no data folder of a stack: `make rounds` makes one in results/rounds."
        )
    async with (
        local_stack(StackConfig(data=options.run, model=options.model, search_workers=2)) as urls,
        TrainerClient(urls.trainer, key=urls.key) as trainer,
        PolicyClient(urls.policy, key=urls.token) as policy,
        PrmClient(urls.prm, key=urls.token) as prm,
        SearchClient(urls.search, key=urls.key) as search,
        SandboxClient(urls.sandbox, key=urls.token) as sandbox,
    ):
        rounds = await evaluated_rounds(trainer, options.run)
        last = RoundConfig.model_validate(rounds[-1].config)
        chosen: str = options.policy or base_policy(rounds[0])
        await hold(policy, trainer, chosen)
        bench = Bench(
            problems=(await held_out(urls.database, rounds[-1]))[: options.problems],
            config=last,
            policy=chosen,
            at_once=options.at_once,
            search=search,
            sandbox=sandbox,
        )
        majority = await bench.measure(StrategyName.MAJORITY, PRM1)
        print("majority", majority.figures(), flush=True)
        return {
            "benchmark": "prm_value",
            "run": rounds[0].run,
            "seed": last.seed,
            "policy": chosen,
            "problems": len(bench.problems),
            "token_budget": last.evaluation.tokens,
            "majority": majority.figures(),
            "prms": await measure_prms(bench, majority, rounds, prm, trainer),
        }


async def evaluated_rounds(trainer: TrainerClient, folder: Path) -> list[RoundView]:
    """The rounds of the folder's one run, in their order. Ends the program where they are not all evaluated."""
    rounds = sorted(await trainer.rounds(), key=lambda each: each.number)
    if len({each.run for each in rounds}) != 1 or any(each.metrics.evaluation is None for each in rounds):
        raise SystemExit(f"{folder} does not hold one run whose rounds have all been evaluated.")
    return rounds


def base_policy(view: RoundView) -> str:
    """The version that the rounds' training starts from."""
    models = view.metrics.models
    assert models is not None, "an evaluated round knows what it began with"
    return models.base


async def held_out(database_url: str, view: RoundView) -> list[RoundProblem]:
    """The held-out problems of a round."""
    engine = make_engine(database_url)
    try:
        return await RoundStore(engine).problems(UUID(view.id), "held_out")
    finally:
        await engine.dispose()


async def measure_prms(
    bench: Bench, majority: Measured, rounds: Sequence[RoundView], client: PrmClient, trainer: TrainerClient
) -> dict[str, dict[str, Any]]:
    """Figures with PRM1 and with each round's PRM, compared with the majority and with PRM1."""
    prms = {PRM1: PRM1} | {
        f"round {each.number}": each.metrics.prm.version for each in rounds if each.metrics.prm is not None
    }
    found: dict[str, dict[str, Any]] = {}
    with_prm1: dict[StrategyName, Measured] = {}
    for name, version in prms.items():
        if version != PRM1:
            await hold(client, trainer, version)
        found[name] = {"version": version}
        for strategy in (StrategyName.BEST_OF_N, StrategyName.MCTS):
            measured = await bench.measure(strategy, version)
            found[name][strategy.value] = measured.figures() | {
                "against_majority": against(measured, majority),
                "against_prm1": against(measured, with_prm1.setdefault(strategy, measured)),
            }
            print(name, strategy.value, found[name][strategy.value], flush=True)
    return found


def main() -> None:
    """Measure, and print the JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="data folder of a finished run of rounds")
    parser.add_argument("--model", default="nano", help="what the stack was started with (default: nano)")
    parser.add_argument("--policy", help="version of the policy; default: the run's base")
    parser.add_argument("--problems", type=int, help="default: all held-out problems of the run")
    parser.add_argument("--at-once", type=int, default=32, help="searches under way at once")
    print(json.dumps(asyncio.run(compare(parser.parse_args()))))


if __name__ == "__main__":
    main()
