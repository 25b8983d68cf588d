"""Sessions: branches that reach into one another, steps that leave something behind, states that do not answer.

Within one chain of steps everything is shared, as it is in one program; the border runs between branches, between sessions,
and between a step and the time after it. Where no layer but that border contains an attack, the control is the same
within one chain.
"""

import contextlib
import functools
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import httpx

from benchmarks.attack.attack import (
    FILTER,
    LIMITLESS,
    PRIVILEGED,
    TIMELESS,
    WRITABLE,
    Attack,
    Nodes,
    Seen,
    hostile,
    new_token,
    proven,
    shown,
)
from benchmarks.attack.files import LOCK
from benchmarks.attack.harness import HUNT
from benchmarks.attack.service import BrokenSandboxError, Service, Session
from ratchet.contracts.sandbox import ROOT_NODE

attack = functools.partial(Attack, category="sessions")

IN_CHAIN = "the same in one chain of steps, where there is no border"
PATIENCE = 2.5
"""Seconds beyond a step's own limit, for a step that follows a hostile one."""


class Where(Enum):
    """Where what is looked for was put, seen from who looks."""

    SIBLING = auto()
    OTHER_SESSION = auto()
    LATER_STEP = auto()
    PARENT = auto()


@dataclass(frozen=True)
class Hunts:
    """Whether a step finds two words that stand together in somebody else's text."""

    where: Where

    def __call__(self, service: Service) -> Seen:
        first, second, token = secrets.token_hex(8), secrets.token_hex(8), new_token()
        hunter = hostile(HUNT, token, {"FIRST": first, "SECOND": second})
        plant = f"kept = '{first}{second}'"
        limits = {"run_timeout": 5.0, "memory_limit_MB": 512}
        with service.session(**limits) as session, service.session(**limits) as other:
            if self.where is Where.LATER_STEP:
                found = session.batch((ROOT_NODE, [hunter, plant]))
            elif self.where is Where.PARENT:
                found = session.batch((ROOT_NODE, [plant, hunter]))
            else:
                session.run(ROOT_NODE, plant)
                session = other if self.where is Where.OTHER_SESSION else session
                found = session.batch((ROOT_NODE, [hunter]))
        return Seen(proven(token, str(found)), shown(found))


@dataclass(frozen=True)
class CrossesBranches:
    """Whether what one branch does is seen in another branch of the same parent."""

    parent: str
    write: str
    read: str
    in_chain: bool = False

    def __call__(self, service: Service) -> Seen:
        token = new_token()
        parent = hostile(self.parent, token, later=(self.write, self.read))
        with service.session(run_timeout=3.0) as session:
            if self.in_chain:
                found = session.batch((ROOT_NODE, [parent, self.write, self.read]))[0]
            else:
                first = session.run(ROOT_NODE, parent)
                found = [first]
                if first["node"] is not None and first["status"] == "ok":
                    # Both orders of events: one after the other, and side by side.
                    found.append(session.run(first["node"], self.write))
                    found.append(session.run(first["node"], self.read))
                    side_by_side = session.batch(
                        (first["node"], [self.write + "\ntime.sleep(0.3)"]),
                        (first["node"], ["time.sleep(0.15)\n" + self.read]),
                    )
                    found += [step for chain in side_by_side for step in chain]
        return Seen(proven(token, *(step["stdout"] for step in found)), shown(found))


