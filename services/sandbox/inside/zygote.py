"""The program inside the jail: imports the libraries once, then forks children that run foreign code.

It is run as a file by the supervisor, inside a jail that holds Python, a few libraries and nothing else. The zygote
never runs foreign code itself. For runs it keeps one child ahead, confined as far as that can be done without knowing the
request, so that a request does not wait for a fork. For sessions it forks an init for each: the first process of a new
pid namespace, which starts the root node and tells, from the kernel's word, how each node ended.

Limits: runs one at a time (the supervisor keeps several zygotes); Linux only.

Messages on the SEQPACKET socket whose number is the first argument, all JSON:
    in   {"paths", "preload", "symbolic", "layers", "filters", "sessions"}            once
    out  {"ready": true} with the zygote's pidfd
Then, of a zygote for runs, for one child after the other:
    out  {"child": true} with the child's pidfd and its control socket
    out  {"status", "user", "system", "peak_kb"}                                      when the child has ended
On its control socket (a stream) a child gets {"task", "memory", "cpu", "tmp", "seed"} in one message with [stdin,
stdout, stderr], says `r` once it is confined, then gets units of code (interpret.py).
Of a zygote for sessions, any number of times:
    in   {"memory", "cpu", "processes", "seed"} with [the init's socket, the root's control socket]
    out  {"session": true} with the init's pidfd
On its socket (SEQPACKET) an init says {"pid", "status", "user", "system", "peak_kb"} of each node that ended.
"""

import _sitebuiltins
import base64
import builtins
import functools
import gc
import importlib
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NoReturn

# Above `services`, which in the jail holds the folder of this file alone.
sys.path.append(os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 3)))  # noqa: PTH100, PTH118, PTH120 - pathlib is a slow import

from services.sandbox.inside import confine, interpret
from services.sandbox.inside.kernel import (
    CLONE_NEWPID,
    CLONE_NEWUSER,
    PR_SET_DUMPABLE,
    PR_SET_PDEATHSIG,
    call,
    collapse,
    thread_id_address,
)

FILE_BYTES = 32 * 2**20
"""Size of /tmp, and the largest file in it."""


@dataclass(frozen=True)
class Zygote:
    """What a zygote knows, and its children with it."""

    sock: socket.socket
    layers: frozenset[str]
    filters: dict[str, bytes]
    symbolic: ModuleType | None
    own: int
    """Handle of its own pid namespace, to come back to."""
    tasks: int | None
    """Most processes and threads of its user in its user namespace while a run goes on; None: they are not its own."""


def life(body: Callable[[], int]) -> NoReturn:
    """All that a child does, from the fork to its end. Never returns into the zygote's loop, whatever the code does."""
    # A local name: the program can replace `os._exit`, but not what this frame holds.
    leave = os._exit
    code = 1
    try:
        code = body()
    except BaseException as error:  # noqa: BLE001
        try:
            os.write(2, f"sandbox: {type(error).__name__}: {error}\n".encode(errors="replace")[:2000])
        finally:
            leave(1)
    finally:
        leave(code)
    raise SystemExit(code)  # unreachable: for the type checker


def place(fds: dict[int, int]) -> None:
    """Move descriptors to their numbers and close all others."""
    # Above all numbers in use, so that no dup2 below overwrites one that is still to be moved.
    moved = {number: os.dup2(fd, 200 + number, inheritable=False) for number, fd in fds.items()}
    for number, fd in moved.items():
        os.dup2(fd, number)
    kept = max(fds)
    os.closerange(kept + 1, 1024)


def in_new_pid_namespace(zygote: Zygote, body: Callable[[], int]) -> int:
    """Fork a child that is the first process of a new pid namespace; its number."""
    # The next child is in the new namespace; this process stays in its own, and goes back to it for the ones after.
    if "pid-ns" in zygote.layers:
        call("unshare", CLONE_NEWPID)
    pid = os.fork()
    if pid == 0:
        life(body)
    if "pid-ns" in zygote.layers:
        call("setns", zygote.own, CLONE_NEWPID)
    return pid


def usage_of(status: int, usage: resource.struct_rusage) -> dict[str, float]:
    """How a process ended, for the supervisor."""
    return {"status": status, "user": usage.ru_utime, "system": usage.ru_stime, "peak_kb": usage.ru_maxrss}


def serve_runs(zygote: Zygote) -> None:
    """One child after the other, each waiting for its request."""
    while True:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        pid = in_new_pid_namespace(zygote, functools.partial(run_child, zygote, theirs))
        theirs.close()
        pidfd = os.pidfd_open(pid)
        socket.send_fds(zygote.sock, [b'{"child": true}'], [pidfd, ours.fileno()])
        os.close(pidfd)
        ours.close()
        _, status, usage = os.wait4(pid, 0)
        zygote.sock.send(json.dumps(usage_of(status, usage)).encode())


