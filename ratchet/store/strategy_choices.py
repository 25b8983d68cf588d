"""Strategies that measured best, in Postgres, by policy and PRM."""

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ratchet.contracts.search import StrategyName
from ratchet.contracts.strategies import StrategyChoice
from ratchet.store import tables as t
from ratchet.store.engine import reading, retried, transaction

UNMEASURED = StrategyName.MCTS
"""The strategy of a pair for which nothing was measured."""


async def read_choice(connection: AsyncConnection, policy: str, prm: str) -> StrategyChoice | None:
    """The choice of this pair; None: nothing was measured."""
    found = (
        await connection.execute(
            select(t.strategy_choices.c.choice).where(
                t.strategy_choices.c.policy == policy, t.strategy_choices.c.prm == prm
            )
        )
    ).scalar_one_or_none()
    return None if found is None else StrategyChoice.model_validate(found, extra="ignore")


class StrategyChoiceStore:
    """One choice for a pair. Every method raises StoreUnavailableError when Postgres is away."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @retried
    async def put(self, choice: StrategyChoice) -> None:
        """Store it; an earlier one of the same pair goes."""
        row = {"policy": choice.policy, "prm": choice.prm, "choice": choice.model_dump(mode="json")}
        async with transaction(self._engine) as connection:
            await connection.execute(
                insert(t.strategy_choices)
                .values(row)
                .on_conflict_do_update(
                    index_elements=["policy", "prm"],
                    set_={"choice": row["choice"], "created_at": func.clock_timestamp()},
                )
            )

    @retried
    async def all(self) -> list[StrategyChoice]:
        """The newest first."""
        async with reading(self._engine) as connection:
            rows = await connection.execute(
                select(t.strategy_choices.c.choice).order_by(t.strategy_choices.c.created_at.desc())
            )
            return [StrategyChoice.model_validate(row, extra="ignore") for row in rows.scalars()]