@dataclass(frozen=True)
class Harms:
    """Whether other branches suffer: they have to run, give what they give, and in good time."""

    code: str
    run_timeout: float = 1.0
    memory_limit_MB: int = 512  # noqa: N815 - the API's name
    loses_states: bool = False
    """Whether it is harm already that a state was lost and made anew. Where room has to be made it is not."""

    def __call__(self, service: Service) -> Seen:
        code = hostile(self.code, "")
        with service.session(run_timeout=self.run_timeout, memory_limit_MB=self.memory_limit_MB) as session:
            kept = session.run(ROOT_NODE, "base = 40")["node"]
            before = session.state()["replayed"]
            chains = [
                (kept, [f"import time\ntime.sleep(0.3)\nprint(base + {n})", "print(base)"]) for n in range(3)
            ]
            with ThreadPoolExecutor(2) as threads:
                hostile_run = threads.submit(self._hostile, session, code)
                time.sleep(0.05)
                began = time.monotonic()
                try:
                    chains_seen = session.batch(*chains)
                    later = session.run(kept, "print(base + 2)")
                except (BrokenSandboxError, httpx.HTTPError) as error:
                    return Seen(True, f"other branches failed: {error}")
                seconds = time.monotonic() - began
                took, said = hostile_run.result()
            replayed = session.state()["replayed"] - before
        printed = [[step["stdout"] for step in chain] for chain in chains_seen] + [later["stdout"]]
        expected = [[f"{40 + n}\n", "40\n"] for n in range(3)] + ["42\n"]
        late = seconds > 2 * self.run_timeout + PATIENCE
        # A worker that is held for longer is kept from others.
        held = took > self.run_timeout + PATIENCE
        what = f"{seconds:.1f} s, {replayed} replayed, others {printed}; hostile: {took:.1f} s, {said}"
        return Seen(printed != expected or late or held or (self.loses_states and replayed > 0), shown(what))

    @staticmethod
    def _hostile(session: Session, code: str) -> tuple[float, str]:
        began = time.monotonic()
        try:
            said = shown(session.run(ROOT_NODE, code, patience=8.0))
        except (BrokenSandboxError, httpx.HTTPError) as error:
            said = str(error)
        return time.monotonic() - began, said


@dataclass(frozen=True)
class HoldsUp:
    """Whether a step after a hostile one is answered in good time, whatever the answer."""

    code: str
    after: str = "print(1)"
    run_timeout: float = 1.0

    def __call__(self, service: Service) -> Seen:
        with service.session(run_timeout=self.run_timeout) as session:
            node = session.run(ROOT_NODE, hostile(self.code, ""))
            if node["status"] != "ok":
                return Seen(False, shown(node))
            began = time.monotonic()
            try:
                after: object = session.run(node["node"], self.after)
            except (BrokenSandboxError, httpx.HTTPError) as error:
                after = error
            seconds = time.monotonic() - began
        return Seen(seconds > self.run_timeout + PATIENCE, f"{seconds:.1f} s: {shown(after)}")


@dataclass(frozen=True)
class Outlasts:
    """Whether a step keeps a worker busy for longer than it may run."""

    code: str
    run_timeout: float = 1.0

    def __call__(self, service: Service) -> Seen:
        began = time.monotonic()
        with service.session(run_timeout=self.run_timeout) as session:
            step = session.run(ROOT_NODE, hostile(self.code, ""))
            seconds = time.monotonic() - began
        return Seen(seconds > self.run_timeout + PATIENCE, f"{seconds:.1f} s: {shown(step)}")


class When(Enum):
    """When to look for what a step left behind."""

    DURING = auto()
    AFTER_BATCH = auto()
    AFTER_DELETE = auto()


@dataclass(frozen=True)
class ComputesOn:
    """Whether the processor is used below the service when nothing is asked of it."""

    code: str
    when: When
    tries: int = 1
    """Where it is a matter of luck."""

    def __call__(self, service: Service) -> Seen:
        for _ in range(self.tries - 1):
            if (seen := self._once(service)).through:
                return seen
        return self._once(service)

    def _once(self, service: Service) -> Seen:
        wait = "\ntime.sleep(1.0)" if self.when is When.DURING else ""
        with service.session(run_timeout=2.0) as session, ThreadPoolExecutor(1) as threads:
            run = threads.submit(session.run, ROOT_NODE, hostile(self.code + wait, ""))
            if self.when is When.DURING:
                time.sleep(0.3)
            else:
                run.result()
            if self.when is When.AFTER_DELETE:
                session.delete()
            if self.when is not When.DURING:
                time.sleep(0.2)
            busy = _busy(service, 0.5)
            said = shown(run.result())
        return Seen(busy > 0.1, f"{busy:.2f} s of 0.5 s; {said}")


