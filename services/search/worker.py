"""The search worker: takes searches from the queue, grows their trees, and writes down what came of it.

Many searches run at once in one process, each a task. A search is held by a lease that this worker renews; when it is lost,
the search stops at once and nothing more is written (the fence in Postgres sees to that). A worker that is told to stop gives
its searches back with their trees, and the next one goes on where it stopped.
"""

import asyncio
import contextlib
import math
import os
import socket
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar
from uuid import UUID

import structlog
import uvloop
from redis.exceptions import RedisError
from sqlalchemy.ext.asyncio import AsyncEngine
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from ratchet.clients import PolicyClient, PrmClient, SandboxClient, SandboxFailedError, ServiceError
from ratchet.contracts.calibration import AnswerCalibration
from ratchet.contracts.search import EventKind, Priority, StrategyName
from ratchet.events import Event, Events, answer_event, end_event, node_event
from ratchet.settings import SearchSettings, load
from ratchet.states import SEARCH_TRANSITIONS, SearchState, is_end
from ratchet.store.calibrations import CalibrationStore
from ratchet.store.engine import StoreUnavailableError, make_engine
from ratchet.store.nodes import NodeRecord
from ratchet.store.search_results import SearchOutcome
from ratchet.store.search_tasks import TaskRecord
from ratchet.store.searches import Claim, LeaseLostError, SearchStore
from ratchet.telemetry import configure_logging
from services.search.answering_models import models_of
from services.search.consumer import Consumer
from services.search.interpreter import Interpreter
from services.search.right_of_way import RightOfWay
from services.search.run import grow, most_in_flight
from services.search.search import Backends, Search
from services.search.step_memory import StepMemory
from services.search.strategies import Node, Rollout, Task, Tree
from services.search.task_log import TaskLog
from services.search.verify import conclude

T = TypeVar("T")
log = structlog.get_logger()

JOURNAL_SECONDS = {Priority.HIGH: 0.5, Priority.NORMAL: 0.5, Priority.LOW: 5.0}
"""Nodes are written in batches; a crash costs at most this much of the tree. Nobody watches a search of low priority."""
STORE_SECONDS = 120.0
"""A store that restarts is back within this time."""
CALIBRATION_SECONDS = 30.0
"""How long a worker believes what it has read of a calibration, or that there is none."""
POOL_SECONDS = 60.0
"""A worker's searches, hundreds perhaps, share a few connections to the store: one that waits its turn is no outage."""
BEAT_SECONDS = 5.0
"""Between two touches of the ready file."""
ORDINALS_PER_TASK = 10_000
"""More than a task makes nodes: the store orders nodes by one number, the tree by task and place."""


