"""One run in a fresh child: give it its code, hold it to its limits, and say how it ended.

What the child says is believed for one thing only, that a step ran or raised; a search takes nothing from it but
what was printed, and a clean re-execution is the proof. Status, signal, time, memory and the limit that was hit come
from the kernel by way of the zygote, which runs no foreign code, and from the clock here.

The child was forked ahead of the request. It gets the request, confines itself, says that it is confined, and only
then gets the first unit of code. It answers each unit with one byte, after which all that it printed is in the pipes: so
the outputs of steps are told apart.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import time
from dataclasses import dataclass
from enum import StrEnum

from ratchet.contracts.sandbox import Limit, Measured, StepStatus
from services.sandbox.inside import interpret
from services.sandbox.layers import Layer
from services.sandbox.output import Capture
from services.sandbox.zygotes import (
    Level,
    Message,
    NotConfinedError,
    Zygote,
    ZygoteDiedError,
    kill_timer,
    receive,
)

TMP_BYTES = 36 * 2**20
"""Bytes that a program may hold in /tmp and in pipes, beside its memory."""
GRACE_SECONDS = 10.0
"""How long after a run's own time limit its zygote counts as stuck."""
LINGER_SECONDS = 1.0
"""How long a child that has done its steps may take to end by itself."""
NEARLY_ALL = 0.8
"""A run that fails when it holds more than this share of its memory limit failed for want of memory."""


class Task(StrEnum):
    """What a child does with the units that it gets."""

    PROGRAM = "program"
    """One unit, run as a program, from beginning to exit."""
    STEPS = "steps"
    """Units run in order in one namespace, until one raises."""
    COMPARE = "compare"
    """Two answers as trees, compared (grading jail)."""


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
    stdout_truncated: bool = False
    stderr: str = ""
    reply: bytes = b""
    """What it answered, or empty where the process ended first."""

    @property
    def ran(self) -> bool:
        """Whether it says that it ran to its end."""
        return self.reply in (interpret.RAN, interpret.RAN_UNFORKABLE)

    def take(self, stdout: Capture, stderr: Capture) -> None:
        """Keep what it printed: all that came since another unit took its own."""
        printed = stdout.take()
        self.stdout, self.stdout_truncated = printed.text, printed.truncated
        self.stderr = stderr.take().text


@dataclass
class RunOutcome:
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


def measured_of(outcome: RunOutcome) -> Measured:
    """What the supervisor measured, as the contract has it."""
    return Measured(
        signal=outcome.signal,
        limit=outcome.limit,
        stdout_truncated=outcome.stdout_truncated,
        stderr_truncated=outcome.stderr_truncated,
        wall_seconds=outcome.wall_seconds,
        cpu_seconds=outcome.cpu_seconds,
        peak_memory_mb=outcome.peak_memory_mb,
    )


def unit_status(unit: Unit, outcome: RunOutcome) -> StepStatus:
    """What became of one of the steps of a run."""
    if unit.ran:
        return StepStatus.OK
    if unit.reply == interpret.RAISED:
        return StepStatus.ERROR
    return StepStatus.KILLED if outcome.limit is None else StepStatus.LIMIT