def run_child(zygote: Zygote, control: socket.socket) -> int:
    """A child for one run. Returns the return code."""
    place({0: os.open(os.devnull, os.O_RDWR), interpret.CONTROL: control.fileno()})
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, interpret.CONTROL)
    confine.enter(zygote.layers, FILE_BYTES)
    interpret.standard_streams()
    interpret.seed_generators(None)
    message, fds, _, _ = socket.recv_fds(control, 1 << 16, 3)
    if not message:
        return 0
    request: dict[str, Any] = json.loads(message)
    place(dict(zip((0, 1, 2), fds, strict=True)) | {interpret.CONTROL: interpret.CONTROL})
    task = request["task"]
    confine.restrict(
        zygote.layers,
        memory=request["memory"],
        cpu=request["cpu"],
        file_bytes=FILE_BYTES,
        processes=zygote.tasks,
        writable=task == "program",
        system_calls=zygote.filters["program" if task == "program" else "steps"],
    )
    if request["seed"] is not None:
        interpret.seed_generators(request["seed"])
    os.write(interpret.CONTROL, interpret.READY)
    if task == "program":
        return interpret.run_program()
    if task == "steps":
        return interpret.run_steps()
    assert zygote.symbolic is not None
    print(zygote.symbolic.compare(interpret.receive_unit() or ""))  # noqa: T201 - stdout is the answer
    interpret.flush()
    return 0


def serve_sessions(zygote: Zygote) -> None:
    """Start an init for each session, until the supervisor goes away."""
    # Nobody waits for an init: the supervisor holds its pidfd.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        message, fds, _, _ = socket.recv_fds(zygote.sock, 1 << 16, 2)
        if not message:
            return
        request = json.loads(message)
        pid = in_new_pid_namespace(zygote, functools.partial(init, zygote, request, fds))
        for fd in fds:
            os.close(fd)
        pidfd = os.pidfd_open(pid)
        socket.send_fds(zygote.sock, [b'{"session": true}'], [pidfd])
        os.close(pidfd)


def init(zygote: Zygote, request: dict[str, Any], fds: list[int]) -> int:
    """The first process of a session: starts the root node, then tells how each node ended. It runs no foreign code."""
    null = os.open(os.devnull, os.O_RDWR)
    place({0: null, 1: null, 2: null, 3: fds[1], 4: fds[0]})
    if request["own_user"]:
        # The kernel counts a user's processes in each user namespace apart: the limit is then this session's own.
        call("unshare", CLONE_NEWUSER)
    confine.enter(zygote.layers, None)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, 4)
    if os.fork() == 0:
        life(functools.partial(root_node, zygote, request))
    os.close(interpret.CONTROL)
    while True:
        try:
            pid, status, usage = os.wait4(-1, 0)
        except ChildProcessError:
            return 0
        sock.send(json.dumps({"pid": pid} | usage_of(status, usage)).encode())


def root_node(zygote: Zygote, request: dict[str, Any]) -> int:
    """The node at which nothing has run yet."""
    place({0: 0, 1: 1, 2: 2, interpret.CONTROL: interpret.CONTROL})
    call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, interpret.CONTROL)
    tid_address = thread_id_address()
    confine.restrict(
        zygote.layers,
        memory=request["memory"],
        cpu=request["cpu"],
        file_bytes=0,
        processes=request["processes"],
        writable=False,
        system_calls=zygote.filters["session"],
    )
    interpret.standard_streams()
    interpret.seed_generators(request["seed"])
    os.write(interpret.CONTROL, interpret.READY)
    return interpret.run_node(control, tid_address)


def warm_up() -> None:
    """Load what sympy and numpy import only on first use, and fill their caches."""
    if "sympy" not in sys.modules:
        return
    sympy = sys.modules["sympy"]
    x = sympy.Symbol("x")
    sympy.solve(x**2 - 3 * x + 2, x)
    sympy.simplify(sympy.sqrt(8) + sympy.Rational(1, 3))
    str(sympy.Integer(2) * x)


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
    if "non-dumpable" not in config["layers"]:
        call("prctl", PR_SET_DUMPABLE, 1, 0, 0, 0)
    sys.path[:] = [*sys.path, *config["paths"]]
    for name in config["preload"]:
        importlib.import_module(name)
    symbolic = importlib.import_module("services.sandbox.inside.symbolic") if config["symbolic"] else None
    # The module `site` makes these; it is not imported, as it reads folders that are not here.
    for name in ("exit", "quit"):
        setattr(builtins, name, _sitebuiltins.Quitter(name, "Ctrl-D (i.e. EOF)"))
    warm_up()
    os.environ.clear()
    sys.argv = [""]
    gc.collect()
    collapse(id(thing) for thing in gc.get_objects())
    gc.freeze()
    own = os.pidfd_open(os.getpid())
    filters = {name: base64.b64decode(text) for name, text in config["filters"].items()}
    zygote = Zygote(sock, frozenset(config["layers"]), filters, symbolic, own, config["tasks"])
    socket.send_fds(sock, [b'{"ready": true}'], [own])
    if config["sessions"]:
        serve_sessions(zygote)
    else:
        serve_runs(zygote)


if __name__ == "__main__":
    main()
