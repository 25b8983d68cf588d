"""`ratchet models`: get the weights before they are needed."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from ratchet.settings import PolicySettings

app = typer.Typer(help="Model weights.", no_args_is_help=True)


@app.callback()
def models() -> None:
    """Model weights."""


@app.command()
def fetch(
    model: Annotated[
        str, typer.Argument(help="A name (small), a hub id (org/name), or a local folder.")
    ] = "small",
    cache_dir: Annotated[
        Path | None, typer.Option(help="Where converted checkpoints are kept.", envvar="RATCHET_CACHE_DIR")
    ] = None,
) -> None:
    """Fetch and check a model; the last line is its version and its folder."""
    # Imported late, so that --help answers at once.
    from ratchet.models.sources import ModelSourceError, Progress, resolve

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
