"""How many searches of callers wait for a worker, so that there is an end to what is taken in.

Limits: requests that are looked at in the same moment may go over the bound by their number.
"""

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet.contracts.search import Priority
from ratchet.states import SearchState
from ratchet.store import tables as t
from ratchet.store.engine import reading, retried


class Backlog:
    """Reads only. Raises StoreUnavailableError when Postgres is away."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @retried
    async def is_full(self, priority: Priority, most: int) -> bool:
        """Whether `most` searches of the priority are queued. Those of rounds do not count: nobody waits behind them."""
        waiting = (
            select(t.searches.c.id)
            .where(
                t.searches.c.state == SearchState.QUEUED,
                t.searches.c.priority == priority,
                t.searches.c.round_id.is_(None),
            )
            .limit(most)
            .subquery()
        )
        async with reading(self._engine) as connection:
            return (await connection.scalar(select(func.count()).select_from(waiting)) or 0) >= most

    @retried
    async def is_known(self, idempotency_key: str) -> bool:
        """Whether a search was made under the key: a retry of it adds nothing."""
        async with reading(self._engine) as connection:
            found = await connection.execute(
                select(t.searches.c.id).where(t.searches.c.idempotency_key == idempotency_key)
            )
            return found.one_or_none() is not None
