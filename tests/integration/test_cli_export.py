"""`ratchet export` and a data folder: what it says where there is nothing to read, and what it prints where there is."""

import json
import os
from pathlib import Path

from ratchet.stack.postgres import running_postgres
from ratchet.store.engine import make_engine
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
