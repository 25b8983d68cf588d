"""Does tree search beat best-of-N with the same vote, at equal generated tokens? A run's base policy with each round's PRM.

`python -m benchmarks.strategies results/rounds/nano-seed2 [--tokens 200,400,800] [--seeds 0,1,2] [--prms prm1,1,2,3,4]
[--strategies best_of_n,mcts] [--problems 400] [--set exploration=1] [--at-once 48]` starts the stack of that folder and
searches problems of the run's held-out source through the API, without their reference answers, with pinned models and
without early stop; the budget of tokens alone ends a search. Temperature and lengths are those of the run's own evaluation,
everything that belongs to a strategy is at its default unless `--set` says otherwise.

Resumable: each search is one line of a file in results/strategies, so the same command goes on where it was broken off. The
last line is a JSON object: for each PRM and budget the accuracies, the difference of each strategy to the first one with its
95 % interval (Bonett and Price, clustered by problem) and the exact sign-flip test, coverage, and tokens as measured.

Limit: the files know all settings of the searches, but not the code: after a change of it start over (`--fresh`).
"""

import argparse
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import typer
from pydantic import ValidationError
from rich.console import Console

from benchmarks.prm_value import base_policy, evaluated_rounds, hold
from ratchet.cli.evaluation.comparison import ArmOutcomes, measured, paired
from ratchet.cli.evaluation.options import strategy_list, whole_numbers
from ratchet.cli.evaluation.plan import file_stem
from ratchet.cli.evaluation.results import open_results
from ratchet.cli.evaluation.searching import Run, Services, Way, search_all
from ratchet.cli.overrides import read_override
from ratchet.cli.session import EXIT_INTERRUPTED, Interrupts, complain, run
from ratchet.clients import PolicyClient, PrmClient, SandboxClient, SearchClient, TrainerClient
from ratchet.contracts.rounds import Evaluation, RoundConfig, RoundView
from ratchet.contracts.search import (
    Budget,
    PinnedModels,
    Priority,
    SearchRequest,
    StrategyName,
    StrategyParameters,
    VerificationLevel,
)
from ratchet.contracts.serving import PRM1
from ratchet.problems import ProblemFileError, ProblemSet, load, sample
from ratchet.stack.config import StackConfig
from ratchet.stack.local import local_stack

RESULTS = Path("results/strategies")
SEARCH_SECONDS = 3600.0
ALL_ROLLOUTS = 4096
"""The budget of tokens ends a search, not the number of its rollouts."""


@dataclass(frozen=True, slots=True)
class Grid:
    """What is measured: each strategy with each PRM at each budget, with all seeds."""

    strategies: Sequence[StrategyName]
    """The first is what the others are compared with."""
    prms: dict[str, str]
    """Versions by the name that the table shows."""
    tokens: Sequence[int]
    seeds: Sequence[int]


def request_of(
    strategy: StrategyName, policy: str, prm: str, tokens: int, seed: int, parameters: StrategyParameters
) -> SearchRequest:
    """The search of any problem; what is measured and graded is the answer, so the weakest verification will do."""
    return SearchRequest(
        problem="any",
        strategy=strategy,
        parameters=parameters,
        budget=Budget(tokens=tokens, seconds=SEARCH_SECONDS),
        require=VerificationLevel.EXECUTION,
        models=PinnedModels(policy=policy, prm=prm),
        seed=seed,
        priority=Priority.LOW,
    )


def parameters_of(how: Evaluation, changes: Sequence[str]) -> StrategyParameters:
    """Lengths and sampling as in the run's evaluation, the rest by default, then the changes `name=value`.

    Raises pydantic's ValidationError, ValueError.
    """
    fields: dict[str, Any] = {
        "rollouts": ALL_ROLLOUTS,
        "temperature": how.temperature,
        "top_p": how.top_p,
        "max_tokens": how.max_tokens,
        "in_flight": how.in_flight,
        "batch_rollouts": how.batch_rollouts,
        "early_stop": False,
    }
    fields |= (read_override(change, example="exploration=1") for change in changes)
    return StrategyParameters.model_validate(fields)


