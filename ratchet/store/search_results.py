"""What came of a search: its solution and verification, written once at its end, and how the API shows it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Join, RowMapping, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ratchet.contracts.search import Asked, Parent, SearchResult, StepView, Usage, Verification
from ratchet.store import tables as t
from ratchet.store.text import replace_unstorable, replace_unstorable_in_json

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
    """Store the answer with its program, steps, proof and verification, in place of one that it had before it was extended;
    nothing where there is no answer."""
    if outcome.answer is None:
        return
    await connection.execute(t.solutions.delete().where(t.solutions.c.search_id == search_id))
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
        .select_from(searches_with_results())
        .where(t.searches.c.id == search_id)
    )
    row = (await connection.execute(query)).mappings().one_or_none()
    return None if row is None else _result(row)


def searches_with_results() -> Join:
    """Each search with its problem and, where it has them, its solution and verification."""
    return (
        t.searches.join(t.problems, t.problems.c.id == t.searches.c.problem_id)
        .outerjoin(t.solutions, t.solutions.c.search_id == t.searches.c.id)
        .outerjoin(t.verifications, t.verifications.c.search_id == t.searches.c.id)
    )


def parent_of(beginning: Mapping[str, Any] | None) -> Parent | None:
    """Where a search was branched from, of its column `beginning`."""
    return None if beginning is None else Parent.model_validate(beginning["parent"])


def _asked(row: RowMapping) -> Asked | None:
    try:
        return Asked(models=row["pinned"], **{n: row[n] for n in Asked.model_fields if n != "models"})
    except ValidationError:
        # A search that an older version asked for is shown all the same.
        return None


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
        parent=parent_of(row["beginning"]),
        asked=_asked(row),
        created_at=row["created_at"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
    )
