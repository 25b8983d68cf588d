"""How long does a person wait beside a batch that fills the machine, and how long alone?

Interactive searches of high priority are asked one after another through the API, first alone, then while twice as many
searches of low priority as the worker runs at once are kept going. The same problems and seeds, so the same work.

Limits: with so few searches the 99th percentile is about the longest of them.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np

from benchmarks.search_speed.searching import request
from ratchet.clients import SearchClient
from ratchet.contracts.search import SearchRequest
from ratchet.problems import Problem
from ratchet.settings import SearchSettings
from ratchet.stack.config import StackUrls

BATCH_FACTOR = 2
WAIT_SECONDS = 1800.0
SETTLE_SECONDS = 5.0
"""Until the batch fills the engine."""


async def measure_interactive(
    urls: StackUrls, problems: Sequence[Problem], tokens: int, seed: int, count: int
) -> dict[str, Any]:
    """Seconds of `count` searches, alone and beside the batch."""
    # The batch holds a connection for each of its searches.
    async with (
        SearchClient(urls.search, key=urls.key) as client,
        SearchClient(urls.search, key=urls.key, max_connections=1024) as batch_client,
    ):
        chosen = [problems[number % len(problems)] for number in range(count)]
        # The first one pays for connections and for what the services do at first use.
        await _ask_one_after_another(client, chosen[:1], seed + 1)
        alone = await _ask_one_after_another(client, chosen, seed)
        async with _batch(batch_client, problems, tokens, seed):
            await asyncio.sleep(SETTLE_SECONDS)
            beside = await _ask_one_after_another(client, chosen, seed)
    found = {"n": count, "alone": _quantiles(alone), "beside_batch": _quantiles(beside)}
    return found | {"p99_ratio": round(_p99(beside) / _p99(alone), 3)}


async def _ask_one_after_another(client: SearchClient, problems: Sequence[Problem], seed: int) -> list[float]:
    found: list[float] = []
    for problem in problems:
        asked = SearchRequest.model_validate(
            {"problem": problem.text, "priority": "high", "seed": seed, "wait": WAIT_SECONDS}
        )
        began = time.monotonic()
        result = await client.create(asked)
        found.append(time.monotonic() - began)
        if result.ended_at is None:
            raise SystemExit(f"Search {result.id} did not end within {WAIT_SECONDS:.0f} s.")
    return found


@contextlib.asynccontextmanager
async def _batch(
    client: SearchClient, problems: Sequence[Problem], tokens: int, seed: int
) -> AsyncIterator[None]:
    """Keep searches of low priority going, more than a worker runs at once; their ends are not waited for."""

    async def keep_going(place: int) -> None:
        turn = 0
        while True:
            problem = problems[(place + turn) % len(problems)]
            asked = request(problem.text, "mcts", tokens=tokens, seed=seed + 1000 + place + turn)
            await client.create(asked.model_copy(update={"wait": WAIT_SECONDS}))
            turn += 1

    places = BATCH_FACTOR * SearchSettings.model_fields["concurrency"].default
    tasks = [asyncio.create_task(keep_going(place)) for place in range(places)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _quantiles(seconds: Sequence[float]) -> dict[str, float]:
    return {
        "p50_seconds": round(float(np.median(seconds)), 3),
        "p99_seconds": round(_p99(seconds), 3),
        "mean_seconds": round(float(np.mean(seconds)), 3),
    }


def _p99(seconds: Sequence[float]) -> float:
    return float(np.percentile(seconds, 99))
