"""Stands between the supervisor and one child, so that nothing of the child outlives either. Standard library only.

    python shim.py --stop-signal N --grace SECONDS --orphan-grace SECONDS --log FILE -- PROGRAM ARG...

It is the reaper of all that the child starts: when the child ends, whatever it left behind is killed.
Standard input is the supervisor's lifeline: "s" asks for an orderly stop, "k" for a quick end, and
end-of-file says that the supervisor has gone, however that happened; the child is then stopped as well.
Standard output says "started PID" and "ended CODE" (negative: the signal). If the shim itself is killed, the
kernel kills the child.

Limit: what the child starts is found as its descendants, so Linux only.
"""

import argparse
import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36

libc = ctypes.CDLL(None, use_errno=True)


def children_by_parent() -> dict[int, list[int]]:
    """The children of every process on the machine, by the parent's pid."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            # The name, in parentheses, may hold anything; the parent is the second field behind it.
            parent = int((entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    return children


def descendants(root: int, children: dict[int, list[int]] | None = None) -> list[int]:
    """Every process below `root`, parents first."""
    if children is None:
        children = children_by_parent()
    found: list[int] = []
    queue = [root]
    while queue:
        below = children.get(queue.pop(0), [])
        found += below
        queue += below
    return found


def kill_descendants(timeout: float = 5.0) -> None:
    """Kill and reap everything below this process; orphans of the child count, as we are their reaper."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        left = descendants(os.getpid())
        if not left:
            return
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def report(line: str) -> None:
    """Tell the supervisor, which may have gone."""
    with contextlib.suppress(OSError):
        os.write(1, (line + "\n").encode())


def reap(child: int) -> int | None:
    """Collect what has ended; the child's code, if it is among it."""
    code = None
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
    return code


def start(program: list[str], log: str) -> int:
    """Start the child, its output appended to the log; gives its pid. The kernel kills it when we are killed."""
    parent = os.getpid()

    def tie_to_parent() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    with open(log, "ab") as output:  # noqa: PTH123 (pathlib takes longer to import than all the rest)
        return subprocess.Popen(
            program,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            process_group=0,
            preexec_fn=tie_to_parent,  # this process has one thread
        ).pid


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--stop-signal", type=int, required=True)
    parser.add_argument("--grace", type=float, required=True)
    parser.add_argument("--orphan-grace", type=float, required=True)
    parser.add_argument("--log", required=True)
    parser.add_argument("program", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if options.program[:1] == ["--"]:
        del options.program[0]
    return options


def catch_signals(asked: list[int]) -> int:
    """Collect in `asked` the signals that ask us to stop; gives a descriptor that is readable after every signal."""
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_read, False)
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda got, _: asked.append(got))
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return wake_read


def watch(child: int, wake: int, asked: list[int], options: argparse.Namespace) -> int:
    """Until the child has ended; stops it when the supervisor or a signal asks for that, or the supervisor has gone."""
    watched = [wake, 0]
    kill_at: float | None = None
    code = reap(child)
    while code is None:
        patience = None if kill_at is None else max(0.0, kill_at - time.monotonic())
        ready, _, _ = select.select(watched, [], [], patience)
        grace: float | None = None
        if wake in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(wake, 512)
        if 0 in ready:
            try:
                command = os.read(0, 1)
            except OSError:
                command = b""
            if not command:
                watched.remove(0)
            grace = {b"s": options.grace, b"k": 0.0}.get(command, options.orphan_grace)
        elif asked:
            grace = options.grace
            asked.clear()
        if grace is not None:
            if grace > 0 and kill_at is None:
                os.kill(child, options.stop_signal)
            # A later word may shorten the time, never lengthen it.
            kill_at = min(kill_at or float("inf"), time.monotonic() + grace)
        if kill_at is not None and time.monotonic() >= kill_at:
            # Descendants too: one that holds a lock or a pipe must not keep the child from ending.
            for pid in [child, *descendants(child)]:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
        code = reap(child)
        if code is None and kill_at is not None and time.monotonic() >= kill_at:
            time.sleep(0.01)
    return code


def main() -> int:
    """Run the child to its end; gives its exit code, as a shell says it."""
    options = parse_arguments()
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    asked: list[int] = []
    wake = catch_signals(asked)
    try:
        child = start(options.program, options.log)
    except OSError as error:
        with Path(options.log).open("a") as output:
            output.write(f"cannot start {options.program[0]}: {error.strerror}\n")
        report("ended 127")
        return 127
    report(f"started {child}")
    code = watch(child, wake, asked, options)
    kill_descendants()
    report(f"ended {code}")
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
