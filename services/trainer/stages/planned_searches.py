"""Many searches at once: planned in one transaction, put into the queue, and waited for.

What is planned stays planned, so a trainer that takes the stage up again goes on waiting for the same searches.
"""

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence

import structlog
from redis.exceptions import RedisError

from ratchet.clients import ServiceError
from ratchet.contracts.rounds import RoundProgress
from ratchet.contracts.search import SearchRequest
from ratchet.states import SearchState
from ratchet.store.round_searches import RoundSearch
from services.trainer.holding import hold_pairs
from services.trainer.pairs import Pair
from services.trainer.stages.context import Context, RoundFailedError

log = structlog.get_logger()

POLL_SECONDS = 0.5
HOLD_SECONDS = 5.0
FAILED_SHARE = 0.2
"""Where more searches fail than this share, something is broken, and their figures would mislead."""


async def plan(context: Context, purpose: str, attempt: int, requests: Mapping[int, SearchRequest]) -> None:
    """Store the searches that are not there yet, and give them to the workers."""
    waiting = await context.searches.plan(context.claim, purpose, attempt, requests)
    try:
        await context.queue.enqueue_many(waiting)
    except RedisError as error:
        # The search service's sweeper makes jobs for searches that have none.
        log.warning("searches not put into the queue yet", error=str(error))


async def queue_failed_again(context: Context, purpose: str) -> int:
    """Have the failed searches for a purpose taken up again, with their trees; how many there are."""
    waiting = await context.searches.queue_failed_again(context.claim, purpose)
    try:
        await context.queue.enqueue_many(waiting)
    except RedisError as error:
        log.warning("searches not put into the queue yet", error=str(error))
    return len(waiting)


async def wait_for(context: Context, purposes: Sequence[str], stage: str, pairs: Sequence[Pair]) -> None:
    """Wait until all searches for these purposes are over, and keep the services holding the pairs that they use."""
    held = time.monotonic()
    while True:
        if time.monotonic() - held > HOLD_SECONDS:
            held = time.monotonic()
            with contextlib.suppress(ServiceError):
                await hold_pairs(context.serving, pairs)
        counts = [await context.searches.count_ended(context.claim.id, purpose) for purpose in purposes]
        over, planned = sum(over for over, _ in counts), sum(planned for _, planned in counts)
        note = ", ".join(
            f"{purpose} {count[0]}/{count[1]}" for purpose, count in zip(purposes, counts, strict=True)
        )
        await context.report(RoundProgress(stage=stage, done=over, total=planned, note=note))
        if over == planned:
            break
        await asyncio.sleep(POLL_SECONDS)


def could_not_run(result: RoundSearch) -> bool:
    """Whether a search that is over says nothing of the pair: the system failed it, or a person ended it."""
    return result.state in (SearchState.FAILED, SearchState.CANCELLED)


def require_sound(results: Sequence[RoundSearch], purpose: str) -> None:
    """Raise RoundFailedError when so many searches could not run that the others say little."""
    failed = [result for result in results if could_not_run(result)]
    if results and len(failed) > FAILED_SHARE * len(results):
        raise RoundFailedError(
            f"{len(failed)} of {len(results)} searches ({purpose}) could not run; the first: {failed[0].reason}"
        )