class Killable:
    """A process under way: the handle to kill it, and why it was killed."""

    def __init__(self, pidfd: int) -> None:
        self.pidfd = pidfd
        self.limit: Limit | None = None
        self.killed = False

    def kill(self, limit: Limit | None = None) -> None:
        """Kill the process, and all in its pid namespace if it is the first of one; the first reason counts."""
        if not self.killed:
            self.limit = limit
        self.killed = True
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def close(self) -> None:
        """Let go of the handle."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


def cpu_limit(seconds: float) -> int:
    """Seconds of processor time that go with a limit of wall-clock time."""
    return int(seconds) + 1


def address_space(zygote: Zygote, memory_bytes: int, *, counted: bool) -> int:
    """Limit of the address space. With a cgroup (`counted`) it may be larger: the kernel counts what is used of it."""
    return zygote.address_space + memory_bytes + (memory_bytes // 2 if counted else 0)


def captures(level: Level, max_output_bytes: int, child: Killable) -> tuple[Capture, Capture]:
    """Pipes for stdout and stderr; a flood kills the child."""
    if Layer.OUTPUT_CAP in level.without:
        max_output_bytes = 2**40

    def flood() -> None:
        child.kill(Limit.OUTPUT)

    return Capture(max_output_bytes, flood), Capture(max_output_bytes, flood)


def signal_of(usage: Message) -> int | None:
    """The signal that ended a process, if one did."""
    status = int(usage["status"])
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else None


def limit_hit(
    child: Killable,
    usage: Message,
    *,
    cpu: int,
    oom_killed: bool,
    failed: bool,
    memory_bytes: int,
    resident: int,
) -> Limit | None:
    """Which limit ended a process, from how the kernel says it ended and what it used."""
    if child.killed:
        return child.limit
    used = float(usage["user"]) + float(usage["system"])
    if oom_killed:
        return Limit.MEMORY
    if signal_of(usage) in (signal.SIGKILL, signal.SIGXCPU) and used > cpu - 0.25:
        return Limit.CPU
    if failed and nearly_all(usage, memory_bytes=memory_bytes, resident=resident):
        # Without a cgroup the kernel refuses memory instead of killing, and the program ends by a MemoryError.
        return Limit.MEMORY
    return None


def nearly_all(usage: Message, *, memory_bytes: int, resident: int) -> bool:
    """Whether a process held nearly all of the memory that it may have beyond what its zygote holds."""
    return int(usage["peak_kb"]) * 1024 > resident + NEARLY_ALL * memory_bytes


async def run_in_zygote(zygote: Zygote, level: Level, run: Run, max_output_bytes: int) -> RunOutcome:
    """Run one request. Raises ZygoteDiedError (which a second try on another zygote may mend) and NotConfinedError."""
    child, control = await _next_child(zygote)
    ended = asyncio.create_task(receive(zygote.socket))
    stdout, stderr = captures(level, max_output_bytes, child)
    units: list[Unit] = []
    timers: list[asyncio.TimerHandle | None] = []
    confined = False
    oom_kills = zygote.cgroup.oom_kills() if zygote.cgroup else 0
    began = time.perf_counter()
    try:
        async with asyncio.timeout(
            None if Layer.WALL_CLOCK in level.without else run.seconds + GRACE_SECONDS
        ):
            _limit_memory(zygote, level, run)
            _hand_over(control, _request(zygote, run), run.stdin, stdout, stderr)
            timers.append(kill_timer(run.seconds, level, lambda: child.kill(Limit.WALL)))
            confined = await _converse(control, run, units, stdout, stderr)
            with contextlib.suppress(OSError):
                control.shutdown(socket.SHUT_RDWR)
            if run.task is not Task.PROGRAM:
                timers.append(kill_timer(LINGER_SECONDS, level, child.kill))
            usage, _ = await asyncio.shield(ended)
    except (ZygoteDiedError, OSError, TimeoutError) as error:
        zygote.lost.set()
        raise ZygoteDiedError(str(error) or "the zygote does not answer") from error
    finally:
        for timer in timers:
            if timer is not None:
                timer.cancel()
        wall = time.perf_counter() - began
        await _settle(zygote, child, ended)
        control.close()
        last = Unit()
        last.take(stdout, stderr)
        for capture in (stdout, stderr):
            capture.close()
    if units and not units[-1].reply:
        units[-1] = last
    if not confined and child.limit is None:
        raise _why_not_begun(usage, last.stderr)
    status = int(usage["status"])
    return RunOutcome(
        units=units,
        return_code=os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
        signal=signal_of(usage),
        limit=limit_hit(
            child,
            usage,
            cpu=cpu_limit(run.seconds),
            oom_killed=zygote.cgroup is not None and zygote.cgroup.oom_kills() > oom_kills,
            failed=status != 0 or units[-1].reply == interpret.RAISED,
            memory_bytes=run.memory_bytes,
            resident=zygote.resident,
        ),
        wall_seconds=wall,
        cpu_seconds=float(usage["user"]) + float(usage["system"]),
        peak_memory_mb=int(usage["peak_kb"]) / 1024,
        stdout_truncated=stdout.truncated,
        stderr_truncated=stderr.truncated,
    )


def _why_not_begun(usage: Message, stderr: str) -> ZygoteDiedError | NotConfinedError:
    """What kept a child from its program, from how it ended and what it wrote."""
    if signal_of(usage) is not None:
        return ZygoteDiedError("the child was killed before its program began")
    return NotConfinedError(stderr.strip()[-500:] or "the child ended before it was confined")


async def _next_child(zygote: Zygote) -> tuple[Killable, socket.socket]:
    """The child that the zygote has ready, and the socket to it. Raises ZygoteDiedError."""
    zygote.served += 1
    zygote.child = zygote.child or asyncio.create_task(receive(zygote.socket))
    try:
        async with asyncio.timeout(GRACE_SECONDS):
            # Shielded: if the caller goes away now, the child is the next run's.
            _, (pidfd, control_fd) = await asyncio.shield(zygote.child)
        zygote.child = None
    except (TimeoutError, ValueError, ZygoteDiedError) as error:
        zygote.lost.set()
        raise ZygoteDiedError(f"the zygote has no child: {error}") from error
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, control_fd)
    control.setblocking(False)
    return Killable(pidfd), control


def _limit_memory(zygote: Zygote, level: Level, run: Run) -> None:
    """Hold the zygote's control group, if it has one, to what the run may use."""
    if zygote.cgroup is not None and Layer.CGROUP_MEMORY not in level.without:
        # What is in /tmp and in pipes is in nobody's address space, and the zygote, which is in the group, must
        # never be the largest of it: the kernel would take it instead of the program.
        zygote.cgroup.limit_memory(run.memory_bytes + TMP_BYTES)