@dataclass
class _TreeJournal:
    """Collects what changed in a tree, and writes it to Postgres and to the event stream in batches."""

    claim: Claim
    search: Search
    store: SearchStore
    events: Events
    _changed: dict[str, Node] = field(default_factory=dict)
    _tasks: list[TaskRecord] = field(default_factory=list)
    _untold: dict[str, NodeRecord] = field(default_factory=dict)
    """Written, and not yet told to readers."""
    _answered: set[str] = field(default_factory=set)
    _flushing: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self._log = TaskLog(self.claim.fence, self.search.tree.asked)
        if self.claim.request.priority is Priority.LOW:
            # What an earlier worker wrote, it may have told nobody.
            self._untold = {node.id: record_of(node) for node in self.search.tree.nodes.values()}

    def note(self, nodes: Sequence[Node]) -> None:
        """These nodes are new or changed; the next flush writes them."""
        for node in nodes:
            self._changed[node.id] = node

    def ask(self, task: Task, prm: str | None) -> None:
        """The strategy has asked for this task while that version scored."""
        self._log.ask(task.number, prm)

    def tell(self, tree: Tree, rollout: Rollout) -> None:
        """The strategy is told this now; the next flush writes it."""
        self._tasks.append(self._log.tell(tree, rollout))

    async def keep_flushing(self) -> None:
        """Flush for ever; a store that is away is tried again at the next turn."""
        while True:
            await asyncio.sleep(JOURNAL_SECONDS[self.claim.request.priority])
            try:
                await self.flush()
            except StoreUnavailableError as error:
                log.warning("tree not written yet", error=str(error))

    async def flush(self) -> None:
        """Write what changed since the last flush. Raises LeaseLostError, StoreUnavailableError."""
        # The last flush of a search has to wait for one that is under way: its nodes may still have to be written again.
        async with self._flushing:
            await self._flush()

    async def _flush(self) -> None:
        if not self._changed and not self._tasks:
            return
        batch, self._changed = self._changed, {}
        tasks, self._tasks = self._tasks, []
        records = sorted((record_of(node) for node in batch.values()), key=lambda record: record.ordinal)
        try:
            await self.store.journal(self.claim, records, self.search.usage, tasks)
        except BaseException:
            # Not written, or perhaps written: writing it again does no harm.
            self._changed = {**batch, **self._changed}
            self._tasks = [*tasks, *self._tasks]
            raise
        await self._publish(records)

    async def _publish(self, records: Sequence[NodeRecord]) -> None:
        """Tell readers what is new. Of a search of low priority they hear once they are there, and then all there is."""
        self._untold.update((record.id, record) for record in records)
        if self.claim.request.priority is Priority.LOW and not await self._is_watched():
            return
        untold, self._untold = self._untold, {}
        views = [record.view() for record in sorted(untold.values(), key=lambda record: record.ordinal)]
        answered = [view for view in views if view.answer is not None and view.id not in self._answered]
        self._answered.update(view.id for view in answered)
        await _publish(self.events, self.claim.id, [*map(node_event, views), *map(answer_event, answered)])

    async def _is_watched(self) -> bool:
        try:
            return await self.events.is_watched(self.claim.id)
        except RedisError:
            return False


async def _publish(events: Events, search_id: UUID, batch: Sequence[Event]) -> None:
    try:
        await events.publish(search_id, batch)
    except RedisError as error:
        # Events are for those who watch; the truth is in Postgres, so a search does not fail for them.
        log.warning("events not published", search=str(search_id), error=str(error))


def record_of(node: Node) -> NodeRecord:
    """A node as the store keeps it."""
    number, place = node.ordinal
    return NodeRecord(
        id=node.id,
        parent=node.parent,
        ordinal=number * ORDINALS_PER_TASK + place if number >= 0 else -1,
        depth=node.depth,
        state=node.state,
        task=str(number),
        text=node.text,
        status=node.status,
        stdout=node.stdout,
        stderr=node.stderr,
        prm_score=node.prm_score,
        prior=node.prior,
        visits=node.visits,
        value_sum=node.value_sum,
        tokens=node.tokens,
        seconds=node.seconds,
        answer=node.answer,
        expansions=node.expansions,
    )


def tree_of(records: Sequence[NodeRecord], lost: int = 0) -> Tree:
    """The tree that an earlier worker wrote down. What was in flight then, at most `lost` tasks, is asked for again.

    Numbers of tasks are not used twice: the seed of a task is its number, and the same trajectory would count twice.
    """
    tree = Tree()
    for record in records:
        number = record.ordinal // ORDINALS_PER_TASK if record.ordinal >= 0 else -1
        tree.nodes[record.id] = Node(
            id=record.id,
            parent=record.parent,
            ordinal=(number, record.ordinal % ORDINALS_PER_TASK if number >= 0 else 0),
            depth=record.depth,
            state=record.state,
            text=record.text,
            status=record.status,
            stdout=record.stdout,
            stderr=record.stderr,
            prm_score=record.prm_score,
            prior=record.prior,
            tokens=record.tokens,
            seconds=record.seconds,
            answer=record.answer,
            visits=record.visits,
            value_sum=record.value_sum,
            expansions=record.expansions,
        )
        tree.asked = max(tree.asked, number + 1)
    for node in sorted(tree.nodes.values(), key=lambda node: node.ordinal):
        if node.parent is not None:
            tree.nodes[node.parent].children.append(node.id)
    for node in tree.nodes.values():
        node.ended = node.visits - sum(child.visits for child in tree.children(node))
    # A task whose steps were all known before left no node with its number, but was counted where it began.
    tree.asked = max(tree.asked, sum(node.expansions for node in tree.nodes.values()) + lost)
    return tree