def chosen_prms(rounds: Sequence[RoundView], names: Sequence[str] | None) -> dict[str, str]:
    """PRM1 and those that the rounds made, by name; of these the ones asked for. Ends the program at an unknown name."""
    made = {"prm1": PRM1} | {
        str(each.number): each.metrics.prm.version for each in rounds if each.metrics.prm is not None
    }
    for name in names or ():
        if name not in made:
            raise typer.BadParameter(f"{name!r} is none of {', '.join(made)}.", param_hint="--prms")
    shown = {name: name if name == "prm1" else f"round {name}" for name in made}
    return {shown[name]: version for name, version in made.items() if names is None or name in names}


def held_out(config: RoundConfig, limit: int | None) -> ProblemSet:
    """The run's source of held-out problems, all of it: a round may have measured on fewer."""
    try:
        held = load(config.held_out.spec).require_any()
    except ProblemFileError as error:
        raise typer.BadParameter(str(error), param_hint="RUN") from None
    return replace(held, problems=sample(held.problems, seed=0, limit=limit))


def cells(grid: Grid, outcomes: dict[tuple[str, int], list[ArmOutcomes]]) -> list[dict[str, Any]]:
    """For each PRM and budget the figures of all strategies, and how each compares with the first."""
    found: list[dict[str, Any]] = []
    for (prm, tokens), arms in outcomes.items():
        figures = {arm.strategy.value: measured(arm) for arm in arms}
        cell: dict[str, Any] = {"prm": prm, "tokens": tokens, "n": len(arms[0].by_seed[0])}
        cell |= {"seeds": len(grid.seeds)} | {name: round(each.accuracy, 4) for name, each in figures.items()}
        pairs = [paired(arm, arms[0]) for arm in arms[1:]]
        for pair in pairs:
            compared = {
                "difference": round(pair.difference, 4),
                "ci95": [round(edge, 4) for edge in pair.ci95],
                "p": round(pair.p, 5),
                "better": pair.better,
                "worse": pair.worse,
            }
            # One comparison is what the cell is about; of several each has its name.
            cell |= compared if len(pairs) == 1 else {f"{pair.strategy}_against": compared}
        cell["coverage"] = {name: round(each.coverage, 4) for name, each in figures.items()}
        cell["tokens_measured"] = {name: round(each.tokens_per_search, 1) for name, each in figures.items()}
        cell["failed"] = sum(each.failed for each in figures.values())
        found.append(cell)
    return found


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A finished run of rounds whose stack is up: its base policy and the PRMs that were asked for are held."""

    rounds: Sequence[RoundView]
    last: RoundConfig
    policy: str
    prms: dict[str, str]
    """Versions by the name that a table shows."""
    services: Services


@contextlib.asynccontextmanager
async def open_run(
    folder: Path, model: str, workers: int, prms: Sequence[str] | None
) -> AsyncIterator[OpenRun]:
    """Start the stack of a run's data folder. Raises typer.BadParameter."""
    if not (folder / "postgres").is_dir():
        raise typer.BadParameter(
            f"{folder} is no data folder of a stack: `make rounds` makes one in results/rounds.",
            param_hint="RUN",
        )
    async with (
        local_stack(StackConfig(data=folder, model=model, search_workers=workers)) as urls,
        TrainerClient(urls.trainer, key=urls.key) as trainer,
        PolicyClient(urls.policy, key=urls.token) as policy,
        PrmClient(urls.prm, key=urls.token) as prm,
        SearchClient(urls.search, key=urls.key) as search,
        SandboxClient(urls.sandbox, key=urls.token) as sandbox,
    ):
        rounds = await evaluated_rounds(trainer, folder)
        chosen = chosen_prms(rounds, prms)
        base = base_policy(rounds[0])
        await hold(policy, trainer, base)
        for version in chosen.values():
            if version != PRM1:
                await hold(prm, trainer, version)
        services = Services(search, sandbox, base, trainer=urls.trainer, key=urls.key)
        yield OpenRun(rounds, RoundConfig.model_validate(rounds[-1].config), base, chosen, services)


