"""`ratchet export` and a data folder: what it says where there is nothing to read, and what it prints where there is."""

import json
import os
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet.stack.database import stored
from ratchet.stack.errors import StackError
from ratchet.stack.postgres import running_postgres
from ratchet.store.engine import make_engine, transaction
from ratchet.store.migrate import migrate
from tests.cli_process import ratchet
from tests.integration.exported_data import Split, a_round
from tests.integration.round_claims import a_run

PROBLEM = "A baker bakes 7 trays of 6 loaves. How many loaves are there?"


async def test_the_data_of_a_stack_that_is_not_up_leaves(tmp_path: Path) -> None:
    data, out, run = tmp_path / "data", tmp_path / "out", a_run()
    data.mkdir()
    with running_postgres(data / "postgres", durable=False) as server:
        engine = make_engine(server.url())
        await migrate(engine)
        await a_round(engine, data / "rounds", run, Split(train=[PROBLEM]))
        await engine.dispose()
    done = ratchet("export", str(out), "--data", str(data), "--kind", "kto", "--format", "parquet")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout.splitlines()[-1])
    assert [(file["path"], file["rows"]) for file in made["files"]] == [("kto/train.parquet", 2)]
    assert run in (out / "README.md").read_text()
    again = ratchet("export", str(out), "--data", str(data))
    assert (again.returncode, "is there already" in again.stderr) == (1, True)
    nothing = ratchet("export", str(tmp_path / "other"), "--data", str(data), "--from", "searches")
    assert (nothing.returncode, "nothing that may leave" in nothing.stderr) == (1, True)


def test_wrong_use_is_said_with_the_fix(tmp_path: Path) -> None:
    assert "RATCHET_DATABASE_URL" not in os.environ
    out = str(tmp_path / "out")
    for arguments, code, said in (
        (["--data", str(tmp_path)], 3, "There is no database in"),
        (["--from", "searches", "--run", "mine"], 2, "searches are of no run"),
        (["--exclude", str(tmp_path / "none.jsonl")], 2, "none.jsonl"),
        (["--kind", "poems"], 2, "poems"),
    ):
        done = ratchet("export", out, *arguments)
        assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert not Path(out).exists()


async def test_a_database_that_others_use_is_read_and_never_migrated(
    engine: AsyncEngine, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATCHET_DATABASE_URL", database_url)
    async with stored(None) as found, transaction(found.engine) as connection:
        known = await connection.scalar(text("SELECT version_num FROM alembic_version"))
    async with transaction(engine) as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    with pytest.raises(StackError, match="another version of Ratchet"):
        async with stored(None):
            pass
    async with transaction(engine) as connection:
        assert await connection.scalar(text("SELECT version_num FROM alembic_version")) == "0001" != known
