"""`ratchet eval`: accuracy on a problem set, through the same services that answer people.

Each problem is one `POST /search`; its answer is graded afterwards by the sandbox. Reference answers are not sent with
the searches unless asked for. One line per problem is appended and fsync-ed to a result file that is named after data,
strategy, model, seed and settings: a run that was broken off goes on where it was.

Limit: the result file knows the version of Ratchet and of the model, not every setting of the services.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import re
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Any

import orjson
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from ratchet import __version__
from ratchet.cli.display import clean
from ratchet.cli.outcomes import GradedProblem, Summary, graded_problem, summarise
from ratchet.cli.session import (
    EXIT_INTERRUPTED,
    EXIT_SYSTEM,
    Interrupts,
    complain,
    connected,
    local_sandbox,
    run,
)
from ratchet.cli.solve import GRACE_SECONDS, search_request
from ratchet.clients import SandboxClient, SearchClient, ServiceError
from ratchet.contracts.sandbox import GradeRequest, GradeRule
from ratchet.contracts.search import SearchRequest, SearchResult, StrategyName, VerificationLevel
from ratchet.problems import Problem, ProblemFileError, ProblemSet, load, sample
from ratchet.states import SEARCH_TRANSITIONS, SearchState, is_end

POLL_SECONDS = 1.0
CANCEL_SECONDS = 10.0
MAX_NOTES = 20
"""Lines about problems that are left out."""
MAX_GRADED_CHARS = 2000
"""Longest answer that the sandbox grades; a longer one is no answer to a problem with a short reference."""


@dataclass(frozen=True)
class _Plan:
    """What is to be done: these problems of the set, each with the request, whose text and answer are the problem's."""

    held: ProblemSet
    problems: Sequence[Problem]
    request: SearchRequest
    with_reference: bool
    concurrency: int
    offset: int


@dataclass(frozen=True)
class _Services:
    """What answers and grades."""

    search: SearchClient
    sandbox: SandboxClient
    model: str | None
    """Version of the policy's model, where it is known."""


def evaluate(
    spec: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="A JSON Lines or Parquet file, nano:held_out, hub:org/name, or reasoning-gym:task.",
        ),
    ],
    model: Annotated[
        str | None, typer.Option(help="Model for a stack that is started here: small, a folder, or a hub id.")
    ] = None,
    strategy: Annotated[StrategyName, typer.Option(help="How the tree is grown.")] = StrategyName.MCTS,
    tokens: Annotated[int | None, typer.Option(help="Budget per problem: generated tokens.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Budget per problem: seconds.")] = None,
    rollouts: Annotated[int | None, typer.Option(help="Most solutions that are completed.")] = None,
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
    output: Annotated[Path | None, typer.Option(help="Result file; default results/….jsonl.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over, even if there are results.")] = False,
    url: Annotated[str | None, typer.Option(help="A search service; otherwise the local stack.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Data folder of the local stack.", envvar="RATCHET_DATA")
    ] = None,
) -> None:
    """Accuracy on a problem set. The last line on stdout is one JSON object."""
    console = Console(stderr=True)
    held = _read(spec, console)
    problems = sample(held.problems, seed=seed, offset=offset, limit=limit)
    if not problems:
        raise typer.BadParameter(f"{spec} has {len(held.problems)} problems.", param_hint="--offset")
    request = search_request(
        {"problem": problems[0].text, "strategy": strategy, "seed": seed, "require": level},
        parameters={"rollouts": rollouts, "early_stop": early_stop},
        budget={"tokens": tokens, "seconds": seconds},
    )
    plan = _Plan(held, problems, request, reference, concurrency, offset)

    async def command(interrupts: Interrupts) -> int:
        async with _services(url, data, model, console) as services:
            path = output or Path("results") / result_name(held, plan, services.model or "served")
            return await _evaluate(plan, services, path, fresh, console, interrupts)

    run(command)


