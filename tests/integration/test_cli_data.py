"""`ratchet data` as processes, on a real database."""

import json
from pathlib import Path

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet.contracts.search import SearchRequest
from ratchet.store import tables as t
from ratchet.store.engine import from_now, transaction
from ratchet.store.searches import SearchStore
from tests.cli_process import ratchet


async def rows(engine: AsyncEngine) -> int:
    async with transaction(engine) as connection:
        return await connection.scalar(select(func.count()).select_from(t.searches)) or 0


async def test_a_dry_run_says_what_the_command_then_deletes(engine: AsyncEngine, database_url: str) -> None:
    store = SearchStore(engine)
    old, _ = await store.create(SearchRequest(problem="old"), None)
    await store.create(SearchRequest(problem="waits"), None)
    await store.request_cancel(old)
    async with transaction(engine) as connection:
        await connection.execute(
            t.searches.update().where(t.searches.c.id == old).values(ended_at=from_now(-10 * 86_400))
        )
    command = ("data", "prune", "--searches-days", "9", "--database", database_url)
    told = ratchet(*command, "--dry-run", "--json")
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["searches"]["searches"] == 1
    assert await rows(engine) == 2
    shown = ratchet(*command, "--dry-run")
    assert "would go" in shown.stdout
    done = ratchet(*command, "--json")
    assert json.loads(done.stdout) == json.loads(told.stdout) | {"dry_run": False}
    assert await rows(engine) == 1
    assert ratchet("data", "prune", "--database", database_url).returncode == 0
    assert await rows(engine) == 1


async def test_usage_names_every_table_with_its_size(engine: AsyncEngine, database_url: str) -> None:
    told = ratchet("data", "usage", "--database", database_url, "--json")
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)
    assert {each["table"] for each in found["tables"]} == set(t.metadata.tables)
    assert all(each["bytes"] > 0 for each in found["tables"])
    assert "nodes" in ratchet("data", "usage", "--database", database_url).stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("prune", "--database", "mysql://x"), 2, "postgresql+asyncpg://"),
        (("prune", "--database", "nonsense"), 2, "postgresql+asyncpg://"),
        (("prune", "--searches-days", "-1"), 2, "searches-days"),
        (("usage", "--database", "postgresql+asyncpg://r@127.0.0.1:9/r"), 3, "not reachable"),
        (("usage", "--data", "{empty}"), 3, "no database in"),
        (("backup", "{empty}/b", "--data", "{empty}"), 3, "no database in"),
        (("restore", "{empty}", "--data", "{empty}/d"), 3, "no backup"),
    ],
)
def test_what_cannot_be_done_is_said(
    tmp_path: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    done = ratchet("data", *(each.format(empty=tmp_path) for each in arguments))
    assert done.returncode == code, done.stderr
    assert said in " ".join(done.stderr.split())
    assert list(tmp_path.iterdir()) == []