def _busy(service: Service, seconds: float) -> float:
    """Processor time that the processes now below the service use in so many seconds, those included that end meanwhile."""
    before = {process.pid: _used(process) for process in service.processes()}
    time.sleep(seconds)
    return sum(_used(process) - before.get(process.pid, 0.0) for process in service.processes())


def _used(process: Any) -> float:
    with contextlib.suppress(Exception):
        times = process.cpu_times()
        return float(times.user + times.system + times.children_user + times.children_system)
    return 0.0


@dataclass(frozen=True)
class LeavesProcesses:
    """Whether processes are there that were not before the session, at the moment that is looked at."""

    code: str
    when: When
    more_than: int = 0

    def __call__(self, service: Service) -> Seen:
        time.sleep(0.2)
        before = len(service.processes())
        with service.session(run_timeout=3.0) as session:
            # The init and the root node come with the first step.
            session.run(ROOT_NODE, "pass")
            kept = len(service.processes()) - before
            with ThreadPoolExecutor(1) as threads:
                run = threads.submit(session.run, ROOT_NODE, hostile(self.code, ""))
                most = 0
                while not run.done():
                    most = max(most, len(service.processes()) - before - kept)
                    time.sleep(0.02)
                said = shown(run.result())
            if self.when is When.AFTER_BATCH:
                time.sleep(0.2)
                # What the step itself left to go on from may stay.
                most = len(service.processes()) - before - kept - 1
        if self.when is When.AFTER_DELETE:
            time.sleep(0.3)
            most = len(service.processes()) - before
        return Seen(most > self.more_than, f"{most} more processes; {said}")


def cpu_in_threads(service: Service, *, claim: bool = False) -> Seen:
    """Computes in a thread, which must show in what is measured of the step."""
    code = (
        "import threading\nthread = threading.Thread(target=hold, args=(0.6,))\nthread.start()\nthread.join()"
    )
    with service.session(run_timeout=3.0) as session:
        begun = time.monotonic()
        step = session.run(ROOT_NODE, hostile(f"{code}\nprint(time.thread_time())", ""))
        assert time.monotonic() - begun > 0.6, step
    used = float(step["stdout"]) if claim else float(step["measured"]["cpu_seconds"])
    # Of 0.6 s, on a machine that may be busy.
    return Seen(used < 0.2, shown(step))


def too_many_sessions(service: Service, *, count: int = 40, enough: int = 40) -> Seen:
    """Begins more sessions than there may be."""
    begun: list[Session] = []
    try:
        while len(begun) < count:
            begun.append(service.session())
    except BrokenSandboxError as error:
        return Seen(len(begun) >= enough, f"{len(begun)} begun, then {error}")
    finally:
        for session in begun:
            session.delete()
    return Seen(len(begun) >= enough, f"{len(begun)} begun")


@dataclass(frozen=True)
class Hoards:
    """How much memory the session holds by states that are kept, as the host sees it."""

    most_mb: float = 400.0

    def __call__(self, service: Service) -> Seen:
        before = _resident(service)
        with service.session(run_timeout=5.0, memory_limit_MB=128) as session:
            most, steps = 0.0, []
            for n in range(8):
                steps.append(session.run(ROOT_NODE, f"kept = bytearray(b'{n}') * (70 * 2**20)"))
                most = max(most, _resident(service) - before)
        return Seen(most > self.most_mb, f"{most:.0f} MB; {[step['status'] for step in steps]}")


def _resident(service: Service) -> float:
    """MiB that the processes below the service have each for itself."""
    total = 0.0
    for process in service.processes():
        with contextlib.suppress(Exception):
            total += process.memory_full_info().uss / 2**20
    return total


def foreign_node(service: Service, *, own: bool = False) -> Seen:
    """Goes on from another session's node."""
    with service.session() as session, service.session() as other:
        node = session.run(ROOT_NODE, "x = 42")["node"]
        asked = session if own else other
        body = {"code": "print(x)"}
        response = service.http.post(f"/sessions/{asked.id}/nodes/{node}/run", json=body)
    return Seen(
        response.is_success and "42" in response.text, f"{response.status_code} {response.text[:300]}"
    )


