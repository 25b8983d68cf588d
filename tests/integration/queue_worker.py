"""A worker process for the queue's tests: claims, says so on stdout, holds the search for a while, and ends it.

Arguments: seconds of work, then the lease in seconds. A search whose problem begins with "stuck" is worked on until it is
cancelled. It prints `PID begin|end|cancelled|lost|released SEARCH`.
"""

import asyncio
import os
import sys
import time
from uuid import UUID

from ratchet.contracts.search import Usage
from ratchet.settings import SearchSettings
from ratchet.states import NodeState, SearchState
from ratchet.store.engine import make_engine
from ratchet.store.nodes import NodeRecord
from ratchet.store.search_results import SearchOutcome
from ratchet.store.searches import LeaseLostError, SearchStore
from services.search.consumer import Consumer


def tell(what: str, search: object) -> None:
    sys.stdout.write(f"{os.getpid()} {what} {search}\n")
    sys.stdout.flush()


async def main(seconds: float, lease: float) -> None:
    settings = SearchSettings(lease_seconds=lease)
    store = SearchStore(make_engine(settings.database_url))

    async def work(search_id: UUID, cancelled: asyncio.Event) -> None:
        claim = await store.claim(search_id, str(os.getpid()), lease, settings.max_attempts)
        if claim is None:
            return
        tell("begin", search_id)
        root = NodeRecord(id="root", parent=None, ordinal=0, depth=0, state=NodeState.OPEN, task="root")
        await store.journal(claim, [root], Usage(nodes=claim.attempt))
        until = time.monotonic() + (3600 if claim.request.problem.startswith("stuck") else seconds)
        try:
            while time.monotonic() < until and not cancelled.is_set():
                await store.renew(claim, lease)
                await asyncio.sleep(0.05)
            state = SearchState.CANCELLED if cancelled.is_set() else SearchState.ANSWERED_UNVERIFIED
            await store.finish(claim, state, SearchOutcome(answer="37", usage=Usage(nodes=claim.attempt)))
            tell("cancelled" if cancelled.is_set() else "end", search_id)
        except LeaseLostError:
            tell("lost", search_id)
        except asyncio.CancelledError:
            await store.release(claim)
            tell("released", search_id)
            raise

    consumer = Consumer(settings, work)
    tell("ready", "-")
    await consumer.run()


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]), float(sys.argv[2])))
