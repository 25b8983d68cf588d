"""Sessions: branches that reach into one another, and states that do not answer.

Within one chain of steps everything is shared, as it is in one program; the border runs between branches, between sessions,
and between a step and the time after it. Where no layer but that border contains an attack, the control is the same
within one chain.
"""

import functools

from benchmarks.attack.attack import (
    FILTER,
    LIMITLESS,
    PRIVILEGED,
    TIMELESS,
    WRITABLE,
    Attack,
    Nodes,
)
from benchmarks.attack.files import LOCK
from benchmarks.attack.session_probes import (
    BOMB,
    CLONE,
    CrossesBranches,
    Harms,
    HoldsUp,
    Hunts,
    Outlasts,
    Where,
    cpu_in_threads,
    foreign_node,
    guessed_session,
)

attack = functools.partial(Attack, category="sessions")

IN_CHAIN = "the same in one chain of steps, where there is no border"

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
        name="hides processor time in threads",
        probe=cpu_in_threads,
        control=functools.partial(cpu_in_threads, claim=True),
        control_is="the time of its main thread, which shows nothing",
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
