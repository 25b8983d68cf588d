"""Migrations against a real Postgres: they make what the code declares, once, and say what is wrong where they cannot."""

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet.store import tables
from ratchet.store.engine import StoreUnavailableError, make_engine, transaction
from ratchet.store.ids import new_id
from ratchet.store.migrate import migrate
from ratchet.store.searches import SearchStore
from ratchet.store.tables import metadata

NEWEST = max(
    file.stem for file in (Path(tables.__file__).parent / "migrations" / "versions").glob("0*.py")
).partition("_")[0]
"""Revision of the newest migration."""


async def test_migrations_make_the_tables_that_the_code_declares(engine: AsyncEngine) -> None:
    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))

    checks = text(
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'c' ORDER BY 1"
    )
    async with transaction(engine) as connection:
        assert await connection.run_sync(differences) == []
        # Alembic does not compare CHECK constraints.
        migrated = (await connection.execute(checks)).all()
    scratch = engine.url.set(database=f"checks_{new_id().hex}")
    async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        await connection.execute(text(f"CREATE DATABASE {scratch.database}"))
    declared_engine = make_engine(scratch.render_as_string(hide_password=False))
    async with transaction(declared_engine) as connection:
        await connection.run_sync(metadata.create_all)
        declared = (await connection.execute(checks)).all()
    await declared_engine.dispose()
    async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        await connection.execute(text(f"DROP DATABASE {scratch.database}"))
    assert migrated == declared
    assert len(migrated) >= 12


async def test_migrating_from_several_processes_at_once_works_and_again_changes_nothing(
    engine: AsyncEngine,
) -> None:
    url = engine.url.set(database=f"many_{new_id().hex}")
    async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        await connection.execute(text(f"CREATE DATABASE {url.database}"))
    engines = [make_engine(url.render_as_string(hide_password=False)) for _ in range(4)]
    await asyncio.gather(*(migrate(one) for one in engines))
    await migrate(engines[0])
    async with transaction(engines[0]) as connection:
        assert (
            await connection.execute(text("SELECT version_num FROM alembic_version"))
        ).scalars().all() == [NEWEST]
    for one in engines:
        await one.dispose()
    async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        await connection.execute(text(f"DROP DATABASE {url.database}"))


def test_migrate_program_succeeds_and_says_what_to_do_where_it_cannot(database_url: str) -> None:
    def run(url: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "ratchet.store.migrate"],
            env={"RATCHET_DATABASE_URL": url, "PATH": ""},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert run(database_url).returncode == 0
    wrong = run("mysql://nowhere")
    assert wrong.returncode == 1
    assert "RATCHET_DATABASE_URL" in wrong.stderr
    assert "Traceback" not in wrong.stderr


async def test_a_database_that_never_comes_is_an_error_and_not_a_hang(free_port: int) -> None:
    engine = make_engine(f"postgresql+asyncpg://ratchet@127.0.0.1:{free_port}/ratchet")
    began = time.monotonic()
    with pytest.raises(StoreUnavailableError):
        await migrate(engine, wait_seconds=0.5)
    with pytest.raises(StoreUnavailableError):
        await SearchStore(engine).result(new_id())
    assert time.monotonic() - began < 10
    await engine.dispose()
