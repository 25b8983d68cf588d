"""One search: ask the strategy, do the work over HTTP, tell the strategy, until an end is reached.

The loop keeps up to `in_flight` tasks under way; batches form in the engines. It knows no database: what changed goes to
a `Journal`, which the worker provides. Tokens are reserved for tasks under way (`reserve.py`), so a budget is overrun by the
error of that estimate, not by all that is in flight.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from ratchet.contracts.search import Priority, SearchRequest
from services.search.beginning import (
    BeginningFailedError,
    failed_step,
    lay_beginning,
    why_nothing_follows,
)
from services.search.early_stop import EarlyStop
from services.search.reserve import Reserve
from services.search.rollouts import roll_out
from services.search.saved_tree import task_of
from services.search.search import Backends, Search
from services.search.strategies import Node, Rollout, Strategy, Task, Tree, Why

WIDEST = 64
"""Tasks under way that need not wait for one another, in a search that spends its whole budget."""
SPARED = 8
"""The same in a search that may end early, and would have no use for more of them."""
WAITING = 4
"""Tasks under way of a strategy that chooses by what came of others: the fewer, the more each knows."""
SHORTEST_WAIT = 0.05
"""Seconds. The clock may stand a moment before the deadline, and whoever waits for it would ask all the time."""


class Journal(Protocol):
    """Where a search writes down what it did."""

    def note(self, nodes: Sequence[Node]) -> None:
        """These nodes are new or changed. Must not block."""

    def ask(self, task: Task, prm: str | None, why: Why | None) -> None:
        """The strategy has asked for this task while that version scored; `why`, where somebody may watch."""

    def tell(self, tree: Tree, rollout: Rollout) -> None:
        """The strategy is told this now."""


async def grow(
    search: Search,
    backends: Backends,
    journal: Journal,
    deadline: float,
    clock: Callable[[], float] = time.monotonic,
) -> str:
    """Grow the tree until an end is reached; the reason why it ended. `deadline` is of the clock, which may stand still.

    Raises BeginningFailedError, ServiceError, SandboxFailedError.
    """
    request = search.request
    await search.learn_prm(backends)
    # An earlier worker may have told the models: what depends on them is decided as it would have been there.
    await search.learn_calibration()
    journal.note(await lay_beginning(search, backends))
    if (reason := failed_step(search)) is not None:
        raise BeginningFailedError(reason)
    taken_over = () if search.progress is None else search.progress.tasks
    running = {asyncio.create_task(roll_out(search, backends, task_of(each))) for each in taken_over}
    stopped = asyncio.create_task(search.stop.wait())
    reserve = Reserve()
    for each in running:
        reserve.begin(each)
    early_stop = EarlyStop(search)
    # Nobody watches a search of low priority, and there are many of them.
    watched = request.priority is not Priority.LOW
    try:
        while True:
            # The PRM that scores may have changed.
            strategy = search.strategy()
            # The token budget is not among the reasons: it only ends the asking, as what is under way is paid for.
            reason = _reason_to_end(search, early_stop, deadline - clock())
            while (
                reason is None
                and len(running) < most_in_flight(request, free=strategy.is_free(search.tree))
                and reserve.has_room(request.budget.tokens - search.usage.policy.tokens)
                and (task := strategy.ask(search.tree)) is not None
            ):
                why = strategy.explain(search.tree, task) if watched else None
                journal.ask(task, search.models.get("prm") or request.models.prm, why)
                begun = asyncio.create_task(roll_out(search, backends, task))
                running.add(begun)
                reserve.begin(begun)
            if reason is not None or not running:
                return reason or _why_nothing_is_left(search)
            await asyncio.wait(
                {*running, stopped},
                timeout=max(SHORTEST_WAIT, deadline - clock()),
                return_when=asyncio.FIRST_COMPLETED,
            )
            for ended in [under_way for under_way in running if under_way.done()]:
                running.discard(ended)
                rollout = ended.result()
                reserve.end(ended, sum(step.tokens for path in rollout.paths for step in path))
                _record(search, strategy, rollout, journal)
            await search.learn_calibration()
    finally:
        for pending in (*running, stopped):
            pending.cancel()
        await asyncio.gather(*running, stopped, return_exceptions=True)


def _record(search: Search, strategy: Strategy, rollout: Rollout, journal: Journal) -> None:
    journal.tell(search.tree, rollout)
    changed = strategy.tell(search.tree, rollout)
    search.usage.nodes = len(search.tree.nodes) - 1
    search.usage.rollouts = search.tree.root.visits
    journal.note([search.tree.nodes[node] for node in changed])


def most_in_flight(request: SearchRequest, *, free: bool = True) -> int:
    """Tasks of a search that may be under way at once; `free`: the next one need not wait for them."""
    named = request.parameters.in_flight
    if named is not None:
        return named
    if not free:
        return WAITING
    return SPARED if request.parameters.early_stop else WIDEST


def _reason_to_end(search: Search, early_stop: EarlyStop, seconds_left: float) -> str | None:
    budget = search.request.budget
    if search.stop.is_set():
        return "cancelled"
    if seconds_left <= 0:
        return f"budget of {budget.seconds:g} seconds used up"
    if len(search.tree.nodes) > budget.nodes:
        return f"budget of {budget.nodes} nodes used up"
    return why_nothing_follows(search.tree) or early_stop.reason()


def _why_nothing_is_left(search: Search) -> str:
    if search.tree.rollouts >= search.request.parameters.rollouts:
        return "all rollouts done"
    return f"budget of {search.request.budget.tokens} tokens used up"