def guessed_session(service: Service, *, own: bool = False) -> Seen:
    """Guesses the session's name from its own."""
    with service.session() as session, service.session() as other:
        names = [f"{int(session.id, 16) + n:0{len(session.id)}x}" for n in (-2, -1, 1, 2)] + [
            "",
            "0",
            "1",
            "*",
            "_",
        ]
        names = [other.id] if own else names
        seen = [service.http.get(f"/sessions/{name}").status_code for name in names]
    return Seen(200 in seen, str(seen))


# In a session one kind of fork is let through: a child of the parent's parent.
CLONE = 'call("clone", 0x8000 | 17, 0, 0, 0, 0)'
STRAY_BUSY = f"""
if {CLONE} == 0:
    hold(4)
    os._exit(0)
"""
FORK_CHAIN = f"""
# Each forks the next and ends, so that whoever looks for it is late.
end = time.monotonic() + 4
for n in range(8):
    if {CLONE} == 0:
        while time.monotonic() < end:
            if {CLONE} > 0: os._exit(0)
        os._exit(0)
"""
# The same in machine code, 4000 generations of it: clone; if that is the parent, exit_group; again.
FAST_FORK_CHAIN = f"""
for n in range(8):
    if {CLONE} == 0:
        machine_code(
            "41bca00f0000 b838000000 bf11800000 31f6 31d2 4531d2 4531c0 0f05 85c0 7f05 41ffcc 75e1 31ff b8e7000000 0f05"
        )
"""
BOMB = f"""
count = 0
while count < 640:
    pid = {CLONE}
    if pid == 0:
        time.sleep(2)
        os._exit(0)
    if pid < 0: break
    count += 1
"""
FORGED_BUSY = "os.write(3, b'k')\nhold(4)"
FORGED_STRAYS = f"""
# Says that it is done; what it does then comes after the sweep.
os.write(3, b'k')
time.sleep(0.3)
for n in range(4):
    if {CLONE} == 0: break
hold(4)
"""

# To every process of the session but itself and the first two: with the root node the session would begin anew.
KILL = """
end = time.monotonic() + 0.9
while time.monotonic() < end:
    for pid in range(3, 60):
        if pid != os.getpid(): call("kill", pid, 9)
    time.sleep(0.02)
"""
# The kernel sends a signal of one's choice, when there is something to read, to a process of one's choice.
KILL_BY_IO = """
import fcntl
read, write = os.pipe()
end = time.monotonic() + 0.9
while time.monotonic() < end:
    for pid in range(2, 60):
        if pid == os.getpid(): continue
        try:
            fcntl.fcntl(read, fcntl.F_SETOWN, pid)
            fcntl.fcntl(read, 10, 9)  # F_SETSIG
            fcntl.fcntl(read, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
            os.write(write, b"x")
            os.read(read, 1)
        except OSError: pass
    time.sleep(0.02)
"""
HARNESS = """
import sys
frame = sys._getframe()
while frame.f_globals.get("__name__", "").rpartition(".")[2] != "interpret": frame = frame.f_back
harness = frame.f_globals
"""
SILENT = HARNESS + "os.write(3, b'k')\ntime.sleep(60)"
SABOTAGE = {
    "never asks for the next step": SILENT,
    "does not fork": HARNESS + "def never(*_): time.sleep(60)\nharness['fork_sibling'] = never",
    "forks without end when asked to": HARNESS
    + f"def many(*_):\n    for _ in range(200): {CLONE}\n    return 1\nharness['fork_sibling'] = many",
    "closes its control socket": "os.close(3)",
    "puts another file in the place of its control socket": "os.dup2(os.open('/dev/zero', 0), 3)",
    "steals the next request by a process left behind": f"""
if {CLONE} == 0:
    while True:
        data = os.read(3, 4096)
        if not data: os._exit(0)
        os.write(3, b'k')
""",
    "goes on in both halves of a fork": CLONE,
    "has memory that is not copied": """
anchor = id(object()) & ~4095
for page in pages(anchor - 2**22, anchor + 2**22): call("madvise", page, 4096, 10)
""",
    "has sixty threads": """
import threading
threading.stack_size(64 * 1024)
threads = [threading.Thread(target=time.sleep, args=(9,), daemon=True) for _ in range(60)]
for thread in threads: thread.start()
""",
    "answers a thousand times": "os.write(3, b'k' * 1000)",
    "answers nonsense": "os.write(3, bytes(range(256)) * 100)",
    "takes all its descriptors": "for _ in range(100): os.dup(0)",
    "leaves at its exit": "import atexit\natexit.register(lambda: os._exit(0))\nraise SystemExit(0)",
    "holds its lock": HARNESS + "import gc\ngc.disable()\nharness['RUN'] = harness['FORK'] = b'?'",
    "is killed by its own pipe": "os.close(1)\nos.close(2)\nread, write = os.pipe()\nos.close(read)\nos.dup2(write, 3)",
}

