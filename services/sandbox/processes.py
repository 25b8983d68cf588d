"""The processes of one session: an init that runs no foreign code, and nodes, each a process that waits in some state.

A node's process runs steps and, on request, forks the process of the next node. Only the kernel is believed about who a
process is: its number comes with its first byte (SO_PASSCRED), and it must be a child of the session's init, as which the
init is told of its end and the pid namespace's end takes it along. A process that does not answer is killed.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import struct
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from ratchet.contracts.sandbox import Limit, Measured, StepStatus
from services.sandbox.cgroups import Cgroup
from services.sandbox.inside import interpret
from services.sandbox.jail import zygote_pid
from services.sandbox.node_process import (
    Process,
    UnknownYet,
    cpu_seconds_of,
    has_ended,
    has_only_its_own_files,
    peak_and_threads,
    proc_status,
)
from services.sandbox.runs import (
    Killable,
    address_space,
    captures,
    cpu_limit,
    limit_hit,
    nearly_all,
    signal_of,
    unit_message,
)
from services.sandbox.zygotes import (
    Level,
    Message,
    Zygote,
    ZygoteDiedError,
    kill_timer,
    receive,
    remove_cgroup,
    wait_until_readable,
)

ANSWER_SECONDS = 10.0
"""How long a process that runs no foreign code may take to fork, and a killed one to be gone, on a busy machine."""
FORK_SECONDS = 2.0
"""How long a node may take to fork. One that takes longer is given up, and its state made anew."""
_CREDENTIALS = struct.Struct("iII")
_ANSWERS = (interpret.RAN, interpret.RAN_UNFORKABLE, interpret.RAISED)
"""What a process says of a step that it got through."""

log = structlog.get_logger()


class CannotForkError(Exception):
    """A process could not make another: it is dead, stuck, or at a limit of processes or memory."""


class CrowdedOutError(Exception):
    """The session's memory was used up while a step ran that held little of it: what it did says nothing of the step."""


@dataclass(frozen=True)
class Step:
    """What one step did."""

    status: StepStatus
    stdout: str
    stderr: str
    measured: Measured


