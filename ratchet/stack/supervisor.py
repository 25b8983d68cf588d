"""Starts children in the order of what they need, waits until each is ready, restarts what crashes, stops everything.

Each child runs under a shim (see `shim`), which sees to it that nothing of the child outlives the child or
the supervisor, even if either is killed with -9. A restarted child gets the same argv and environment, so its
URL stays valid.

A child that lives and says nothing for long (it hangs, it was stopped) is killed, and so started again.

Limits: Linux. A child without `live` is watched only for its end.
"""

import asyncio
import contextlib
import enum
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from ratchet.stack.errors import StackError
from ratchet.stack.foreground import shim_command
from ratchet.stack.logs import last_line, tail
from ratchet.stack.marked import MARK, kill_marked, memory_of
from ratchet.stack.shim import children_by_parent

BACKOFF_FIRST = 0.25
BACKOFF_CAP = 15.0
# After this long in good health a crash counts as the first one again.
BACKOFF_RESET = 60.0
# A child that is killed while it starts for the first time (memory, an operator) is started again this often;
# one that ends by itself has said that it cannot start, and is not.
FIRST_START_KILLS = 3
POLL_SECONDS = 0.1
# Between two questions whether a child that is ready still lives, and how long each may take.
LIVE_SECONDS = 5.0
# So many have to fail before it hangs: after a stop of the supervisor itself one alone says nothing.
LIVE_FAILURES = 3
# What `/livez` says of a process in which something hangs.
NOT_ALIVE = b'"alive":false'
# For an answer to either question.
READY_ANSWER_SECONDS = 15.0


class ChildState(enum.StrEnum):
    """Where a child stands."""

    WAITING = "waiting"  # for what it needs
    STARTING = "starting"  # runs, but is not ready
    READY = "ready"
    DONE = "done"  # a one-time child that ended well
    BACKING_OFF = "backing off"  # crashed, starts again soon
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"  # could not be started


Ready = str | Callable[[], Awaitable[bool]]


@dataclass(frozen=True)
class ChildSpec:
    """One child. `ready` is a URL that answers 200, or an async callable that says so; None: ready when it runs.

    `live` says of one that was ready that it lives (a URL: it answers, and not NOT_ALIVE). Not true for `hang_seconds`: it
    hangs, and is killed. None: not asked.
    `after` names the children that must be ready first. `prepare` runs before each start (in a thread). A
    `once` child runs to its end: exit code 0 makes it ready, and it is not started again.
    """

    name: str
    argv: Sequence[str] | Callable[[], Sequence[str]]
    log: Path
    env: Mapping[str, str] = field(default_factory=dict)
    ready: Ready | None = None
    live: Ready | None = None
    hang_seconds: float = 60.0
    after: tuple[str, ...] = ()
    prepare: Callable[[], None] | None = None
    once: bool = False
    url: str | None = None
    port: int | None = None
    ready_timeout: float = 120.0
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout: float = 15.0


@dataclass(frozen=True)
class ChildStatus:
    """What a person sees of a child. `uptime` in seconds, `memory` the resident bytes of all its processes."""

    name: str
    state: ChildState
    pid: int | None
    url: str | None
    port: int | None
    restarts: int
    uptime: float | None
    memory: int
    note: str


@dataclass
class _Child:
    spec: ChildSpec
    mark: str
    state: ChildState = ChildState.WAITING
    note: str = ""
    shim: asyncio.subprocess.Process | None = None
    # Of the run under way: the child's pid, when it began, where its log begins, how it ended.
    pid: int | None = None
    began: float | None = None
    log_start: int = 0
    code: int | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    # Of the whole life.
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    restarts: int = 0
    life: asyncio.Task[None] | None = None
    spawning: asyncio.Task[None] | None = None
    follower: asyncio.Task[None] | None = None


@dataclass(frozen=True)
class _End:
    """How one run of a child ended: why, seconds in readiness before, and whether a signal ended it."""

    reason: str
    up: float = 0.0
    killed: bool = False


def _describe(code: int | None) -> str:
    if code is None:
        return "ended"
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"was killed by {signal.Signals(-code).name}"
    return f"ended with code {code}"


def _backoff(crashes: int) -> float:
    """Seconds to wait after so many crashes in a row: doubled each time, capped, with jitter."""
    return min(BACKOFF_CAP, BACKOFF_FIRST * 2.0 ** min(crashes - 1, 16)) * random.uniform(0.75, 1.25)  # noqa: S311


