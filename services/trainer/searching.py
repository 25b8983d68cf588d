"""Many searches at once: planned in one transaction, put into the queue, and waited for.

What is planned stays planned, so a trainer that takes the stage up again goes on waiting for the same searches.
"""

import asyncio
from collections.abc import Mapping, Sequence

import structlog
from redis.exceptions import RedisError

from ratchet.contracts.rounds import RoundProgress
from ratchet.contracts.search import SearchRequest
from ratchet.states import SearchState
from ratchet.store.rounds import EndedSearch
from services.trainer.context import Context, RoundFailedError

log = structlog.get_logger()

POLL_SECONDS = 0.5
FAILED_SHARE = 0.2
"""More failed searches than this share: something is broken, and what came out would be misleading."""


async def plan(context: Context, purpose: str, attempt: int, requests: Mapping[int, SearchRequest]) -> None:
    """Store the searches that are not there yet, and give them to the workers."""
    waiting = await context.rounds.plan(context.claim, purpose, attempt, requests)
    try:
        await context.queue.enqueue_many(waiting)
    except RedisError as error:
        # The search service's sweeper puts jobs for what has none.
        log.warning("searches not put into the queue yet", error=str(error))


async def wait_for(context: Context, purposes: Sequence[str], stage: str) -> None:
    """Until all searches for these purposes are over. Raises RoundFailedError when too many of them failed."""
    while True:
        counts = [await context.rounds.ended(context.claim.id, purpose) for purpose in purposes]
        over, planned = sum(over for over, _ in counts), sum(planned for _, planned in counts)
        note = ", ".join(
            f"{purpose} {count[0]}/{count[1]}" for purpose, count in zip(purposes, counts, strict=True)
        )
        await context.report(RoundProgress(stage=stage, done=over, total=planned, note=note))
        if over == planned:
            break
        await asyncio.sleep(POLL_SECONDS)


def require_sound(results: Sequence[EndedSearch], purpose: str) -> None:
    """Raise RoundFailedError when too many searches failed for what they found to be believed."""
    failed = [result for result in results if result.state is SearchState.FAILED]
    if results and len(failed) > FAILED_SHARE * len(results):
        raise RoundFailedError(
            f"{len(failed)} of {len(results)} searches ({purpose}) failed; the first: {failed[0].reason}"
        )
