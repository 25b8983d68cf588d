"""`kill -9` of one part of the running system during a search: it is started again, and the search comes to its end."""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeVar

import httpx
import pytest

from ratchet.contracts.replay import Replay
from ratchet.contracts.search import SearchResult
from ratchet.stack.supervisor import ChildState
from ratchet.states import SEARCH_TRANSITIONS, SearchState, is_end
from tests.models import REMEMBERED
from tests.running_stack import Running

PARTS = ["policy", "prm", "sandbox", "search", "search-worker-1", "trainer", "postgres", "valkey"]
FIGS = REMEMBERED[5]
ROLLOUTS = 120
BOUND_SECONDS = 90.0

T = TypeVar("T")


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """What `ask` gives; tried again while the API is away or says 503, as a client does."""
    deadline = time.monotonic() + BOUND_SECONDS
    while True:
        try:
            return await ask()
        except (httpx.TransportError, AssertionError) as error:
            away = isinstance(error, httpx.TransportError) or "503" in str(error) or "database" in str(error)
            if not away or time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.2)


@pytest.mark.parametrize("part", PARTS)
async def test_a_killed_part_is_started_again_and_the_search_ends(stack: Running, part: str) -> None:
    search_id = await patiently(
        lambda: stack.begin(
            FIGS.problem,
            strategy="majority",
            # So many rollouts, whatever the answers are: each of them needs policy, PRM and sandbox.
            parameters={
                "rollouts": ROLLOUTS, "early_stop": False, "in_flight": 2, "temperature": 1.3, "top_p": 1.0
            },
            budget={"tokens": 10**6, "seconds": 300},
            seed=PARTS.index(part),
        )
    )  # fmt: skip
    before = await stack.until(search_id, lambda found: found.usage.rollouts >= 2, 60)
    nodes_before = await stack.nodes(search_id)
    assert not is_end(SEARCH_TRANSITIONS, before.state), "it was over before anything was killed"

    victim = stack.child(part)
    assert victim.pid is not None
    began = time.monotonic()
    os.kill(victim.pid, signal.SIGKILL)

    async def ended() -> SearchResult:
        found = await stack.result(search_id)
        if not is_end(SEARCH_TRANSITIONS, found.state):
            await asyncio.sleep(0.2)
        return found

    async with asyncio.timeout(BOUND_SECONDS):
        while not is_end(SEARCH_TRANSITIONS, (after := await patiently(ended)).state):
            pass
        while (now := stack.child(part)).restarts != victim.restarts + 1 or now.state is not ChildState.READY:
            await asyncio.sleep(0.1)
    assert time.monotonic() - began < BOUND_SECONDS
    assert now.pid != victim.pid

    # None of these parts is needed to the end of time: each is back long before a caller gives up.
    assert after.state in (SearchState.SOLVED_VERIFIED, SearchState.ANSWERED_UNVERIFIED), after.reason
    assert after.reason == "all rollouts done"
    assert after.usage.rollouts >= ROLLOUTS
    nodes = await patiently(lambda: stack.nodes(search_id))
    assert len(nodes) == after.usage.nodes + 1
    assert nodes[0]["visits"] == after.usage.rollouts
    assert {node["id"] for node in nodes_before} <= {node["id"] for node in nodes}, (
        "the tree of before is kept"
    )
    steps = Counter((node["parent"], node["text"], node["status"]) for node in nodes)
    assert max(steps.values()) == 1, "no step is there twice"

    async def run_again() -> Replay:
        response = await stack.http.get(f"/search/{search_id}/replay")
        assert response.status_code == 200, response.text
        return Replay.model_validate(response.json())

    again = await patiently(run_again)
    assert again.holds, again.differing_nodes
