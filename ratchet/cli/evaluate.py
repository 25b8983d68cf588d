"""`ratchet eval`: accuracy on a problem set, through the same services that answer people.

Each problem is one `POST /search`; its answer and the ends of its tree are graded afterwards by the sandbox. Reference answers
are not sent with the searches unless asked for. One line per problem is appended and fsync-ed to a result file that is named
after data, strategy, models, seed and settings: a run that was broken off goes on where it was. `--compare` does the same for
several strategies and budgets, whose result files are those of single runs, and tests the strategies against a baseline.

Limit: the result file knows the version of Ratchet and of the model, not every setting of the services.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console

from ratchet.cli.display import clean
from ratchet.cli.evaluation.comparison import ArmOutcomes, Measured, best_strategy, compare, measured
from ratchet.cli.evaluation.options import comparison_of, one_budget, strategy_parameters
from ratchet.cli.evaluation.plan import SERVED, Arm, Comparison, Plan, comparison_stem, result_name
from ratchet.cli.evaluation.results import open_results
from ratchet.cli.evaluation.searching import Run, Services, Way, reach_services, search_all
from ratchet.cli.evaluation.tables import arms_table, pairs_table, summary_table
from ratchet.cli.outcomes import GradedProblem, summarise
from ratchet.cli.session import EXIT_INTERRUPTED, EXIT_SYSTEM, Interrupts, complain, run
from ratchet.cli.solve import search_request
from ratchet.clients import TrainerClient
from ratchet.contracts.search import SearchRequest, StrategyName, VerificationLevel
from ratchet.contracts.strategies import StrategyChoice
from ratchet.problems import ProblemFileError, ProblemSet, load, sample
from ratchet.states import SearchState

MAX_NOTES = 20
"""Lines about problems that are left out."""
RESULTS = Path("results")
ALL_ROLLOUTS = 4096
"""Of a comparison at equal tokens: the budget ends a search, not the number of its rollouts."""


def evaluate(
    spec: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="A problem file (JSON Lines, JSON, CSV, Parquet), nano:held_out, hub:org/name, or reasoning-gym:task.",
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            help="Model for a stack that is started here: a name (small, medium), a folder, or a hub id."
        ),
    ] = None,
    strategy: Annotated[
        StrategyName | None, typer.Option(help="How the tree is grown; default mcts.", show_default=False)
    ] = None,
    compared: Annotated[
        str | None,
        typer.Option(
            "--compare",
            metavar="NAMES",
            help="Compare strategies: greedy,majority,best_of_n,mcts and others.",
        ),
    ] = None,
    tokens: Annotated[
        str | None,
        typer.Option(
            metavar="N[,N…]",
            help="Budget per problem: generated tokens; several with --compare: 300,600,1200.",
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="What the others are compared with; default best_of_n, else the first named."
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(metavar="N[,N…]", help="With --compare: a search of each problem for each of these."),
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="Budget per problem: seconds.")] = None,
    rollouts: Annotated[
        int | None,
        typer.Option(help="Most solutions that are completed; with --compare only the budget counts."),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A parameter of the strategy, like gate=0.5 or in_flight=1; again for more.",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="How many problems; default all.")] = None,
    offset: Annotated[int, typer.Option(min=0, help="Problems of the shuffled set to pass over.")] = 0,
    seed: Annotated[
        int,
        typer.Option(
            help="Shuffles the set (random.Random(seed)) before offset and limit; seeds the searches."
        ),
    ] = 0,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Searches at once.")] = 8,
    reference: Annotated[
        bool, typer.Option(help="Send the reference answers with the searches, for the verifier.")
    ] = False,
    early_stop: Annotated[
        bool, typer.Option(help="Let a search end before its budget, when the answer can hardly change.")
    ] = False,
    level: Annotated[
        VerificationLevel | None, typer.Option(help="Weakest verification that counts as verified.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Result file; default results/….jsonl. With --compare: the JSON, plots beside it."),
    ] = None,
    keep: Annotated[
        bool,
        typer.Option(
            "--keep", help="With --compare: searches with the strategy auto take the best one from now on."
        ),
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over, even if there are results.")] = False,
    url: Annotated[str | None, typer.Option(help="A search service; otherwise the local stack.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Data folder of the local stack.", envvar="RATCHET_DATA")
    ] = None,
) -> None:
    """Accuracy on a problem set. The last line on stdout is one JSON object."""
    console = Console(stderr=True)
    comparison = comparison_of(compared, strategy, tokens, seeds, baseline, seed)
    budget = None if comparison else one_budget(tokens)
    parameters = strategy_parameters(changes)
    if keep and (comparison is None or url is not None):
        raise typer.BadParameter("it goes with --compare, and needs the local stack.", param_hint="--keep")
    if keep and comparison is not None and StrategyName.AUTO in comparison.strategies:
        raise typer.BadParameter("auto cannot stand for itself; leave it out.", param_hint="--keep")
    held = read_problems(spec, console)
    problems = sample(held.problems, seed=seed, offset=offset, limit=limit)
    if not problems:
        raise typer.BadParameter(f"{spec} has {len(held.problems)} problems.", param_hint="--offset")
    request = search_request(
        {"problem": problems[0].text, "strategy": strategy, "seed": seed, "require": level},
        parameters={
            "rollouts": ALL_ROLLOUTS if comparison and rollouts is None else rollouts,
            "early_stop": early_stop,
            **parameters,
        },
        budget={"tokens": budget, "seconds": seconds},
    )
    plan = Plan(held, problems, request, reference, offset)

    async def command(interrupts: Interrupts) -> int:
        async with reach_services(url, data, model, console) as services:
            session = _Session(plan, services, concurrency, fresh, console, interrupts)
            if comparison is None:
                return await session.evaluate(output)
            return await session.compare(comparison, output, keep=keep)

    run(command)


@dataclass(frozen=True)
class _Session:
    """What is to be done, and with what."""

    plan: Plan
    services: Services
    concurrency: int
    fresh: bool
    console: Console
    interrupts: Interrupts

    async def evaluate(self, output: Path | None) -> int:
        """One strategy at one budget; gives the exit code."""
        path = output or RESULTS / self._result_name(self.plan.request)
        with open_results(path, fresh=self.fresh) as results:
            way = Way(self.plan.request, results)
            work = self._run([way])
            self._announce(work, str(path))
            if not await search_all(work, self.services, self.console, self.interrupts):
                return self._interrupted(work)
            done = work.done(way)
        summary = summarise(done)
        self.console.print(summary_table(summary))
        facts = {"strategy": self.plan.request.strategy.value, "results": str(path), **self._facts(done)}
        _print_object(summary.model_dump(mode="json") | facts)
        return EXIT_SYSTEM if summary.failed == summary.n else 0

    async def compare(self, comparison: Comparison, output: Path | None, *, keep: bool) -> int:
        """Several strategies and budgets; gives the exit code."""
        stem = comparison_stem(self.plan, comparison, self.services.models)
        path = output or RESULTS / f"{stem}.json"
        with contextlib.ExitStack() as files:
            arms = [
                (arm, [self._way(each, arm, files) for each in arm.requests(self.plan.request)])
                for arm in comparison.arms()
            ]
            work = self._run([way for _, ways in arms for way in ways])
            self._announce(work, f"{RESULTS}/")
            if not await search_all(work, self.services, self.console, self.interrupts):
                return self._interrupted(work)
            outcomes = [
                ArmOutcomes(arm.strategy, arm.tokens, [work.done(way) for way in ways]) for arm, ways in arms
            ]
        figures, pairs = [measured(arm) for arm in outcomes], compare(outcomes, comparison.baseline)
        self.console.print(arms_table(figures))
        if pairs:
            self.console.print(pairs_table(pairs))
        done = [line for arm in outcomes for line in arm.all]
        facts = {
            "n": len(self.plan.problems),
            "seeds": comparison.seeds,
            "baseline": comparison.baseline,
            "arms": [arm.model_dump(mode="json") for arm in figures],
            "comparisons": [pair.model_dump(mode="json") for pair in pairs],
            **self._facts(done),
        }
        facts["best"] = best_strategy(figures)
        if keep:
            facts["kept"] = await self._keep(figures, done, comparison)
        facts["plots"] = self._plot(figures, path)
        facts["results"] = [str(way.results.path) for _, ways in arms for way in ways]
        _write(path, facts)
        _print_object(facts)
        return EXIT_SYSTEM if all(line.state is SearchState.FAILED for line in done) else 0

    async def _keep(
        self, figures: Sequence[Measured], done: Sequence[GradedProblem], comparison: Comparison
    ) -> dict[str, Any]:
        """Have searches with the strategy `auto` take the best one. Raises ServiceError, typer.BadParameter."""
        pairs = {
            (line.models["policy"], line.models["prm"])
            for line in done
            if {"policy", "prm"} <= set(line.models)
        }
        if len(pairs) != 1 or not self.services.trainer:
            raise typer.BadParameter(
                f"the answers came from {len(pairs)} pairs of policy and PRM, and a choice is of one.",
                param_hint="--keep",
            )
        [(policy, prm)] = pairs
        best = best_strategy(figures)
        of_best = [arm for arm in figures if arm.strategy is best]
        choice = StrategyChoice(
            policy=policy,
            prm=prm,
            strategy=best,
            accuracy=sum(arm.accuracy for arm in of_best) / len(of_best),
            n=len(self.plan.problems),
            tokens=[arm.tokens for arm in of_best],
            compared=list(comparison.strategies),
            source=f"{self.plan.held.name}, {len(self.plan.problems)} problems"[:1000],
        )
        async with TrainerClient(self.services.trainer, key=self.services.key) as trainer:
            kept = await trainer.keep_strategy(choice)
        self.console.print(
            f"auto takes {best} for {clean(policy)} with {clean(prm)}.", markup=False, highlight=False
        )
        return kept.model_dump(mode="json")

    def _way(self, request: SearchRequest, arm: Arm, files: contextlib.ExitStack) -> Way:
        path = RESULTS / self._result_name(request)
        results = files.enter_context(open_results(path, fresh=self.fresh))
        return Way(request, results, f"{arm.strategy} at {arm.tokens}, seed {request.seed}")

    def _run(self, ways: Sequence[Way]) -> Run:
        return Run(self.plan.problems, ways, self.plan.with_reference, self.concurrency)

    def _result_name(self, request: SearchRequest) -> str:
        return result_name(self.plan.held, request, self.plan.with_reference, self.services.models)

    def _announce(self, work: Run, where: str) -> None:
        plan, known = self.plan, sum(len(work.done(way)) for way in work.ways)
        searches = f", {work.total} searches" if len(work.ways) > 1 else ""
        self.console.print(
            f"{len(plan.problems)} of {len(plan.held.problems)} problems{searches}: the set shuffled with seed "
            f"{plan.request.seed}, from {plan.offset} on. {known} have results in {where}.",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )

    def _interrupted(self, work: Run) -> int:
        done = sum(len(work.done(way)) for way in work.ways)
        complain(f"interrupted with {done} of {work.total} done; the same command goes on from there.")
        return EXIT_INTERRUPTED

    def _facts(self, done: Sequence[GradedProblem]) -> dict[str, Any]:
        """What the figures are of."""
        policies = sorted({line.models["policy"] for line in done if "policy" in line.models})
        return {
            "model": ", ".join(policies) or self.services.model or "unknown",
            "seed": self.plan.request.seed,
            "data": self.plan.held.name,
            "data_sha256": self.plan.held.sha256,
            "offset": self.plan.offset,
            "with_reference": self.plan.with_reference,
        }

    def _plot(self, figures: Sequence[Measured], path: Path) -> list[str]:
        """Files of the plot; none where matplotlib is not installed."""
        try:
            from ratchet.cli.evaluation.plot import write_plots
        except ImportError as error:
            complain(f"no plot was made: {error}. The extra `local` brings what it needs.")
            return []
        model, data = self.services.model or SERVED, self.plan.held.name
        title = f"{clean(data)}, {len(self.plan.problems)} problems, {clean(model)}"
        with _writing(path):
            return [str(each) for each in write_plots(figures, title, path.with_suffix(""))]


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Inside, a file that cannot be written is wrong use of --output."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}.", param_hint="--output") from None


def _write(path: Path, facts: Mapping[str, Any]) -> None:
    with _writing(path):
        path.write_bytes(orjson.dumps(facts, option=orjson.OPT_INDENT_2) + b"\n")


def _print_object(facts: Mapping[str, Any]) -> None:
    print(orjson.dumps(facts).decode(), flush=True)


def read_problems(spec: str, console: Console) -> ProblemSet:
    """The problem set; what of it is left out is said. Raises typer.BadParameter."""
    try:
        held = load(spec).require_any()
    except ProblemFileError as error:
        raise typer.BadParameter(clean(str(error)), param_hint="DATA") from None
    lines = [f"{refused.source} is left out: {refused.reason}" for refused in held.refused]
    for duplicate in held.duplicates:
        said = "another answer; both are left out" if duplicate.conflicting else "the same answer; left out"
        lines.append(f"{duplicate.source}: the problem of {duplicate.first_source} again, with {said}.")
    shown = lines[:MAX_NOTES]
    if len(lines) > len(shown):
        shown.append(f"… and {len(lines) - len(shown)} more; `ratchet problems inspect` counts them.")
    for line in shown:
        console.print(clean(line), markup=False, highlight=False, soft_wrap=True, style="yellow")
    return held


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("eval")(evaluate)
