"""What the export of data asks of Postgres: verified answers, searches, and which problems may not leave. Reads only."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, and_, exists, func, or_, select
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet.contracts.measuring import MEASURING_KEY
from ratchet.contracts.search import VerificationLevel
from ratchet.states import SearchState
from ratchet.store import tables as t
from ratchet.store.engine import reading, retried
from ratchet.store.nodes import NodeRecord, read_trees

PAGE = 200
"""Searches in memory at a time."""
MEASURED_ON = ("development", "held_out")


@dataclass(frozen=True, slots=True)
class SetAside:
    """An entry of the ledger of problems whose reference answers are not trusted."""

    run: str
    problem: str
    overruled: bool


@dataclass(frozen=True, slots=True)
class VerifiedAnswer:
    """The answer of a search that ended verified."""

    search: UUID
    problem: str
    answer: str
    program: str | None
    steps: list[str]
    level: VerificationLevel
    probability: float | None
    proof: dict[str, Any] | None
    models: dict[str, str]
    with_reference: bool
    ended_at: datetime | None


class ExportedStore:
    """Every method raises StoreUnavailableError when Postgres is away."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @retried
    async def ledger(self) -> list[SetAside]:
        """What all runs have set aside."""
        query = select(t.quarantine.c.run, t.problems.c.text, t.quarantine.c.overruled_at).join(
            t.problems, t.problems.c.id == t.quarantine.c.problem_id
        )
        async with reading(self._engine) as connection:
            return [
                SetAside(row.run, row.text, row.overruled_at is not None)
                for row in await connection.execute(query)
            ]

    @retried
    async def measured_on(self) -> list[str]:
        """The development and held-out problems of all rounds."""
        query = (
            select(t.problems.c.text)
            .join(t.round_problems, t.round_problems.c.problem_id == t.problems.c.id)
            .where(t.round_problems.c.split.in_(MEASURED_ON))
            .distinct()
        )
        async with reading(self._engine) as connection:
            return list((await connection.execute(query)).scalars())

    @retried
    async def runs(self) -> list[str]:
        """The names of all runs."""
        async with reading(self._engine) as connection:
            return list((await connection.execute(select(t.rounds.c.run).distinct())).scalars())

    @retried
    async def lone_problems(self) -> list[str]:
        """The problems of the searches that `lone_searches` gives."""
        query = (
            select(t.problems.c.text)
            .where(exists().where(and_(t.searches.c.problem_id == t.problems.c.id, *_lone())))
            .distinct()
        )
        async with reading(self._engine) as connection:
            return list((await connection.execute(query)).scalars())

    async def round_answers(self, rounds: Sequence[UUID], purpose: str) -> AsyncIterator[VerifiedAnswer]:
        """Verified answers of the searches that rounds began for a purpose, in the order in which they began."""
        planned = exists().where(
            t.round_searches.c.search_id == t.searches.c.id,
            t.round_searches.c.round_id.in_(rounds),
            t.round_searches.c.purpose == purpose,
        )
        async for page in self._pages(_answers().where(planned)):
            for answer in page:
                yield answer

    async def lone_searches(self) -> AsyncIterator[list[VerifiedAnswer]]:
        """Verified answers of searches that no round and no evaluation began, page after page."""
        async for page in self._pages(_answers().where(*_lone())):
            yield page

    async def graded_trees(self) -> AsyncIterator[tuple[UUID, str, str, list[NodeRecord]]]:
        """Search, problem, reference answer and tree of those searches whose ends were compared with a reference answer."""
        query = (
            select(t.searches.c.id, t.problems.c.text, t.reference_answers.c.answer)
            .join(t.problems, t.problems.c.id == t.searches.c.problem_id)
            .join(t.reference_answers, t.reference_answers.c.search_id == t.searches.c.id)
            .where(*_lone(), t.searches.c.ended_at.is_not(None))
        )
        after: UUID | None = None
        while True:
            rows, trees = await self._trees(query, after)
            for row in rows:
                yield row.id, row.text, row.answer, trees[row.id]
            if len(rows) < PAGE:
                return
            after = rows[-1].id

    @retried
    async def _trees(
        self, query: Select[Any], after: UUID | None
    ) -> tuple[Sequence[Any], dict[UUID, list[NodeRecord]]]:
        async with reading(self._engine) as connection:
            rows = (await connection.execute(_page(query, after))).all()
            return rows, await read_trees(connection, [row.id for row in rows])

    async def _pages(self, query: Select[Any]) -> AsyncIterator[list[VerifiedAnswer]]:
        after: UUID | None = None
        while True:
            page = await self._page(query, after)
            yield page
            if len(page) < PAGE:
                return
            after = page[-1].search

    @retried
    async def _page(self, query: Select[Any], after: UUID | None) -> list[VerifiedAnswer]:
        async with reading(self._engine) as connection:
            return [
                VerifiedAnswer(
                    search=row.id,
                    problem=row.text,
                    answer=row.answer,
                    program=row.program,
                    steps=[step["text"] for step in row.steps],
                    level=row.level,
                    probability=row.confidence,
                    proof=row.proof,
                    models=row.models,
                    with_reference=row.reference is not None,
                    ended_at=row.ended_at,
                )
                for row in await connection.execute(_page(query, after))
            ]


def _answers() -> Select[Any]:
    return (
        select(
            t.searches.c.id,
            t.searches.c.models,
            t.searches.c.ended_at,
            t.problems.c.text,
            t.solutions.c.answer,
            t.solutions.c.program,
            t.solutions.c.steps,
            t.solutions.c.proof,
            t.verifications.c.level,
            t.verifications.c.confidence,
            t.reference_answers.c.answer.label("reference"),
        )
        .join(t.problems, t.problems.c.id == t.searches.c.problem_id)
        .join(t.solutions, t.solutions.c.search_id == t.searches.c.id)
        .join(t.verifications, t.verifications.c.search_id == t.searches.c.id)
        .outerjoin(t.reference_answers, t.reference_answers.c.search_id == t.searches.c.id)
        .where(t.searches.c.state == SearchState.SOLVED_VERIFIED)
    )


def _lone() -> tuple[Any, ...]:
    """Begun by no round, not to measure a model, and by nobody's hand: what a person wrote into a search is no model's work."""
    # The key of a caller stands before the one that it sent, with a blank between them.
    sent = func.regexp_replace(t.searches.c.idempotency_key, "^.* ", "")
    return (
        t.searches.c.round_id.is_(None),
        t.searches.c.beginning.is_(None),
        or_(t.searches.c.idempotency_key.is_(None), sent.not_like(f"{MEASURING_KEY}%")),
    )


def _page(query: Select[Any], after: UUID | None) -> Select[Any]:
    if after is not None:
        query = query.where(t.searches.c.id > after)
    return query.order_by(t.searches.c.id).limit(PAGE)
