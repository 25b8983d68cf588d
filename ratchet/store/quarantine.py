"""The ledger of problems set aside, by run: selection, the PRM's training and later rounds all read it.

A person may overrule an entry. It stays, so that the problem is not set aside a second time.
"""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, literal, select
from sqlalchemy.dialects.postgresql import aggregate_order_by, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from ratchet.contracts.rounds import Disagreement, Quarantined
from ratchet.problems import problem_id
from ratchet.store import tables as t

LABEL = "label"
"""The purpose of the searches of training problems: a round's second stage plans them, the third reads their trees."""


async def set_aside(
    connection: AsyncConnection, round_id: UUID, run: str, found: Mapping[int, Disagreement]
) -> None:
    """Enter training problems of a round, by place, in place of what it has entered before. What is there already stays."""
    of_round = t.quarantine.c.round_id == round_id
    await connection.execute(t.quarantine.delete().where(of_round, t.quarantine.c.overruled_at.is_(None)))
    for place, why in found.items():
        entry = select(
            literal(run),
            t.round_problems.c.problem_id,
            t.round_problems.c.round_id,
            t.round_problems.c.answer,
            t.round_problems.c.source,
            literal(why.model_dump(mode="json"), t.quarantine.c.disagreement.type),
        ).where(
            t.round_problems.c.round_id == round_id,
            t.round_problems.c.split == "train",
            t.round_problems.c.place == place,
        )
        columns = ["run", "problem_id", "round_id", "reference", "source", "disagreement"]
        await connection.execute(insert(t.quarantine).from_select(columns, entry).on_conflict_do_nothing())


async def read_quarantine(
    connection: AsyncConnection, *, run: str | None = None, round_id: UUID | None = None
) -> list[Quarantined]:
    """The entries of a run, or of one of its rounds, the oldest first; those that were overruled among them."""
    query = _entries()
    if run is not None:
        query = query.where(t.quarantine.c.run == run)
    if round_id is not None:
        query = query.where(t.quarantine.c.round_id == round_id)
    return [
        Quarantined(
            id=problem_id(row.text, row.reference),
            searches=[str(each) for each in row.searches or ()],
            problem=row.text,
            reference=row.reference,
            source=row.source,
            round=row.number,
            created_at=row.created_at,
            overruled_at=row.overruled_at,
            overruled_because=row.overruled_because,
            **row.disagreement,
        )
        for row in await connection.execute(query)
    ]


async def overrule(
    connection: AsyncConnection, run: str, problem: str, because: str | None
) -> Quarantined | None:
    """Have the run train on a problem again, given by its id; None: it was not set aside. Again, it changes nothing."""
    for row in await connection.execute(_entries().where(t.quarantine.c.run == run)):
        if problem_id(row.text, row.reference) == problem:
            await connection.execute(
                t.quarantine.update()
                .where(
                    t.quarantine.c.run == run,
                    t.quarantine.c.problem_id == row.problem_id,
                    t.quarantine.c.overruled_at.is_(None),
                )
                .values(overruled_at=func.clock_timestamp(), overruled_because=because)
            )
    found = await read_quarantine(connection, run=run)
    return next((each for each in found if each.id == problem), None)


def _entries() -> Select[Any]:
    problem, search = t.round_problems, t.round_searches
    searches = (
        select(func.array_agg(aggregate_order_by(search.c.search_id, search.c.attempt)))
        .select_from(problem.join(search, search.c.round_id == problem.c.round_id))
        .where(
            problem.c.round_id == t.quarantine.c.round_id,
            problem.c.problem_id == t.quarantine.c.problem_id,
            problem.c.split == "train",
            search.c.purpose == LABEL,
            search.c.place == problem.c.place,
        )
        .correlate(t.quarantine)
        .scalar_subquery()
    )
    return (
        select(t.quarantine, t.problems.c.text, t.rounds.c.number, searches.label("searches"))
        .join(t.problems, t.problems.c.id == t.quarantine.c.problem_id)
        .join(t.rounds, t.rounds.c.id == t.quarantine.c.round_id)
        .order_by(t.rounds.c.number, t.quarantine.c.created_at, t.quarantine.c.problem_id)
    )
