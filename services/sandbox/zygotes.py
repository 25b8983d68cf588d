"""Zygotes, from outside: start one in its jail, hear from it, end it.

Limits: what a zygote says is believed, as it runs no foreign code.
"""

import asyncio
import base64
import contextlib
import json
import os
import socket
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import structlog

from services.sandbox.cgroups import Cgroup, make_cgroup
from services.sandbox.inside.kernel import landlock_version
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
from services.sandbox.layers import NONE, Layer
from services.sandbox.seccomp import Filter, child_filter

log = structlog.get_logger()

START_SECONDS = 60.0
"""How long a zygote may take to import its libraries, on a busy machine."""
MAX_MESSAGE = 1 << 16

_FROM_NAMESPACES = frozenset(
    {
        *(Layer.OWN_ROOT, Layer.READ_ONLY_ROOT, Layer.NO_PROC, Layer.TMPFS, Layer.PID_NAMESPACE),
        *(Layer.NETWORK_NAMESPACE, Layer.IPC_NAMESPACE, Layer.HOST_NAME_NAMESPACE),
    }
)

Message = dict[str, Any]


class ZygoteDiedError(Exception):
    """The zygote or a child of it ended, or does not answer; nothing is known of the run."""


class NotConfinedError(Exception):
    """The child could not be confined, so the program was not run."""


class IsolationError(Exception):
    """The isolation that was asked for cannot be had; the message says what is missing and how to get it."""


MAX_TASKS = 64
"""Processes and threads of a zygote and its run together."""


@dataclass(frozen=True)
class Level:
    """The isolation that this machine allows."""

    isolation: Isolation
    bwrap: str | None
    reason: str | None
    """Why it is not `namespaces`, if it is not."""
    without: frozenset[Layer] = NONE
    """Layers that are off: for the attack suite's controls only."""

    @property
    def layers(self) -> frozenset[Layer]:
        """Those in force at this level, cgroups apart."""
        absent = set(self.without) | {Layer.CGROUP_MEMORY, Layer.CGROUP_PIDS}
        if self.isolation is not Isolation.NAMESPACES:
            absent |= _FROM_NAMESPACES
        if not landlock_version():
            absent.add(Layer.LANDLOCK)
        return frozenset(Layer) - absent

    def jail(self, purpose: Purpose) -> Jail:
        """Where a zygote lives."""
        if self.isolation is Isolation.NAMESPACES and self.bwrap is not None:
            return bubblewrap_jail(self.bwrap, purpose, self.without)
        return plain_jail(purpose)

    def cgroup(self, name: str, tasks: int) -> Cgroup | None:
        """A new group, or None where there are none."""
        if {Layer.CGROUP_MEMORY, Layer.CGROUP_PIDS} <= self.without:
            return None
        return make_cgroup(name, None if Layer.CGROUP_PIDS in self.without else tasks)


def best_isolation() -> Level:
    """The strongest level that can be had here, found by trying. Takes some ten milliseconds."""
    bwrap = find_bwrap()
    reason = why_no_namespaces(bwrap)
    if reason is None:
        return Level(Isolation.NAMESPACES, bwrap, None)
    return Level(Isolation.RLIMITS, None, reason)


@dataclass(eq=False)
class Zygote:
    """A running zygote and what is known of it."""

    process: asyncio.subprocess.Process
    socket: socket.socket
    pid: int
    address_space: int
    resident: int
    cgroup: Cgroup | None = None
    served: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while nothing runs on it."""
    old: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it has served long enough."""
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it does not answer as it should."""
    child: "asyncio.Task[tuple[Message, list[int]]] | None" = None
    """The child that waits for the next run, as soon as the zygote has announced it."""

    @property
    def usable(self) -> bool:
        """Whether it can take another request."""
        return not self.lost.is_set() and self.process.returncode is None


async def start_zygote(level: Level, purpose: Purpose) -> Zygote:
    """Start a zygote and wait until it has imported its libraries. Raises ZygoteDiedError with what it wrote."""
    jail = level.jail(purpose)
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
            signals = Layer.PID_NAMESPACE in level.layers
            filters = {
                name: base64.b64encode(child_filter(name, signals=signals)).decode() for name in Filter
            }
            config = {
                "paths": jail.paths,
                "preload": PRELOAD[purpose],
                "symbolic": purpose is Purpose.GRADE,
                "sessions": purpose is Purpose.SESSION,
                "layers": sorted(level.layers),
                # Without a user namespace of its own, all that the user runs would count.
                "tasks": MAX_TASKS if level.isolation is Isolation.NAMESPACES else None,
                "filters": filters,
            }
            ours.send(json.dumps(config).encode())
            async with asyncio.timeout(START_SECONDS):
                _, fds = await receive(ours)
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
    zygote = Zygote(process, ours, pid, *memory_in_use(pid))
    zygote.idle.set()
    return zygote


async def stop_zygote(zygote: Zygote) -> None:
    """End the zygote and everything in its jail."""
    zygote.lost.set()
    if zygote.child is not None:
        zygote.child.cancel()
        for fd in await asyncio.gather(zygote.child, return_exceptions=True):
            if isinstance(fd, tuple):
                close_all(fd[1])
    await _end_process(zygote.process)
    zygote.socket.close()
    if zygote.cgroup is not None:
        await remove_cgroup(zygote.cgroup)


async def remove_cgroup(cgroup: Cgroup) -> None:
    """Remove a group whose processes have been killed: the kernel lets go of the last one a moment after its end."""
    for _ in range(100):
        cgroup.remove()
        if cgroup.gone:
            return
        await asyncio.sleep(0.01)
    log.warning("cgroup not removed", layers=cgroup.layers)


async def _end_process(process: asyncio.subprocess.Process) -> None:
    # Killing bubblewrap kills the init of its pid namespace, and with it all inside.
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()


def join_cgroup(cgroup: Cgroup | None, pid: int) -> Cgroup | None:
    """The group with the process in it, or None where that cannot be had."""
    if cgroup is None:
        return None
    try:
        cgroup.add(pid)
    except OSError as error:
        log.warning("cgroup not usable", reason=str(error))
        cgroup.remove()
        return None
    return cgroup


async def wait_until_readable(sock: socket.socket) -> None:
    """Wait until the socket has something to read, or has ended."""
    loop, fd = asyncio.get_running_loop(), sock.fileno()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(fd, wake)
    try:
        await ready
    finally:
        loop.remove_reader(fd)


async def receive(sock: socket.socket) -> tuple[Message, list[int]]:
    """The next message and the descriptors that came with it. Raises ZygoteDiedError at the end."""
    try:
        await wait_until_readable(sock)
        data, fds, _, _ = socket.recv_fds(sock, MAX_MESSAGE, 4)
    except (OSError, ValueError) as error:
        raise ZygoteDiedError(str(error)) from error
    if not data:
        raise ZygoteDiedError("the zygote ended")
    message: Message = json.loads(data)
    return message, fds


def close_all(fds: list[int]) -> None:
    """Close descriptors; those below zero are closed already."""
    for fd in fds:
        if fd >= 0:
            os.close(fd)


def kill_timer(seconds: float, level: Level, kill: Callable[[], None]) -> asyncio.TimerHandle | None:
    """Call `kill` after so many seconds."""
    if Layer.WALL_CLOCK in level.without:
        return None
    return asyncio.get_running_loop().call_later(seconds, kill)
