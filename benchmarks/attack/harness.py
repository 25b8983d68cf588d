"""The harness: the code that runs the program, in the program's own process, and so at its mercy.

Nothing in it is secret and what it says is a claim. What has to hold: what is measured cannot be talked away, one
request leaves nothing for the next, and nothing of others is within reach. Much of this is contained by the border of the
process; the control is then the same on this side of the border.
"""

import functools
import secrets
from dataclasses import dataclass
from enum import Enum, auto

from benchmarks.attack.attack import (
    FILTER,
    LIMITLESS,
    SAME_PIDS,
    TIMELESS,
    Attack,
    Program,
    Seen,
    Steps,
    excerpt,
    hostile,
    new_token,
    says_token,
)
from benchmarks.attack.files import Persists
from benchmarks.attack.processes import KILL_PARENT, KillsZygote
from benchmarks.attack.service import Service

attack = functools.partial(Attack, category="harness")

INSIDE = "the same within one process, where there is no border"


@dataclass(frozen=True)
class Forges:
    """Whether the program changes what is measured of it, or (`claim`) what it says of itself."""

    code: str
    measured: str
    """Which measurement, and what it must be at least."""
    least: float
    claim: bool = False

    def __call__(self, service: Service) -> Seen:
        answer = Program(self.code).answer(service)["run_result"]
        value = float(answer["stdout"]) if self.claim else float(answer["measured"][self.measured])
        return Seen(value < self.least, excerpt(answer))


FORGED_CLOCK = """
import resource
begin = time.process_time()
while time.process_time() < begin + 0.5: pass
kept = bytearray(b"x") * (100 * 2**20)
class Nothing:
    ru_utime = ru_stime = ru_maxrss = 0
for name in ("time", "perf_counter", "monotonic", "process_time"): setattr(time, name, lambda: 0.0)
resource.getrusage = lambda *_: Nothing
os.times = lambda: (0, 0, 0, 0, 0)
"""
FORGED = {
    "its wall-clock time": ("wall_seconds", 0.45, "print(time.perf_counter())"),
    "its processor time": ("cpu_seconds", 0.4, "print(resource.getrusage(0).ru_utime)"),
    "its memory": ("peak_memory_mb", 100.0, "print(resource.getrusage(0).ru_maxrss)"),
}


class Where(Enum):
    """Where what is looked for was put, seen from who looks."""

    EARLIER_REQUEST = auto()
    OTHER_STDIN = auto()
    LATER_STEP = auto()
    EARLIER_STEP = auto()
    ITSELF = auto()


HUNT = """
import select
# What has been sent ahead is in the socket.
ahead = os.read(3, 2**16) if select.select([3], [], [], 0)[0] else b""
proof(hunt(FIRST, SECOND))
"""


@dataclass(frozen=True)
class Hunts:
    """Whether the program finds two words that stand together in somebody else's text."""

    where: Where

    def __call__(self, service: Service) -> Seen:
        first, second, token = secrets.token_hex(8), secrets.token_hex(8), new_token()
        hunter = hostile(HUNT, token, {"FIRST": first, "SECOND": second})
        plant = f"kept = '{first}{second}'"
        limits = {"run_timeout": 5.0, "memory_limit_MB": 512}
        if self.where in (Where.LATER_STEP, Where.EARLIER_STEP):
            steps = [hunter, plant] if self.where is Where.LATER_STEP else [plant, hunter]
            answers = [service.post("/run_steps", {"steps": steps, **limits})]
        elif self.where is Where.ITSELF:
            answers = [service.post("/run_code", {"code": f"{plant}\n{hunter}", **limits})]
        else:
            planting = {"code": plant, **limits}
            if self.where is Where.OTHER_STDIN:
                planting = {"code": "kept = input()", "stdin": first + second, **limits}
            hunting = {"code": hunter, **limits}
            service.post("/run_code/batch", {"programs": [planting] * 4})
            answers = service.post("/run_code/batch", {"programs": [planting, hunting] * 2})["results"]
        return Seen(says_token(token, str(answers)), excerpt(answers))


