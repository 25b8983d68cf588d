"""Sessions: trees of steps whose results are remembered and whose interpreter states are kept where that pays.

A step that is known is never run again: its result is answered from memory. A new one runs in the state of its parent.
Where that state is at hand it is used; where it is kept (a snapshot, a waiting process) it is forked; where it was given up
the steps on the way there are run once more from the nearest state that is kept, the root at the least. So giving up a
snapshot costs time and never a result. A state is kept where making it anew would cost more than a fork does, and at the
end of every chain; the least recently used is given up first when there are too many, or memory runs short.

Some states cannot be forked: other threads would be missing from the copy, and open files would share their offset. They
are not kept, and what follows is run in one process from the root, as a re-execution would.

Limits: results are those of a re-execution as far as the program depends on its steps and its seed alone; process numbers,
addresses and clocks differ. Where no limit of processes can be had there are no snapshots, and every step is re-executed.
"""

import asyncio
import contextlib
import os
import secrets
import time
from collections.abc import Sequence

import structlog

from ratchet import background
from ratchet.contracts.sandbox import (
    ROOT_NODE,
    ChainResult,
    Limit,
    Measured,
    NodeResult,
    RunStatus,
    Session,
    SessionRequest,
    StepStatus,
)
from services.sandbox.admission import Admission
from services.sandbox.cgroups import memory_left
from services.sandbox.jail import Isolation
from services.sandbox.node_process import Process
from services.sandbox.pool import ATTEMPTS, Pool
from services.sandbox.processes import CannotForkError, CrowdedOutError, Processes, Step
from services.sandbox.runs import Run, Task, measured_of, unit_status
from services.sandbox.session_tree import Hand, Node, Tree, node_id
from services.sandbox.session_zygotes import SessionZygotes
from services.sandbox.snapshots import SESSION_SNAPSHOTS, Snapshots
from services.sandbox.zygotes import Level, NotConfinedError, ZygoteDiedError

log = structlog.get_logger()

FORK_SECONDS = 0.004
"""What a fork costs: a state whose making took less is not worth one."""
MAX_NODES = 10_000
"""Most steps that one session remembers."""
MAX_CHARS = 32 * 2**20
"""Most characters of code and output that one session remembers."""
SPARE_TASKS = 64
"""Processes and threads that a session may have beside its snapshots."""
LEAST_AVAILABLE = 0.08
"""Share of the machine's memory. When less is available, the oldest snapshots of all sessions are given up."""
ROOM_SECONDS = 2.0
"""How long after a step's time limit the processes that it left behind may take to end."""
SWEEPS, SWEEP_SECONDS = 5, 0.01
"""How often to look for processes that a step left running, and how long to wait between two looks."""
TIDY_SECONDS = 5.0
"""Between two looks for idle sessions and for the machine's memory."""


class UnknownSessionError(Exception):
    """There is no such session (any more)."""


class UnknownNodeError(Exception):
    """The session has no such node, or its step did not run."""


class SessionFullError(Exception):
    """The session remembers as many steps as it may."""


class TooManySessionsError(Exception):
    """There are as many sessions as may be."""


class _DivergedError(Exception):
    """A step that ran did not run when its state had to be made anew."""