@dataclass(eq=False)
class Processes:
    """All processes of a session. `zygote` is the one that its init was forked from."""

    zygote: Zygote
    level: Level
    init: Killable
    init_pid: int
    listening: socket.socket
    cgroup: Cgroup | None
    memory_bytes: int
    cpu_seconds: int
    max_output_bytes: int
    root: Process
    living: dict[int, Process] = field(default_factory=dict)
    """The nodes' processes, by their number within the session."""
    arriving: int = 0
    """Forks under way."""
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the init has ended, and with it all others."""
    _dying: dict[int, int] = field(default_factory=dict)
    """Processes that were killed and have not ended yet: their number here, by their number within the session."""
    _listener: "asyncio.Task[None] | None" = None

    def listen(self) -> None:
        """Hear from the init how processes end."""
        self._listener = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        try:
            while True:
                message, _ = await receive(self.listening)
                self._dying.pop(int(message["pid"]), None)
                if (process := self.living.get(int(message["pid"]))) is not None:
                    process.ended.set_result(message)
        except ZygoteDiedError:
            pass
        except Exception:
            log.exception("an init says what nobody understands; its session ends")
        finally:
            # Whatever the cause, nobody hears from these processes any more.
            self.gone.set()

    async def end_of(self, process: Process) -> Message:
        """How the process ended. Raises ZygoteDiedError where that cannot be known."""
        gone = asyncio.ensure_future(self.gone.wait())
        either: set[asyncio.Future[Any]] = {process.ended, gone}
        try:
            await asyncio.wait(either, timeout=ANSWER_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
        if not process.ended.done():
            raise ZygoteDiedError("the session's processes ended")
        return process.ended.result()

    def discard(self, process: Process) -> None:
        """Kill a process and forget it."""
        if self.living.pop(process.inner_pid, None) is not None and not process.ended.done():
            self._dying[process.inner_pid] = process.pid
        process.discard()

    def sweep(self) -> int:
        """Kill the processes in the session that are no nodes: steps have left them behind. Returns how many there were."""
        if self.arriving:
            # One of them may be a node that is not known yet. The chain that waits for it sweeps later.
            return 0
        try:
            text = Path(f"/proc/{self.init_pid}/task/{self.init_pid}/children").read_text()
        except OSError:
            return 0
        known = {process.pid for process in self.living.values()} | {self.root.pid, *self._dying.values()}
        strays = [pid for pid in map(int, text.split()) if pid not in known]
        for pid in strays:
            with contextlib.suppress(CannotForkError, ProcessLookupError):
                pidfd, _ = self._identify(pid)
                try:
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                finally:
                    os.close(pidfd)
        return len(strays)

    async def close(self) -> None:
        """Kill all and leave nothing behind."""
        if self._listener is not None:
            # Before its socket is closed: the number of the descriptor is soon another's.
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)
        # The end of its first process ends the whole pid namespace.
        self.init.kill()
        self.init.close()
        self.gone.set()
        for process in [self.root, *self.living.values()]:
            process.discard()
        self.living.clear()
        self.listening.close()
        if self.cgroup is not None:
            await remove_cgroup(self.cgroup)

    async def fork(self, parent: Process) -> Process:
        """A new process in the state of `parent`. Raises CannotForkError."""
        # The child is not known yet, so a flood cannot reach it before it is.
        later = UnknownYet()
        child: Process | None = None
        with contextlib.ExitStack() as undo:
            try:
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
                undo.callback(ours.close)
                ours.setblocking(False)
                ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
                with theirs:
                    inode = os.fstat(theirs.fileno()).st_ino
                    output = captures(self.level, self.max_output_bytes, later)
                    for capture in output:
                        undo.callback(capture.close)
                    async with parent.lock, self._while_thawed(parent):
                        if parent.pidfd < 0:
                            raise CannotForkError("the state is not kept any more")
                        ends = [capture.write_end for capture in output]
                        try:
                            socket.send_fds(
                                parent.control, [interpret.FORK + bytes(4)], [theirs.fileno(), *ends]
                            )
                        finally:
                            theirs.close()
                            for capture in output:
                                capture.handed_over()
                        child = await self.arrival(
                            ours, FORK_SECONDS if parent is not self.root else ANSWER_SECONDS
                        )
                        child.sockets_inode = inode
            except OSError as error:
                raise CannotForkError(str(error)) from error
            undo.pop_all()
        child.output = output
        later.is_known_as(child)
        self.living[child.inner_pid] = child
        return child

    @contextlib.asynccontextmanager
    async def _while_thawed(self, parent: Process) -> AsyncIterator[None]:
        """The process able to fork, for as long as it takes."""
        was_frozen = parent.frozen
        self.arriving += 1
        try:
            if was_frozen:
                parent.thaw()
            yield
        finally:
            self.arriving -= 1
            if was_frozen:
                parent.freeze()

    async def arrival(self, sock: socket.socket, seconds: float = ANSWER_SECONDS) -> Process:
        """The process at the other end, once it says that it is there. Raises CannotForkError."""
        try:
            async with asyncio.timeout(seconds):
                await wait_until_readable(sock)
        except TimeoutError as error:
            raise CannotForkError("no answer") from error
        data, ancillary, _, _ = sock.recvmsg(1, socket.CMSG_SPACE(_CREDENTIALS.size))
        if data != interpret.READY or not ancillary:
            raise CannotForkError("the process ended")
        pid, _, _ = _CREDENTIALS.unpack(ancillary[0][2][: _CREDENTIALS.size])
        pidfd, inner = self._identify(pid)
        return Process(sock, pidfd, pid, inner)

    def _identify(self, pid: int) -> tuple[int, int]:
        """A handle of the session's process `pid`, and its number within. Raises CannotForkError if it is not one."""
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            raise CannotForkError("the process ended") from error
        try:
            status = proc_status(pid)
            # Still alive after it was looked at, so it was this process that was looked at.
            if has_ended(pidfd) or int(status["PPid"]) != self.init_pid:
                raise CannotForkError("the process is not of this session")
            return pidfd, int(status["NSpid"].split()[-1])
        except (OSError, KeyError, ValueError) as error:
            os.close(pidfd)
            raise CannotForkError(str(error)) from error
        except BaseException:
            os.close(pidfd)
            raise

    async def run(self, process: Process, code: str, seconds: float) -> Step:
        """Run one step in a process of which nobody else makes use. Raises ZygoteDiedError, CrowdedOutError."""
        if process.output is None:
            raise ZygoteDiedError("the session's processes ended")
        stdout, stderr = process.output
        oom_kills = self.cgroup.oom_kills() if self.cgroup else 0
        cpu_before = cpu_seconds_of(process.pid)
        began = time.perf_counter()
        timer = kill_timer(seconds, self.level, lambda: process.kill(Limit.WALL))
        try:
            reply = await self._ask(process, unit_message(code))
        finally:
            if timer is not None:
                timer.cancel()
        wall = time.perf_counter() - began
        limit, ended_by = None, None
        if reply in _ANSWERS and not process.killed:
            peak, threads = peak_and_threads(process.pid)
            process.forkable = reply == interpret.RAN and threads == 1 and has_only_its_own_files(process)
            cpu = cpu_seconds_of(process.pid) - cpu_before
            status = StepStatus.OK
            if reply == interpret.RAISED:
                status = StepStatus.ERROR
                usage = {"status": 1 << 8, "user": 0.0, "system": 0.0, "peak_kb": peak * 1024}
                limit = self._limit_hit(process, usage, oom_kills)
        else:
            # The end of the process, or nonsense: then it is ended here, which is no limit that it hit.
            if reply:
                process.kill()
            usage = await self.end_of(process)
            peak, cpu = int(usage["peak_kb"]) / 1024, float(usage["user"]) + float(usage["system"])
            limit, ended_by = self._limit_hit(process, usage, oom_kills), signal_of(usage)
            status = StepStatus.KILLED if limit is None else StepStatus.LIMIT
        out, err = stdout.take(), stderr.take()
        if limit is Limit.MEMORY and not nearly_all(
            usage, memory_bytes=self.memory_bytes, resident=self.zygote.resident
        ):
            raise CrowdedOutError("the session's memory was used up")
        measured = Measured(
            signal=ended_by,
            limit=limit,
            stdout_truncated=out.truncated,
            stderr_truncated=err.truncated,
            wall_seconds=wall,
            cpu_seconds=max(0.0, cpu),
            peak_memory_mb=max(0.0, peak),
        )
        return Step(status, out.text, err.text, measured)

    def _limit_hit(self, process: Process, usage: Message, oom_kills: int) -> Limit | None:
        """Which limit made a step fail, after so many kills for want of memory before it."""
        return limit_hit(
            process,
            usage,
            cpu=self.cpu_seconds,
            oom_killed=self.cgroup is not None and self.cgroup.oom_kills() > oom_kills,
            failed=True,
            memory_bytes=self.memory_bytes,
            resident=self.zygote.resident,
        )

    async def _ask(self, process: Process, message: bytes) -> bytes:
        loop = asyncio.get_running_loop()

        async def converse() -> bytes:
            await loop.sock_sendall(process.control, message)
            return await loop.sock_recv(process.control, 1)

        process.conversations += 1
        answer = asyncio.ensure_future(converse())
        try:
            # The end of the process counts, even where something of it still holds the socket.
            either: set[asyncio.Future[Any]] = {answer, process.ended}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                await asyncio.sleep(0)
            return answer.result() if answer.done() else b""
        except OSError:
            # The process closed its end.
            return b""
        finally:
            answer.cancel()
            await asyncio.gather(answer, return_exceptions=True)
            process.conversations -= 1
            if process.given_up and not process.conversations:
                process.control.close()


