"""A database that version 0.1.0 has filled is brought up to date, and everything in it can still be read.

`data/database-0.1.0.sql.gz` is what pg_dump wrote of it: six searches with four strategies, a round that was promoted
and one that failed in training. Only the folders in it were given other names.
"""

import gzip
import re
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import asyncpg
import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet.contracts.search import VerificationLevel
from ratchet.contracts.trainer import ModelKind, ServedBy
from ratchet.settings import SearchSettings, TrainerSettings
from ratchet.states import ModelState, RoundState, SearchState
from ratchet.store.engine import make_engine, transaction
from ratchet.store.followed import FollowedSearches
from ratchet.store.migrate import migrate
from ratchet.store.pairs import PairStore
from ratchet.store.registry import Registry
from ratchet.store.rounds import RoundStore
from ratchet.store.searches import SearchStore
from services.search.app import build_app as search_app
from services.trainer.app import build_app as trainer_app

DUMP = Path(__file__).parents[1] / "data" / "database-0.1.0.sql.gz"


@pytest.fixture(scope="module")
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """The old database, migrated."""
    connection = await asyncpg.connect(re.sub(r"^postgresql\+asyncpg", "postgresql", database_url))
    await connection.execute(gzip.decompress(DUMP.read_bytes()).decode())
    await connection.close()
    engine = make_engine(database_url)
    await migrate(engine)
    yield engine
    await engine.dispose()


async def test_old_searches_keep_their_answers_votes_costs_and_trees(engine: AsyncEngine) -> None:
    store = SearchStore(engine)
    asked = [each for each in (await store.list_recent(500)).searches if "7 cups" in each.problem]
    assert sorted(each.strategy for each in asked) == [
        "best_of_n",
        "greedy",
        "majority",
        "mcts",
        "mcts",
        "mcts",
    ]
    for each in asked:
        found = await store.result(UUID(each.id))
        assert found is not None
        assert found.answer == "63"
        assert found.state in (SearchState.SOLVED_VERIFIED, SearchState.ANSWERED_UNVERIFIED)
        assert found.verification is not None
        assert found.verification.level is not VerificationLevel.NONE
        # It came from a formula that was fitted to another model.
        assert found.verification.confidence in (None, 1.0)
        assert 1 <= found.verification.votes <= found.verification.total_votes
        assert found.usage.rollouts >= found.verification.total_votes
        tree = await FollowedSearches(engine).tree(UUID(each.id))
        assert tree is not None
        assert tree.nodes[0].visits == found.usage.rollouts


async def test_no_old_name_is_left_in_what_was_stored(engine: AsyncEngine) -> None:
    async with transaction(engine) as connection:
        for column, names in (
            ("searches.parameters", ("candidates", "together")),
            ("searches.usage", ("simulations",)),
            ("rounds.config -> 'label'", ("candidates", "together")),
            ("rounds.config -> 'evaluation'", ("candidates", "together")),
            ("rounds.metrics -> 'label'", ("simulations",)),
        ):
            table = column.partition(".")[0]
            for name in names:
                left = await connection.scalar(
                    text(f"SELECT count(*) FROM {table} WHERE jsonb_exists({column}, '{name}')")
                )
                assert left == 0, f"{name} in {column}"
        kept = await connection.scalar(
            text("SELECT count(*) FROM searches WHERE parameters -> 'batch_rollouts' = 'true'")
        )
        assert kept, "the value came along under its new name"


async def test_old_rounds_and_their_models_can_be_read(engine: AsyncEngine) -> None:
    rounds = {each.run: each for each in await RoundStore(engine).rounds()}
    assert {run: each.state for run, each in rounds.items()} == {
        "old": RoundState.PROMOTED,
        "hopeless": RoundState.FAILED,
    }
    assert rounds["hopeless"].failed_in is RoundState.TRAINING_POLICY
    assert rounds["hopeless"].metrics.policy is None
    assert rounds["hopeless"].config.policy.lr == 1e30
    metrics = rounds["old"].metrics
    assert all(part is not None for _, part in metrics), "each stage has handed on its part"
    assert metrics.label is not None
    assert (metrics.label.searches, metrics.label.rollouts) == (30, 120)
    registry = Registry(engine)
    for kind in ModelKind:
        [serving] = await registry.models(kind, ModelState.SERVING)
        assert serving.version.startswith(f"old-r1-{kind}@")
        lineage = await registry.lineage(serving.version)
        assert lineage is not None
        assert lineage.versions[-1].model.version.startswith("nano@")


async def test_the_pair_that_served_still_serves(engine: AsyncEngine) -> None:
    [pair] = await PairStore(engine).history()
    [promoted] = [each for each in await RoundStore(engine).rounds() if each.run == "old"]
    assert pair.policy.startswith("old-r1-policy@")
    assert pair.prm.startswith("old-r1-prm@")
    assert (pair.why, pair.round, pair.before) == (ServedBy.ROUND, promoted.id, None)


async def answers(app: FastAPI, paths: list[str]) -> list[httpx.Response]:
    """What the app says at these paths."""
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as http,
    ):
        return [await http.get(path) for path in paths]


async def test_the_apis_show_all_that_is_old(engine: AsyncEngine, database_url: str, redis_url: str) -> None:
    asked = [
        each.id for each in (await SearchStore(engine).list_recent(500)).searches if "7 cups" in each.problem
    ]
    paths = [f"/search/{each}{part}" for each in asked for part in ("", "/tree", "/proof")]
    app = search_app(SearchSettings(database_url=database_url, redis_url=redis_url, queue_name="upgrade"))
    for path, answer in zip(paths, await answers(app, paths), strict=True):
        assert answer.status_code == 200, f"{path}: {answer.text}"
        if path.endswith("/proof"):
            assert answer.json()["format"] == "ratchet-proof/1", "it stays as it was sealed"
    rounds = [f"/rounds/{each.id}" for each in await RoundStore(engine).rounds()]
    trainer = trainer_app(TrainerSettings(database_url=database_url, redis_url=redis_url))
    for answer in await answers(trainer, ["/rounds", "/models", "/pairs", *rounds]):
        assert answer.status_code == 200, answer.text
