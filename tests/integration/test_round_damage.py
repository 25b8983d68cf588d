"""Disks that fill up and checkpoints that are damaged between the stages of a round.

The real trainer, its real training and a real database, with the trees of a round of nano that version 0.1.0 searched
(`data/database-0.1.0.sql.gz`). Selecting asks the real sandbox; no other service is needed, so none runs.
"""

import asyncio
import contextlib
import gzip
import json
import os
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from ratchet.contracts.rounds import RoundConfig, RoundView
from ratchet.settings import TrainerSettings
from ratchet.states import RoundState
from ratchet.store.engine import make_engine
from ratchet.store.ids import new_id
from ratchet.store.migrate import migrate
from services.trainer.app import build_app
from tests.sandbox_server import TOKEN, Sandbox, sandbox
from tests.small_rounds import small

__all__ = ["sandbox"]
TESTS = Path(__file__).parents[1]
DUMP = TESTS / "data" / "database-0.1.0.sql.gz"
NANO = TESTS.parent / "models" / "nano" / "policy"
SEARCHED = "SELECT id FROM rounds WHERE run = 'old'"
CONFIG = small(
    train={"spec": "nano:train?count=30", "count": 30},
    # In the format that serves, training would ask the policy service for it.
    policy={"epochs": 1, "step_format": "markers"},
    prm={"epochs": 1},
    evaluation={"system": False},
)


@dataclass(frozen=True)
class Trainer:
    """The trainer's API, and where it keeps the files of a run."""

    http: httpx.AsyncClient
    connection: Any
    folder: Path

    async def begin(self, run: str, state: RoundState = RoundState.SELECTING) -> str:
        """Id of a round whose problems were searched: it has the problems and searches of the old one."""
        id_ = new_id()
        config = RoundConfig.model_validate(CONFIG).model_dump_json()
        await self.connection.execute(
            f"INSERT INTO rounds (id, run, number, state, config, metrics) SELECT $1, $2, 1, $3, $4, "
            f"jsonb_build_object('problems', metrics -> 'problems', 'label', metrics -> 'label', 'models', "
            f"metrics -> 'models' || $5) FROM rounds WHERE id = ({SEARCHED})",
            id_, run, state, config, json.dumps({"base_uri": str(NANO), "policy_uri": str(NANO)}),
        )  # fmt: skip
        for table, columns in (
            ("round_problems", "split, place, problem_id, answer, family, difficulty, source"),
            ("round_searches", "purpose, place, attempt, search_id"),
        ):
            await self.connection.execute(
                f"INSERT INTO {table} (round_id, {columns}) SELECT $1, {columns} FROM {table} WHERE round_id = ({SEARCHED})",
                id_,
            )
        return str(id_)

    async def until(self, round_id: str, *states: RoundState) -> RoundView:
        """The round once it is in one of these states."""
        async with asyncio.timeout(90):
            while True:
                view = RoundView.model_validate((await self.http.get(f"/rounds/{round_id}")).json())
                if view.state in states:
                    return view
                await asyncio.sleep(0.02)

    async def ask(self, round_id: str, what: str) -> None:
        """Pause, resume, cancel or retry it."""
        response = await self.http.post(f"/rounds/{round_id}/{what}")
        assert response.status_code == 200, response.text


@pytest.fixture(scope="module")
async def trainer(
    database_url: str, redis_url: str, sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Trainer]:
    """The trainer in this process, on the old database."""
    connection = await asyncpg.connect(re.sub(r"^postgresql\+asyncpg", "postgresql", database_url))
    await connection.execute(gzip.decompress(DUMP.read_bytes()).decode())
    await connection.execute("SET search_path TO public")
    engine = make_engine(database_url)
    await migrate(engine)
    await engine.dispose()
    folder = tmp_path_factory.mktemp("trainer")
    (folder / "token").write_text(TOKEN)
    settings = TrainerSettings(
        service_token_file=folder / "token",
        database_url=database_url,
        redis_url=redis_url,
        sandbox_url=str(sandbox.http.base_url),
        rounds_dir=folder / "rounds",
        cache_dir=folder / "cache",
        poll_seconds=0.1,
        lease_seconds=3,
    )
    app = build_app(settings)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://trainer") as http,
    ):
        yield Trainer(http, connection, folder / "rounds")
    await connection.close()


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A disk of its own for the folder, for as long as the context lasts."""
    folder.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("nothing may be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="a disk of its own has to be mounted")
@pytest.mark.parametrize(
    ("size", "stage", "reason"),
    [
        ("8k", RoundState.SELECTING, "No space left"),
        ("1m", RoundState.TRAINING_POLICY, "The disk is full"),
    ],
)
async def test_a_disk_that_fills_up_fails_the_round_and_a_retry_goes_on_when_there_is_room(
    trainer: Trainer, size: str, stage: RoundState, reason: str
) -> None:
    run = f"full-{size}"
    with small_disk(trainer.folder / run, size):
        id_ = await trainer.begin(run)
        failed = await trainer.until(id_, RoundState.FAILED)
    assert failed.failed_in is stage
    assert failed.reason is not None
    assert reason in failed.reason
    assert "Traceback" not in failed.reason
    # The disk is gone with what was on it: as after a change to a larger one, all of it is made anew.
    await trainer.connection.execute("UPDATE rounds SET failed_in = 'selecting' WHERE id = $1", failed.id)
    await trainer.ask(id_, "retry")
    again = await trainer.until(id_, RoundState.TRAINING_PRM, RoundState.FAILED)
    assert again.state is RoundState.TRAINING_PRM, again.reason
    await trainer.ask(id_, "cancel")
    await trainer.until(id_, RoundState.FAILED)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [("cut", "model.safetensors is damaged"), ("changed", "was changed after its training")],
)
async def test_a_checkpoint_that_is_damaged_after_its_training_is_no_base_for_a_prm(
    trainer: Trainer, damage: str, reason: str
) -> None:
    run = f"damaged-{damage}"
    id_ = await trainer.begin(run)
    trained = await trainer.until(id_, RoundState.TRAINING_PRM, RoundState.FAILED)
    assert trained.state is RoundState.TRAINING_PRM, trained.reason
    await trainer.ask(id_, "pause")
    async with asyncio.timeout(30):
        while await trainer.connection.fetchval("SELECT owner IS NOT NULL FROM rounds WHERE id = $1", id_):
            await asyncio.sleep(0.02)
    weights = trainer.folder / run / "round-1" / "policy" / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1000] ^= 1
    weights.write_bytes(content if damage == "changed" else content[: len(content) // 2])
    await trainer.ask(id_, "resume")
    ended = await trainer.until(id_, RoundState.FAILED, RoundState.EVALUATING)
    assert ended.state is RoundState.FAILED, "a damaged policy goes no further"
    assert ended.failed_in is RoundState.TRAINING_PRM
    assert ended.reason is not None
    assert reason in ended.reason
    assert "Traceback" not in ended.reason
