"""The real sandbox service as a process of its own, and what can be seen of it from outside.

Memory is the proportional set size of the whole process tree (a page that n processes share counts 1/n in each)
plus its page tables, so that kept forks are counted once and in full. Processor time is that of a control group of
its own, where one can be made (cgroup version 1, root), and otherwise summed over the tree.

Limits: the kernel's other memory (stacks, task and namespace structures) is not counted. The memory maps of jailed
processes can be read by root alone: for others their memory is left out. The sum over the tree misses what was used by
processes that died together with the one that would have reaped them: killed sessions, replaced zygotes.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from ratchet.stack.ports import free_port

ROOT = Path(__file__).parents[1]
START_SECONDS = 60
STOP_SECONDS = 30


@dataclass
class Service:
    """A running service."""

    url: str
    process: psutil.Process
    temporary: Path
    """Its folder for temporary files, empty at the start."""
    log: Path
    """What it writes: a JSON object a line."""
    left_behind: list[int] = field(default_factory=list)
    """Numbers of the processes that outlived the service. They were killed then."""
    cpu_group: Path | None = None
    """The control group that counts its processor time."""

    def below(self) -> list[psutil.Process]:
        """The processes below the service."""
        return self.process.children(recursive=True)

    def cpu_seconds(self) -> float:
        """Processor time of the service and everything below it since its start, ended processes included."""
        if self.cpu_group is not None:
            return int((self.cpu_group / "cpuacct.usage").read_text()) / 1e9
        total = 0.0
        for process in [self.process, *self.below()]:
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                own = max(times.user + times.system, scheduled_seconds(process.pid))
                total += own + times.children_user + times.children_system
        return total

    def memory_mb(self) -> float:
        """Memory of the service and everything below it, MiB."""
        return sum(memory_kb(process.pid) for process in [self.process, *self.below()]) / 1024


def memory_kb(pid: int) -> int:
    """Proportional set size and page tables of one process; 0 if it has ended or may not be looked at."""
    try:
        return _field(Path(f"/proc/{pid}/smaps_rollup"), "Pss:") + _field(
            Path(f"/proc/{pid}/status"), "VmPTE:"
        )
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0


def make_cpu_group(pid: int) -> Path | None:
    """A group that counts the processor time of this process and all that it will start; None where there is none."""
    group = Path(f"/sys/fs/cgroup/cpuacct/ratchet-bench-{pid}")
    try:
        group.mkdir()
        (group / "cgroup.procs").write_text(str(pid))
    except OSError:
        return None
    return group


def scheduled_seconds(pid: int) -> float:
    """Processor time of a living process's threads. Its `stat` counts in 10 ms, which is all that many a step takes."""
    total = 0
    for file in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            total += int(file.read_text().split()[0])
    return total / 1e9


def _field(file: Path, name: str) -> int:
    for line in file.read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    return 0


@contextlib.contextmanager
def running_service(**settings: object) -> Iterator[Service]:
    """The service with these settings, until the end of the block. Raises RuntimeError with its log if it fails."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="ratchet-bench-") as folder:
        temporary, log = Path(folder, "tmp"), Path(folder, "log")
        temporary.mkdir()
        environment = {
            **os.environ,
            **{f"RATCHET_{name.upper()}": str(value) for name, value in settings.items()},
            "RATCHET_PORT": str(port),
            "TMPDIR": str(temporary),
        }
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "services.sandbox"],
                env=environment,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        service = Service(f"http://127.0.0.1:{port}", psutil.Process(process.pid), temporary, log)
        service.cpu_group = make_cpu_group(process.pid)
        try:
            _wait_until_ready(service.url, process, log)
            yield service
            if process.poll() is not None:
                raise RuntimeError(f"The service ended by itself:\n{log.read_text()[-4000:]}")
        finally:
            below = service.below() if process.poll() is None else []
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            alive = living_after(below, 5)
            service.left_behind = [each.pid for each in alive]
            for each in alive:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
            living_after(alive, 5)
            if service.cpu_group is not None:
                with contextlib.suppress(OSError):
                    service.cpu_group.rmdir()


def lives(process: psutil.Process) -> bool:
    """Whether it has not ended. A zombie has, though whoever inherited it may take a second to notice."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def living_after(processes: Iterable[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Those that still live after so many seconds; all are waited for."""
    deadline = time.monotonic() + seconds
    left = [process for process in processes if lives(process)]
    while left and time.monotonic() < deadline:
        time.sleep(0.02)
        left = [process for process in left if lives(process)]
    return left


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    with httpx.Client(base_url=url, trust_env=False) as http:
        while True:
            with contextlib.suppress(httpx.TransportError):
                if http.get("/health").status_code == 200:
                    return
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"The service did not start:\n{log.read_text()[-4000:]}")
            time.sleep(0.05)
