"""`ratchet models`: get the weights before they are needed; see, export, promote and roll back versions."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table

from ratchet.cli.session import (
    EXIT_SYSTEM,
    EXIT_USAGE,
    Interrupts,
    complain,
    run,
    table_console,
    trainer_of,
)
from ratchet.contracts.trainer import ServingPair
from ratchet.settings import BEST_HERE, PolicySettings
from ratchet.stack.config import SERVICES

EXIT_FAILED = 1

app = typer.Typer(help="Model weights.", no_args_is_help=True)


@app.callback()
def models() -> None:
    """Model weights."""


@app.command()
def fetch(
    model: Annotated[
        str,
        typer.Argument(
            help="A name (small, medium, or auto: what this machine serves well), a hub id (org/name), or a local folder."
        ),
    ] = BEST_HERE,
    cache_dir: Annotated[
        Path | None, typer.Option(help="Where converted checkpoints are kept.", envvar="RATCHET_CACHE_DIR")
    ] = None,
) -> None:
    """Fetch and check a model; the last line is its version and its folder."""
    # Imported late, so that --help answers at once.
    from ratchet.models.checkpoint import ModelSourceError, Progress
    from ratchet.models.sources import resolve

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task(model, total=None)

        def show(step: Progress) -> None:
            bar.update(task, description=step.stage, completed=step.done, total=step.total)

        try:
            found = resolve(model, cache_dir or PolicySettings().cache_dir, show)
        except ModelSourceError as error:
            bar.stop()
            console.print(f"ratchet: {error}", style="red", markup=False, highlight=False)
            raise typer.Exit(1) from None
    print(f"{found.version}  {found.path}")


Url = Annotated[str | None, typer.Option(help="A trainer service; otherwise the local stack.")]
Data = Annotated[Path | None, typer.Option(help="Data folder of the local stack.", envvar="RATCHET_DATA")]


@app.command("list")
def list_models(url: Url = None, data: Data = None) -> None:
    """All versions that the registry knows, the newest first."""

    async def command(_: Interrupts) -> int:
        table = Table(box=None, pad_edge=False)
        for column in ("version", "kind", "state", "trained from", "made"):
            table.add_column(column)
        async with trainer_of(url, data, Console(stderr=True)) as trainer:
            for each in await trainer.models():
                made = each.created_at.isoformat(sep=" ", timespec="seconds")
                table.add_row(each.version, each.kind, each.state, each.parent or "", made)
        table_console().print(table)
        return 0

    run(command)


@app.command()
def show(
    version: Annotated[str, typer.Argument(help="A version.")], url: Url = None, data: Data = None
) -> None:
    """One version, what it was trained from, and on which data, down to the base."""

    async def command(_: Interrupts) -> int:
        async with trainer_of(url, data, Console(stderr=True)) as trainer:
            lineage = await trainer.lineage(version)
        for each in lineage.versions:
            print(f"{each.model.version}  ({each.model.kind}, {each.model.state})")
            print(f"    weights  {each.model.uri}\n    sha256   {each.model.sha256}")
            if each.dataset is not None:
                print(f"    data     {each.dataset.uri} ({each.dataset.rows} rows)")
                print(f"    sha256   {each.dataset.sha256}")
        return 0

    run(command)


@app.command()
def export(
    version: Annotated[str, typer.Argument(help="A version, as `ratchet models list` shows it.")],
    target: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that is not there yet.")],
    cache_dir: Annotated[
        Path | None, typer.Option(help="Where converted checkpoints are kept.", envvar="RATCHET_CACHE_DIR")
    ] = None,
    data: Data = None,
) -> None:
    """Write a version as an ordinary transformers folder, with a model card; the last line is its folder and its SHA-256."""

    async def command(_: Interrupts) -> int:
        # Imported late, so that --help answers at once.
        from ratchet.exports.gathering import ExportError
        from ratchet.exports.model_folder import export_model
        from ratchet.stack.database import stored
        from ratchet.store.errors import StoreUnavailableError
        from ratchet.store.registry import Registry

        try:
            async with stored(data) as found:
                lineage = await Registry(found.engine).lineage(version)
            if lineage is None:
                complain(
                    f"the registry has no version {version!r}; `ratchet models list` shows those that it has."
                )
                return EXIT_USAGE
            made = await asyncio.to_thread(
                export_model,
                lineage,
                target,
                rounds_dir=found.rounds_dir,
                cache_dir=cache_dir or PolicySettings().cache_dir,
            )
        except ExportError as error:
            complain(str(error))
            return EXIT_FAILED
        except StoreUnavailableError as error:
            complain(str(error))
            return EXIT_SYSTEM
        print(f"{made.folder}  {made.sha256}")
        return 0

    run(command)


@app.command()
def promote(
    version: Annotated[str, typer.Argument(help="A version.")], url: Url = None, data: Data = None
) -> None:
    """Serve a version from now on: a PRM beside the present policy, a policy with the PRM that it last served with."""

    async def command(_: Interrupts) -> int:
        async with trainer_of(url, data, Console(stderr=True), services=SERVICES) as trainer:
            print(_described(await trainer.serve(version)))
        return 0

    run(command)


@app.command()
def rollback(url: Url = None, data: Data = None) -> None:
    """Go back to the policy and the PRM that served before these; a second time goes further back."""

    async def command(_: Interrupts) -> int:
        async with trainer_of(url, data, Console(stderr=True), services=SERVICES) as trainer:
            serving = next(iter(await trainer.pairs(1)), None)
            if serving is None or serving.before is None:
                complain("no pair served before the one that serves now; `ratchet models pairs` lists them.")
                return EXIT_USAGE
            print(_described(await trainer.roll_back(serving.id)))
        return 0

    run(command)


@app.command()
def pairs(url: Url = None, data: Data = None) -> None:
    """Which policies and PRMs were made to serve together, the newest first: that pair serves."""

    async def command(_: Interrupts) -> int:
        table = Table(box=None, pad_edge=False)
        for column in ("pair", "policy", "prm", "why", "since", "rolls back to"):
            table.add_column(column)
        async with trainer_of(url, data, Console(stderr=True)) as trainer:
            for each in await trainer.pairs():
                since = each.created_at.isoformat(sep=" ", timespec="seconds")
                before = "" if each.before is None else str(each.before)
                table.add_row(str(each.id), each.policy, each.prm, each.why, since, before)
        table_console().print(table)
        return 0

    run(command)


def _described(pair: ServingPair) -> str:
    return f"serving {pair.policy} with {pair.prm}"
