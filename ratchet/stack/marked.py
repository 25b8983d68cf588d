"""The processes of a stack's children, found by a mark in their environment: whoever lost sight of one finds it again."""

import contextlib
import os

import psutil

from ratchet.stack.shim import descendants

# Every process of a child carries this in its environment: the child's mark, unique on the machine.
MARK = "RATCHET_STACK_CHILD"


def memory_of(pid: int, children: dict[int, list[int]]) -> int:
    """Resident bytes of a process and of what its descendants do not share (with it, mostly)."""
    total = 0
    for one in [pid, *descendants(pid, children)]:
        with contextlib.suppress(psutil.Error):
            memory = psutil.Process(one).memory_info()
            total += memory.rss if one == pid else max(0, memory.rss - memory.shared)
    return total


def _processes_of(mark: str, prefix: bool) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        # Not ours to read, or just ended.
        with contextlib.suppress(psutil.Error, OSError):
            value = process.environ().get(MARK, "")
            if process.pid != os.getpid() and (value.startswith(mark) if prefix else value == mark):
                found.append(process)
    return found


def kill_marked(mark: str, *, prefix: bool = False) -> None:
    """Kill every process that carries the mark (or, with `prefix`, one that begins so).

    For what a shim could not see to because it was killed itself.
    """
    for _ in range(5):
        found = _processes_of(mark, prefix)
        if not found:
            return
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(found, timeout=1.0)
