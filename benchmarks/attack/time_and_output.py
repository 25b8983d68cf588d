"""Time and output: programs that do not end, and programs that do not stop talking.

What would run for ever is bounded, a second beyond its limit, after which it says that it was let run: so the control
ends too.
"""

import functools
from dataclasses import dataclass

from benchmarks.attack.attack import TIMELESS, UNCUT, Attack, Nodes, Program, Seen, Steps, excerpt, hostile
from benchmarks.attack.service import Service

attack = functools.partial(Attack, category="time and output")

LIMIT = 0.4
TOO_LONG = 1.6
MUCH = 3 * 2**20
LARGEST_ANSWER = 2**20
FLOOD = 16 * 2**20

NEVER_END = {
    "sleeps": f"time.sleep({TOO_LONG})\nproof()",
    "computes": f"hold({TOO_LONG})\nproof()",
    "catches everything": f"""
import signal
for number in range(1, 65):
    try: signal.signal(number, lambda *_: None)
    except (OSError, ValueError): pass
hold({TOO_LONG})
proof()
""",
    "blocks all signals": f"import signal\nsignal.pthread_sigmask(0, range(1, 65))\nhold({TOO_LONG})\nproof()",
    "waits for a lock": f"import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire(timeout={TOO_LONG})\nproof()",
    "waits for its control socket": f"import select\nselect.select([3], [], [], {TOO_LONG})\nproof()",
    "waits at its exit": f"import atexit\natexit.register(lambda: (time.sleep({TOO_LONG}), proof()))",
    "leaves a thread": f"import threading\nthreading.Thread(target=lambda: (time.sleep({TOO_LONG}), proof())).start()",
    "raises what cannot be printed": f"""
class Endless(Exception):
    def __str__(self):
        hold({TOO_LONG})
        proof()
        return ""
raise Endless
""",
    "will not be deleted": f"class Endless:\n    def __del__(self): hold({TOO_LONG}); proof()\nEndless()",
    "has a busy import": f"""
import sys
class Endless:
    def find_spec(self, *_): hold({TOO_LONG}); proof()
sys.meta_path.insert(0, Endless())
import nothing_of_this_name
""",
    "traces every line": f"import sys\nsys.settrace(lambda *_: (hold({TOO_LONG}), sys.settrace(None), proof()))\n(lambda: 1)()",
    "computes in many threads": f"""
import threading
threads = [threading.Thread(target=hold, args=({TOO_LONG},)) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
proof()
""",
}
UNINTERRUPTED = {
    "backtracks": ("import re", "lambda n: re.match('(a+)+$', 'a' * n + 'b')", 18, "lambda n: n + 1"),
    "takes powers": ("", "lambda n: 7 ** n", 2**16, "lambda n: 2 * n"),
    "writes out a number": (
        "import sys\nsys.set_int_max_str_digits(0)",
        "lambda n: str(7 ** n)",
        2**12,
        "lambda n: 2 * n",
    ),
    "takes a factorial": ("import math", "math.factorial", 2**12, "lambda n: 2 * n"),
    "hashes": (
        "import hashlib",
        "lambda n: hashlib.pbkdf2_hmac('sha256', b'x', b'x', n)",
        2**12,
        "lambda n: 2 * n",
    ),
    "multiplies matrices": (
        "import numpy",
        "lambda n: numpy.ones((n, n)) @ numpy.ones((n, n)) @ numpy.ones((n, n))",
        128,
        "lambda n: int(1.4 * n)",
    ),
    "factors": (
        "import sympy",
        "lambda n: sympy.factorint(sympy.nextprime(2**n) * sympy.nextprime(3 * 2**n))",
        20,
        "lambda n: n + 2",
    ),
    "asks sympy to solve": (
        "import sympy\nx = sympy.Symbol('x')",
        "lambda n: sympy.expand((x + sympy.sqrt(2) + 1) ** n)",
        16,
        "lambda n: 2 * n",
    ),
    "runs a loop in C": (
        "import itertools, collections",
        "lambda n: collections.deque(itertools.repeat(0, n), 0)",
        2**16,
        "lambda n: 2 * n",
    ),
}
"""Calls of which nothing in Python can interrupt one: what to import, what to call, from which size on, and how to grow."""