async def compare(options: argparse.Namespace, interrupts: Interrupts) -> int:
    """Measure, and print the JSON object; gives the exit code."""
    async with open_run(options.run, options.model, options.workers, options.prms) as opened:
        grid = Grid(options.strategies, opened.prms, options.tokens, options.seeds)
        held = held_out(opened.last, options.problems)
        try:
            parameters = parameters_of(opened.last.evaluation, options.set)
        except (ValidationError, ValueError) as error:
            raise typer.BadParameter(str(error), param_hint="--set") from None
        console = Console(stderr=True)
        outcomes = await search_grid(grid, held, parameters, opened.services, options, console, interrupts)
        if outcomes is None:
            return EXIT_INTERRUPTED
    facts = {
        "benchmark": "strategies",
        "model": opened.policy,
        "run": opened.rounds[0].run,
        "data": held.spec,
        "problems": len(held.problems),
        "seeds": list(grid.seeds),
        "strategies": [each.value for each in grid.strategies],
        "parameters": parameters.model_dump(mode="json"),
        "cells": cells(grid, outcomes),
    }
    print(orjson.dumps(facts).decode(), flush=True)
    return 0


async def search_grid(
    grid: Grid,
    held: ProblemSet,
    parameters: StrategyParameters,
    services: Services,
    options: argparse.Namespace,
    console: Console,
    interrupts: Interrupts,
) -> dict[tuple[str, int], list[ArmOutcomes]] | None:
    """Outcomes by PRM and budget, a strategy each; None where a person stopped it."""
    assert services.model is not None
    with contextlib.ExitStack() as files:
        ways: dict[tuple[str, int, StrategyName], list[Way]] = {}
        for name, version in grid.prms.items():
            for tokens in grid.tokens:
                for strategy in grid.strategies:
                    requests = [
                        request_of(strategy, services.model, version, tokens, seed, parameters)
                        for seed in grid.seeds
                    ]
                    ways[name, tokens, strategy] = [
                        open_way(each, held, f"{name}, {tokens} tokens, {strategy}", options.fresh, files)
                        for each in requests
                    ]
        work = Run(
            held.problems, [each for several in ways.values() for each in several], False, options.at_once
        )
        known = sum(len(work.done(way)) for way in work.ways)
        console.print(f"{work.total} searches, {known} of them done before", highlight=False)
        if not await search_all(work, services, console, interrupts):
            complain("interrupted; the same command goes on from there.")
            return None
        found: dict[tuple[str, int], list[ArmOutcomes]] = {}
        for (name, tokens, strategy), several in ways.items():
            arm = ArmOutcomes(strategy, tokens, [work.done(way) for way in several])
            found.setdefault((name, tokens), []).append(arm)
        return found


def open_way(
    request: SearchRequest, held: ProblemSet, label: str, fresh: bool, files: contextlib.ExitStack
) -> Way:
    """One way to search, with the file that is named after all its settings."""
    stem = file_stem(
        held,
        request.strategy.value,
        f"t{request.budget.tokens}",
        f"s{request.seed}",
        request.model_dump(mode="json"),
    )
    return Way(request, files.enter_context(open_results(RESULTS / f"{stem}.jsonl", fresh=fresh)), label)


def run_or_exit(parser: argparse.ArgumentParser, command: Callable[[Interrupts], Awaitable[int]]) -> None:
    """Run a command; what is wrong with its options is said as the parser says it."""
    try:
        run(command)
    except typer.BadParameter as error:
        parser.error(f"{error.param_hint}: {error.message}")
    except typer.Exit as end:
        raise SystemExit(end.exit_code) from None


def main() -> None:
    """Read the options, and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="data folder of a finished run of rounds")
    parser.add_argument("--model", default="nano", help="what the stack was started with (default: nano)")
    parser.add_argument("--tokens", type=whole_numbers, default=[200, 400, 800])
    parser.add_argument("--seeds", type=whole_numbers, default=[0, 1, 2])
    parser.add_argument(
        "--strategies", type=strategy_list, default=[StrategyName.BEST_OF_N, StrategyName.MCTS]
    )
    parser.add_argument("--prms", type=lambda text: text.split(","), help="prm1,1,2,3,4; default: all")
    parser.add_argument("--problems", type=int, help="default: all of the run's held-out source")
    parser.add_argument("--set", action="append", default=[], help="a strategy parameter, name=value")
    parser.add_argument("--at-once", type=int, default=48, help="searches under way at once")
    parser.add_argument("--workers", type=int, default=2, help="search workers of the stack")
    parser.add_argument("--fresh", action="store_true", help="start over, even if there are results")
    options = parser.parse_args()
    run_or_exit(parser, lambda interrupts: compare(options, interrupts))


if __name__ == "__main__":
    main()
