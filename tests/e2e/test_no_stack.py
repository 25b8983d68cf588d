"""A command that asks for work where nobody is there to do it."""

import json
from pathlib import Path

from sqlalchemy import text

from ratchet.clients import SearchClient, TrainerClient
from ratchet.contracts.rounds import RoundRequest
from ratchet.contracts.search import SearchRequest
from ratchet.stack.config import StackConfig
from ratchet.stack.local import local_stack
from ratchet.store.engine import make_engine, transaction
from tests.running_stack import ratchet


async def test_whoever_has_a_round_go_on_hears_that_nobody_works_on_it(tmp_path: Path) -> None:
    data = tmp_path / "data"
    config = StackConfig(data=data, services=("trainer",), env={"RATCHET_WORK_ON_ROUNDS": "false"})
    async with local_stack(config) as urls:
        assert urls.trainer is not None
        async with TrainerClient(urls.trainer, key=urls.key) as trainer:
            begun = await trainer.create_round(RoundRequest(run="later"))
            await trainer.ask(begun.id, "pause")
    resumed = await ratchet("rounds", "resume", begun.id, "--data", str(data))
    assert resumed.code == 0
    assert "the round waits until `ratchet up`" in resumed.stderr


async def test_whoever_has_a_search_taken_up_again_hears_that_no_worker_is_there(tmp_path: Path) -> None:
    """What failed before is entered by hand: no model runs here."""
    data = tmp_path / "data"
    config = StackConfig(data=data, services=("search",))
    async with local_stack(config) as urls, SearchClient(urls.search, key=urls.key) as client:
        search = await client.create(SearchRequest(problem="What is 6 * 7?"))
        engine = make_engine(urls.database)
        async with transaction(engine) as connection:
            failed = "UPDATE searches SET state = 'failed', reason = 'no luck', ended_at = clock_timestamp()"
            await connection.execute(text(failed))
        await engine.dispose()

    asked = await ratchet("searches", "retry", search.id, "--json", "--data", str(data))
    assert (asked.code, json.loads(asked.stdout)["state"]) == (0, "queued")
    assert "the search waits until `ratchet up`" in asked.stderr
    shown = await ratchet("searches", "show", search.id, "--data", str(data))
    assert "queued" in shown.stdout
    assert "ratchet up" not in shown.stderr
