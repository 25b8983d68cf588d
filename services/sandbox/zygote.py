"""The program inside the jail: imports the libraries once, then forks one child for each request.

It is run as a file by the supervisor, inside a jail that holds Python, a few libraries and nothing else, and it uses
only the standard library. The zygote never runs foreign code itself. Foreign code runs in the child, which first
gets namespaces, limits and a system call filter of its own, and which is trusted with nothing from then on: what it
says about itself is one byte a step, and how it ended is what the kernel tells the zygote.

Limits: one request at a time (the supervisor runs several zygotes); Linux only; no snapshots of running programs yet.

Messages, on the SEQPACKET socket whose number is the first argument:
    in   {"paths", "preload", "symbolic", "filter", "namespaces"}                   once
    out  {"ready": true} with the zygote's pidfd
    in   {"task", "memory", "cpu", "tmp", "seed"} with [control, stdin, stdout, stderr]
    out  {"started": true} with the child's pidfd
    out  {"status", "user", "system", "peak_kb"}                                      when the child has ended
On the child's control socket (a stream): the child says `r` once it is confined, then gets units of code, each a
4-byte length and UTF-8 text, and answers each with `k` (ran) or `e` (raised), until the other side is closed.
"""

import _sitebuiltins
import atexit
import base64
import builtins
import contextlib
import ctypes
import gc
import importlib
import importlib.util
import io
import json
import linecache
import os
import random
import resource
import signal
import socket
import struct
import sys
import threading
import traceback
import types
from typing import Any, NoReturn

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWPID = 0x00020000, 0x08000000, 0x20000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_PRIVATE = 2, 4, 8, 16384, 1 << 18
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 1, 4, 22, 38, 47
CAPABILITY_VERSION_3 = 0x20080522

# A traceback may quote a line of any length; the reader wants its beginning.
TRACEBACK_LINE_CHARS = 2000
TRACEBACK_FRAMES = 8
OPEN_FILES = 64

libc = ctypes.CDLL(None, use_errno=True)


class SockFprog(ctypes.Structure):
    """A classic BPF program, as prctl(PR_SET_SECCOMP) wants it."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def call(name: str, *arguments: Any) -> None:
    """A C library call that must succeed. Raises OSError."""
    if getattr(libc, name)(*arguments) == -1:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")


def confine(request: dict[str, Any], system_call_filter: bytes, namespaces: bool) -> None:
    """Take from this process all that foreign code does not need. Raises OSError where a layer cannot be had."""
    # A process group of its own: kill(0, ...) would otherwise reach the zygote, across the pid namespace.
    os.setsid()
    if namespaces:
        call("unshare", CLONE_NEWNS | CLONE_NEWIPC)
        call("mount", None, b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None)
        options = f"size={request['tmp']},nr_inodes=512,mode=0700".encode()
        flags = ctypes.c_ulong(MS_NOSUID | MS_NODEV | MS_NOEXEC)
        call("mount", b"tmpfs", b"/tmp", b"tmpfs", flags, options)
        os.chdir("/tmp")  # noqa: S108
    else:
        os.chdir("/")
    for limit, value in (
        (resource.RLIMIT_AS, request["memory"]),
        # Soft and hard alike: the init of a pid namespace ignores the soft limit's signal.
        (resource.RLIMIT_CPU, request["cpu"]),
        (resource.RLIMIT_FSIZE, request["tmp"]),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    call("prctl", PR_CAP_AMBIENT, 4, 0, 0, 0)  # 4: clear all
    header = struct.pack("=Ii", CAPABILITY_VERSION_3, 0)
    call("capset", header, bytes(24))
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    call("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0)
    call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    instructions = ctypes.create_string_buffer(system_call_filter, len(system_call_filter))
    program = SockFprog(len(system_call_filter) // 8, ctypes.addressof(instructions))
    call("prctl", PR_SET_SECCOMP, 2, ctypes.byref(program), 0, 0)  # 2: filter


def receive_unit() -> str | None:
    """The next unit of code from the control socket, or None when there are no more."""
    with io.FileIO(3, closefd=False) as control:
        head = read_exactly(control, 4)
        return None if head is None else (read_exactly(control, int.from_bytes(head, "big")) or b"").decode()


def read_exactly(stream: io.FileIO, size: int) -> bytes | None:
    """`size` bytes, or None at the end of the stream."""
    parts = []
    while size:
        part = stream.read(size)
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def print_error(error: BaseException, name: str) -> None:
    """Write the exception as Python does, without this file's own frames."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    try:
        text = "".join(traceback.format_exception(type(error), error, frames, limit=-TRACEBACK_FRAMES))
    except BaseException:  # noqa: BLE001 - a hostile __str__ must not look like a broken sandbox
        text = f"{type(error).__name__}\n"
    lines = [line[:TRACEBACK_LINE_CHARS] for line in text.splitlines()]
    sys.stderr.write("\n".join(lines) + "\n")
    sys.stderr.flush()


