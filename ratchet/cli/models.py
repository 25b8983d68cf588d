"""`ratchet models`: get the weights before they are needed; see, promote and roll back versions."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table

from ratchet.cli.session import EXIT_USAGE, Interrupts, complain, run, trainer_of
from ratchet.contracts.trainer import ModelKind, ModelView
from ratchet.settings import PolicySettings
from ratchet.states import ModelState

app = typer.Typer(help="Model weights.", no_args_is_help=True)


@app.callback()
def models() -> None:
    """Model weights."""


@app.command()
def fetch(
    model: Annotated[
        str, typer.Argument(help="A name (small, medium), a hub id (org/name), or a local folder.")
    ] = "small",
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
        async with trainer_of(url, data, None, Console(stderr=True)) as trainer:
            for each in await trainer.models():
                made = each.created_at.isoformat(sep=" ", timespec="seconds")
                table.add_row(each.version, each.kind, each.state, each.parent or "", made)
        Console().print(table)
        return 0

    run(command)


@app.command()
def show(
    version: Annotated[str, typer.Argument(help="A version.")], url: Url = None, data: Data = None
) -> None:
    """One version, what it was trained from, and on which data, down to the base."""

    async def command(_: Interrupts) -> int:
        async with trainer_of(url, data, None, Console(stderr=True)) as trainer:
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
def promote(
    version: Annotated[str, typer.Argument(help="A version.")], url: Url = None, data: Data = None
) -> None:
    """Serve a version from now on; the one that serves is retired."""

    async def command(_: Interrupts) -> int:
        async with trainer_of(url, data, None, Console(stderr=True)) as trainer:
            print(f"serving {(await trainer.serve(version)).version}")
        return 0

    run(command)


@app.command()
def rollback(
    kind: Annotated[ModelKind | None, typer.Option(help="Only this one; default: policy and PRM.")] = None,
    url: Url = None,
    data: Data = None,
) -> None:
    """Serve the versions again that served before the ones that serve now."""

    async def command(_: Interrupts) -> int:
        async with trainer_of(url, data, None, Console(stderr=True)) as trainer:
            known = await trainer.models()
            before = {each: _version_before(known, each) for each in ([kind] if kind else list(ModelKind))}
            if not any(before.values()):
                complain("no version served before the ones that serve now.")
                return EXIT_USAGE
            for found in before.values():
                if found is not None:
                    print(f"serving {(await trainer.serve(found.version)).version}")
        return 0

    run(command)


def _version_before(known: list[ModelView], kind: ModelKind) -> ModelView | None:
    """The newest retired version that is older than the serving one."""
    serving = next((each for each in known if each.kind is kind and each.state is ModelState.SERVING), None)
    if serving is None:
        return None
    older = [
        each
        for each in known
        if each.kind is kind and each.state is ModelState.RETIRED and each.created_at < serving.created_at
    ]
    return max(older, key=lambda each: each.created_at, default=None)
