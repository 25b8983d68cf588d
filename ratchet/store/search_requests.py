"""A request for a search as rows, and back: its problem, the search itself, and its reference answer apart."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Row, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from ratchet.contracts.search import Budget, PinnedModels, SearchRequest, StrategyParameters
from ratchet.states import SearchState
from ratchet.store import tables as t
from ratchet.store.ids import new_id


def request_sha256(request: SearchRequest) -> str:
    """The digest of what is asked, as canonical JSON: it tells a repeated request from another one."""
    # `wait` says how the caller wants to be answered, not what is asked.
    body = request.model_dump(mode="json", exclude={"wait"})
    return hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()


async def insert_searches(
    connection: AsyncConnection,
    requests: Mapping[UUID, SearchRequest],
    *,
    round_id: UUID | None = None,
    idempotency_key: str | None = None,
    key_id: UUID | None = None,
) -> None:
    """Store searches as queued, each under its id. An idempotency key belongs to one search, so it comes with one request
    only. `key_id`: the API key by which they are begun."""
    if not requests:
        return
    problem_ids = await ensure_problems(connection, {request.problem for request in requests.values()})
    await connection.execute(
        t.searches.insert(),
        [
            {
                "id": search_id,
                "problem_id": problem_ids[request.problem],
                "round_id": round_id,
                "idempotency_key": idempotency_key,
                "key_id": key_id,
                "request_sha256": request_sha256(request),
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
        await connection.execute(t.reference_answers.insert(), answers)


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
