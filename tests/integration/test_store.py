"""The store against a real Postgres: leases and fences, trees, one result a search."""

import asyncio
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet.contracts.sandbox import StepStatus
from ratchet.contracts.search import (
    Budget,
    Priority,
    SearchRequest,
    StepView,
    StrategyName,
    Usage,
    UsagePart,
    Verification,
    VerificationLevel,
)
from ratchet.contracts.search_list import SearchFilter
from ratchet.states import IllegalTransitionError, NodeState, SearchState
from ratchet.store.engine import make_engine, transaction
from ratchet.store.followed import FollowedSearches
from ratchet.store.ids import new_id
from ratchet.store.nodes import NodeRecord, OrphanNodeError
from ratchet.store.search_progress import Progress
from ratchet.store.search_requests import IdempotencyConflictError
from ratchet.store.search_results import SearchOutcome
from ratchet.store.searches import Claim, LeaseLostError, SearchStore

SECRET = "37.000123"
VERIFIED = Verification(
    level=VerificationLevel.AGREEMENT,
    votes=3,
    total_votes=4,
    independent_programs=2,
    forms=2,
    grounded=True,
    prm_share=0.8,
    confidence=0.9,
    min_confidence=0.8,
)


def a_request(**changes: object) -> SearchRequest:
    return SearchRequest.model_validate({"problem": "What is 17 + 5 * 4?", **changes})


async def a_search(store: SearchStore, **changes: object) -> UUID:
    return (await store.create(a_request(**changes), None))[0]


async def claim_search(store: SearchStore, search_id: UUID, owner: str = "w1", lease: float = 30.0) -> Claim:
    claim = await store.claim(search_id, owner, lease, 5)
    assert claim is not None
    return claim


def node(number: int, parent: int | None = 0, **changes: Any) -> NodeRecord:
    record = NodeRecord(
        id=f"n{number}",
        parent=None if number == 0 else f"n{parent}",
        ordinal=number,
        depth=0 if number == 0 else 1,
        state=NodeState.OPEN,
        task=f"t{number}",
        text=f"# step {number}\nx = {number}",
        status=StepStatus.OK,
        stdout=f"{number}\n",
        prm_score=0.5,
        prior=-0.25,
        tokens=7,
        seconds=0.1,
    )
    return replace(record, **changes)


async def test_the_database_refuses_a_state_that_is_not_in_the_enum(
    store: SearchStore, engine: AsyncEngine
) -> None:
    search_id = await a_search(store)
    with pytest.raises(IntegrityError, match="ck_searches_state"):
        async with transaction(engine) as connection:
            await connection.execute(
                text("UPDATE searches SET state = 'maybe' WHERE id = :id"), {"id": search_id}
            )


async def test_an_idempotency_key_gives_one_search_for_one_request(store: SearchStore) -> None:
    key = new_id().hex
    made = await asyncio.gather(*(store.create(a_request(), key) for _ in range(8)))
    assert len({search_id for search_id, _ in made}) == 1
    assert sum(created for _, created in made) == 1
    assert (await store.create(a_request(wait=5), key))[1] is False, (
        "how long to wait is not part of what is asked"
    )
    with pytest.raises(IdempotencyConflictError):
        await store.create(a_request(seed=1), key)
    with pytest.raises(IdempotencyConflictError):
        await store.create(a_request(reference_answer=SECRET), key)


async def test_a_claim_carries_the_request_without_its_reference_answer(
    store: SearchStore, engine: AsyncEngine
) -> None:
    search_id = await a_search(
        store,
        strategy=StrategyName.BEST_OF_N,
        budget={"tokens": 99},
        seed=7,
        priority=Priority.HIGH,
        require="reference",
        reference_answer=SECRET,
    )
    claim = await claim_search(store, search_id)
    assert claim.request.strategy is StrategyName.BEST_OF_N
    assert claim.request.budget == Budget(tokens=99)
    assert (claim.request.seed, claim.request.priority) == (7, Priority.HIGH)
    assert claim.request.require is VerificationLevel.REFERENCE
    assert (claim.attempt, claim.fence, claim.has_reference, claim.cancel_requested) == (1, 1, True, False)
    assert SECRET not in repr(claim)
    assert await store.reference_answer(claim) == SECRET
    await store.journal(claim, [node(0)], Usage())
    tree = await FollowedSearches(engine).tree(search_id)
    for shown in (await store.result(search_id), tree, await store.list_recent()):
        assert shown is not None
        assert SECRET not in shown.model_dump_json()
    plain = await claim_search(store, await a_search(store))
    assert (plain.has_reference, await store.reference_answer(plain)) == (False, None)


