"""Runs foreign code in this process: a program from beginning to end, or steps that share a namespace.

Everything here may be read and replaced by the code that it runs. Nothing in it is secret, and what it says is a claim:
one byte a step. How the process ended, and what it used, is measured elsewhere.
"""

import atexit
import contextlib
import io
import linecache
import os
import random
import socket
import sys
import threading
import traceback
import types
from typing import Any, Final

from services.sandbox.inside.confine import OPEN_FILES
from services.sandbox.inside.kernel import fork_sibling

CONTROL: Final = 3
"""Descriptor of the socket by which code comes in. 0, 1 and 2 are the program's own."""
HARNESS_FILES: Final = frozenset({__file__})
# A traceback may quote a line of any length; the reader wants its beginning.
TRACEBACK_LINE_CHARS = 2000
TRACEBACK_FRAMES = 8

RUN, FORK = b"x", b"f"
READY, RAN, RAN_UNFORKABLE, RAISED, NO_FORK = b"r", b"k", b"u", b"e", b"n"


class _Pipe(io.FileIO):
    """A stream of the program's output. The descriptor gets its pipe later: what it is before could be sought in."""

    def seekable(self) -> bool:
        return False


def standard_streams() -> None:
    """New text streams on descriptors 0 to 2."""
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0)), encoding="utf-8", errors="replace")
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(
            io.BufferedWriter(_Pipe(fd, "w")),
            encoding="utf-8",
            errors="backslashreplace",
            line_buffering=True,
        )
        for fd in (1, 2)
    )
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]
    sys.argv = [""]


def seed_generators(seed: int | None) -> None:
    """Seed `random` and numpy; with None from the system, as the fork copied the state of every generator."""
    random.seed(seed)
    if "numpy.random" not in sys.modules:
        return
    sys.modules["numpy.random"].seed(seed)
    if seed is not None:
        # What `numpy.random.default_rng()` seeds itself with, where the program gives it nothing.
        sys.modules["numpy.random.bit_generator"].randbits = random.getrandbits  # type: ignore[attr-defined]


def new_main() -> dict[str, Any]:
    """The namespace of a fresh `__main__`. From here on integers of any length are read and written."""
    # Problems ask for the digits of large powers. Python's limit guards servers against time, which is limited here.
    sys.set_int_max_str_digits(0)
    main = types.ModuleType("__main__")
    main.__dict__["__builtins__"] = __builtins__
    sys.modules["__main__"] = main
    return main.__dict__


def execute(source: str, name: str, namespace: dict[str, Any]) -> BaseException | None:
    """Run the source in the namespace. What it raises is returned, SystemExit and KeyboardInterrupt included."""
    # Python reads a file with a byte order mark, which some editors write, but not such a string.
    source = source.removeprefix("\ufeff")
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    try:
        exec(compile(source, name, "exec", dont_inherit=True), namespace)  # noqa: S102 - what this process is for
    except BaseException as error:  # noqa: BLE001
        return error
    return None


def print_error(error: BaseException) -> None:
    """Write the exception as Python does, without the harness's own frames."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename in HARNESS_FILES:
        frames = frames.tb_next
    try:
        text = "".join(traceback.format_exception(type(error), error, frames, limit=-TRACEBACK_FRAMES))
    except BaseException:  # noqa: BLE001 - a hostile __str__ must not look like a broken sandbox
        text = f"{type(error).__name__}\n"
    lines = [line[:TRACEBACK_LINE_CHARS] for line in text.splitlines()]
    sys.stderr.write("\n".join(lines) + "\n")
    sys.stderr.flush()


def exit_code(error: BaseException | None) -> int:
    """The return code with which Python would end, its message printed."""
    if error is None:
        return 0
    if isinstance(error, SystemExit):
        if error.code is None or isinstance(error.code, int):
            return (error.code or 0) & 0xFF
        sys.stderr.write(f"{error.code}\n")
        return 1
    print_error(error)
    return 1


def flush() -> None:
    """Write out what the program printed, if it left the streams in a state to do so."""
    for stream in (sys.stdout, sys.stderr):
        # The program may have closed or replaced them.
        with contextlib.suppress(BaseException):
            stream.flush()


def read_exactly(size: int) -> bytes | None:
    """`size` bytes from the control socket, or None at its end."""
    parts = []
    while size:
        part = os.read(CONTROL, min(size, 1 << 20))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def receive_unit() -> str | None:
    """The next unit of code, or None when there are no more."""
    head = read_exactly(5)
    if head is None or head[:1] != RUN:
        return None
    return (read_exactly(int.from_bytes(head[1:], "big")) or b"").decode()


def run_program() -> int:
    """One program from beginning to end, with what Python does at its exit. Returns the return code."""
    namespace = new_main()
    code = exit_code(execute(receive_unit() or "", "<program>", namespace))
    flush()
    with contextlib.suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    flush()
    return code


def run_unit(source: str, number: int, namespace: dict[str, Any]) -> int | None:
    """One step, answered with one byte. None, or the return code where it wants to leave."""
    error = execute(source, f"<step {number}>", namespace)
    if isinstance(error, SystemExit):
        code = exit_code(error)
        flush()
        return code
    if error is not None:
        print_error(error)
    flush()
    os.write(CONTROL, RAISED if error is not None else RAN if forkable() else RAN_UNFORKABLE)
    return None


def run_steps() -> int:
    """Steps one after another in one namespace, until there are no more. Returns the return code."""
    namespace = new_main()
    number = 0
    while (source := receive_unit()) is not None:
        number += 1
        if (code := run_unit(source, number, namespace)) is not None:
            return code
    return 0


def forkable() -> bool:
    """Whether a fork would have all of this process's state: no other thread, and no descriptor with a shared offset."""
    if len(sys._current_frames()) > 1:
        return False
    for fd in range(CONTROL + 1, OPEN_FILES):
        with contextlib.suppress(OSError):
            os.fstat(fd)
            return False
    return True


def run_node(control: socket.socket, tid_address: int) -> int:
    """A node of a session: runs steps and, on request, forks itself. Returns the return code.

    Every message is one byte and a length of four; a step's code follows, or with a request to fork come the child's
    control socket, stdout and stderr. The child says that it is there; the parent says only that it could not fork.
    """
    namespace = new_main()
    number = 0
    while True:
        head, fds, _, _ = socket.recv_fds(control, 5, 3)
        if len(head) != 5:
            return 0
        if head[:1] == RUN:
            source = read_exactly(int.from_bytes(head[1:], "big"))
            number += 1
            if source is None:
                return 0
            if (code := run_unit(source.decode(), number, namespace)) is not None:
                return code
            continue
        # Python seeds `random` anew in a forked child: a re-execution would not.
        generator = random.getstate()
        try:
            pid = fork_sibling(tid_address)
        except OSError:
            pid = -1
        if pid == 0:
            random.setstate(generator)
            for fd, place in zip(fds, (CONTROL, 1, 2), strict=True):
                os.dup2(fd, place, inheritable=False)
        for fd in fds:
            os.close(fd)
        if pid <= 0:
            os.write(CONTROL, READY if pid == 0 else NO_FORK)
