"""The trusted side: keeps zygotes, has each request run in a forked child, and decides how it ended.

What the child says is believed for one thing only, that a step ran or raised; a search takes nothing from it but
what was printed, and a clean re-execution is the proof. Status, signal, time, memory and the limit that was hit come
from the kernel by way of the zygote, which runs no foreign code, and from the clock here.

A run: the child is forked and confined, says that it is, and only then gets the first unit of code. It answers each
unit with one byte, after which all that it printed is in the pipes: so the outputs of steps are told apart.

Limits: a kept, stopped child (a session snapshot) does not exist yet; a zygote serves one request at a time.
"""

import asyncio
import base64
import contextlib
import json
import os
import signal
import socket
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import structlog

from ratchet.contracts.sandbox import Limit
from services.sandbox.cgroups import Cgroup, make_cgroup
from services.sandbox.jail import (
    PRELOAD,
    Isolation,
    Jail,
    Purpose,
    bubblewrap_jail,
    find_bwrap,
    memory_in_use,
    plain_jail,
    why_no_namespaces,
    zygote_pid,
)
from services.sandbox.output import Capture
from services.sandbox.seccomp import child_filter

log = structlog.get_logger()

START_SECONDS = 60.0
"""For a zygote to import its libraries, on a machine that is busy."""
GRACE_SECONDS = 10.0
"""Beyond a run's own limit, before its zygote counts as stuck."""
LINGER_SECONDS = 1.0
"""For a child that has done its steps to end by itself."""
RECYCLE_AFTER = 2000
"""Requests that one zygote serves."""
NEARLY_ALL = 0.8
"""Of the memory limit: a run that fails above this share failed for want of memory."""
TMP_BYTES = 32 * 2**20
MAX_MESSAGE = 1 << 16


class Task(StrEnum):
    """What a child does with the units that it gets."""

    PROGRAM = "program"
    """One unit, run as a program, from beginning to exit."""
    STEPS = "steps"
    """Units run in order in one namespace, until one raises."""
    PARSE = "parse"
    """One answer, parsed (grading jail)."""
    VERIFY = "verify"
    """Two parsed answers, compared (grading jail)."""


@dataclass(frozen=True)
class Run:
    """One request to a zygote."""

    task: Task
    units: list[str]
    seconds: float
    memory_bytes: int
    seed: int | None = None
    stdin: str = ""


@dataclass
class Unit:
    """What one unit did."""

    stdout: str = ""
    stderr: str = ""
    reply: bytes = b""
    """`k` or `e`, or empty where the process ended first."""


@dataclass
class Outcome:
    """What came of a run; everything but the units' replies and texts was measured outside the jail."""

    units: list[Unit]
    """Those that were begun."""
    return_code: int | None
    signal: int | None
    limit: Limit | None
    wall_seconds: float
    cpu_seconds: float
    peak_memory_mb: float
    stdout_truncated: bool
    stderr_truncated: bool


class ZygoteDiedError(Exception):
    """The zygote ended, or does not answer; nothing is known of the run."""


class NotConfinedError(Exception):
    """The child could not be confined, so the program was not run."""


class QueueFullError(Exception):
    """More requests wait than may, or this one waited too long."""


class IsolationError(Exception):
    """The isolation that was asked for cannot be had; the message says what is missing and how to get it."""


@dataclass
class Zygote:
    """A running zygote and what is known of it."""

    process: asyncio.subprocess.Process
    socket: socket.socket
    pid: int
    address_space: int
    resident: int
    cgroup: Cgroup | None
    name: str
    served: int = 0
    broken: bool = field(default=False, init=False)

    @property
    def usable(self) -> bool:
        """Whether it can take another request."""
        return not self.broken and self.process.returncode is None


