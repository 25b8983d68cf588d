"""What came of a search: its solution and verification, written once at its end, and how the API shows it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter
from sqlalchemy import Join, RowMapping, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ratchet.contracts.search import SearchPage, SearchResult, SearchSummary, StepView, Usage, Verification
from ratchet.states import SearchState
from ratchet.store import tables as t
from ratchet.store.text import replace_unstorable, replace_unstorable_in_json

PROBLEM_LETTERS = 200
"""A page of searches shows this much of each problem."""

_VERIFIED = "verified_"
"""Before the columns of a verification: a search has some of the same name."""
_STEPS: TypeAdapter[list[StepView]] = TypeAdapter(list[StepView])


@dataclass(frozen=True, slots=True)
class SearchOutcome:
    """What a search ended with."""

    answer: str | None = None
    program: str | None = None
    steps: Sequence[StepView] = ()
    verification: Verification | None = None
    usage: Usage = field(default_factory=Usage)
    models: Mapping[str, str] = field(default_factory=dict)
    reason: str | None = None
    proof: Mapping[str, Any] | None = None


async def insert_solution(connection: AsyncConnection, search_id: UUID, outcome: SearchOutcome) -> None:
    """Store the answer with its program, steps, proof and verification; nothing where there is no answer."""
    if outcome.answer is None:
        return
    await connection.execute(
        t.solutions.insert().values(
            search_id=search_id,
            answer=replace_unstorable(outcome.answer),
            program=None if outcome.program is None else replace_unstorable(outcome.program),
            steps=replace_unstorable_in_json([step.model_dump(mode="json") for step in outcome.steps]),
            proof=None if outcome.proof is None else replace_unstorable_in_json(outcome.proof),
        )
    )
    if outcome.verification is not None:
        await connection.execute(
            t.verifications.insert().values(search_id=search_id, **outcome.verification.model_dump())
        )


async def read_result(connection: AsyncConnection, search_id: UUID) -> SearchResult | None:
    """The search as the API shows it; None: unknown."""
    query = (
        select(
            t.searches,
            t.problems.c.text.label("problem"),
            t.solutions.c.answer,
            t.solutions.c.program,
            t.solutions.c.steps,
            *(t.verifications.c[name].label(_VERIFIED + name) for name in Verification.model_fields),
        )
        .select_from(_searches_with_results())
        .where(t.searches.c.id == search_id)
    )
    row = (await connection.execute(query)).mappings().one_or_none()
    return None if row is None else _result(row)


async def read_page(
    connection: AsyncConnection,
    limit: int,
    state: SearchState | None,
    cursor: UUID | None,
    key_id: UUID | None,
) -> SearchPage:
    """The newest searches first; `cursor` is the `next` of the page before, `key_id` the only key by which they were begun."""
    query = (
        select(
            t.searches.c.id,
            t.searches.c.state,
            func.left(t.problems.c.text, PROBLEM_LETTERS).label("problem"),
            t.searches.c.strategy,
            t.searches.c.created_at,
            t.searches.c.ended_at,
            t.solutions.c.answer,
            t.verifications.c.level,
        )
        .select_from(_searches_with_results())
        .order_by(t.searches.c.id.desc())
        .limit(limit + 1)
    )
    if state is not None:
        query = query.where(t.searches.c.state == state)
    if cursor is not None:
        query = query.where(t.searches.c.id < cursor)
    if key_id is not None:
        query = query.where(t.searches.c.key_id == key_id)
    rows = (await connection.execute(query)).mappings().all()
    shown = [SearchSummary(**{**row, "id": str(row["id"])}) for row in rows[:limit]]
    return SearchPage(searches=shown, next=shown[-1].id if len(rows) > limit else None)


def _searches_with_results() -> Join:
    return (
        t.searches.join(t.problems, t.problems.c.id == t.searches.c.problem_id)
        .outerjoin(t.solutions, t.solutions.c.search_id == t.searches.c.id)
        .outerjoin(t.verifications, t.verifications.c.search_id == t.searches.c.id)
    )


def _result(row: RowMapping) -> SearchResult:
    verification = None
    if row[_VERIFIED + "level"] is not None:
        verification = Verification(**{name: row[_VERIFIED + name] for name in Verification.model_fields})
    return SearchResult(
        id=str(row["id"]),
        state=row["state"],
        problem=row["problem"],
        strategy=row["strategy"],
        seed=row["seed"],
        answer=row["answer"],
        program=row["program"],
        steps=_STEPS.validate_python(row["steps"] or []),
        verification=verification,
        usage=Usage.model_validate(row["usage"]),
        models=row["models"],
        reason=row["reason"],
        created_at=row["created_at"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
    )
