"""The real worker inside the benchmark's process, with a real store and event stream: what it costs is this process's time.

Searches are stored and run by `Worker.run_search`, as a job from the queue would be; the queue itself takes no part.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from ratchet.clients import PolicyClient, PrmClient, SandboxClient
from ratchet.contracts.policy import GenerateRequest, GenerateResponse
from ratchet.contracts.search import MAX_ROLLOUTS, NodeView, SearchRequest, SearchResult
from ratchet.events import Events
from ratchet.settings import SearchSettings
from ratchet.stack.config import StackUrls
from ratchet.store.calibrations import CalibrationStore
from ratchet.store.engine import make_engine, ready
from ratchet.store.followed import FollowedSearches
from ratchet.store.searches import SearchStore
from services.search.breaker import Breaker
from services.search.search import Backends
from services.search.worker import POOL_SECONDS, Worker


class ListeningPolicyClient(PolicyClient):
    """A policy client that keeps what was asked, so that the engine can be asked the same again without a search."""

    def __init__(self, url: str, *, key: str) -> None:
        super().__init__(url, key=key)
        self.asked: list[GenerateRequest] = []

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        """Keep the question and ask it."""
        self.asked.append(request)
        return await super().generate(request)


@dataclass(frozen=True)
class Searcher:
    """Runs searches in this process."""

    worker: Worker
    policy: ListeningPolicyClient
    followed: FollowedSearches

    async def run(self, requests: Sequence[SearchRequest], at_once: int) -> list[SearchResult]:
        """Run the searches, so many at once. Those that fail end the benchmark."""
        ids = [(await self.worker.store.create(request))[0] for request in requests]
        slots = asyncio.Semaphore(at_once)

        async def one(search_id: UUID) -> None:
            async with slots:
                await self.worker.run_search(search_id, asyncio.Event())

        await asyncio.gather(*map(one, ids))
        results = [await self.worker.store.result(search_id) for search_id in ids]
        for result in results:
            if result is None or result.ended_at is None or result.state == "failed":
                raise SystemExit(f"A search did not end well: {result and result.reason}")
        return [result for result in results if result is not None]

    async def nodes(self, search: str) -> list[NodeView]:
        """The tree of a search."""
        tree = await self.followed.tree(UUID(search))
        return tree.nodes if tree is not None else []


@contextlib.asynccontextmanager
async def searcher(urls: StackUrls, *, policy: str, prm: str, sandbox: str) -> AsyncIterator[Searcher]:
    """A worker with the store of a running stack and these backends."""
    settings = SearchSettings(database_url=urls.database, redis_url=urls.redis)
    engine = make_engine(urls.database, pool_seconds=POOL_SECONDS)
    events = Events(urls.redis)
    async with (
        ListeningPolicyClient(policy, key=urls.token) as policy_client,
        PrmClient(prm, key=urls.token) as prm_client,
        SandboxClient(sandbox, key=urls.token) as sandbox_client,
    ):
        worker = Worker(
            settings,
            "benchmark",
            SearchStore(engine),
            CalibrationStore(engine),
            events,
            Backends(policy_client, prm_client, sandbox_client),
            # A benchmark ends where a backend is away: nothing is waited for, and no time is taken off.
            Breaker({}, lambda: ready(engine)),
        )
        try:
            yield Searcher(worker, policy_client, FollowedSearches(engine))
        finally:
            await events.aclose()
            await engine.dispose()


def request(problem: str, strategy: str, *, tokens: int, seed: int, **parameters: Any) -> SearchRequest:
    """A search that spends its whole budget of tokens unless its parameters say otherwise."""
    budget = {"tokens": tokens, "seconds": 3600.0, "nodes": parameters.pop("nodes", 1_000_000)}
    priority = parameters.pop("priority", "low")
    return SearchRequest.model_validate(
        {
            "problem": problem,
            "strategy": strategy,
            "budget": budget,
            "seed": seed,
            "priority": priority,
            "parameters": {"rollouts": MAX_ROLLOUTS, "early_stop": False, **parameters},
        }
    )