async def start_processes(
    zygote: Zygote,
    level: Level,
    cgroup: Cgroup | None,
    *,
    seed: int,
    memory_bytes: int,
    seconds: float,
    processes: int,
    own_user: bool,
    max_output_bytes: int,
) -> Processes:
    """Start a session's init and its root node. Raises ZygoteDiedError.

    `processes` are those of its user; with `own_user` those of a user namespace of its own.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    control, roots = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for sock in (ours, control):
        sock.setblocking(False)
    control.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    counted = cgroup is not None and cgroup.memory is not None
    request = {
        "memory": address_space(zygote, memory_bytes, counted=counted),
        "cpu": cpu_limit(seconds),
        "processes": processes,
        "own_user": own_user,
        "seed": seed,
    }
    init = Killable(-1)
    try:
        with theirs, roots:
            socket.send_fds(zygote.socket, [json.dumps(request).encode()], [theirs.fileno(), roots.fileno()])
        async with asyncio.timeout(ANSWER_SECONDS):
            _, (init.pidfd,) = await receive(zygote.socket)
        started = Processes(
            zygote=zygote,
            level=level,
            init=init,
            init_pid=zygote_pid(init.pidfd),
            listening=ours,
            cgroup=cgroup,
            memory_bytes=memory_bytes,
            cpu_seconds=cpu_limit(seconds),
            max_output_bytes=max_output_bytes,
            root=Process(control, -1, -1, -1),
        )
        started.root = await started.arrival(control)
        if cgroup is not None:
            for pid in (started.init_pid, started.root.pid):
                cgroup.add(pid)
    except (OSError, TimeoutError, ValueError, CannotForkError, ZygoteDiedError) as error:
        await _undo_start(init, cgroup, ours, control)
        raise ZygoteDiedError(f"the session did not start: {error}") from error
    started.listen()
    return started


async def _undo_start(init: Killable, cgroup: Cgroup | None, *sockets: socket.socket) -> None:
    init.kill()
    init.close()
    for sock in sockets:
        sock.close()
    if cgroup is not None:
        await remove_cgroup(cgroup)