def execute(source: str, name: str, namespace: dict[str, Any]) -> BaseException | None:
    """Run the source in the namespace. What it raises is returned, SystemExit and KeyboardInterrupt included."""
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    try:
        exec(compile(source, name, "exec", dont_inherit=True), namespace)  # noqa: S102 - what this process is for
    except BaseException as error:  # noqa: BLE001
        return error
    return None


def exit_code(error: BaseException | None) -> int:
    """The return code with which Python would end, its message printed."""
    if error is None:
        return 0
    if isinstance(error, SystemExit):
        if error.code is None or isinstance(error.code, int):
            return (error.code or 0) & 0xFF
        sys.stderr.write(f"{error.code}\n")
        return 1
    print_error(error, "<program>")
    return 1


def flush() -> None:
    """Write out what the program printed, if it left the streams in a state to do so."""
    for stream in (sys.stdout, sys.stderr):
        # The program may have closed or replaced them.
        with contextlib.suppress(BaseException):
            stream.flush()


def run_program(namespace: dict[str, Any]) -> int:
    """One program from beginning to end, with what Python does at its exit. Returns the return code."""
    code = exit_code(execute(receive_unit() or "", "<program>", namespace))
    flush()
    with contextlib.suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    flush()
    return code


def run_steps(namespace: dict[str, Any]) -> int:
    """Units one after another in one namespace, each answered with one byte. Returns the return code."""
    number = 0
    while (source := receive_unit()) is not None:
        number += 1
        error = execute(source, f"<step {number}>", namespace)
        if isinstance(error, SystemExit):
            code = exit_code(error)
            flush()
            return code
        if error is not None:
            print_error(error, f"<step {number}>")
        flush()
        os.write(3, b"k" if error is None else b"e")
    return 0


