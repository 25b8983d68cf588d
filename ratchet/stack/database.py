"""The database of a deployment, of a running stack, or of a data folder whose stack is not up, for commands that only read it.

The folder's own Postgres is then started alone, for as long as it is read: no model is loaded.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet.settings import StoreSettings, TrainerSettings, load
from ratchet.stack.config import default_data
from ratchet.stack.data_folder import held, problems_folder, running_stack
from ratchet.stack.errors import StackError
from ratchet.stack.postgres import running_postgres
from ratchet.store.engine import make_engine, transaction
from ratchet.store.migrate import alembic_config, migrate

DEPLOYED = "RATCHET_DATABASE_URL"
"""Where it is set, the database is that of a deployment; the other settings are those of its trainer."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A database, and the folders of the trainer that works with it."""

    engine: AsyncEngine
    rounds_dir: Path
    problems_dir: Path | None


@contextlib.asynccontextmanager
async def stored(data: Path | None) -> AsyncIterator[Stored]:
    """The database of the data folder, or of the deployment that the environment names.

    Raises StackError, StoreUnavailableError.
    """
    async with contextlib.AsyncExitStack() as stack:
        started = False
        if data is None and os.environ.get(DEPLOYED):
            settings = load(TrainerSettings)
            url, rounds, problems = (
                load(StoreSettings).database_url,
                settings.rounds_dir,
                settings.problems_dir,
            )
        else:
            folder = (data or default_data()).expanduser().absolute()
            rounds, problems = folder / "rounds", problems_folder(folder)
            running = running_stack(folder)
            started = running is None
            url = running.database if running is not None else await _started(folder, stack)
        engine = make_engine(url)
        stack.push_async_callback(engine.dispose)
        if started:
            # An older version's tables become this version's, as when its stack is started.
            await migrate(engine)
        else:
            await _require_this_version(engine)
        yield Stored(engine, rounds.expanduser().absolute(), problems)


async def _started(folder: Path, stack: contextlib.AsyncExitStack) -> str:
    """Start the folder's Postgres; its URL."""
    if not (folder / "postgres" / "cluster" / "PG_VERSION").is_file():
        raise StackError(
            f"There is no database in {folder}. Name the data folder of a stack with --data or RATCHET_DATA; a deployment's "
            f"database is found by {DEPLOYED}."
        )
    await stack.enter_async_context(held(folder))
    running = running_postgres(folder / "postgres")
    server = await asyncio.to_thread(running.__enter__)
    stack.push_async_callback(asyncio.to_thread, running.__exit__, None, None, None)
    return server.url()


async def _require_this_version(engine: AsyncEngine) -> None:
    """Raise StackError unless the tables are this version's. Services use them now, so they are not changed here."""
    async with transaction(engine) as connection:
        there = await connection.scalar(text("SELECT version_num FROM alembic_version"))
    ours = ScriptDirectory.from_config(alembic_config()).get_current_head()
    if there != ours:
        raise StackError(
            f"The database is that of another version of Ratchet (its tables are at {there}, this version's at {ours}): "
            "use the version that runs there, or upgrade it."
        )