def _request(zygote: Zygote, run: Run) -> Message:
    """What the child is told of its run."""
    counted = zygote.cgroup is not None and zygote.cgroup.memory is not None
    return {
        "task": run.task,
        "memory": address_space(zygote, run.memory_bytes, counted=counted),
        "cpu": cpu_limit(run.seconds),
        "seed": run.seed,
    }


def _hand_over(
    control: socket.socket, request: Message, stdin: str, stdout: Capture, stderr: Capture
) -> None:
    """Send the request with the program's ends of its pipes, and close them here."""
    source = _stdin_file(stdin)
    try:
        socket.send_fds(control, [json.dumps(request).encode()], [source, stdout.write_end, stderr.write_end])
    finally:
        os.close(source)
        stdout.handed_over()
        stderr.handed_over()


def _stdin_file(text: str) -> int:
    if not text:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    fd = os.memfd_create("stdin")
    os.write(fd, text.encode())
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def unit_message(code: str) -> bytes:
    """A unit of code as the child reads it."""
    source = code.encode()
    return interpret.RUN + len(source).to_bytes(4, "big") + source


async def _converse(
    control: socket.socket, run: Run, units: list[Unit], stdout: Capture, stderr: Capture
) -> bool:
    """Give the child its units. False if it ended before it was confined. The child may say anything."""
    loop = asyncio.get_running_loop()
    try:
        if await loop.sock_recv(control, 1) != interpret.READY:
            return False
        for text in run.units:
            unit = Unit()
            units.append(unit)
            await loop.sock_sendall(control, unit_message(text))
            reply = await loop.sock_recv(control, 1)
            known = (interpret.RAN, interpret.RAN_UNFORKABLE, interpret.RAISED)
            if reply not in known or run.task is not Task.STEPS:
                # The end of the process, or nonsense: what remains is to see how it ends.
                return True
            unit.reply = reply
            unit.take(stdout, stderr)
            if not unit.ran:
                return True
    except OSError:
        # The child closed its end.
        return bool(units)
    return True


async def _settle(zygote: Zygote, child: Killable, ended: asyncio.Task[tuple[Message, list[int]]]) -> None:
    """Leave no child behind, however the run was left: a caller that went away included."""
    try:
        if not ended.done():
            child.kill()
            await asyncio.wait([ended], timeout=GRACE_SECONDS)
        if not ended.done() or ended.cancelled() or ended.exception() is not None:
            ended.cancel()
            zygote.lost.set()
        elif zygote.usable:
            zygote.child = asyncio.create_task(receive(zygote.socket))
    finally:
        child.close()