async def test_of_many_workers_one_gets_the_search(store: SearchStore) -> None:
    search_id = await a_search(store)
    claims = await asyncio.gather(*(store.claim(search_id, f"w{n}", 30, 5) for n in range(10)))
    assert sum(claim is not None for claim in claims) == 1
    assert await store.claim(new_id(), "w", 30, 5) is None


async def test_a_worker_whose_lease_was_taken_can_write_nothing(store: SearchStore) -> None:
    search_id = await a_search(store)
    old = await claim_search(store, search_id, "old", lease=0.05)
    await store.journal(old, [node(0)], Usage(nodes=1))
    await asyncio.sleep(0.1)
    new = await claim_search(store, search_id, "new")
    assert (new.fence, new.attempt, new.usage.nodes) == (old.fence + 1, 2, 1)

    with pytest.raises(LeaseLostError):
        await store.renew(old, 30)
    with pytest.raises(LeaseLostError):
        await store.journal(old, [node(1)], Usage(nodes=99))
    with pytest.raises(LeaseLostError):
        await store.finish(
            old, SearchState.SOLVED_VERIFIED, SearchOutcome(answer="wrong", verification=VERIFIED)
        )
    await store.release(old)

    assert await store.renew(new, 30) is False
    assert [record.id for record in await store.load_nodes(search_id)] == ["n0"]
    await store.finish(new, SearchState.ANSWERED_UNVERIFIED, SearchOutcome(answer="37"))
    result = await store.result(search_id)
    assert result is not None
    assert (result.state, result.answer, result.usage.nodes) == (SearchState.ANSWERED_UNVERIFIED, "37", 0)
    with pytest.raises(LeaseLostError):
        await store.renew(new, 30)
    with pytest.raises(LeaseLostError):
        await store.journal(new, [node(1)], Usage())


async def test_a_search_that_fails_its_workers_ends_as_failed(store: SearchStore) -> None:
    search_id = await a_search(store)
    for _ in range(3):
        assert await store.claim(search_id, "w", 0.01, 3) is not None
        await asyncio.sleep(0.02)
    assert await store.claim(search_id, "w", 0.01, 3) is None
    result = await store.result(search_id)
    assert result is not None
    assert result.state is SearchState.FAILED
    assert result.reason is not None
    assert "3 workers" in result.reason


async def test_a_released_search_can_be_claimed_at_once_and_the_attempt_does_not_count(
    store: SearchStore,
) -> None:
    search_id = await a_search(store)
    for _ in range(4):
        claim = await store.claim(search_id, "w", 30, 1)
        assert claim is not None
        await store.release(claim)
        with pytest.raises(LeaseLostError):
            await store.journal(claim, [node(0)], Usage())


async def test_a_child_from_an_earlier_task_than_its_parents_comes_after_its_parent(
    store: SearchStore,
) -> None:
    search_id = await a_search(store)
    claim = await claim_search(store, search_id)
    # Task 5 found the step first, then the slower task 3 came by the same step and went on.
    await store.journal(claim, [node(0), node(5)], Usage())
    await store.journal(claim, [node(3, parent=5, depth=2)], Usage())
    assert [record.id for record in await store.load_nodes(search_id)] == ["n0", "n5", "n3"]


async def test_a_tree_comes_back_as_it_was_written(store: SearchStore, engine: AsyncEngine) -> None:
    search_id = await a_search(store)
    claim = await claim_search(store, search_id)
    first = [node(0), node(1), node(2, answer="37", state=NodeState.TERMINAL), node(3, parent=1, depth=2)]
    usage = Usage(policy=UsagePart(calls=2, tokens=14, seconds=0.5), nodes=3)
    await store.journal(claim, list(reversed(first)), usage)
    later = replace(first[1], visits=4, value_sum=3.0, state=NodeState.EXHAUSTED, expansions=2)
    # Of rollouts that found one step, what the earliest saw is kept: its text may come later.
    await store.journal(
        claim,
        [later, replace(first[2], text="other", visits=1, value_sum=1.0), node(4, parent=3, depth=3)],
        usage,
    )
    records = await store.load_nodes(search_id)
    assert records == [
        first[0],
        later,
        replace(first[2], text="other", visits=1, value_sum=1.0),
        first[3],
        node(4, parent=3, depth=3),
    ]
    tree = await FollowedSearches(engine).tree(search_id)
    assert tree is not None
    assert [view.q for view in tree.nodes] == [0, 0.75, 1, 0, 0]
    result = await store.result(search_id)
    assert result is not None
    assert result.usage == usage
    assert await FollowedSearches(engine).tree(new_id()) is None