@dataclass(frozen=True, slots=True)
class Worker:
    """What every search of this process shares."""

    settings: SearchSettings
    name: str
    store: SearchStore
    calibrations: CalibrationStore
    events: Events
    backends: Backends
    memory: StepMemory = field(default_factory=StepMemory)
    right_of_way: RightOfWay = field(default_factory=RightOfWay)
    _calibrations: dict[tuple[str, str], tuple[float, AnswerCalibration | None]] = field(default_factory=dict)
    """By policy and PRM: when it was read, and what."""

    async def run_search(self, search_id: UUID, cancelled: asyncio.Event) -> None:
        """Work on one search until it is over or another's; does nothing when it is not to be had."""
        claim = await self.store.claim(
            search_id, self.name, self.settings.lease_seconds, self.settings.max_attempts
        )
        if claim is None:
            await self._announce_end(search_id)
            return
        with structlog.contextvars.bound_contextvars(search=str(search_id), attempt=claim.attempt):
            try:
                await self._work_or_give_back(await self._with_strategy(claim), cancelled)
            except* LeaseLostError:
                log.warning("lease lost; another worker has this search")

    async def _with_strategy(self, claim: Claim) -> Claim:
        """The claim, with the strategy that stands for `auto`; it is written down, so that the next worker has the same."""
        if claim.request.strategy is not StrategyName.AUTO:
            return claim
        chosen = await self.store.choose_strategy(claim, await models_of(claim.request, self.backends))
        return replace(claim, request=claim.request.model_copy(update={"strategy": chosen}))

    async def _work_or_give_back(self, claim: Claim, cancelled: asyncio.Event) -> None:
        try:
            await self._work(claim, cancelled)
        except asyncio.CancelledError:
            with contextlib.suppress(StoreUnavailableError):
                await self.store.release(claim)
            raise

    async def _work(self, claim: Claim, cancelled: asyncio.Event) -> None:
        search = await self._load(claim, cancelled)
        if claim.cancel_requested:
            cancelled.set()
        before = claim.usage.wall_seconds
        began = time.monotonic()
        # The budget's seconds count from the first worker's start, so a crash does not give a search more time.
        used = (datetime.now(UTC) - claim.started_at).total_seconds()
        deadline = began + max(0.0, claim.request.budget.seconds - max(0.0, used))
        journal = _TreeJournal(claim, search, self.store, self.events)
        if claim.attempt == 1:
            journal.note([search.tree.root])
        await _publish(
            self.events,
            claim.id,
            [Event(EventKind.STATE, {"state": SearchState.RUNNING.value, "reason": None})],
        )
        async with asyncio.TaskGroup() as beside:
            keepers = [
                beside.create_task(self._renew(claim, cancelled)),
                beside.create_task(journal.keep_flushing()),
            ]
            state, outcome = await self._grow_and_conclude(claim, search, journal, deadline)
            search.usage.wall_seconds = before + time.monotonic() - began
            await _once_store_is_back(journal.flush)
            await _once_store_is_back(lambda: self.store.finish(claim, state, outcome))
            for keeper in keepers:
                keeper.cancel()
        log.info("search over", state=state.value, reason=outcome.reason, tokens=search.usage.policy.tokens)
        await self._announce_end(claim.id)

    async def _load(self, claim: Claim, cancelled: asyncio.Event) -> Search:
        """The search as the workers before this one have left it."""
        return Search(
            request=claim.request,
            reference=await self.store.reference_answer(claim) if claim.has_reference else None,
            tree=tree_of(
                await self.store.load_nodes(claim.id),
                # Each worker before this one lost at most what it had in flight.
                lost=(claim.fence - 1) * most_in_flight(claim.request),
            ),
            interpreter=Interpreter(self.backends.sandbox, claim.request.seed, self.memory),
            usage=claim.usage.model_copy(deep=True),
            stop=cancelled,
            right_of_way=self.right_of_way,
            find_calibration=self.find_calibration,
        )

    async def _grow_and_conclude(
        self, claim: Claim, search: Search, journal: _TreeJournal, deadline: float
    ) -> tuple[SearchState, SearchOutcome]:
        """Grow until an end, then verify. A backend that stays away or refuses ends the search with what it has."""
        try:
            async with search.interpreter:
                with self.right_of_way.under_way(claim.request.priority):
                    reason = await grow(search, self.backends, journal, deadline)
        except (ServiceError, SandboxFailedError) as error:
            log.warning("a backend failed", error=str(error))
            reason = f"stopped early: {error}"
            if not search.tree.terminals():
                return SearchState.FAILED, SearchOutcome(
                    usage=search.usage, models=search.models, reason=reason
                )
        try:
            return await conclude(search, self.backends.sandbox, str(claim.id), claim.created_at, reason)
        except (ServiceError, SandboxFailedError) as error:
            return SearchState.FAILED, SearchOutcome(
                usage=search.usage, models=search.models, reason=f"the answer could not be verified: {error}"
            )

    async def find_calibration(self, policy: str, prm: str) -> AnswerCalibration | None:
        """The calibration of a pair, as it was at most CALIBRATION_SECONDS ago. Raises StoreUnavailableError."""
        looked_up, found = self._calibrations.get((policy, prm), (-math.inf, None))
        if time.monotonic() - looked_up > CALIBRATION_SECONDS:
            found = await _once_store_is_back(lambda: self.calibrations.get(policy, prm))
            self._calibrations[policy, prm] = time.monotonic(), found
        return found

    async def _renew(self, claim: Claim, cancelled: asyncio.Event) -> None:
        """Renew the lease for ever. Raises LeaseLostError."""
        while True:
            await asyncio.sleep(self.settings.lease_seconds / 5)
            try:
                if await self.store.renew(claim, self.settings.lease_seconds):
                    cancelled.set()
            except StoreUnavailableError as error:
                # While the store is away nobody can claim the search either; once it is back, the fence decides.
                log.warning("lease not renewed", error=str(error))

    async def _announce_end(self, search_id: UUID) -> None:
        state = await self.store.state(search_id)
        if state is not None and is_end(SEARCH_TRANSITIONS, state):
            await _publish(self.events, search_id, [end_event()])


