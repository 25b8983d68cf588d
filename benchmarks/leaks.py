"""What a sandbox service holds of the machine, counted from outside: processes, descriptors, mounts, cgroups, files, memory.

Two counts of an idle service must agree. A process counts as leaked also where it has left the service's tree but
lives: therefore every process ever seen below the service is remembered.

Limits: a process that lived and fled between two looks is not seen; files are looked for where programs try to write
them and in the service's own temporary folder; jailed processes' descriptors and memory can be counted by root alone.
"""

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.sandbox_service import ROOT, Service, lives, memory_kb

CGROUP_PREFIX = "ratchet-sandbox-"
SHARED_MEMORY = Path("/dev/shm")
PLACES = ("/", "/tmp", "/var/tmp", "/dev", "/dev/shm", "/home", str(Path.home()), str(ROOT))
"""Where a program of the soak tries to leave a file."""


@dataclass(frozen=True)
class Census:
    """One count."""

    processes: int
    """Below the service, and those that fled."""
    service_fds: int
    other_fds: int
    """Descriptors of the processes below the service."""
    mounts: int
    """That the host sees, and that the service sees."""
    cgroups: int
    files: int
    threads: int
    memory_mb: float
    """Memory of the service and everything below it, MiB."""
    service_mb: float
    """Memory of the service's own process, MiB."""

    def leaked_since(self, earlier: "Census") -> dict[str, int]:
        """What there is more of, for each kind of thing."""
        return {
            "leaked_processes": max(0, self.processes - earlier.processes),
            "leaked_fds": max(0, self.service_fds - earlier.service_fds)
            + max(0, self.other_fds - earlier.other_fds),
            "leaked_mounts": max(0, self.mounts - earlier.mounts),
            "leaked_cgroups": max(0, self.cgroups - earlier.cgroups),
            "leaked_files": max(0, self.files - earlier.files),
            "leaked_threads": max(0, self.threads - earlier.threads),
        }


@dataclass
class Watch:
    """Remembers what was there at the beginning, and every process since."""

    service: Service
    token: str
    """Begins the name of every file that a program of the soak makes."""
    seen: dict[int, psutil.Process] = field(default_factory=dict)
    _shared_memory_before: frozenset[str] = field(default_factory=lambda: frozenset(_names(SHARED_MEMORY)))

    def look(self) -> list[psutil.Process]:
        """The processes below the service now; they are remembered."""
        below = self.service.below()
        self.seen = {pid: process for pid, process in self.seen.items() if lives(process)}
        self.seen.update((process.pid, process) for process in below)
        return below

    def census(self) -> Census:
        """Count everything."""
        self.look()
        with self.service.process.oneshot():
            service_fds, threads = self.service.process.num_fds(), self.service.process.num_threads()
        mounts = sum(
            len(Path(f"/proc/{who}/mountinfo").read_text().splitlines())
            for who in ("self", self.service.process.pid)
        )
        return Census(
            processes=len(self.seen),
            service_fds=service_fds,
            other_fds=sum(_fds(process) for process in self.seen.values()),
            mounts=mounts,
            cgroups=len(cgroups(self.service.process.pid)),
            files=len(self.files()),
            threads=threads,
            memory_mb=round(self.service.memory_mb(), 1),
            service_mb=round(memory_kb(self.service.process.pid) / 1024, 1),
        )

    def files(self) -> list[str]:
        """Files made since the beginning."""
        found = [str(file) for file in self.service.temporary.rglob("*")]
        found += [str(file) for place in PLACES for file in Path(place).glob(f"{self.token}*")]
        found += [name for name in _names(SHARED_MEMORY) if name not in self._shared_memory_before]
        return sorted(set(found))


def cgroups(pid: int) -> list[str]:
    """The groups that the service with this process number has made, in every hierarchy."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    hierarchies = [mount[1] for mount in mounts if mount[2] in {"cgroup", "cgroup2"}]
    return [str(folder) for place in hierarchies for folder in Path(place).rglob(f"{CGROUP_PREFIX}{pid}-*")]


def _names(folder: Path) -> Iterable[str]:
    return [str(file) for file in folder.iterdir()] if folder.is_dir() else []


def _fds(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        return process.num_fds()
    return 0