async def test_whatever_a_program_prints_can_be_stored(store: SearchStore) -> None:
    search_id = await a_search(store)
    claim = await claim_search(store, search_id)
    await store.journal(claim, [node(0, stdout="a\x00b\ud800c\U0001f600'\"\\", answer="\x00")], Usage())
    (record,) = await store.load_nodes(search_id)
    assert (record.stdout, record.answer) == ("a�b�c\U0001f600'\"\\", "�")
    step = StepView(text="print('\x00')", stdout="\x00", prm_score=None)
    await store.finish(
        claim,
        SearchState.ANSWERED_UNVERIFIED,
        SearchOutcome(answer="\x00", program="\x00", steps=[step], proof={"\x00": ["\x00"]}, reason="\x00"),
    )
    result = await store.result(search_id)
    assert result is not None
    assert (result.answer, result.steps[0].stdout, result.reason) == ("�", "�", "�")
    assert await store.proof(search_id) == {"�": ["�"]}


@pytest.mark.parametrize("old", [NodeState.TERMINAL, NodeState.EXHAUSTED, NodeState.FAILED])
async def test_a_node_cannot_go_back(store: SearchStore, old: NodeState) -> None:
    search_id = await a_search(store)
    claim = await claim_search(store, search_id)
    await store.journal(claim, [node(0), node(1, state=old)], Usage())
    with pytest.raises(IllegalTransitionError, match=f"{old} -> open"):
        await store.journal(claim, [node(1, state=NodeState.OPEN), node(2)], Usage(nodes=9))
    assert [(record.id, record.state) for record in await store.load_nodes(search_id)] == [
        ("n0", NodeState.OPEN),
        ("n1", old),
    ]


async def test_a_node_without_its_parent_is_refused(store: SearchStore) -> None:
    claim = await claim_search(store, await a_search(store))
    with pytest.raises(OrphanNodeError, match="n4"):
        await store.journal(claim, [node(5, parent=4)], Usage())


async def test_a_search_ends_once_and_its_result_is_whole(store: SearchStore) -> None:
    search_id = await a_search(store)
    claim = await claim_search(store, search_id)
    outcome = SearchOutcome(
        answer="37",
        program="print(37)",
        steps=[StepView(text="print(37)", stdout="37\n", prm_score=0.9)],
        verification=VERIFIED,
        usage=Usage(wall_seconds=1.5),
        models={"policy": "nano@1"},
        reason="agreed",
        proof={"format": "ratchet-proof/2"},
    )
    for unfit in (SearchState.QUEUED, SearchState.RUNNING):
        with pytest.raises(IllegalTransitionError):
            await store.finish(claim, unfit, outcome)
    await store.finish(claim, SearchState.SOLVED_VERIFIED, outcome)
    await store.finish(claim, SearchState.SOLVED_VERIFIED, outcome)  # the answer of the first was lost
    for other in set(SearchState) - {SearchState.SOLVED_VERIFIED}:
        with pytest.raises(IllegalTransitionError):
            await store.finish(claim, other, replace(outcome, answer="38"))
    result = await store.result(search_id)
    assert result is not None
    assert result.state is SearchState.SOLVED_VERIFIED
    assert (result.answer, result.program, result.steps) == ("37", "print(37)", list(outcome.steps))
    assert (result.verification, result.usage, result.models) == (
        VERIFIED,
        outcome.usage,
        {"policy": "nano@1"},
    )
    assert result.started_at is not None
    assert result.ended_at is not None
    assert await store.proof(search_id) == {"format": "ratchet-proof/2"}
    assert await store.claim(search_id, "w2", 30, 5) is None


async def test_cancelling_ends_a_queued_search_and_tells_the_worker_of_a_running_one(
    store: SearchStore,
) -> None:
    queued = await a_search(store)
    assert await store.request_cancel(queued) is SearchState.CANCELLED
    assert await store.request_cancel(queued) is SearchState.CANCELLED
    assert await store.claim(queued, "w", 30, 5) is None
    running = await a_search(store)
    claim = await claim_search(store, running)
    assert await store.renew(claim, 30) is False
    assert await store.request_cancel(running) is SearchState.RUNNING
    assert await store.renew(claim, 30) is True
    await store.finish(claim, SearchState.CANCELLED, SearchOutcome(answer="36"))
    assert await store.request_cancel(running) is SearchState.CANCELLED
    assert await store.request_cancel(new_id()) is None
    assert await store.state(running) is SearchState.CANCELLED