POISON = """
import builtins, gc, sys, signal, sympy, random, linecache
builtins.len = builtins.print = lambda *_: 0
sympy.left = sys.modules["left"] = builtins.left = NAME
os.environ["left"] = NAME
sys.setrecursionlimit(5000)
signal.signal(signal.SIGUSR1, lambda *_: None)
random.seed(KEY)
frame = sys._getframe()
while frame:
    frame.f_globals["left"] = NAME
    for name in ("execute", "flush", "receive_unit", "run_child", "life", "serve_runs"):
        if name in frame.f_globals: frame.f_globals[name] = lambda *a, **k: NAME
    frame = frame.f_back
"""
FIND_POISON = """
import builtins, sys, sympy, signal
frame, marks = sys._getframe(), []
while frame:
    marks.append("left" in frame.f_globals)
    frame = frame.f_back
marks += [hasattr(sympy, "left"), "left" in sys.modules, hasattr(builtins, "left"), "left" in os.environ]
marks += [sys.getrecursionlimit() == 5000, callable(signal.getsignal(signal.SIGUSR1))]
proof(any(marks))
"""

REPLACED_EXITS = """
import gc, sys
os._exit = sys.exit = os.abort = lambda *_: None
frame = sys._getframe()
while frame:
    for name in list(frame.f_globals):
        if name in ("leave", "life", "flush", "exit_code", "run_child", "child"): frame.f_globals[name] = lambda *a, **k: 0
    frame = frame.f_back
for function in [o for o in gc.get_objects() if type(o).__name__ == "function" and o.__name__ in ("life", "serve_runs")]:
    function.__code__ = (lambda *a, **k: 0).__code__
"""

DESCRIPTORS = """
def opened():
    for n in range(1024):
        try: os.fstat(n)
        except OSError: continue
        yield n
"""
SOCKETS = """
import gc, socket, sys
def found():
    frame = sys._getframe()
    while frame:
        yield from (v for v in [*frame.f_locals.values(), *frame.f_globals.values()] if isinstance(v, socket.socket))
        frame = frame.f_back
    yield from (o for o in gc.get_objects() if isinstance(o, socket.socket))
def is_open(fd):
    try: os.fstat(fd)
    except OSError: return False
    return fd != 3  # its own
def proven(): return any(is_open(sock.fileno()) for sock in found())
"""

