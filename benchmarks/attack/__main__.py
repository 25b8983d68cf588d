"""`python -m benchmarks.attack`: are all attacks contained, and would the suite see it if one were not?

The last line is a JSON object; exit status 0 means that all attacks are contained, all controls tripped, and the service
is alive.
"""

import json
from pathlib import Path
from typing import Annotated

import typer

Url = Annotated[
    str | None, typer.Option(help="Attack the service that runs there; controls run here all the same.")
]
Only = Annotated[str | None, typer.Option(help="Attacks with this in their title; * stands for anything.")]
Details = Annotated[Path | None, typer.Option(help="Write what was seen of every attack into this file.")]
Controls = Annotated[bool, typer.Option("--controls/--no-controls", help="Run the positive controls.")]


def main(url: Url = None, only: Only = None, json_details: Details = None, controls: Controls = True) -> None:
    """Attack the sandbox service, and control each attack."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Table

    from benchmarks.attack.catalogue import attacks
    from benchmarks.attack.runner import run

    chosen = attacks(only)
    if not chosen:
        raise typer.BadParameter(f"No attack has {only!r} in its title.", param_hint="--only")
    console = Console(stderr=True)
    if not console.is_terminal:
        console.width = 200
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        total = len(chosen) + sum(attack.has_control for attack in chosen if controls)
        task = progress.add_task("attacks and controls", total=total)
        report = run(chosen, url, controls=controls, advance=lambda: progress.advance(task))

    table = Table("attack", "why", "seen", title="Not as it should be", show_lines=True)
    for result in report.results:
        if not result.contained:
            why = "went through" if result.seen else "the service failed"
            table.add_row(result.attack.title, why, result.seen.what if result.seen else result.failure)
    for result in report.controlled:
        if not result.tripped:
            layers = ", ".join(sorted(result.attack.without)) or result.attack.control_is
            seen = result.control.what if result.control else result.control_failure
            table.add_row(result.attack.title, f"its control did not trip, without {layers}", seen)
    if table.row_count:
        console.print(table, markup=False)
    if report.not_run:
        console.print(
            f"{len(report.not_run)} attacks have to be watched on the service's host, and were not run."
        )
    if json_details is not None:
        json_details.write_text(json.dumps([result.details() for result in report.results], indent=1))
    print(json.dumps(report.summary()))
    raise typer.Exit(0 if report.good else 1)


if __name__ == "__main__":
    typer.run(main)
