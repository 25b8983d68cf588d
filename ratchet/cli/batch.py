"""`ratchet batch`: many problems, JSON lines in and JSON lines out, through the Python client."""

import contextlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console

from ratchet.cli.display import problems_bar
from ratchet.cli.session import EXIT_SYSTEM, Interrupts, complain, connected, run
from ratchet.cli.solve import search_request
from ratchet.client import AsyncClient, BatchProgress, BatchReport
from ratchet.client.batch import read_lines
from ratchet.contracts.search import StrategyName

MAX_LINES = 20
"""Of progress, where no terminal shows a bar."""


def batch(
    problems: Annotated[
        Path, typer.Argument(help="JSON lines with `problem`, perhaps `id`, and any field of POST /search.")
    ],
    out: Annotated[Path, typer.Option(help="The results, one line for each problem as it ends.")],
    pool: Annotated[
        bool,
        typer.Option(
            "--pool",
            help="The problems share their tokens: what one leaves goes to those that are not solved.",
        ),
    ] = False,
    concurrency: Annotated[int, typer.Option(min=1, max=1024, help="Problems at once.")] = 8,
    strategy: Annotated[StrategyName, typer.Option(help="How the trees are grown.")] = StrategyName.MCTS,
    rollouts: Annotated[
        int | None, typer.Option(help="Most solutions of a problem; with --pool none.")
    ] = None,
    tokens: Annotated[int | None, typer.Option(help="Budget of a problem: generated tokens.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Budget of a problem: seconds.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed asks for the same searches.")] = 0,
    min_confidence: Annotated[
        float | None, typer.Option(help="Least probability that counts as solved, in [0, 1].")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Search workers of a stack that is started here.")] = 1,
    model: Annotated[
        str | None,
        typer.Option(help="Model for a stack that is started here: a name, a folder, or a hub id."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print only the report, as JSON.")] = False,
    url: Annotated[str | None, typer.Option(help="A search service; otherwise the local stack.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Data folder of the local stack.", envvar="RATCHET_DATA")
    ] = None,
) -> None:
    """Solve many problems. What is in the output already is not asked again: broken off, the same command goes on.

    Exit code 0: every problem has a result, 1: some were refused or failed, 2: wrong use, 3: the system failed.
    """
    options = search_request(
        {"problem": "any", "strategy": strategy, "seed": seed, "min_confidence": min_confidence},
        parameters={"rollouts": rollouts},
        budget={"tokens": tokens, "seconds": seconds},
    ).model_dump(exclude_unset=True, exclude={"problem"})
    console = Console(stderr=json)

    async def command(_: Interrupts) -> int:
        try:
            # Before anything is started: a bad line is named at once.
            total = len(read_lines(problems, options))
        except (ValueError, OSError) as error:
            raise typer.BadParameter(str(error), param_hint="PROBLEMS") from error
        async with (
            connected(url=url, data=data, model=model, console=console, workers=workers) as endpoint,
            AsyncClient(endpoint.search, key=endpoint.key) as client,
        ):
            with _shown(total, console) as show:
                try:
                    report = await client.batch(
                        problems, out, concurrency=concurrency, pool=pool, on_progress=show, **options
                    )
                except ValueError as error:
                    raise typer.BadParameter(str(error), param_hint="--out") from error
                except OSError as error:
                    complain(f"{out} cannot be written: {error.strerror}")
                    return EXIT_SYSTEM
        _tell(report, json, console)
        return 1 if report.failed else 0

    run(command)


def _tell(report: BatchReport, as_json: bool, console: Console) -> None:
    if as_json:
        facts = {name: getattr(report, name) for name in ("total", "solved", "failed", "tokens", "asked")}
        print(orjson.dumps(facts | {"out": str(report.out)}).decode(), flush=True)
        return
    console.print(
        f"{report.solved} of {report.total} solved and verified, {report.failed} failed, {report.tokens} tokens: {report.out}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


@contextlib.contextmanager
def _shown(total: int, console: Console) -> Iterator[Callable[[BatchProgress], None]]:
    """A bar on a terminal, otherwise some lines; gives the function that shows where the batch stands."""
    every = max(1, math.ceil(total / MAX_LINES))
    with problems_bar(console) as bar:
        task = bar.add_task("solved –", total=total)

        def show(progress: BatchProgress) -> None:
            solved = f"solved {progress.solved}, {progress.tokens} tokens"
            bar.update(task, completed=progress.done, description=solved)
            if not console.is_terminal and (progress.done % every == 0 or progress.done == progress.total):
                console.print(f"{progress.done}/{progress.total}  {solved}", markup=False, highlight=False)

        yield show


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(batch)
