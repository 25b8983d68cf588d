"""Writes a growing tree down, and reads it again: batches to Postgres, and events for those who watch."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import structlog
from redis.exceptions import RedisError

from ratchet.contracts.search import Priority
from ratchet.events import Event, Events, answer_event, node_event
from ratchet.store.engine import StoreUnavailableError
from ratchet.store.nodes import NodeRecord
from ratchet.store.search_tasks import TaskRecord
from ratchet.store.searches import Claim, SearchStore
from services.search.search import Search
from services.search.strategies import Node, Rollout, Task, Tree
from services.search.task_log import TaskLog

log = structlog.get_logger()

JOURNAL_SECONDS = {Priority.HIGH: 0.5, Priority.NORMAL: 0.5, Priority.LOW: 5.0}
"""Nodes are written in batches; a crash costs at most this much of the tree. Nobody watches a search of low priority."""
ORDINALS_PER_TASK = 10_000
"""More than a task makes nodes: the store orders nodes by one number, the tree by task and place."""


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
        self.search.usage.wall_seconds = self.worked_seconds()
        try:
            await self.store.journal(self.claim, records, self.search.usage, tasks, self.search.models)
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
