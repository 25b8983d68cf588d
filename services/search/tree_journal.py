"""Writes a growing tree down: batches to Postgres, and events for those who watch."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import structlog
from redis.exceptions import RedisError

from ratchet.contracts.search import Priority
from ratchet.events import Event, Events, answer_event, node_event
from ratchet.states import SearchState
from ratchet.store.errors import StoreUnavailableError
from ratchet.store.nodes import NodeRecord
from ratchet.store.search_progress import Progress
from ratchet.store.search_results import SearchOutcome
from ratchet.store.search_tasks import TaskRecord
from ratchet.store.searches import Claim, SearchStore
from services.search.saved_tree import record_of
from services.search.search import Search
from services.search.strategies import Node, Rollout, Task, Tree, Why
from services.search.task_log import TaskLog

log = structlog.get_logger()

JOURNAL_SECONDS = {Priority.HIGH: 0.5, Priority.NORMAL: 0.5, Priority.LOW: 5.0}
"""Nodes are written in batches; a crash costs at most this much of the tree. Nobody watches a search of low priority."""


@dataclass
class TreeJournal:
    """Collects what changed in a tree, and writes it to Postgres and to the event stream in batches."""

    claim: Claim
    search: Search
    store: SearchStore
    events: Events
    worked_seconds: Callable[[], float]
    """What workers have spent on the search so far, this one included."""
    _changed: dict[str, Node] = field(default_factory=dict)
    _tasks: list[TaskRecord] = field(default_factory=list)
    _untold: dict[str, NodeRecord] = field(default_factory=dict)
    """Written, and not yet told to readers."""
    _answered: set[str] = field(default_factory=set)
    _flushing: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self._log = TaskLog(self.claim.fence, self.search.tree.asked, self.search.progress)
        if self.claim.request.priority is Priority.LOW:
            # What an earlier worker wrote, it may have told nobody.
            self._untold = {node.id: record_of(node) for node in self.search.tree.nodes.values()}

    def note(self, nodes: Sequence[Node]) -> None:
        """These nodes are new or changed; the next flush writes them."""
        for node in nodes:
            self._changed[node.id] = node

    def ask(self, task: Task, prm: str | None, why: Why | None) -> None:
        """The strategy has asked for this task while that version scored."""
        self._log.ask(task, prm, why)

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
            if self._changed or self._tasks:
                await self._write(self._grow)

    async def finish(self, state: SearchState, outcome: SearchOutcome) -> None:
        """Write what is left, and end the search. Raises LeaseLostError, StoreUnavailableError."""

        async def end(nodes: Sequence[NodeRecord], tasks: Sequence[TaskRecord], progress: Progress) -> None:
            await self.store.finish(self.claim, state, outcome, nodes, tasks, progress)

        async with self._flushing:
            await self._write(end)

    async def _grow(
        self, nodes: Sequence[NodeRecord], tasks: Sequence[TaskRecord], progress: Progress
    ) -> None:
        # All of one moment: what happens while it is written is for the next flush.
        usage, models = self.search.usage.model_copy(deep=True), dict(self.search.models)
        await self.store.journal(self.claim, nodes, usage, tasks, models, progress)

    async def _write(
        self, write: Callable[[Sequence[NodeRecord], Sequence[TaskRecord], Progress], Awaitable[None]]
    ) -> None:
        batch, self._changed = self._changed, {}
        tasks, self._tasks = self._tasks, []
        records = sorted((record_of(node) for node in batch.values()), key=lambda record: record.ordinal)
        self.search.usage.wall_seconds = self.worked_seconds()
        try:
            await write(records, tasks, Progress(self.search.tree.asked, self._log.under_way))
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
        await publish(self.events, self.claim.id, [*map(node_event, views), *map(answer_event, answered)])

    async def _is_watched(self) -> bool:
        try:
            return await self.events.is_watched(self.claim.id)
        except RedisError:
            return False


async def publish(events: Events, search_id: UUID, batch: Sequence[Event]) -> None:
    """Tell those who watch; where Redis is away, nobody is told."""
    try:
        await events.publish(search_id, batch)
    except RedisError as error:
        # Events are for those who watch; the truth is in Postgres, so a search does not fail for them.
        log.warning("events not published", search=str(search_id), error=str(error))
