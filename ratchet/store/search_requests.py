"""A request for a search as rows, and back: its problem, the search itself, and its reference answer apart."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Row, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from ratchet.contracts.branching import Beginning, BranchRequest
from ratchet.contracts.search import Budget, PinnedModels, SearchRequest, StrategyParameters
from ratchet.states import SearchState
from ratchet.store import tables as t
from ratchet.store.ids import new_id


class IdempotencyConflictError(Exception):
    """The idempotency key was used before, with another body."""


def request_sha256(request: SearchRequest) -> str:
    """The digest of what is asked, as canonical JSON: it tells a repeated request from another one."""
    # `wait` says how the caller wants to be answered, not what is asked.
    body = request.model_dump(mode="json", exclude={"wait"})
    return hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()


@dataclass(frozen=True, slots=True)
class Branch:
    """What a branched search has beside its request."""

    beginning: Beginning
    sha256: str
    """Of what was asked for, as `branch_sha256` has it."""


def branch_sha256(search_id: UUID, asked: BranchRequest) -> str:
    """The digest of a branch that is asked for. Not of what comes of it: the tree that it leaves may still be growing."""
    body = {"search": str(search_id), "branch": asked.model_dump(mode="json", exclude_unset=True)}
    return hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()


async def find_by_key(connection: AsyncConnection, key: str, sha256: str) -> UUID | None:
    """The search that was made under the key. Raises IdempotencyConflictError when another request made it."""
    # Two retries at the same moment: the second waits here for the first.
    await connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(key, 0))))
    earlier = (
        await connection.execute(
            select(t.searches.c.id, t.searches.c.request_sha256).where(t.searches.c.idempotency_key == key)
        )
    ).one_or_none()
    if earlier is None:
        return None
    if earlier.request_sha256 != sha256:
        raise IdempotencyConflictError(
            "This Idempotency-Key was used before with another request. Send a new key."
        )
    found: UUID = earlier.id
    return found


async def insert_searches(
    connection: AsyncConnection,
    requests: Mapping[UUID, SearchRequest],
    *,
    round_id: UUID | None = None,
    idempotency_key: str | None = None,
    key_id: UUID | None = None,
    branch: Branch | None = None,
) -> None:
    """Store searches as queued, each under its id. An idempotency key belongs to one search, so it comes with one request
    only, and so does a branch. `key_id`: the API key by which they are begun. What an earlier try has stored stays."""
    if not requests:
        return
    problem_ids = await ensure_problems(connection, {request.problem for request in requests.values()})
    await connection.execute(
        insert(t.searches).on_conflict_do_nothing(index_elements=["id"]),
        [
            {
                "id": search_id,
                "problem_id": problem_ids[request.problem],
                "round_id": round_id,
                "idempotency_key": idempotency_key,
                "key_id": key_id,
                "request_sha256": request_sha256(request) if branch is None else branch.sha256,
                "beginning": None if branch is None else branch.beginning.model_dump(mode="json"),
                "strategy": request.strategy,
                "parameters": request.parameters.model_dump(mode="json"),
                "budget": request.budget.model_dump(mode="json"),
                "pinned": request.models.model_dump(mode="json"),
                "seed": request.seed,
                "priority": request.priority,
                "require": request.require,
                "min_confidence": request.min_confidence,
                "state": SearchState.QUEUED,
            }
            for search_id, request in requests.items()
        ],
    )
    answers = [
        {"search_id": search_id, "answer": request.reference_answer}
        for search_id, request in requests.items()
        if request.reference_answer is not None
    ]
    if answers:
        await connection.execute(insert(t.reference_answers).on_conflict_do_nothing(), answers)


def read_request(row: Row[Any], problem: str) -> SearchRequest:
    """The request of a row of `searches`, without its reference answer."""
    request = SearchRequest(
        problem=problem,
        strategy=row.strategy,
        parameters=StrategyParameters.model_validate(row.parameters),
        budget=Budget.model_validate(row.budget),
        models=PinnedModels.model_validate(row.pinned),
        seed=row.seed,
        priority=row.priority,
        min_confidence=row.min_confidence,
    )
    # Set afterwards: the contract lets only a request with a reference answer ask for a check against it.
    return request.model_copy(update={"require": row.require})


def read_beginning(row: Row[Any]) -> Beginning | None:
    """What the search of a row of `searches` was given to begin with."""
    return None if row.beginning is None else Beginning.model_validate(row.beginning)


async def ensure_problems(connection: AsyncConnection, texts: Iterable[str]) -> dict[str, UUID]:
    """The ids of problems by their text; problems that are new are stored."""
    digests = {hashlib.sha256(each.encode()).hexdigest(): each for each in texts}
    if not digests:
        return {}
    await connection.execute(
        insert(t.problems).on_conflict_do_nothing(),
        # Sorted: two transactions that store the same problems wait for each other in one order, so neither deadlocks.
        [{"id": new_id(), "sha256": digest, "text": each} for digest, each in sorted(digests.items())],
    )
    rows = await connection.execute(
        select(t.problems.c.id, t.problems.c.sha256).where(t.problems.c.sha256.in_(list(digests)))
    )
    return {digests[row.sha256]: row.id for row in rows}
