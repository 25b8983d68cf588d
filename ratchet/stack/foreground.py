"""One server for the length of a `with` block, under a shim: it ends with this process, however that ends."""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ratchet.stack import shim
from ratchet.stack.errors import StackError
from ratchet.stack.logs import tail

# How long a child may take to stop once its supervisor was killed.
ORPHAN_GRACE = 3.0


def shim_command(argv: Sequence[str], *, log: Path, stop_signal: int, stop_timeout: float) -> list[str]:
    """The argv that runs `argv` under a shim (see its docstring for what its standard streams mean)."""
    return [
        sys.executable, "-I", "-S", str(Path(shim.__file__)),
        "--stop-signal", str(int(stop_signal)), "--grace", str(stop_timeout),
        "--orphan-grace", str(min(ORPHAN_GRACE, stop_timeout)), "--log", str(log), "--", *argv,
    ]  # fmt: skip


def run_to_end(argv: Sequence[str], *, log: Path, cwd: Path, timeout: float) -> int:
    """Run a program to its end, or to ours: it does not outlive this process. Gives its code, 1 after the timeout."""
    command = shim_command(argv, log=log, stop_signal=signal.SIGKILL, stop_timeout=0.0)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True, bufsize=0, cwd=cwd
    ) as process:
        assert process.stdin is not None
        try:
            return process.wait(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.stdin.write(b"k")
            process.wait(timeout=30)
            return 1


@contextlib.contextmanager
def running(
    name: str, argv: Sequence[str], ready: Callable[[], bool], *, log: Path, stop_signal: int, timeout: float
) -> Iterator[int]:
    """Run the server, wait until `ready` says so, stop it at the end; gives the shim's pid. Raises StackError."""
    command = shim_command(argv, log=log, stop_signal=stop_signal, stop_timeout=20.0)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True, bufsize=0
    ) as process:
        assert process.stdin is not None
        try:
            deadline = time.monotonic() + timeout
            while not ready():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise StackError(f"{name} does not start. Last lines of {log}:\n{tail(log)}")
                time.sleep(0.03)
            yield process.pid
        finally:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(b"s")
            process.wait(timeout=30)