async def start_zygote(jail: Jail, isolation: Isolation, purpose: Purpose, name: str) -> Zygote:
    """Start a zygote and wait until it has imported its libraries. Raises ZygoteDiedError with what it wrote."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    with theirs, tempfile.TemporaryFile() as errors:
        process = await asyncio.create_subprocess_exec(
            *jail.command,
            str(theirs.fileno()),
            env=jail.environment,
            pass_fds=[theirs.fileno()],
            stdin=asyncio.subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            cwd="/",
        )
        theirs.close()
        try:
            config = {
                "paths": jail.paths,
                "preload": PRELOAD[purpose],
                "symbolic": jail.symbolic,
                "filter": base64.b64encode(child_filter(isolation is Isolation.NAMESPACES)).decode(),
                "namespaces": isolation is Isolation.NAMESPACES,
            }
            ours.send(json.dumps(config).encode())
            async with asyncio.timeout(START_SECONDS):
                _, fds = await _receive(ours)
        except (ZygoteDiedError, TimeoutError, OSError) as error:
            await _end_process(process)
            ours.close()
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip()[-1000:]
            raise ZygoteDiedError(
                f"A {purpose} zygote did not start: {said or error or 'no answer'}"
            ) from error
        except BaseException:
            await _end_process(process)
            ours.close()
            raise
    pid = zygote_pid(fds[0])
    os.close(fds[0])
    cgroup = make_cgroup(name)
    if cgroup is not None:
        try:
            cgroup.add(pid)
        except OSError as error:
            log.warning("cgroup not usable", reason=str(error))
            cgroup.remove()
            cgroup = None
    return Zygote(process, ours, pid, *memory_in_use(pid), cgroup, name)


async def stop_zygote(zygote: Zygote) -> None:
    """End the zygote and everything in its jail."""
    zygote.broken = True
    zygote.socket.close()
    await _end_process(zygote.process)
    if zygote.cgroup is not None:
        # The kernel lets go of the last process a moment after its end.
        for _ in range(20):
            zygote.cgroup.remove()
            if zygote.cgroup.gone:
                return
            await asyncio.sleep(0.01)


async def _end_process(process: asyncio.subprocess.Process) -> None:
    # Killing bubblewrap kills the init of its pid namespace, and with it all inside.
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(sock.fileno(), wake)
    try:
        await ready
    finally:
        loop.remove_reader(sock.fileno())


async def _receive(sock: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """The zygote's next message and the descriptors that came with it. Raises ZygoteDiedError at its end."""
    try:
        await _readable(sock)
        data, fds, _, _ = socket.recv_fds(sock, MAX_MESSAGE, 4)
    except (OSError, ValueError) as error:
        raise ZygoteDiedError(str(error)) from error
    if not data:
        raise ZygoteDiedError("the zygote ended")
    message: dict[str, Any] = json.loads(data)
    return message, fds