SHARED = {
    "memory that a fork shares": (
        "shared = mmap.mmap(-1, 4096)",
        "shared[0:1] = b'x'",
        "proof(shared[0:1] == b'x')",
    ),
    "a pipe": (
        "import select\nread, write = os.pipe()",
        "os.write(write, b'x')",
        "proof(bool(select.select([read], [], [], 0.2)[0]))",
    ),
    "a pipe, while it says that it has none": (
        HARNESS + "harness['forkable'] = lambda: True\nimport select\nread, write = os.pipe()",
        "os.write(write, b'x')",
        "proof(bool(select.select([read], [], [], 0.2)[0]))",
    ),
    "a pipe above all numbers that are looked at": (
        "import select\nread, write = os.pipe()\n"
        "far = os.dup2(read, 63), os.dup2(write, 62)\nos.close(read), os.close(write)",
        "os.write(62, b'x')",
        "proof(bool(select.select([63], [], [], 0.2)[0]))",
    ),
    "the place in a file": (
        HARNESS + "harness['forkable'] = lambda: True\nfd = os.open(os.__file__, os.O_RDONLY)",
        "os.lseek(fd, 77, 0)",
        "proof(os.lseek(fd, 0, 1) == 77)",
    ),
    "the flags of its input": (
        "import fcntl",
        "fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) ^ os.O_APPEND)",
        "proof(bool(fcntl.fcntl(0, fcntl.F_GETFL) & os.O_APPEND))",
    ),
    "the signal of its input": (
        "import fcntl",
        "fcntl.fcntl(0, 10, 33)",
        "proof(fcntl.fcntl(0, 11) == 33)",
    ),
}
"""What the parent does, what one branch does with it, and how another would know."""

SEES_OTHERS = """
own = os.getpid()
for pid in range(1, 60):
    if pid == own: continue
    for look in (os.getpgid, os.getsid, os.sched_getscheduler, os.sched_getaffinity,
                 lambda pid: time.clock_gettime_ns((~pid << 3) | 2)):
        try: look(pid); proof()
        except OSError: pass
    if call("get_robust_list", pid, buffer, buffer) == 0: proof()
"""