SHOUTS = {
    "many lines": "for n in range(SIZE // 1000): print('x' * 999)",
    "one line": "import sys\nsys.stdout.write('x' * SIZE)",
    "bytes that are no text": "for n in range(SIZE // 2**16): os.write(1, bytes(range(256)) * 256)",
    "errors": "import sys\nfor n in range(SIZE // 1000): print('x' * 999, file=sys.stderr)",
    "one error": "raise ValueError('\\n'.join(['x' * 999] * (SIZE // 1000)))",
    "C": "text = b'x' * 2**16\nfor n in range(SIZE // 2**16): libc.write(1, text, 2**16)",
}


@dataclass(frozen=True)
class Shouts:
    """Whether more comes back than may be printed."""

    code: str
    path: str = "/run_code"

    def __call__(self, service: Service) -> Seen:
        code = hostile(f"SIZE = {MUCH}\n{self.code}", "")
        limits = {"run_timeout": 5.0}
        if self.path == "/run_code":
            answer = service.post(self.path, {"code": code, **limits})
        elif self.path == "/run_steps":
            answer = service.post(self.path, {"steps": [code, self.code], **limits})
        else:
            with service.session(**limits) as session:
                answer = session.run("root", code)
        size = len(str(answer))
        return Seen(size > LARGEST_ANSWER, f"{size} characters: {excerpt(answer)}")


def flood(fd: int, other: int) -> Program:
    """Prints without end on one stream, then says on the other one that it was let."""
    return Program(
        f"text = b'x' * 2**16\nfor n in range({FLOOD} // 2**16): os.write({fd}, text)\nos.dup2({other}, 1)\nproof()",
        run_timeout=5.0,
    )


ATTACKS = [
    *(
        attack(name=name, probe=Program(code, run_timeout=LIMIT), without=TIMELESS)
        for name, code in NEVER_END.items()
    ),
    *(
        attack(
            name=name,
            probe=Program(
                f"{before}\nescalate({work}, {size}, {grow})\nproof()",
                run_timeout=LIMIT,
                memory_limit_MB=1024,
            ),
            without=TIMELESS,
        )
        for name, (before, work, size, grow) in UNINTERRUPTED.items()
    ),
    attack(
        name="takes a little in each of many steps",
        probe=Steps(("", *["time.sleep(0.2)"] * 6, "proof()"), run_timeout=LIMIT),
        without=TIMELESS,
    ),
    attack(
        name="takes a little in each node of a session",
        probe=Nodes(("", *["time.sleep(0.2)"] * 4, "proof()"), run_timeout=LIMIT),
        control=Nodes(("", *["time.sleep(0.2)"] * 4, "proof()"), run_timeout=3.0),
        control_is="the same with more time: the sum is no layer's, and is always kept",
    ),
    attack(
        name="sleeps in a node of a session",
        probe=Nodes((f"time.sleep({TOO_LONG})\nproof()",), run_timeout=LIMIT),
        without=TIMELESS,
    ),
    *(
        attack(name=f"prints too much: {name}", probe=Shouts(code), without=UNCUT)
        for name, code in SHOUTS.items()
    ),
    attack(
        name="prints too much in steps",
        probe=Shouts(f"print('x' * {MUCH})", "/run_steps"),
        without=UNCUT,
    ),
    attack(
        name="prints too much in a session",
        probe=Shouts(f"print('x' * {MUCH})", "/sessions"),
        without=UNCUT,
    ),
    attack(name="floods stdout", probe=flood(1, 2), without=UNCUT),
    attack(name="floods stderr", probe=flood(2, 1), without=UNCUT),
]
