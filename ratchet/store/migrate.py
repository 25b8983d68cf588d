"""`python -m ratchet.store.migrate`: bring the database to this version's tables.

Safe to run again, and by several processes at once.

Limits: waits for the database, and for locks that others hold on its tables, for a minute, then gives up with exit code 1.
"""

import asyncio
import sys
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from ratchet.settings import StoreSettings, load
from ratchet.store.engine import make_engine, ping, transaction
from ratchet.store.errors import StoreUnavailableError

_LOCK = 0x7261746368657431  # "ratchet1": any number that nobody else locks.


def alembic_config() -> Config:
    """Alembic's configuration; the connection is handed over in `attributes["connection"]`."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config


LOCK_SECONDS = 5.0
"""How long a migration waits for a table. Whoever comes after it waits behind it: a long reader would stop all the others."""


def upgrade_connection(connection: Connection, lock_seconds: float = LOCK_SECONDS) -> None:
    """Run the missing migrations in the connection's transaction, one process at a time."""
    command.upgrade(_config_of(connection, lock_seconds), "head")


def downgrade_connection(connection: Connection, revision: str, lock_seconds: float = LOCK_SECONDS) -> None:
    """Take the tables back to an older revision; what that one does not know is lost. In the connection's transaction."""
    command.downgrade(_config_of(connection, lock_seconds), revision)


def _config_of(connection: Connection, lock_seconds: float) -> Config:
    """Alembic's configuration for the connection, which holds the lock for migrations from here on."""
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    # Another process that migrates may take long; only tables are not waited for.
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    connection.execute(text(f"SET LOCAL lock_timeout = {int(lock_seconds * 1000)}"))
    config = alembic_config()
    config.attributes["connection"] = connection
    return config


async def migrate(
    engine: AsyncEngine, wait_seconds: float = 60.0, lock_seconds: float = LOCK_SECONDS
) -> None:
    """Wait for the database, then upgrade it. Raises StoreUnavailableError when it does not come, or others hold its tables."""
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(StoreUnavailableError),
        stop=stop_after_delay(wait_seconds),
        wait=wait_random_exponential(multiplier=0.1, max=2.0),
        reraise=True,
    ):
        with attempt:
            await ping(engine)
            # All of it or nothing: one that could not get a table is tried again.
            async with transaction(engine) as connection:
                await connection.run_sync(upgrade_connection, lock_seconds)


async def _main() -> None:
    url = load(StoreSettings).database_url
    try:
        shown = make_url(url).render_as_string(hide_password=True)
        engine = make_engine(url)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with the URL, the fix is the same
        sys.exit(f"ratchet: RATCHET_DATABASE_URL is not a postgresql+asyncpg:// URL: {error}")
    try:
        await migrate(engine)
    except StoreUnavailableError as error:
        sys.exit(f"ratchet: {shown}: {error}. Start it, or correct RATCHET_DATABASE_URL.")
    except CommandError as error:
        sys.exit(f"ratchet: {shown}: {error}. The database belongs to another version of Ratchet.")
    finally:
        await engine.dispose()


if __name__ == "__main__":
    asyncio.run(_main())