ATTACKS = [
    *(
        attack(name=f"finds {name}", probe=Hunts(where), control=Hunts(Where.PARENT), control_is=IN_CHAIN)
        for name, where in (
            ("the text of another branch", Where.SIBLING),
            ("the text of another session", Where.OTHER_SESSION),
            ("a step that is still to come", Where.LATER_STEP),
        )
    ),
    attack(
        name="finds the variables of another branch",
        probe=CrossesBranches("", "left = 1", "proof('left' in globals())"),
        control=CrossesBranches("", "left = 1", "proof('left' in globals())", in_chain=True),
        control_is=IN_CHAIN,
    ),
    attack(
        name="poisons another branch",
        probe=CrossesBranches("import sympy", "sympy.left = 1", "proof(hasattr(sympy, 'left'))"),
        control=CrossesBranches(
            "import sympy", "sympy.left = 1", "proof(hasattr(sympy, 'left'))", in_chain=True
        ),
        control_is=IN_CHAIN,
    ),
    *(
        attack(
            name=f"tells another branch by {name}",
            probe=CrossesBranches(*codes),
            control=CrossesBranches(*codes, in_chain=True),
            without=FILTER,
            control_is=IN_CHAIN,
        )
        for name, codes in SHARED.items()
    ),
    attack(
        name="tells another branch by the lock of a file",
        probe=CrossesBranches(LOCK, "lock(fcntl.F_SETLK, fcntl.F_RDLCK)", "proof(locked())"),
        without=FILTER,
    ),
    attack(
        name="tells another branch by memory of a device",
        probe=CrossesBranches(
            """
# Not by Python's mmap, which keeps the descriptor open, and is seen by that.
fd = os.open("/dev/zero", os.O_RDWR)
libc.mmap.restype, libc.mmap.argtypes = ctypes.c_size_t, [ctypes.c_size_t] * 6
shared = (ctypes.c_char * 4096).from_address(libc.mmap(0, 4096, 3, 1, fd, 0))
os.close(fd)
""",
            "shared[0] = b'x'",
            "proof(shared[0] == b'x')",
        ),
        without=WRITABLE,
    ),
    attack(
        name="tells another branch by a file",
        probe=CrossesBranches(
            "", "open('/tmp/' + TOKEN, 'w').close()", "proof(os.path.exists('/tmp/' + TOKEN))"
        ),
        without=WRITABLE,
    ),
    attack(
        name="sees other processes of its session",
        probe=Nodes((SEES_OTHERS,)),
        without=PRIVILEGED,
    ),
    attack(
        name="reads the memory of another branch",
        probe=CrossesBranches(
            "text = ctypes.create_string_buffer(16)\nplace = ctypes.addressof(text)",
            "text.value = b'abcdefgh'\ntime.sleep(0.3)",
            """
data = ctypes.create_string_buffer(16)
mine, theirs = (ctypes.c_size_t * 2)(ctypes.addressof(data), 16), (ctypes.c_size_t * 2)(place, 16)
for pid in range(2, 60):
    if pid != os.getpid() and call("process_vm_readv", pid, mine, 1, theirs, 1, 0) == 16:
        proof(data.value == b"abcdefgh")
""",
        ),
        without=PRIVILEGED,
    ),
    attack(name="kills other branches", probe=Harms(KILL, loses_states=True), without=FILTER, alone=True),
    attack(
        name="kills other branches by having the kernel do it",
        probe=Harms(KILL_BY_IO, loses_states=True),
        without=FILTER,
        alone=True,
    ),
    attack(
        name="forks in ways that sessions do not",
        probe=Nodes(
            (
                """
# Without the parent's parent; without a signal; sharing files, the folder; traced; with a user namespace.
for flags in (17, 0x8000, *[0x8000 | 17 | more for more in (0x400, 0x200, 0x2000, 0x10000000)]):
    pid = call("clone", flags, 0, 0, 0, 0)
    if pid == 0: os._exit(0)
    proof(reached(pid))
""",
            )
        ),
        without=FILTER,
    ),
    attack(
        name="receives descriptors",
        probe=Nodes(
            (
                """
for fd in (0, 1, 2, 4): proof(reached(call("recvmsg", fd, buffer, 0)))
proof(reached(call("sendmsg", 3, buffer, 0)))
""",
            )
        ),
        without=FILTER,
    ),
    attack(
        name="forks without end",
        # All of them at once, also on a busy machine.
        probe=Nodes((BOMB.replace("sleep(2)", "sleep(7)") + "proof(count == 640)",), run_timeout=8.0),
        without=LIMITLESS,
        alone=True,
    ),
    attack(
        name="forks without end, beside other branches",
        probe=Harms(BOMB),
        without=FILTER,
        control=Harms(KILL),
        control_is="other branches are killed, to see that their harm would be seen",
        alone=True,
    ),
    attack(
        name="takes all memory, beside other branches",
        probe=Harms(
            "kept = []\nwhile len(kept) < 600: kept.append(bytearray(b'x') * 2**20)",
            run_timeout=1.5,
        ),
        without=FILTER,
        control=Harms(KILL),
        control_is="other branches are killed, to see that their harm would be seen",
        alone=True,
    ),
    *(
        attack(
            name=f"harms other branches: it {name}",
            probe=Harms(code),
            without=FILTER,
            control=Harms(KILL),
            control_is="other branches are killed, to see that their harm would be seen",
            alone=True,
        )
        for name, code in SABOTAGE.items()
    ),
    attack(
        name="keeps a worker by a process that holds its control socket",
        probe=Outlasts(f"if {CLONE} == 0:\n    time.sleep(6)\n    os._exit(0)\ntime.sleep(6)"),
        without=TIMELESS,
        control=Outlasts("time.sleep(4)"),
        control_is="a slow step, without a clock",
        alone=True,
    ),
    *(
        attack(
            name=f"holds up the steps after it: it {name}",
            probe=HoldsUp(SABOTAGE[name]),
            without=TIMELESS,
            control=HoldsUp("import time", after="time.sleep(4)"),
            control_is="a slow step, without a clock",
            alone=True,
        )
        for name in ("never asks for the next step", "does not fork")
    ),
    attack(
        name="leaves a busy process behind",
        probe=ComputesOn(STRAY_BUSY, When.AFTER_BATCH),
        control=ComputesOn(STRAY_BUSY, When.DURING),
        control_is="the same process while the step still runs",
        alone=True,
        local=True,
    ),
    *(
        attack(
            name=name,
            probe=ComputesOn(chain, When.AFTER_BATCH, tries=5),
            control=ComputesOn(chain, When.DURING),
            control_is="the same processes while the step still runs",
            alone=True,
            local=True,
            machine=machine,
        )
        for name, chain, machine in (
            ("leaves processes behind that fork and end", FORK_CHAIN, None),
            ("leaves processes behind that fork and end quickly", FAST_FORK_CHAIN, "x86_64"),
        )
    ),
    attack(
        name="computes on after it has answered",
        probe=ComputesOn(FORGED_BUSY, When.AFTER_BATCH),
        control=ComputesOn(FORGED_BUSY.removeprefix("os.write(3, b'k')\n"), When.DURING),
        control_is="the same while the step runs",
        alone=True,
        local=True,
    ),
    attack(
        name="forks after it has answered",
        probe=ComputesOn(FORGED_STRAYS, When.AFTER_BATCH),
        control=ComputesOn(STRAY_BUSY, When.DURING),
        control_is="a process left behind, while the step still runs",
        alone=True,
        local=True,
    ),
    *(
        attack(
            name=f"outlives the session: {name}",
            probe=ComputesOn(code, When.AFTER_DELETE),
            control=ComputesOn(STRAY_BUSY, When.DURING),
            control_is="a process left behind, while the step still runs",
            alone=True,
            local=True,
        )
        for name, code in (("a busy process", STRAY_BUSY), ("processes that fork and end", FORK_CHAIN))
    ),
    *(
        attack(
            name=f"leaves idle processes behind, {when.name.lower().replace('_', ' ')}",
            probe=LeavesProcesses(BOMB.replace("640", "30") + "time.sleep(0.3)", when),
            control=LeavesProcesses(BOMB.replace("640", "30") + "time.sleep(0.3)", When.DURING, more_than=20),
            control_is="the same processes while the step still runs",
            alone=True,
            local=True,
        )
        for when in (When.AFTER_BATCH, When.AFTER_DELETE)
    ),
    attack(
        name="hides processor time in threads",
        probe=cpu_in_threads,
        control=functools.partial(cpu_in_threads, claim=True),
        control_is="the time of its main thread, which shows nothing",
    ),
    attack(
        name="hoards memory in states that are kept",
        probe=Hoards(),
        without=LIMITLESS,
        alone=True,
        local=True,
    ),
    attack(
        name="begins sessions without end",
        probe=too_many_sessions,
        control=functools.partial(too_many_sessions, count=8, enough=8),
        control_is="as many as there may be",
        alone=True,
        local=True,
    ),
    attack(
        name="goes on from another session's node",
        probe=foreign_node,
        control=functools.partial(foreign_node, own=True),
        control_is="the node's own session",
    ),
    attack(
        name="guesses another session's name",
        probe=guessed_session,
        control=functools.partial(guessed_session, own=True),
        control_is="the name, known",
    ),
]