async def test_lapsed_finds_what_lost_its_worker_or_its_job_and_nothing_else(store: SearchStore) -> None:
    fresh, dead, alive, over = [await a_search(store) for _ in range(4)]
    await claim_search(store, dead, lease=0.01)
    await claim_search(store, alive)
    await store.request_cancel(over)
    await asyncio.sleep(0.05)
    found = {waiting.id: waiting.fence for waiting in await store.find_lapsed(queued_seconds=60)}
    assert found.get(dead) == 1
    assert not {fresh, alive, over} & set(found)
    assert fresh in {waiting.id for waiting in await store.find_lapsed(queued_seconds=0)}


async def test_pages_show_every_search_once_the_newest_first(store: SearchStore) -> None:
    made = []
    for _ in range(5):
        search_id = await a_search(store, problem="page " * 100)
        await store.request_cancel(search_id)
        made.append(str(search_id))
        await asyncio.sleep(0.002)
    shown: list[str] = []
    cursor: UUID | None = None
    while len(shown) < 5:
        page = await store.list_recent(2, SearchFilter(state=SearchState.CANCELLED), cursor)
        assert len(page.searches) == 2
        assert all(len(one.problem) <= 200 for one in page.searches)
        shown += [one.id for one in page.searches]
        assert page.next == shown[-1]
        cursor = UUID(page.next)
    assert shown[:5] == made[::-1]


async def test_an_end_writes_what_was_left_to_journal_or_nothing(store: SearchStore) -> None:
    search_id = await a_search(store)
    old = await claim_search(store, search_id, "old", lease=0.01)
    await asyncio.sleep(0.05)
    new = await claim_search(store, search_id, "new")
    outcome = SearchOutcome(answer="37", models={"policy": "nano"})
    with pytest.raises(LeaseLostError):
        await store.finish(old, SearchState.ANSWERED_UNVERIFIED, outcome, [node(0)])
    with pytest.raises(OrphanNodeError):
        await store.finish(new, SearchState.ANSWERED_UNVERIFIED, outcome, [node(0), node(2, parent=1)])
    assert (await store.load_nodes(search_id), await store.state(search_id)) == ([], SearchState.RUNNING)

    progress = Progress(asked=2, tasks=())
    await store.finish(
        new, SearchState.ANSWERED_UNVERIFIED, outcome, [node(0), node(1, parent=0)], progress=progress
    )
    result = await store.result(search_id)
    assert result is not None
    assert (result.state, result.answer, result.models) == (
        SearchState.ANSWERED_UNVERIFIED,
        "37",
        {"policy": "nano"},
    )
    assert [record.id for record in await store.load_nodes(search_id)] == ["n0", "n1"]
    assert await store.load_progress(search_id) == progress


async def test_a_connection_that_was_made_for_a_burst_stays_for_the_next(database_url: str) -> None:
    """Each that is closed after its use costs Postgres a process, and has every statement prepared anew."""

    async def burst() -> set[int]:
        async def one() -> int:
            async with transaction(engine) as connection:
                pid = int((await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one())
                await connection.execute(text("SELECT pg_sleep(0.05)"))
                return pid

        return set(await asyncio.gather(*(one() for _ in range(40))))

    engine = make_engine(database_url)
    try:
        first, second = await burst(), await burst()
    finally:
        await engine.dispose()
    assert len(first) > 1
    assert second <= first


async def test_a_journal_of_any_size_takes_the_same_few_statements(
    store: SearchStore, engine: AsyncEngine
) -> None:
    claim = await claim_search(store, await a_search(store))
    statements: list[str] = []

    def count(_: object, __: object, statement: str, *rest: object) -> None:
        statements.append(statement)

    event.listen(engine.sync_engine, "before_cursor_execute", count)
    try:
        await store.journal(claim, [node(n, parent=max(0, n - 1)) for n in range(2000)], Usage())
    finally:
        event.remove(engine.sync_engine, "before_cursor_execute", count)
    assert len(await store.load_nodes(claim.id)) == 2000
    assert len(statements) <= 5