class _Child:
    """A child under way: the handle to kill it, and why it was killed."""

    def __init__(self) -> None:
        self.pidfd = -1
        self.limit: Limit | None = None
        self.killed = False
        self.ended = False

    def kill(self, limit: Limit | None = None) -> None:
        """Kill the child and everything in its pid namespace; the first reason counts."""
        if not self.killed:
            self.limit = limit
        self.killed = True
        if self.pidfd >= 0 and not self.ended:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def close(self) -> None:
        """Let go of the handle."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


async def run_in_zygote(zygote: Zygote, run: Run, max_output_bytes: int) -> Outcome:
    """Run one request. Raises ZygoteDiedError (the zygote is then broken) and NotConfinedError."""
    loop = asyncio.get_running_loop()
    zygote.served += 1
    child = _Child()
    stdout = Capture(max_output_bytes, keep_end=False, on_flood=lambda: child.kill(Limit.OUTPUT))
    stderr = Capture(max_output_bytes, keep_end=True, on_flood=lambda: child.kill(Limit.OUTPUT))
    control, childs_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    control.setblocking(False)
    cpu_limit = int(run.seconds) + 1
    oom_kills = zygote.cgroup.oom_kills() if zygote.cgroup else 0
    began = time.perf_counter()
    ended: asyncio.Task[tuple[dict[str, Any], list[int]]] | None = None
    units: list[Unit] = []
    timers: list[asyncio.TimerHandle] = []
    try:
        try:
            async with asyncio.timeout(run.seconds + GRACE_SECONDS):
                await _fork(zygote, run, child, cpu_limit, childs_control, stdout, stderr)
                ended = asyncio.create_task(_receive(zygote.socket))
                timers.append(loop.call_later(run.seconds, child.kill, Limit.WALL))
                confined = await _converse(control, run, units, stdout, stderr)
                control.shutdown(socket.SHUT_RDWR)
                if run.task is not Task.PROGRAM:
                    timers.append(loop.call_later(LINGER_SECONDS, child.kill, None))
                usage, _ = await asyncio.shield(ended)
                child.ended = True
        except TimeoutError as error:
            raise ZygoteDiedError("the zygote does not answer") from error
    except (ZygoteDiedError, OSError) as error:
        zygote.broken = True
        raise ZygoteDiedError(str(error)) from error
    finally:
        for timer in timers:
            timer.cancel()
        wall = time.perf_counter() - began
        await _settle(zygote, child, ended)
        control.close()
        childs_control.close()
        last_stdout, last_stderr = stdout.take(), stderr.take()
        stdout.close()
        stderr.close()
        _close_quietly(stdout.write_end, stderr.write_end)
    if units and not units[-1].reply:
        units[-1].stdout, units[-1].stderr = last_stdout, last_stderr
    if not confined and child.limit is None:
        raise NotConfinedError(last_stderr.strip()[-500:] or "the child ended before it was confined")
    status = int(usage["status"])
    ended_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
    cpu = float(usage["user"]) + float(usage["system"])
    peak = int(usage["peak_kb"]) * 1024
    limit = child.limit
    if limit is None and not child.killed:
        failed = status != 0 or units[-1].reply == b"e"
        if zygote.cgroup is not None and zygote.cgroup.oom_kills() > oom_kills:
            limit = Limit.MEMORY
        elif ended_by in (signal.SIGKILL, signal.SIGXCPU) and cpu > cpu_limit - 0.25:
            limit = Limit.CPU
        elif failed and peak > zygote.resident + NEARLY_ALL * run.memory_bytes:
            # Without a cgroup the kernel refuses memory instead of killing, and the program ends by a MemoryError.
            limit = Limit.MEMORY
    return Outcome(
        units=units,
        return_code=os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
        signal=ended_by,
        limit=limit,
        wall_seconds=wall,
        cpu_seconds=cpu,
        peak_memory_mb=peak / 2**20,
        stdout_truncated=stdout.truncated,
        stderr_truncated=stderr.truncated,
    )


async def _fork(
    zygote: Zygote,
    run: Run,
    child: _Child,
    cpu_limit: int,
    childs_control: socket.socket,
    stdout: Capture,
    stderr: Capture,
) -> None:
    """Have the zygote fork a child with its ends of the pipes, and take the handle to it."""
    if zygote.cgroup is not None:
        zygote.cgroup.limit_memory(run.memory_bytes)
    # With a cgroup the address space may be larger than what is used of it: the kernel counts pages.
    slack = run.memory_bytes // 2 if zygote.cgroup is not None and zygote.cgroup.memory is not None else 0
    request = {
        "task": run.task,
        "memory": zygote.address_space + run.memory_bytes + slack,
        "cpu": cpu_limit,
        "tmp": min(TMP_BYTES, run.memory_bytes),
        "seed": run.seed,
    }
    stdin = _stdin(run.stdin)
    try:
        fds = [childs_control.fileno(), stdin, stdout.write_end, stderr.write_end]
        socket.send_fds(zygote.socket, [json.dumps(request).encode()], fds)
    finally:
        os.close(stdin)
    childs_control.close()
    _close_quietly(stdout.write_end, stderr.write_end)
    stdout.write_end = stderr.write_end = -1
    _, (child.pidfd,) = await _receive(zygote.socket)


def _stdin(text: str) -> int:
    if not text:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    fd = os.memfd_create("stdin")
    os.write(fd, text.encode())
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


async def _converse(
    control: socket.socket, run: Run, units: list[Unit], stdout: Capture, stderr: Capture
) -> bool:
    """Give the child its units. False if it ended before it was confined. The child may say anything."""
    loop = asyncio.get_running_loop()
    try:
        if await loop.sock_recv(control, 1) != b"r":
            return False
        for text in run.units:
            unit = Unit()
            units.append(unit)
            code = text.encode()
            await loop.sock_sendall(control, len(code).to_bytes(4, "big") + code)
            reply = await loop.sock_recv(control, 1)
            if reply not in (b"k", b"e") or run.task is not Task.STEPS:
                # The end of the process, or nonsense: what remains is to see how it ends.
                return True
            unit.reply = reply
            unit.stdout, unit.stderr = stdout.take(), stderr.take()
            if reply == b"e":
                return True
    except OSError:
        # The child closed its end.
        return bool(units)
    return True


async def _settle(
    zygote: Zygote, child: _Child, ended: asyncio.Task[tuple[dict[str, Any], list[int]]] | None
) -> None:
    """Leave no child behind, however the run was left: a caller that went away included."""
    try:
        if child.ended:
            return
        child.kill()
        if ended is None:
            # Between the request and the child's handle: only the zygote's end is sure to end the child.
            zygote.broken = True
            return
        _, pending = await asyncio.wait([ended], timeout=GRACE_SECONDS)
        if pending or ended.exception() is not None:
            ended.cancel()
            zygote.broken = True
    finally:
        child.close()


def _close_quietly(*fds: int) -> None:
    for fd in fds:
        if fd >= 0:
            os.close(fd)


@dataclass(frozen=True)
class Level:
    """The isolation that this machine allows."""

    isolation: Isolation
    bwrap: str | None
    reason: str | None
    """Why it is not `namespaces`, if it is not."""


def best_isolation() -> Level:
    """The strongest level that can be had here, found by trying. Takes some ten milliseconds."""
    bwrap = find_bwrap()
    reason = why_no_namespaces(bwrap)
    if reason is None:
        return Level(Isolation.NAMESPACES, bwrap, None)
    return Level(Isolation.RLIMITS, None, reason)


class Pool:
    """A fixed number of zygotes of one purpose, and the bounded queue before them."""

    def __init__(
        self,
        purpose: Purpose,
        level: Level,
        *,
        size: int,
        queue_size: int,
        queue_timeout: float,
        max_output_bytes: int,
        recycle_after: int = RECYCLE_AFTER,
    ) -> None:
        self.purpose = purpose
        self.level = level
        self.size = size
        self.replaced = 0
        self._queue_size = queue_size
        self._queue_timeout = queue_timeout
        self._max_output_bytes = max_output_bytes
        self._recycle_after = recycle_after
        self._free: asyncio.Queue[Zygote] = asyncio.Queue()
        self._all: dict[str, Zygote] = {}
        self._waiting = 0
        self._jail = (
            bubblewrap_jail(level.bwrap, purpose)
            if level.isolation is Isolation.NAMESPACES and level.bwrap is not None
            else plain_jail(purpose)
        )

    async def start(self) -> None:
        """Start all zygotes. Raises ZygoteDiedError."""
        names = [f"{self.purpose}-{number}" for number in range(self.size)]
        started = await asyncio.gather(*(self._start_one(name) for name in names), return_exceptions=True)
        for zygote in started:
            if isinstance(zygote, BaseException):
                await self.stop()
                raise zygote
            self._free.put_nowait(zygote)

    async def stop(self) -> None:
        """End all zygotes, and whatever runs in them."""
        await asyncio.gather(*(stop_zygote(zygote) for zygote in self._all.values()))
        self._all.clear()

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return self._waiting

    @property
    def zygote_pids(self) -> list[int]:
        """Process numbers of the zygotes, as seen from outside the jail."""
        return [zygote.pid for zygote in self._all.values()]

    @property
    def started(self) -> bool:
        """Whether all zygotes were started; one that died since is replaced when its turn comes."""
        return len(self._all) == self.size

    def layers(self) -> list[str]:
        """What is in force, for the health report."""
        layers = ["seccomp-allow-list", "rlimits", "no-new-privileges", "no-capabilities", "non-dumpable"]
        if self.level.isolation is Isolation.NAMESPACES:
            layers += [
                "user-ns",
                "pid-ns",
                "mount-ns",
                "ipc-ns",
                "net-ns",
                "uts-ns",
                "read-only-root",
                "no-proc",
            ]
            layers += ["tmpfs-tmp"]
        for zygote in list(self._all.values())[:1]:
            layers += zygote.cgroup.layers if zygote.cgroup else []
        return layers

    async def run(self, run: Run) -> Outcome:
        """Run one request, on the next free zygote; once more if the zygote died under it.

        Raises QueueFullError, ZygoteDiedError, NotConfinedError.
        """
        async with self._zygote() as slot:
            try:
                return await run_in_zygote(slot.zygote, run, self._max_output_bytes)
            except ZygoteDiedError as error:
                log.warning("zygote died, once more", purpose=self.purpose, reason=str(error))
            await self._renew(slot)
            return await run_in_zygote(slot.zygote, run, self._max_output_bytes)

    @contextlib.asynccontextmanager
    async def _zygote(self) -> AsyncIterator["_Slot"]:
        slot = _Slot(await self._next_free())
        try:
            if not slot.zygote.usable or slot.zygote.served >= self._recycle_after:
                await self._renew(slot)
            yield slot
        finally:
            self._free.put_nowait(slot.zygote)

    async def _next_free(self) -> Zygote:
        if not self._free.empty():
            return self._free.get_nowait()
        if self._waiting >= self._queue_size:
            raise QueueFullError(f"{self._waiting} requests are waiting already.")
        self._waiting += 1
        try:
            async with asyncio.timeout(self._queue_timeout):
                return await self._free.get()
        except TimeoutError as error:
            raise QueueFullError(f"No worker became free in {self._queue_timeout:g} s.") from error
        finally:
            self._waiting -= 1

    async def _renew(self, slot: "_Slot") -> None:
        """Put a new zygote in the place of a used or dead one. Raises ZygoteDiedError."""
        self.replaced += 1
        await stop_zygote(slot.zygote)
        slot.zygote = await self._start_one(slot.zygote.name)

    async def _start_one(self, name: str) -> Zygote:
        try:
            zygote = await start_zygote(self._jail, self.level.isolation, self.purpose, name)
        except ZygoteDiedError as error:
            # Killed while it was starting, or short of memory for a moment: that may pass.
            log.warning("zygote did not start, once more", purpose=self.purpose, reason=str(error))
            zygote = await start_zygote(self._jail, self.level.isolation, self.purpose, name)
        self._all[name] = zygote
        return zygote


@dataclass
class _Slot:
    """The right to one zygote; the zygote may be replaced under it."""

    zygote: Zygote
