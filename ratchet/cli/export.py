"""`ratchet export`: data sets for others, from what rounds and searches have found, with a data card.

Nothing leaves that a run has set aside, unless a person overruled it, and no problem that models are measured on.
"""

from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table

from ratchet.cli.display import clean
from ratchet.cli.session import EXIT_SYSTEM, Interrupts, complain, run
from ratchet.contracts.search import VerificationLevel
from ratchet.exports.kinds import Format, From, Kind, Style
from ratchet.problems import ProblemFileError, load

EXIT_NOTHING = 1


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(export)


def export(
    target: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that is not there yet.")],
    source: Annotated[From, typer.Option("--from", help="What the data comes from.")] = From.ROUNDS,
    run_name: Annotated[
        str | None, typer.Option("--run", help="Run of rounds; needed where there are several.")
    ] = None,
    number: Annotated[
        int | None, typer.Option("--round", min=1, help="Up to this round; default the last that has data.")
    ] = None,
    kinds: Annotated[
        list[Kind] | None, typer.Option("--kind", help="Kind of data set; default all. Repeatable.")
    ] = None,
    format_: Annotated[Format, typer.Option("--format", help="Of the files.")] = Format.JSONL,
    style: Annotated[
        Style, typer.Option(help="How steps are written in prompts and completions.")
    ] = Style.PROGRAM,
    level: Annotated[
        VerificationLevel, typer.Option(help="Of searches: the weakest verification that leaves.")
    ] = VerificationLevel.AGREEMENT,
    min_confidence: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Of searches: the least probability of an answer that leaves."),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPEC", help="Problems that must not leave: a file, hub:gsm8k?split=test. Repeatable."
        ),
    ] = None,
    proofs: Annotated[
        bool, typer.Option("--proofs", help="Write the proof bundles of verified answers, too.")
    ] = False,
    data: Annotated[
        Path | None, typer.Option(help="Data folder of the local stack.", envvar="RATCHET_DATA")
    ] = None,
) -> None:
    """Data sets for training and evaluation elsewhere, with a data card. The last line on stdout is one JSON object.

    Exit code 0: written, 1: nothing may leave or it cannot be written, 2: wrong use, 3: the system failed.
    """
    if source is From.SEARCHES and (run_name is not None or number is not None):
        raise typer.BadParameter("searches are of no run.", param_hint="--run, --round")
    excluded = _texts(exclude or [])

    async def command(_: Interrupts) -> int:
        # Imported late, so that --help answers at once.
        from ratchet.exports.export import Order, write_export
        from ratchet.exports.gathering import Asked, ExportError
        from ratchet.stack.database import stored
        from ratchet.store.errors import StoreUnavailableError

        asked = Asked(frozenset(kinds or Kind), style, excluded)
        order = Order(asked, source, format_, run_name, number, level, min_confidence, proofs)
        try:
            async with stored(data) as found:
                made = await write_export(found, order, target)
        except ExportError as error:
            complain(str(error))
            return EXIT_NOTHING
        except StoreUnavailableError as error:
            complain(str(error))
            return EXIT_SYSTEM
        _show(made)
        return 0

    run(command)


def _texts(specs: list[str]) -> list[str]:
    """The problems of the sets. Raises typer.BadParameter."""
    try:
        return [problem.text for spec in specs for problem in load(spec).problems]
    except ProblemFileError as error:
        raise typer.BadParameter(clean(str(error)), param_hint="--exclude") from None


def _show(made: dict[str, Any]) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("file", "rows"):
        table.add_column(column)
    for each in made["files"]:
        table.add_row(each["path"], str(each["rows"]))
    Console(stderr=True).print(table)
    print(orjson.dumps(made).decode(), flush=True)
