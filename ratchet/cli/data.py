"""`ratchet data`: how much there is, what may go, and a copy of all of it.

Works on the database itself, not through an API: `--database`, else $RATCHET_DATABASE_URL as the services read it,
else that of the local stack, or of its data folder.
"""

import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.table import Table
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from ratchet.cli.session import EXIT_SYSTEM, Interrupts, complain, run, table_console
from ratchet.settings import StoreSettings, load
from ratchet.stack.config import StackConfig, default_data
from ratchet.stack.data_folder import running_stack
from ratchet.stack.errors import StackError
from ratchet.stack.local import local_stack
from ratchet.store.engine import make_engine
from ratchet.store.errors import StoreUnavailableError
from ratchet.store.retention import Amount, Retention, Waste, WasteStore
from ratchet.store.usage import table_sizes

app = typer.Typer(help="What is stored: sizes, deletion, backup.", no_args_is_help=True)

Data = Annotated[Path | None, typer.Option(help="Data folder of the local stack.", envvar="RATCHET_DATA")]
Database = Annotated[
    str | None, typer.Option(help="A postgresql+asyncpg:// URL, in place of the local stack's database.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
PARTS = ("rounds", "problems", "valkey", "postgres", "logs")


@app.callback()
def data() -> None:
    """What is stored: sizes, deletion, backup."""


@app.command()
def usage(data: Data = None, database: Database = None, json: Json = False) -> None:
    """Rows and bytes by table, and bytes by folder of the local stack."""
    from ratchet.stack.backup import folder_bytes

    async def command(_: Interrupts) -> int:
        async with _database(data, database) as url:
            engine = make_engine(url)
            try:
                tables = await table_sizes(engine)
            finally:
                await engine.dispose()
        folder = (data or default_data()).expanduser()
        folders = {} if database else {part: folder_bytes(folder / part) for part in PARTS}
        if json:
            print(orjson.dumps({"tables": tables, "folders": folders}).decode())
            return 0
        table = Table(box=None, pad_edge=False)
        for column in ("table or folder", "rows, about", "size"):
            table.add_column(column, justify="left" if column.startswith("table") else "right")
        for size in tables:
            table.add_row(size.table, str(size.rows), _size(size.bytes))
        for part, taken in folders.items():
            table.add_row(f"{part}/", "", _size(taken))
        table_console().print(table)
        return 0

    _run(command)


@app.command()
def prune(
    searches_days: Annotated[
        float | None,
        typer.Option(min=0, help="Delete searches that ended so many days ago, with their trees and proofs."),
    ] = None,
    trees_days: Annotated[
        float | None,
        typer.Option(
            min=0, help="Delete trees of searches that ended so many days ago; answers and proofs stay."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would go, and change nothing.")
    ] = False,
    data: Data = None,
    database: Database = None,
    json: Json = False,
) -> None:
    """Delete what nothing needs: searches that retried rounds have replaced, problems that nothing names, and what is older
    than is wanted. Never what a round, its data set, the quarantine or a pair was made of."""
    retention = Retention(searches_days, trees_days)

    async def command(_: Interrupts) -> int:
        async with _database(data, database) as url:
            engine = make_engine(url)
            try:
                store = WasteStore(engine)
                found = await (store.survey(retention) if dry_run else store.prune(retention))
            finally:
                await engine.dispose()
        if json:
            print(orjson.dumps({"dry_run": dry_run, **_amounts(found)}).decode())
            return 0
        table = Table(box=None, pad_edge=False)
        for column in (
            "would go" if dry_run else "gone",
            "searches",
            "nodes",
            "tasks",
            "solutions",
            "problems",
            "size",
        ):
            table.add_column(column, justify="left" if column in ("would go", "gone") else "right")
        for waste, amount in found.items():
            counts = [amount.searches, amount.nodes, amount.tasks, amount.solutions, amount.problems]
            table.add_row(waste.value, *map(str, counts), _size(amount.bytes))
        table_console().print(table)
        return 0

    _run(command)


@app.command()
def backup(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that is not there yet.")],
    data: Data = None,
) -> None:
    """Copy the local stack's database and the files of its rounds, as of one moment; it may go on running meanwhile."""
    from ratchet.stack.backup import back_up

    async def command(_: Interrupts) -> int:
        source = (data or default_data()).expanduser().resolve()
        async with _database(data, None) as url:
            made = await back_up(source, url, folder)
        print(f"{folder}: database {_size(made.database_bytes)}, {made.files} files {_size(made.file_bytes)}")
        return 0

    _run(command)


@app.command()
def restore(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What `ratchet data backup` has made.")],
    data: Data = None,
) -> None:
    """Put a backup into a data folder that has no database yet, or an empty one. The stack must not run."""
    from ratchet.stack.backup import restore_into

    async def command(_: Interrupts) -> int:
        target = (data or default_data()).expanduser().resolve()
        if running_stack(data) is not None:
            raise StackError(
                f"The stack in {target} is running. Stop it first, or choose another folder with --data."
            )
        made = await restore_into(target, folder)
        print(f"{target}: database {_size(made.database_bytes)}, {made.files} files {_size(made.file_bytes)}")
        return 0

    _run(command)


@contextlib.asynccontextmanager
async def _database(data: Path | None, url: str | None) -> AsyncIterator[str]:
    """URL of the database: the given one, the running stack's, or that of the data folder, whose databases run meanwhile."""
    if url is None and os.environ.get("RATCHET_DATABASE_URL"):
        url = load(StoreSettings).database_url
    if url is not None:
        if not _is_ours(url):
            raise typer.BadParameter(
                "expected postgresql+asyncpg://USER@HOST/DATABASE.", param_hint="--database"
            )
        yield url
    elif (running := running_stack(data)) is not None:
        yield running.database
    else:
        folder = (data or default_data()).expanduser()
        if not (folder / "postgres" / "cluster").exists():
            raise StackError(f"There is no database in {folder}. Choose another folder with --data.")
        async with local_stack(StackConfig(data=folder, services=())) as urls:
            yield urls.database


def _is_ours(url: str) -> bool:
    try:
        return make_url(url).drivername == "postgresql+asyncpg"
    except ArgumentError:
        return False


def _run(command: Callable[[Interrupts], Awaitable[int]]) -> None:
    async def told(interrupts: Interrupts) -> int:
        try:
            return await command(interrupts)
        except StoreUnavailableError as error:
            complain(f"{error}. Is the database running, and of this version?")
            return EXIT_SYSTEM

    run(told)


def _amounts(found: dict[Waste, Amount]) -> dict[str, dict[str, int]]:
    return {waste.value: asdict(amount) for waste, amount in found.items()}


def _size(taken: int) -> str:
    for unit in ("B", "KiB", "MiB"):
        if taken < 1024:
            return f"{taken:.0f} {unit}"
        taken = round(taken / 1024)
    return f"{taken:.1f} GiB"
