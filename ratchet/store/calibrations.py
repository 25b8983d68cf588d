"""Calibrations in Postgres: how probable an answer of a policy with its PRM is, and the searches that say so.

Packaged calibrations stand for pairs that have no other.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from uuid import UUID

from pydantic import TypeAdapter
from sqlalchemy import exists, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet.contracts.calibration import AnswerCalibration
from ratchet.contracts.search import StrategyName
from ratchet.states import SearchState
from ratchet.store import tables as t
from ratchet.store.engine import reading, retried, transaction
from ratchet.store.nodes import NodeRecord, read_trees

_CALIBRATIONS: TypeAdapter[list[AnswerCalibration]] = TypeAdapter(list[AnswerCalibration])


TREES_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class SearchedTree:
    """A search as a calibration sees it."""

    search_id: UUID
    state: SearchState
    strategy: StrategyName
    models: Mapping[str, str]
    knew_reference: bool
    early_stop: bool
    """Whether it might end early."""
    nodes: list[NodeRecord]
    """Parents before children."""


class CalibrationStore:
    """Calibrations by policy and PRM. Every method raises StoreUnavailableError when Postgres is away."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @retried
    async def put(self, calibration: AnswerCalibration) -> None:
        """Store it; an earlier one of the same pair goes."""
        row = {
            "policy": calibration.policy,
            "prm": calibration.prm,
            "calibration": calibration.model_dump(mode="json"),
        }
        async with transaction(self._engine) as connection:
            await connection.execute(
                insert(t.calibrations)
                .values(row)
                .on_conflict_do_update(
                    index_elements=["policy", "prm"],
                    set_={"calibration": row["calibration"], "created_at": func.clock_timestamp()},
                )
            )

    @retried
    async def get(self, policy: str, prm: str) -> AnswerCalibration | None:
        """The one of this pair, made here or packaged; None: it has none."""
        async with reading(self._engine) as connection:
            found = (
                await connection.execute(
                    select(t.calibrations.c.calibration).where(
                        t.calibrations.c.policy == policy, t.calibrations.c.prm == prm
                    )
                )
            ).scalar_one_or_none()
        if found is not None:
            return AnswerCalibration.model_validate(found, extra="ignore")
        return next((each for each in packaged() if (each.policy, each.prm) == (policy, prm)), None)

    async def searches(self, search_ids: Sequence[UUID]) -> AsyncIterator[SearchedTree]:
        """Those of the searches that are there, and that nobody gave a beginning to."""
        for start in range(0, len(search_ids), TREES_AT_ONCE):
            for searched in await self._searches(search_ids[start : start + TREES_AT_ONCE]):
                yield searched

    @retried
    async def _searches(self, search_ids: Sequence[UUID]) -> list[SearchedTree]:
        knew = exists().where(t.reference_answers.c.search_id == t.searches.c.id)
        async with reading(self._engine) as connection:
            rows = await connection.execute(
                select(
                    t.searches.c.id,
                    t.searches.c.state,
                    t.searches.c.strategy,
                    t.searches.c.models,
                    knew.label("knew"),
                    t.searches.c.parameters["early_stop"].astext.label("early_stop"),
                )
                .where(t.searches.c.id.in_(search_ids), t.searches.c.beginning.is_(None))
                .order_by(t.searches.c.id)
            )
            found = rows.all()
            trees = await read_trees(connection, [row.id for row in found])
        return [
            SearchedTree(
                row.id, row.state, row.strategy, row.models, row.knew, row.early_stop == "true", trees[row.id]
            )
            for row in found
        ]

    @retried
    async def all(self) -> list[AnswerCalibration]:
        """Those made here, the newest first, then those packaged ones that none of them replaces."""
        async with reading(self._engine) as connection:
            rows = await connection.execute(
                select(t.calibrations.c.calibration).order_by(t.calibrations.c.created_at.desc())
            )
            made = [AnswerCalibration.model_validate(row, extra="ignore") for row in rows.scalars()]
        pairs = {(each.policy, each.prm) for each in made}
        return made + [each for each in packaged() if (each.policy, each.prm) not in pairs]


@cache
def packaged() -> tuple[AnswerCalibration, ...]:
    """Those of the packaged models, measured before they were shipped."""
    content = files("ratchet").joinpath("models", "calibrations.json").read_bytes()
    return tuple(_CALIBRATIONS.validate_json(content))