def child(config: dict[str, Any], request: dict[str, Any], fds: list[int], symbolic: Any) -> NoReturn:
    """The life of a child, from the fork to its end. Never returns into the zygote's loop, whatever the code does."""
    # A local name: the program can replace `os._exit`, but not what this frame holds.
    leave = os._exit
    code = 1
    try:
        # Above all numbers in use, so that no dup2 below overwrites one that is still to be moved.
        moved = [os.dup2(fd, 200 + index, inheritable=False) for index, fd in enumerate(fds)]
        for fd, number in zip(moved, (3, 0, 1, 2), strict=True):
            os.dup2(fd, number)
        os.closerange(4, 1024)
        confine(request, base64.b64decode(config["filter"]), config["namespaces"])
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0)), encoding="utf-8", errors="replace")
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(io.FileIO(1, "w")),
            encoding="utf-8",
            errors="backslashreplace",
            line_buffering=True,
        )
        sys.stderr = io.TextIOWrapper(
            io.BufferedWriter(io.FileIO(2, "w")),
            encoding="utf-8",
            errors="backslashreplace",
            line_buffering=True,
        )
        sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]
        sys.argv = [""]
        # The fork copied the state of every generator: two requests must not draw the same numbers.
        random.seed(request["seed"])
        if "numpy.random" in sys.modules:
            sys.modules["numpy.random"].seed(request["seed"])
        main = types.ModuleType("__main__")
        main.__dict__["__builtins__"] = __builtins__
        sys.modules["__main__"] = main
        os.write(3, b"r")
        if request["task"] == "program":
            code = run_program(main.__dict__)
        elif request["task"] == "steps":
            code = run_steps(main.__dict__)
        else:
            print(symbolic.answer(request["task"], receive_unit() or ""))  # noqa: T201 - stdout is the answer
            flush()
            code = 0
    except BaseException as error:  # noqa: BLE001
        try:
            os.write(2, f"sandbox: {type(error).__name__}: {error}\n".encode(errors="replace")[:2000])
        finally:
            leave(1)
    finally:
        leave(code)
    raise SystemExit(code)  # unreachable: for the type checker


def serve_one(
    sock: socket.socket, config: dict[str, Any], own: int, symbolic: Any, message: bytes, fds: list[int]
) -> None:
    """Fork a child for one request, and say how it ended."""
    request = json.loads(message)
    # The next child becomes the first process of a new pid namespace; this process stays in its own.
    if config["namespaces"]:
        call("unshare", CLONE_NEWPID)
    pid = os.fork()
    if pid == 0:
        sock.close()
        child(config, request, fds, symbolic)
    if config["namespaces"]:
        call("setns", own, CLONE_NEWPID)
    for fd in fds:
        os.close(fd)
    pidfd = os.pidfd_open(pid)
    socket.send_fds(sock, [b'{"started": true}'], [pidfd])
    os.close(pidfd)
    _, status, usage = os.wait4(pid, 0)
    ended = {"status": status, "user": usage.ru_utime, "system": usage.ru_stime, "peak_kb": usage.ru_maxrss}
    sock.send(json.dumps(ended).encode())


def load_symbolic(path: str | None) -> Any:
    """The grading functions, from the file that the supervisor put into the jail; None elsewhere."""
    if path is None:
        return None
    spec = importlib.util.spec_from_file_location("symbolic", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Import, freeze, then serve until the supervisor goes away."""
    call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    call("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0)
    sock = socket.socket(fileno=int(sys.argv[1]))
    sock.set_inheritable(False)
    # The supervisor's end is gone if it died before PDEATHSIG was set: then this is empty.
    message = sock.recv(1 << 20)
    if not message:
        return
    config = json.loads(message)
    sys.path[:] = [*sys.path, *config["paths"]]
    for name in config["preload"]:
        importlib.import_module(name)
    symbolic = load_symbolic(config["symbolic"])
    # The module `site` makes these; it is not imported, as it reads folders that are not here.
    for name in ("exit", "quit"):
        setattr(builtins, name, _sitebuiltins.Quitter(name, "Ctrl-D (i.e. EOF)"))
    if "sympy" in sys.modules:
        # Loads what sympy imports only on first use, and fills its caches.
        sympy = sys.modules["sympy"]
        x = sympy.Symbol("x")
        sympy.solve(x**2 - 3 * x + 2, x)
        sympy.simplify(sympy.sqrt(8) + sympy.Rational(1, 3))
        str(sympy.Integer(2) * x)
    os.environ.clear()
    sys.argv = [""]
    gc.collect()
    gc.freeze()
    own = os.pidfd_open(os.getpid())
    socket.send_fds(sock, [b'{"ready": true}'], [own])
    while True:
        message, fds, _, _ = socket.recv_fds(sock, 1 << 16, 8)
        if not message:
            return
        serve_one(sock, config, own, symbolic, message, fds)


if __name__ == "__main__":
    main()
