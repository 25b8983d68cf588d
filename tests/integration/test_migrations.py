"""Migrations against a real Postgres: they make what the code declares, once, and say what is wrong where they cannot."""

import asyncio
import gzip
import re
import subprocess
import sys
import time
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet.stack.postgres import Postgres, drop_database, ensure_database
from ratchet.store import tables
from ratchet.store.engine import make_engine, transaction
from ratchet.store.errors import StoreUnavailableError
from ratchet.store.ids import new_id
from ratchet.store.migrate import downgrade_connection, migrate
from ratchet.store.searches import SearchStore
from ratchet.store.tables import metadata

VERSIONS = Path(tables.__file__).parent / "migrations" / "versions"
OLD_DUMP = Path(__file__).parents[1] / "data" / "database-0.1.0.sql.gz"
NEWEST = max(file.stem for file in VERSIONS.glob("0*.py")).partition("_")[0]
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


async def schema_and_rows(engine: AsyncEngine) -> tuple[list[tuple[str, str]], dict[str, int]]:
    """Columns with their types and defaults, constraints, and rows of each table."""
    columns = text(
        "SELECT table_name || '.' || column_name, concat_ws(' ', data_type, is_nullable, column_default) "
        "FROM information_schema.columns WHERE table_schema = 'public'"
    )
    constraints = text(
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace"
    )
    indexes = text("SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'")
    async with transaction(engine) as connection:
        pairs = [
            (str(name), str(rest))
            for query in (columns, constraints, indexes)
            for name, rest in await connection.execute(query)
        ]
        found = sorted(pairs)
        names = [name for name in metadata.tables if any(each.startswith(f"{name}.") for each, _ in found)]
        rows = {
            name: (await connection.execute(text(f"SELECT count(*) FROM {name}"))).scalar_one()
            for name in names
        }
    return found, rows


async def test_migrations_go_down_and_up_again_on_a_database_with_data(postgres: Postgres) -> None:
    name = f"down_{new_id().hex}"
    ensure_database(postgres, name)
    url = postgres.url(name)
    connection = await asyncpg.connect(re.sub(r"^postgresql\+asyncpg", "postgresql", url))
    await connection.execute(gzip.decompress(OLD_DUMP.read_bytes()).decode())
    oldest = await connection.fetchval("SELECT version_num FROM public.alembic_version")
    await connection.close()
    engine = make_engine(url)
    await migrate(engine)
    # What only this version knows.
    strategies = "UPDATE searches SET strategy = (ARRAY['auto', 'beam'])[1 + (ascii(id::text) % 2)]"
    async with transaction(engine) as open_:
        await open_.execute(text(strategies))
        await open_.execute(text("UPDATE nodes SET state = 'abandoned' WHERE state = 'exhausted'"))
        await open_.execute(text("UPDATE verifications SET confidence = NULL"))
        await open_.execute(text("UPDATE rounds SET attempts = 3, furthest = 7"))
    newest, rows = await schema_and_rows(engine)
    assert rows["nodes"] > 0
    steps = sorted(
        (file.stem.partition("_")[0] for file in VERSIONS.glob("0*.py") if file.stem[:4] >= oldest),
        reverse=True,
    )
    for revision in steps[1:]:
        async with transaction(engine) as open_:
            await open_.run_sync(downgrade_connection, revision)
    old, old_rows = await schema_and_rows(engine)
    assert not any(column.startswith("quarantine.") for column, _ in old)
    assert old_rows["searches"] == rows["searches"]
    await migrate(engine)
    again, rows_again = await schema_and_rows(engine)
    assert again == newest
    # A list of the pairs that served and the ledger of keys are of no use to the old version, and begin anew.
    kept = {"searches", "nodes", "rounds", "problems", "solutions", "verifications", "models", "datasets"}
    assert {name: rows_again[name] for name in kept} == {name: rows[name] for name in kept}
    for each in (await SearchStore(engine).list_recent()).searches:
        assert await SearchStore(engine).result(UUID(each.id)) is not None
    await engine.dispose()
    drop_database(postgres, name)


async def test_a_migration_does_not_wait_long_for_a_table_and_goes_on_once_it_is_free(
    postgres: Postgres,
) -> None:
    name = f"locked_{new_id().hex}"
    ensure_database(postgres, name)
    engine, reader = make_engine(postgres.url(name)), make_engine(postgres.url(name))
    await migrate(engine)
    async with transaction(engine) as connection:
        await connection.run_sync(downgrade_connection, "0010")
    async with transaction(reader) as connection:
        await connection.execute(text("SELECT count(*) FROM rounds"))
        with pytest.raises(StoreUnavailableError, match="lock timeout"):
            await migrate(engine, wait_seconds=0.5, lock_seconds=0.1)
        # Who comes meanwhile is not stopped behind it.
        migrating = asyncio.create_task(migrate(engine, lock_seconds=0.1))
        async with asyncio.timeout(20):
            async with transaction(engine) as other:
                await other.execute(text("SELECT count(*) FROM rounds"))
        assert not migrating.done()
    await asyncio.wait_for(migrating, 60)
    async with transaction(engine) as connection:
        assert (
            await connection.execute(text("SELECT version_num FROM alembic_version"))
        ).scalar_one() == NEWEST
    await engine.dispose()
    await reader.dispose()
    drop_database(postgres, name)