ATTACKS = [
    *(
        attack(
            name=f"forges {name}",
            probe=Forges(f"{FORGED_CLOCK}{claim}", measured, least),
            control=Forges(f"{FORGED_CLOCK}{claim}", measured, least, claim=True),
            control_is="what the program says of itself, which it does forge",
        )
        for name, (measured, least, claim) in FORGED.items()
    ),
    attack(
        name="answers for the harness, then computes on",
        # The byte says that the step ran. Time must end it all the same.
        probe=Steps(("os.write(3, b'k')\nhold(1.5)\nproof()", "1", "2"), run_timeout=0.4),
        without=TIMELESS,
    ),
    attack(
        name="leaves with success, its limits unspent",
        probe=KillsZygote("os.write(3, b'\\0' * 60_000)\nos.closerange(0, 100)\nos._exit(0)"),
        without=SAME_PIDS,
        control=KillsZygote(KILL_PARENT),
        control_is="a zygote that is killed, to see that its end would be seen",
        alone=True,
    ),
    attack(
        name="falls back into the zygote's loop",
        probe=KillsZygote(f"{REPLACED_EXITS}raise SystemExit"),
        without=SAME_PIDS,
        control=KillsZygote(f"{REPLACED_EXITS}{KILL_PARENT}"),
        control_is="the same, and its parent killed, to see that the zygote's end would be seen",
        alone=True,
    ),
    attack(
        name="crashes the interpreter",
        probe=KillsZygote("ctypes.string_at(0)"),
        without=SAME_PIDS,
        control=KillsZygote(KILL_PARENT),
        control_is="a zygote that is killed, to see that its end would be seen",
        alone=True,
    ),
    attack(
        name="recurses until the stack is gone",
        probe=KillsZygote(
            "import sys\nsys.setrecursionlimit(10**9)\n"
            "class Deep:\n    def __repr__(self): return repr(self)\nrepr(Deep())"
        ),
        without=SAME_PIDS,
        control=KillsZygote(KILL_PARENT),
        control_is="a zygote that is killed, to see that its end would be seen",
        alone=True,
    ),
    attack(
        name="says nonsense to the supervisor",
        probe=KillsZygote("for byte in (b'r', b'f', b'{', b'\\xff'): os.write(3, byte * 30_000)"),
        without=SAME_PIDS,
        control=KillsZygote(KILL_PARENT),
        control_is="a zygote that is killed, to see that its end would be seen",
        alone=True,
    ),
    attack(
        name="poisons the next request",
        probe=Persists(POISON, FIND_POISON),
        control=Program(f"NAME, KEY = 'x', 1\n{POISON}\n{FIND_POISON}"),
        control_is=INSIDE,
    ),
    attack(
        name="leaves a thread that works in the next request",
        probe=Persists(
            """
import builtins, threading
def work():
    end = time.monotonic() + 1
    while time.monotonic() < end: builtins.left = NAME
threading.Thread(target=work, daemon=True).start()
time.sleep(0.1)
""",
            "import builtins\ntime.sleep(0.1)\nproof(hasattr(builtins, 'left'))",
        ),
        control=Program(
            "import builtins, threading\nthreading.Thread(target=setattr, args=(builtins, 'left', 1)).start()\n"
            "time.sleep(0.1)\nproof(hasattr(builtins, 'left'))"
        ),
        control_is=INSIDE,
    ),
    *(
        attack(name=f"finds {name}", probe=Hunts(where), control=Hunts(control), control_is=INSIDE)
        for name, where, control in (
            ("an earlier request's text", Where.EARLIER_REQUEST, Where.ITSELF),
            ("another request's input", Where.OTHER_STDIN, Where.ITSELF),
            ("a step that is still to come", Where.LATER_STEP, Where.EARLIER_STEP),
        )
    ),
    attack(
        name="has descriptors beyond its own",
        probe=Program(f"{DESCRIPTORS}proof(list(opened()) != [0, 1, 2, 3])"),
        control=Program(f"{DESCRIPTORS}fd = os.open('/dev/null', 0)\nproof(list(opened()) != [0, 1, 2, 3])"),
        control_is="one descriptor more, opened by the program",
    ),
    attack(
        name="finds the zygote's socket",
        probe=Program(f"{SOCKETS}proof(proven())"),
        control=Program(
            f"{SOCKETS}os.dup2(3, 9)\nmine = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, 9)\nproof(proven())"
        ),
        control_is="a socket more, made by the program of its own descriptor",
    ),
    attack(
        name="finds what the zygote was started with",
        probe=Program("proof(hunt('RATCHET_', 'PORT=') or hunt('RATCHET_', 'WORKERS='))"),
        control=Program("proof(hunt('PYTHON', 'HASHSEED=0'))"),
        control_is="what the zygote was in fact started with, which is no secret",
    ),
    attack(
        name="raises its own limits",
        probe=Program("""
import resource
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
proof(resource.getrlimit(resource.RLIMIT_AS) == (-1, -1))
"""),
        without=LIMITLESS,
    ),
    attack(
        name="wakes itself by a timer of another process",
        probe=Steps(("import signal\nsignal.setitimer(signal.ITIMER_REAL, 5)\nproof()",)),
        without=FILTER,
    ),
]