async def _once_store_is_back(ask: Callable[[], Awaitable[T]]) -> T:
    """Read or write; wait up to STORE_SECONDS for a store that is away, as the end of a search is worth it."""
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(StoreUnavailableError),
        wait=wait_random_exponential(multiplier=0.5, max=5.0),
        stop=stop_after_delay(STORE_SECONDS),
        reraise=True,
    ):
        with attempt:
            return await ask()
    raise AssertionError("tenacity raises what the last attempt raised")


async def _keep_touching(file: Path) -> None:
    """Say to whoever watches the file that this loop turns."""
    while True:
        file.touch()  # noqa: ASYNC240 - one system call
        await asyncio.sleep(BEAT_SECONDS)


async def main(settings: SearchSettings) -> None:
    """Run the worker until SIGTERM or SIGINT."""
    engine: AsyncEngine = make_engine(settings.database_url, pool_seconds=POOL_SECONDS)
    events = Events(settings.redis_url)
    name = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
    async with (
        PolicyClient(settings.policy_url) as policy,
        PrmClient(settings.prm_url) as prm,
        SandboxClient(settings.sandbox_url) as sandbox,
    ):
        worker = Worker(
            settings,
            name,
            SearchStore(engine),
            CalibrationStore(engine),
            events,
            Backends(policy, prm, sandbox),
        )
        consumer = Consumer(settings, worker.run_search)
        beat = asyncio.create_task(_keep_touching(settings.ready_file)) if settings.ready_file else None
        log.info("worker ready", name=name, concurrency=settings.concurrency)
        try:
            await consumer.run()
        finally:
            if beat is not None:
                beat.cancel()
            await events.aclose()
            await engine.dispose()


if __name__ == "__main__":
    _settings = load(SearchSettings)
    configure_logging(_settings)
    uvloop.run(main(_settings))