class Sessions:
    """All sessions, the zygote that they are forked from, and the snapshots in the order of their last use."""

    def __init__(
        self,
        level: Level,
        admission: Admission,
        runners: Pool,
        zygotes: SessionZygotes,
        *,
        max_sessions: int,
        max_snapshots: int,
        memory_bytes: int,
        idle_seconds: float,
        max_output_bytes: int,
    ) -> None:
        self._level = level
        self._admission = admission
        self._runners = runners
        self._zygotes = zygotes
        self._max_sessions = max_sessions
        self._memory_bytes = memory_bytes
        self._idle_seconds = idle_seconds
        self._max_output_bytes = max_output_bytes
        self._trees: dict[str, Tree] = {}
        self.snapshots = Snapshots(max_snapshots, memory_bytes)
        self._tidying: asyncio.Task[None] | None = None
        self._starts: set[asyncio.Task[Processes]] = set()
        self.strays = 0
        """Processes that steps had left running, and that were killed."""

    @property
    def incremental(self) -> bool:
        """Whether snapshots are kept: only where the kernel bounds the processes of a session."""
        return self._level.isolation is Isolation.NAMESPACES and (
            self._zygotes.has_pids_cgroup or os.getuid() != 0
        )

    @property
    def open(self) -> int:
        """How many sessions there are."""
        return len(self._trees)

    def start(self) -> None:
        """Begin to end idle sessions."""
        self._tidying = asyncio.create_task(
            background.repeat("sessions", self._tidy, min(TIDY_SECONDS, self._idle_seconds))
        )

    async def stop(self) -> None:
        """End all sessions."""
        if self._tidying is not None:
            self._tidying.cancel()
        await asyncio.gather(*(self._close(tree) for tree in list(self._trees.values())))

    async def create(self, request: SessionRequest) -> Session:
        """A new session. Its processes start with its first step. Raises TooManySessionsError."""
        if request.id in self._trees:
            await self.close(request.id)
        if len(self._trees) >= self._max_sessions:
            raise TooManySessionsError(f"There are {len(self._trees)} sessions already.")
        tree = Tree(request.id or secrets.token_hex(12), request)
        self._trees[tree.id] = tree
        return self.view(tree.id)

    def view(self, session: str) -> Session:
        """The session as it is now. Raises UnknownSessionError."""
        tree = self._tree(session)
        return Session(
            id=tree.id,
            nodes=sum(node.step is not None for node in tree.nodes.values()),
            snapshots=len(tree.kept),
            executed=tree.executed,
            replayed=tree.replayed,
        )

    async def close(self, session: str) -> Session:
        """End a session and everything in it; what it held. Raises UnknownSessionError."""
        last = self.view(session)
        await self._close(self._tree(session))
        return last

    async def run(self, session: str, parent: str, steps: Sequence[str]) -> ChainResult:
        """Run steps one after another from a node; up to the first that fails.

        Raises UnknownSessionError, UnknownNodeError, SessionFullError, BusyError.
        """
        tree = self._tree(session)
        node = tree.root if parent == ROOT_NODE else tree.nodes.get(parent)
        if node is None or (node is not tree.root and not node.ran):
            raise UnknownNodeError(f"The session has no node {parent!r} at which a step could go on.")
        if len(tree.nodes) + len(steps) > MAX_NODES or tree.chars > MAX_CHARS:
            detail = f"{len(tree.nodes)} steps and {tree.chars} characters"
            raise SessionFullError(f"The session remembers {detail}; begin another one.")
        tree.under_way += 1
        tree.used = time.monotonic()
        try:
            return await self._run_chain(tree, node, steps)
        finally:
            tree.under_way -= 1
            tree.used = time.monotonic()
            if tree.under_way == 0 and tree.processes is not None:
                await self._sweep(tree, tree.processes)

    async def _sweep(self, tree: Tree, processes: Processes) -> None:
        """Kill what steps left running. If it forks faster than it can be killed, all of the session's processes end."""
        for _ in range(SWEEPS):
            strays = processes.sweep()
            self.strays += strays
            if not strays:
                return
            await asyncio.sleep(SWEEP_SECONDS)
        log.warning("session ended for its stray processes", session=tree.id)
        await self._lose(tree, processes)

    def _tree(self, session: str) -> Tree:
        try:
            return self._trees[session]
        except KeyError:
            raise UnknownSessionError(f"There is no session {session!r}.") from None

    async def _run_chain(self, tree: Tree, start: Node, steps: Sequence[str]) -> ChainResult:
        results: list[NodeResult] = []
        message = ""
        status = RunStatus.SUCCESS
        hand: Hand | None = None
        node = start
        try:
            for code in steps:
                try:
                    node, hand = await self._known_or_run(tree, node, code, hand)
                except (ZygoteDiedError, NotConfinedError, CannotForkError) as error:
                    status, message = RunStatus.SANDBOX_ERROR, f"The step was not run: {error}"
                    break
                assert node.step is not None
                results.append(_result(node, node.step))
                if not node.ran:
                    status = RunStatus.FAILED
                    break
        finally:
            if hand is not None:
                self.snapshots.keep(tree, hand)
        skipped = [
            NodeResult(node=None, status=StepStatus.NOT_RUN, measured=None)
            for _ in range(len(steps) - len(results))
        ]
        return ChainResult(status=status, message=message, steps=results + skipped)

    async def _known_or_run(
        self, tree: Tree, parent: Node, code: str, hand: Hand | None
    ) -> tuple[Node, Hand | None]:
        """The node of the step after its parent, which is run unless it is known, or being run by another chain."""
        while (node := parent.children.get(code)) is not None:
            await node.done.wait()
            if node.step is not None:
                self.snapshots.touch(node)
                return node, hand
            # The chain that was to run it could not, and has taken it out of the tree.
        node = Node(node_id(parent, code), parent, code, parent.depth + 1)
        parent.children[code] = tree.nodes[node.id] = node
        try:
            async with self._admission.permit(tree.id):
                hand = await self._execute(tree, node, hand)
        finally:
            if node.step is None:
                del parent.children[code], tree.nodes[node.id]
            else:
                tree.chars += len(code) + len(node.step.stdout) + len(node.step.stderr)
            node.done.set()
        return node, hand

    async def _execute(self, tree: Tree, node: Node, hand: Hand | None) -> Hand | None:
        """Run the node's step. Returns the process in the state after it, or None where no step can follow."""
        assert node.parent is not None
        left = tree.request.run_timeout - node.parent.seconds
        if left <= 0:
            node.step = Step(StepStatus.LIMIT, "", "", _nothing_measured(Limit.WALL))
            return hand
        if not self.incremental:
            await self._reexecute(tree, node)
            return None
        for attempt in range(1, ATTEMPTS + 1):
            processes = await self._running_processes(tree)
            try:
                hand = await self._at(tree, processes, node.parent, hand)
                try:
                    step = await processes.run(hand.process, node.code, left)
                except BaseException:
                    processes.discard(hand.process)
                    raise
                break
            except _DivergedError:
                node.step = _DIVERGED
                return None
            except CrowdedOutError:
                # Another step of the session was too large, or this one by processes that it has made. Alone it is told apart.
                log.info("step run again by itself", session=tree.id)
                self.strays += processes.sweep()
                await self._reexecute(tree, node)
                return None
            except (ZygoteDiedError, CannotForkError) as error:
                log.warning("session lost its processes", session=tree.id, attempt=attempt, reason=str(error))
                hand = None
                await self._lose(tree, processes)
                if attempt == ATTEMPTS:
                    raise
        assert hand is not None
        tree.executed += 1
        node.step, node.seconds = step, node.parent.seconds + step.measured.wall_seconds
        if step.status is not StepStatus.OK:
            processes.discard(hand.process)
            self.strays += processes.sweep()
            return None
        return Hand(hand.process, node, hand.seconds + step.measured.wall_seconds)

    async def _at(self, tree: Tree, processes: Processes, node: Node, hand: Hand | None) -> Hand:
        """A process of our own in the state after `node`. Raises CannotForkError, ZygoteDiedError."""
        if hand is not None and hand.node is node and hand.process.pidfd >= 0:
            if not hand.process.forkable or hand.seconds < FORK_SECONDS:
                return hand
            # The state is worth keeping for whoever comes back to this node: go on in a fork of it.
            try:
                process = await processes.fork(hand.process)
            except CannotForkError:
                # No fork can be had: the step uses the state up.
                return hand
            self.snapshots.keep(tree, hand)
            return Hand(process, node)
        if hand is not None:
            self.snapshots.keep(tree, hand)
        base, process = await self._nearest(tree, processes, node)
        found = Hand(process, base)
        try:
            for step in node.path()[base.depth :]:
                again = await processes.run(process, step.code, tree.request.run_timeout)
                tree.replayed += 1
                if again.status is not StepStatus.OK:
                    raise _DivergedError
                found = Hand(process, step, found.seconds + again.measured.wall_seconds)
        except BaseException:
            processes.discard(process)
            raise
        return found

    async def _nearest(self, tree: Tree, processes: Processes, node: Node) -> tuple[Node, Process]:
        """A fork of the nearest state that is kept, on the way from `node` to the root. Raises CannotForkError."""
        for base in reversed(node.path()):
            if base.process is None:
                continue
            self.snapshots.touch(base)
            try:
                return base, await processes.fork(base.process)
            except CannotForkError as error:
                log.info("snapshot lost", session=tree.id, reason=str(error))
                self.snapshots.give_up(base)
        try:
            return tree.root, await processes.fork(processes.root)
        except CannotForkError:
            # Most likely at the limit of processes or memory: make room.
            for kept in tree.kept:
                self.snapshots.give_up(kept)
        deadline = time.monotonic() + tree.request.run_timeout + ROOM_SECONDS
        while True:
            self.strays += processes.sweep()
            await asyncio.sleep(0.05)
            try:
                return tree.root, await processes.fork(processes.root)
            except CannotForkError:
                # Another step may fill the session with processes; there is room when it has ended.
                if processes.gone.is_set() or time.monotonic() > deadline:
                    raise

    async def _reexecute(self, tree: Tree, node: Node) -> None:
        """The step's result from a run of all steps from nothing."""
        path = [step.code for step in node.path()]
        outcome = await self._runners.run(
            Run(
                task=Task.STEPS,
                units=path,
                seconds=tree.request.run_timeout,
                memory_bytes=tree.request.memory_limit_MB * 2**20,
                seed=tree.request.seed,
            )
        )
        tree.executed += 1
        tree.replayed += len(path) - 1
        unit = outcome.units[-1]
        node.step = _DIVERGED
        if len(outcome.units) == len(path):
            # Of the steps before it the run has printed as well; what is said of this node is its own.
            measured = measured_of(outcome).model_copy(update={"stdout_truncated": unit.stdout_truncated})
            node.step = Step(unit_status(unit, outcome), unit.stdout, unit.stderr, measured)
        node.seconds = outcome.wall_seconds

    async def _running_processes(self, tree: Tree) -> Processes:
        """The session's processes, started where there are none. A start goes on even if its caller goes away."""
        start = asyncio.create_task(self._start(tree))
        self._starts.add(start)
        start.add_done_callback(self._starts.discard)
        return await asyncio.shield(start)

    async def _start(self, tree: Tree) -> Processes:
        async with tree.starting:
            if tree.closed:
                raise UnknownSessionError(f"The session {tree.id!r} was ended.")
            if tree.processes is not None and not tree.processes.gone.is_set():
                return tree.processes
            if tree.processes is not None:
                await self._lose(tree, tree.processes)
            tree.processes = await self._zygotes.start_session(
                tree.id,
                tree.request,
                tasks=SESSION_SNAPSHOTS + SPARE_TASKS,
                memory_bytes=self._memory_bytes,
                max_output_bytes=self._max_output_bytes,
            )
            return tree.processes

    async def _lose(self, tree: Tree, processes: Processes) -> None:
        """End processes that cannot be used any more. The results stay."""
        if tree.processes is processes:
            tree.processes = None
            for node in tree.kept:
                self.snapshots.give_up(node)
        await processes.close()

    async def _close(self, tree: Tree) -> None:
        tree.closed = True
        self._trees.pop(tree.id, None)
        async with tree.starting:
            if tree.processes is not None:
                await self._lose(tree, tree.processes)

    async def _tidy(self) -> None:
        """End sessions that nobody used for long, and make room where memory runs short."""
        now = time.monotonic()
        for tree in list(self._trees.values()):
            if tree.under_way == 0 and now - tree.used > self._idle_seconds:
                with contextlib.suppress(UnknownSessionError):
                    await self.close(tree.id)
        await self._zygotes.retire()
        if memory_left() < LEAST_AVAILABLE:
            self.snapshots.give_up_oldest_quarter()


def _result(node: Node, step: Step) -> NodeResult:
    return NodeResult(
        node=node.id,
        status=step.status,
        stdout=step.stdout,
        stdout_truncated=step.measured.stdout_truncated,
        stderr=step.stderr,
        measured=step.measured,
    )


def _nothing_measured(limit: Limit | None) -> Measured:
    return Measured(limit=limit, wall_seconds=0, cpu_seconds=0, peak_memory_mb=0)


# A program that does not do the same twice: nothing that follows can be trusted.
_DIVERGED = Step(StepStatus.ERROR, "", "an earlier step did not run again\n", _nothing_measured(None))