class Supervisor:
    """Runs the children of one stack. Use: `await start()`, then `await stop()` whatever happened in between.

    `mark` tells these children from all others on the machine (the data folder). `keep_open` are file
    descriptors that the shims hold until the last of them has ended (the data folder's lock).
    """

    def __init__(
        self,
        specs: Iterable[ChildSpec],
        *,
        mark: str,
        keep_open: Sequence[int] = (),
        on_change: Callable[[], None] | None = None,
    ) -> None:
        self._children: dict[str, _Child] = {}
        for spec in specs:
            unknown = [name for name in spec.after if name not in self._children]
            if unknown or spec.name in self._children:
                raise ValueError(
                    f"child {spec.name}: its name is taken, or it comes before what it needs: {unknown}"
                )
            self._children[spec.name] = _Child(spec, f"{mark}::{spec.name}")
        self._keep_open = tuple(keep_open)
        self._on_change = on_change or (lambda: None)
        self._failure: asyncio.Future[None] | None = None
        self._client: httpx.AsyncClient | None = None

    async def start(self) -> None:
        """Start all; returns when all are ready. Raises StackError for the first that cannot start; call `stop` then."""
        self._failure = asyncio.get_running_loop().create_future()
        self._client = httpx.AsyncClient(timeout=5.0, trust_env=False)
        for child in self._children.values():
            child.life = asyncio.create_task(self._run(child), name=f"child {child.spec.name}")
        everything = asyncio.create_task(self._all_ready())
        try:
            waited: list[asyncio.Future[None]] = [everything, self._failure]
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        finally:
            everything.cancel()
        if self._failure.done():
            self._failure.result()

    async def _all_ready(self) -> None:
        for child in self._children.values():
            await child.ready.wait()

    async def stop(self) -> None:
        """Stop all, what is needed last: a child is stopped when all that need it have ended. Cancelled: kill all."""
        try:
            await asyncio.gather(*(self._stop(child) for child in self._children.values()))
        except asyncio.CancelledError:
            for child in self._children.values():
                self._say(child, b"k")
            await asyncio.gather(*(self._end(child) for child in self._children.values()))
            raise
        finally:
            if self._failure is not None and self._failure.done():
                self._failure.exception()
            if self._client is not None:
                await self._client.aclose()

    def status(self) -> tuple[ChildStatus, ...]:
        """The children as they stand, in the order in which they were given."""
        children = children_by_parent()
        return tuple(self._status_of(child, children) for child in self._children.values())

    def _status_of(self, child: _Child, children: dict[int, list[int]]) -> ChildStatus:
        note = child.note
        if child.state in (ChildState.STARTING, ChildState.STOPPING):
            note = last_line(child.spec.log, child.log_start) or note
        return ChildStatus(
            name=child.spec.name,
            state=child.state,
            pid=child.pid,
            url=child.spec.url,
            port=child.spec.port,
            restarts=child.restarts,
            uptime=None if child.began is None or child.pid is None else time.monotonic() - child.began,
            memory=0 if child.pid is None else memory_of(child.pid, children),
            note=note,
        )

    def _set(self, child: _Child, state: ChildState, note: str = "") -> None:
        child.state, child.note = state, note
        self._on_change()

    def _fail(self, child: _Child, reason: str) -> None:
        self._set(child, ChildState.FAILED, reason.splitlines()[0])
        if self._failure is not None and not self._failure.done():
            self._failure.set_exception(StackError(reason))

    async def _run(self, child: _Child) -> None:
        """The life of one child, until `stop` cancels it."""
        try:
            for name in child.spec.after:
                await self._children[name].ready.wait()
            await self._keep_running(child)
        except StackError as error:
            self._fail(child, str(error))
        except OSError as error:
            self._fail(child, f"{child.spec.name} cannot start: {error}")

    async def _keep_running(self, child: _Child) -> None:
        crashes, kills = 0, 0
        while True:
            end = await self._one_run(child)
            if end is None:
                return
            if not child.ready.is_set():
                kills += end.killed
                if not end.killed or kills >= FIRST_START_KILLS:
                    raise StackError(
                        f"{child.spec.name} cannot start: it {end.reason}. Last lines of {child.spec.log}:\n"
                        f"{tail(child.spec.log, since=child.log_start)}"
                    )
            crashes = 1 if end.up > BACKOFF_RESET else crashes + 1
            child.restarts += 1
            pause = _backoff(crashes)
            self._set(child, ChildState.BACKING_OFF, f"{end.reason}; starts again in {pause:.1f} s")
            await asyncio.sleep(pause)

    async def _one_run(self, child: _Child) -> _End | None:
        """From start to end, all that the child started included. None: a one-time child has ended well."""
        # Shielded: a stop that comes now must find either no process or one that it knows.
        child.spawning = asyncio.create_task(self._spawn(child))
        try:
            await asyncio.shield(child.spawning)
        except (OSError, StackError) as error:
            if not child.ready.is_set():
                raise
            return _End(f"cannot run: {str(error).splitlines()[0]}")
        if not await self._until_ready(child):
            if not child.ended.is_set():
                await self._quit(child)
                return _End(f"was not ready after {child.spec.ready_timeout:.0f} s")
            return _End(_describe(child.code), killed=child.code is not None and child.code < 0)
        self._set(child, ChildState.DONE if child.spec.once else ChildState.READY)
        child.ready.set()
        if child.spec.once:
            return None
        ready_since = time.monotonic()
        hung = await self._until_ended_or_hung(child)
        if hung:
            self._say(child, b"k")
            await self._end(child)
        why = f"said nothing for {child.spec.hang_seconds:.0f} s" if hung else _describe(child.code)
        return _End(why, up=time.monotonic() - ready_since)

    async def _until_ended_or_hung(self, child: _Child) -> bool:
        """Return when the child has ended, or hangs: whether it does."""
        live, heard, failed = child.spec.live, time.monotonic(), 0
        if live is None:
            await child.ended.wait()
            return False
        pause = min(LIVE_SECONDS, child.spec.hang_seconds / LIVE_FAILURES)
        while not child.ended.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await child.ended.wait()
            if await self._lives(live):
                heard, failed = time.monotonic(), 0
            else:
                failed += 1
            if failed >= LIVE_FAILURES and time.monotonic() - heard > child.spec.hang_seconds:
                return not child.ended.is_set()
        return False

    async def _spawn(self, child: _Child) -> None:
        spec = child.spec
        if spec.prepare is not None:
            await asyncio.to_thread(spec.prepare)
        argv = await asyncio.to_thread(spec.argv) if callable(spec.argv) else spec.argv
        spec.log.parent.mkdir(parents=True, exist_ok=True)
        child.log_start = spec.log.stat().st_size if spec.log.exists() else 0
        child.code, child.pid = None, None
        child.ended = asyncio.Event()
        child.began = time.monotonic()
        child.shim = await asyncio.create_subprocess_exec(
            *shim_command(argv, log=spec.log, stop_signal=spec.stop_signal, stop_timeout=spec.stop_timeout),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, **spec.env, MARK: child.mark},
            # Its own session, so that Ctrl-C in the terminal reaches the supervisor alone, which stops in order.
            start_new_session=True,
            pass_fds=self._keep_open,
        )
        child.follower = asyncio.create_task(self._follow(child, child.shim, child.ended))
        self._set(child, ChildState.STARTING)

    async def _follow(self, child: _Child, shim: asyncio.subprocess.Process, ended: asyncio.Event) -> None:
        assert shim.stdout is not None
        said_end = False
        while line := await shim.stdout.readline():
            word, _, number = line.decode().partition(" ")
            if word == "started":
                child.pid = int(number)
            elif word == "ended":
                child.code, said_end = int(number), True
        await shim.wait()
        if not said_end:
            # The shim was killed, and with it the child; whatever the child had started may be left.
            child.code = -signal.SIGKILL
            await asyncio.to_thread(kill_marked, child.mark)
        child.pid = None
        ended.set()

    async def _until_ready(self, child: _Child) -> bool:
        spec = child.spec
        deadline = time.monotonic() + spec.ready_timeout
        while time.monotonic() < deadline:
            if child.ended.is_set():
                return spec.once and child.code == 0
            if not spec.once and child.pid is not None and await self._is_ready(spec.ready):
                # The answer may have come from somebody else on the port while ours had just ended.
                return not child.ended.is_set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await child.ended.wait()
        return False

    async def _is_ready(self, ready: Ready | None) -> bool:
        if ready is None:
            return True
        if not isinstance(ready, str):
            try:
                async with asyncio.timeout(READY_ANSWER_SECONDS):
                    return await ready()
            except TimeoutError:
                return False
        assert self._client is not None
        try:
            return (await self._client.get(ready)).status_code == 200
        except httpx.HTTPError:
            return False

    async def _lives(self, live: Ready) -> bool:
        if not isinstance(live, str):
            return await self._is_ready(live)
        assert self._client is not None
        try:
            answer = await self._client.get(live)
        except httpx.HTTPError:
            return False
        # A service that takes no more connections says 503 too, and lives.
        return NOT_ALIVE not in answer.content

    def _say(self, child: _Child, word: bytes) -> None:
        if child.shim is not None and child.shim.stdin is not None and child.shim.returncode is None:
            with contextlib.suppress(OSError, RuntimeError):
                child.shim.stdin.write(word)

    async def _quit(self, child: _Child) -> None:
        """Ask the child to stop, and wait until it and all that it started have ended."""
        self._say(child, b"s")
        await self._end(child)

    async def _end(self, child: _Child) -> None:
        if child.shim is not None:
            await child.ended.wait()

    async def _stop(self, child: _Child) -> None:
        for other in self._children.values():
            if child.spec.name in other.spec.after:
                await other.stopped.wait()
        if child.life is not None:
            child.life.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await child.life
        if child.spawning is not None:
            with contextlib.suppress(OSError, StackError):
                await child.spawning
        if child.shim is not None and not child.ended.is_set():
            self._set(child, ChildState.STOPPING)
            await self._quit(child)
        if child.state not in (ChildState.FAILED, ChildState.DONE):
            self._set(child, ChildState.STOPPED)
        child.stopped.set()
