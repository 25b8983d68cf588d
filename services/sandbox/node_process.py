"""The process of a node in a session: the handle by which it is held, and what the kernel says of it.

Limits: what is read of a process in /proc is of that moment; it may go on or end meanwhile.
"""

import asyncio
import contextlib
import errno
import os
import select
import signal
import socket
from pathlib import Path

from ratchet.contracts.sandbox import Limit
from services.sandbox.inside import confine
from services.sandbox.inside.kernel import copied_descriptor
from services.sandbox.output import Capture
from services.sandbox.runs import Killable
from services.sandbox.zygotes import Message

NULL_DEVICE = os.makedev(1, 3)
GIVEN_FILES = 4
"""Descriptors of a node: /dev/null, stdout, stderr, its control socket."""


class Process(Killable):
    """The process of a node."""

    def __init__(self, control: socket.socket, pidfd: int, pid: int, inner_pid: int) -> None:
        super().__init__(pidfd)
        self.control = control
        self.pid = pid
        self.inner_pid = inner_pid
        """Its number within the session, by which the init knows it."""
        self.lock = asyncio.Lock()
        """Held while it forks."""
        self.forkable = True
        self.frozen = False
        self.given_up = False
        self.conversations = 0
        """How many are under way on `control`."""
        self.sockets_inode = 0
        """The inode of the other end of `control`, which the process has."""
        self.ended: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        """How it ended, by the kernel's word."""
        self.output: tuple[Capture, Capture] | None = None
        """Its stdout and stderr, as long as they are read."""

    def stop_reading(self) -> None:
        """Close its outputs: what it prints from here on is lost."""
        if self.output is not None:
            for capture in self.output:
                capture.close()
            self.output = None

    def freeze(self) -> None:
        """Stop it (SIGSTOP): a state that is kept must not compute, whatever its code wants."""
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGSTOP)
            self.frozen = True

    def thaw(self) -> None:
        """Let it go on (SIGCONT)."""
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGCONT)
            self.frozen = False

    def discard(self) -> None:
        """Kill it and let go of it."""
        self.stop_reading()
        self.kill()
        self.close()
        self.given_up = True
        if self.conversations:
            # Whoever is in the middle of one sees its end, and closes: the number of a descriptor that is closed under a
            # waiting reader is soon another's.
            with contextlib.suppress(OSError):
                self.control.shutdown(socket.SHUT_RDWR)
        else:
            self.control.close()


class UnknownYet(Killable):
    """Stands for a process that is not known yet."""

    def __init__(self) -> None:
        super().__init__(-1)
        self._process: Process | None = None

    def is_known_as(self, process: Process) -> None:
        """Kill this one instead; at once, if it was to be killed already."""
        self._process = process
        if self.killed:
            process.kill(self.limit)

    def kill(self, limit: Limit | None = None) -> None:
        if self._process is not None:
            self._process.kill(limit)
        else:
            super().kill(limit)


def has_ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def proc_status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def has_only_its_own_files(process: Process) -> bool:
    """Whether it has the four descriptors that it was given and no other: an open file would share its offset."""
    if process.output is None:
        return False
    folder = Path(f"/proc/{process.pid}/fd")
    try:
        if sorted(entry.name for entry in folder.iterdir()) != ["0", "1", "2", "3"]:
            return False
        found = [(folder / str(number)).stat() for number in range(4)]
    except PermissionError:
        # /proc shows them to root alone. Whoever made the user namespace may still ask for one after the other.
        return _copies_are_its_own(process)
    except OSError:
        return False
    return _are_its_own(process, found)


def _are_its_own(process: Process, found: list[os.stat_result]) -> bool:
    if process.output is None:
        return False
    inodes = [*(capture.inode for capture in process.output), process.sockets_inode]
    return found[0].st_rdev == NULL_DEVICE and [each.st_ino for each in found[1:]] == inodes


def _copies_are_its_own(process: Process) -> bool:
    """The same question, answered from copies of the descriptors. False where none can be had: then it is not forked."""
    found = []
    for number in range(confine.OPEN_FILES):
        try:
            copy = copied_descriptor(process.pidfd, number)
        except OSError as error:
            if error.errno != errno.EBADF or number < GIVEN_FILES:
                return False
            continue
        try:
            if number >= GIVEN_FILES:
                return False
            found.append(os.fstat(copy))
        finally:
            os.close(copy)
    return _are_its_own(process, found)


def peak_and_threads(pid: int) -> tuple[float, int]:
    """Peak resident set in MiB, and the number of threads; 0 and 0 where the process is gone."""
    try:
        status = proc_status(pid)
        return int(status["VmHWM"].split()[0]) / 1024, int(status["Threads"])
    except (OSError, KeyError, ValueError):
        return 0.0, 0


def cpu_seconds_of(pid: int) -> float:
    """Processor time of the process so far; 0 where it is gone.

    Precise for its first thread, and to a clock tick for all of them together.
    """
    try:
        first = int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return max(first, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError):
        return 0.0