@contextlib.asynccontextmanager
async def _services(
    url: str | None, data: Path | None, model: str | None, console: Console
) -> AsyncIterator[_Services]:
    """Those of this session; for a search service at `url` a sandbox of our own grades."""
    async with contextlib.AsyncExitStack() as stack:
        endpoint = await stack.enter_async_context(
            connected(url=url, data=data, model=model, console=console)
        )
        sandbox_url = endpoint.sandbox
        if sandbox_url is None:
            sandbox_url = await stack.enter_async_context(local_sandbox())
        search = await stack.enter_async_context(SearchClient(endpoint.search))
        sandbox = await stack.enter_async_context(SandboxClient(sandbox_url))
        yield _Services(search, sandbox, endpoint.model)


async def _evaluate(
    plan: _Plan, services: _Services, path: Path, fresh: bool, console: Console, interrupts: Interrupts
) -> int:
    """Run what has no result in the file `path` yet, and print the summary of all; gives the exit code."""
    total, seed = len(plan.problems), plan.request.seed
    with _results(path, fresh=fresh) as (known, append):
        console.print(
            f"{total} of {len(plan.held.problems)} problems: the set shuffled with seed {seed}, from {plan.offset} on. "
            f"{sum(p.id in known for p in plan.problems)} have results in {path}.",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        done = await _run_all(plan, known, append, services, console, interrupts)
    if len(done) < total:
        complain(f"interrupted with {len(done)} of {total} done; the same command goes on from there.")
        return EXIT_INTERRUPTED
    summary = summarise(done)
    console.print(_table(summary))
    facts = {
        "strategy": plan.request.strategy.value,
        "model": _model(summary, services),
        "seed": seed,
        "data": plan.held.name,
        "data_sha256": plan.held.sha256,
        "offset": plan.offset,
        "with_reference": plan.with_reference,
        "results": str(path),
    }
    print(orjson.dumps(summary.model_dump(mode="json") | facts).decode(), flush=True)
    return EXIT_SYSTEM if summary.failed == summary.n else 0


def _read(spec: str, console: Console) -> ProblemSet:
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


def result_name(held: ProblemSet, plan: _Plan, model: str) -> str:
    """File name of the results of these settings. Offset and limit are not among them: more problems go on with it."""
    settings = {
        "data": held.sha256,
        "model": model,
        "version": __version__,
        "with_reference": plan.with_reference,
        "request": plan.request.model_dump(mode="json", exclude={"problem", "reference_answer", "wait"}),
    }
    digest = hashlib.sha256(orjson.dumps(settings, option=orjson.OPT_SORT_KEYS)).hexdigest()[:8]
    stem = held.name.removesuffix(".jsonl").removesuffix(".parquet")
    parts = (stem, plan.request.strategy.value, model, f"s{plan.request.seed}", digest)
    return "-".join(re.sub(r"[^\w.@]+", "_", part)[-60:] for part in parts) + ".jsonl"


Append = Callable[[GradedProblem], None]


@contextlib.contextmanager
def _results(path: Path, *, fresh: bool) -> Iterator[tuple[Mapping[str, GradedProblem], Append]]:
    """What a result file holds by problem, and a function that adds to it for good. One run at a time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab+")
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}.", param_hint="--output") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise typer.BadParameter(
                f"{path} is being written by another run.", param_hint="--output"
            ) from None
        if fresh:
            file.truncate(0)
        known = _read_results(file, path)

        def append(line: GradedProblem) -> None:
            file.write(line.model_dump_json().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

        yield known, append


def _read_results(file: IO[bytes], path: Path) -> dict[str, GradedProblem]:
    """By problem. Raises typer.BadParameter for a line that is no result."""
    file.seek(0)
    content = file.read()
    whole = content[: content.rfind(b"\n") + 1]
    # A run that was killed while it wrote leaves half a line.
    file.truncate(len(whole))
    known: dict[str, GradedProblem] = {}
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            entry = GradedProblem.model_validate_json(line)
        except ValidationError:
            raise typer.BadParameter(
                f"{path}, line {number}: not a result. Use --fresh to start over.", param_hint="--output"
            ) from None
        known[entry.id] = entry
    return known


async def _run_all(
    plan: _Plan,
    known: Mapping[str, GradedProblem],
    append: Append,
    services: _Services,
    console: Console,
    interrupts: Interrupts,
) -> list[GradedProblem]:
    """Outcomes of all problems, or of those that were done when the person stopped it."""
    done = {problem.id: known[problem.id] for problem in plan.problems if problem.id in known}
    waiting = iter([problem for problem in plan.problems if problem.id not in known])
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=len(plan.problems))

        def show() -> None:
            right = sum(o.correct for o in done.values())
            share = f"accuracy {right / len(done):.1%}" if done else "accuracy –"
            bar.update(task, completed=len(done), description=share)

        async def work() -> None:
            for problem in waiting:
                line = await _solve_and_grade(problem, plan, services)
                append(line)
                done[problem.id] = line
                show()
                if not console.is_terminal:
                    right = sum(o.correct for o in done.values())
                    console.print(
                        f"{len(done)}/{len(plan.problems)}  right {right}  {line.source}  answer {line.answer} "
                        f"reference {line.reference}  {line.state.value}",
                        markup=False,
                        highlight=False,
                        soft_wrap=True,
                    )

        show()
        with interrupts.caught() as interrupted:
            stopping = asyncio.create_task(interrupted.wait())
            workers = asyncio.gather(*(work() for _ in range(plan.concurrency)))
            either: set[asyncio.Future[Any]] = {stopping, workers}
            try:
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if workers.done():
                    await workers
            finally:
                stopping.cancel()
                workers.cancel()
                with contextlib.suppress(asyncio.CancelledError, ServiceError):
                    await workers
    return [done[problem.id] for problem in plan.problems if problem.id in done]


async def _solve_and_grade(problem: Problem, plan: _Plan, services: _Services) -> GradedProblem:
    request = plan.request.model_copy(
        update={"problem": problem.text, "reference_answer": problem.answer if plan.with_reference else None}
    )
    result = await _to_the_end(request, services.search)
    answer = result.answer
    if answer is None or result.state is SearchState.FAILED:
        return graded_problem(problem, result, correct=False, rule=None)
    if len(answer) > MAX_GRADED_CHARS:
        return graded_problem(problem, result, correct=False, rule=GradeRule.UNPARSED)
    grade = await services.sandbox.grade(GradeRequest(candidate=answer, reference=problem.answer))
    return graded_problem(problem, result, correct=grade.equal, rule=grade.rule)


async def _to_the_end(request: SearchRequest, client: SearchClient) -> SearchResult:
    """Create a search and wait for its end; whoever stops waiting cancels it."""
    result = await client.create(request, idempotency_key=f"eval-{uuid.uuid4().hex}")
    try:
        async with asyncio.timeout(request.budget.seconds + GRACE_SECONDS):
            while not is_end(SEARCH_TRANSITIONS, result.state):
                await asyncio.sleep(POLL_SECONDS)
                result = await client.get(result.id)
    except (asyncio.CancelledError, TimeoutError) as error:
        with contextlib.suppress(ServiceError, TimeoutError):
            async with asyncio.timeout(CANCEL_SECONDS):
                await client.cancel(result.id)
        if isinstance(error, asyncio.CancelledError):
            raise
        return result.model_copy(update={"state": SearchState.FAILED, "reason": "no end in time"})
    return result


def _model(summary: Summary, services: _Services) -> str:
    """Versions of the policy that gave the answers; normally one."""
    return (
        ", ".join(sorted({m["policy"] for m in summary.models if "policy" in m}))
        or services.model
        or "unknown"
    )


def _table(summary: Summary) -> Table:
    table = Table(title="Evaluation", title_justify="left", show_header=False)
    low, high = summary.ci95
    rows = {
        "accuracy": f"{summary.accuracy:.1%}  ({summary.right} of {summary.n}; 95 % interval {low:.1%} to {high:.1%})",
        "answered": str(summary.answered),
        "failed": str(summary.failed),
        **{
            f"level {level.value}": f"{count.n}, right {count.right}"
            for level, count in summary.solved_by_level.items()
        },
        "tokens per problem": f"{summary.tokens_per_problem:.0f}",
        "seconds per problem": f"{summary.seconds_per_problem:.1f}",
    }
    calibration = summary.calibration
    if calibration.mean_confidence is not None and calibration.brier is not None:
        rows["mean confidence"] = f"{calibration.mean_confidence:.2f}  (Brier score {calibration.brier:.3f})"
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("eval")(evaluate)
