"""What the callers of the soak ask for, and what answers they accept.

Each action sends one request, or a few, of a random kind, and knows what has to come back. It raises `WrongError` where the
answer cannot be right whatever happened (a good program with another output; no answer; an error without a reason),
and `RefusedError` where the service says clearly that it could not: whether there was cause for that, the caller of the
action knows.
"""

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from benchmarks.leaks import PLACES

CLEAR_REFUSALS = frozenset({404, 409, 410, 429, 503})
MODULUS = 1_000_003
SLOW_SECONDS = 0.5
SLACK_SECONDS = 10.0
"""Beyond its limit, until a slow program must have ended on a machine that is busy."""
MAX_SESSIONS = 8
MAX_DEPTH = 16


class WrongError(Exception):
    """An answer that cannot be right."""


class RefusedError(Exception):
    """A clear error."""

    def __init__(self, reason: str, *, busy: bool = False) -> None:
        super().__init__(reason)
        self.busy = busy
        """It may be asked again later."""
        self.excused = False
        """What was asked for is known to be gone."""


@dataclass
class Node:
    """A node of a session: its number there, and the state that it must have."""

    id: str
    total: int
    depth: int


@dataclass
class OpenSession:
    """A session that the soak grows."""

    id: str
    nodes: list[Node]
    born: float = field(default_factory=time.monotonic)
    used: float = field(default_factory=time.monotonic)
    ended: bool = False
    known: dict[tuple[str, str], str] = field(default_factory=dict)
    """The node that a step made after a parent: the same step must make the same node."""


@dataclass
class Soak:
    """What all callers share."""

    http: httpx.AsyncClient
    draw: random.Random
    token: str
    sessions: list[OpenSession] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    """Requests sent, by path or kind."""
    last_kill: float = -1.0
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def number(self) -> int:
        """One that was not used before."""
        return next(self._numbers)

    async def ask(self, url: str, body: dict[str, Any] | None = None, method: str = "POST") -> Any:
        """The answer of the service. Raises WrongError and RefusedError."""
        kind = url.strip("/").partition("/")[0] if url.count("/") == 1 else url.rpartition("/")[2]
        name = f"{method} {kind if len(kind) < 20 else 'session'}"
        self.counts[name] = self.counts.get(name, 0) + 1
        try:
            response = await self.http.request(method, url, json=body)
        except httpx.HTTPError as error:
            raise WrongError(f"{name}: no answer: {error!r}") from error
        if response.is_success:
            return response.json() if response.content else None
        problem = response.headers.get("content-type", "").startswith("application/problem+json")
        if response.status_code in CLEAR_REFUSALS and problem and response.json().get("detail"):
            busy = "retry-after" in response.headers
            raise RefusedError(f"{name}: {response.status_code} {response.json()['detail']}", busy=busy)
        raise WrongError(f"{name}: {response.status_code} {response.text[:500]}")

    async def run(self, code: str, **limits: float) -> dict[str, Any]:
        """The answer to a program that the sandbox itself had no trouble with. Raises WrongError and RefusedError."""
        answer: dict[str, Any] = await self.ask("/run_code", {"code": code, **limits})
        not_troubled(answer)
        return answer


def not_troubled(answer: dict[str, Any]) -> None:
    """Raise RefusedError where the sandbox says that it was at fault."""
    if answer["status"] == "SandboxError":
        if not answer["message"]:
            raise WrongError(f"an error without a reason: {answer}")
        raise RefusedError(answer["message"])


def must(condition: bool, what: str, answer: Any) -> None:
    """Raise WrongError unless it holds."""
    if not condition:
        raise WrongError(f"{what}: {str(answer)[:800]}")


def must_print(answer: dict[str, Any], printed: str) -> None:
    """A good program prints this. One that was killed with its zygote may say so."""
    result = answer["run_result"]
    if answer["status"] == "Success":
        must(result["stdout"] == printed, f"expected {printed!r}", answer)
        return
    must(result["measured"]["limit"] is None, "a good program hit a limit", answer)
    must(result["measured"]["signal"] == 9, "a good program failed", answer)
    raise RefusedError(f"killed: {answer['message']}")


def sum_program(soak: Soak) -> tuple[str, str]:
    """A good program and what it prints."""
    a, b = soak.draw.randrange(10**6), soak.draw.randrange(10**6)
    return f"print({a} * {b} + sum(range({a % 1000})))", f"{a * b + sum(range(a % 1000))}\n"


async def good(soak: Soak) -> None:
    """Arithmetic."""
    code, printed = sum_program(soak)
    must_print(await soak.run(code), printed)


async def algebra(soak: Soak) -> None:
    """The roots of a polynomial that was made from them."""
    a, b = sorted(soak.draw.sample(range(-50, 50), 2))
    code = f"import sympy\nx = sympy.symbols('x')\nprint(sympy.solve(x**2 - {a + b}*x + {a * b}, x))"
    must_print(await soak.run(code), f"[{a}, {b}]\n")


async def batch(soak: Soak) -> None:
    """Several programs at once; each answer must be at its place."""
    pairs = [sum_program(soak) for _ in range(soak.draw.randint(1, 20))]
    answer = await soak.ask("/run_code/batch", {"programs": [{"code": code} for code, _ in pairs]})
    must(len(answer["results"]) == len(pairs), "not one result a program", answer)
    for result, (_, printed) in zip(answer["results"], pairs, strict=True):
        not_troubled(result)
        must_print(result, printed)


async def failing(soak: Soak) -> None:
    """Programs that end badly, each in its way."""
    number = soak.number()
    code, return_code, said = soak.draw.choice(
        [
            (f"raise ValueError('no {number}')", 1, f"ValueError: no {number}"),
            (f"import sys\nsys.exit({number % 100 + 2})", number % 100 + 2, ""),
            (f"def (:  # {number}", 1, "SyntaxError"),
            (f"print({number} / 0)", 1, "ZeroDivisionError"),
        ]
    )
    answer = await soak.run(code)
    result = answer["run_result"]
    must(answer["status"] == "Failed", "a failing program did not fail", answer)
    if result["measured"]["signal"] == 9:
        raise RefusedError(f"killed: {answer['message']}")
    must(result["return_code"] == return_code and said in result["stderr"], f"not {said!r}", answer)


async def slow(soak: Soak) -> None:
    """A program that must be stopped."""
    code = soak.draw.choice(
        ["while True: pass", "import time\ntime.sleep(60)", "print('a')\nwhile True: pass"]
    )
    answer = await soak.run(code, run_timeout=SLOW_SECONDS)
    must(answer["status"] == "Failed", "an endless program did not fail", answer)
    took = answer["run_result"]["execution_time"]
    must(took < SLOW_SECONDS + SLACK_SECONDS, "stopped too late", answer)
    if answer["run_result"]["status"] != "TimeLimitExceeded":
        must(answer["run_result"]["measured"]["signal"] == 9, "ended otherwise", answer)
        raise RefusedError(f"killed: {answer['message']}")


async def hungry(soak: Soak) -> None:
    """A program that wants more memory than it may have."""
    code = soak.draw.choice(
        [
            "x = bytearray(10**9)\nprint(len(x))",
            "x = []\nwhile True: x.append(bytearray(10**6))",
            "x = 'a'\nwhile True: x += x",
        ]
    )
    answer = await soak.run(code, memory_limit_MB=128)
    must(answer["status"] == "Failed", "it got the memory", answer)
    peak = answer["run_result"]["measured"]["peak_memory_mb"]
    must(peak < 1000, "it used the memory", answer)


async def noisy(soak: Soak) -> None:
    """A program that prints too much."""
    if soak.draw.random() < 0.5:
        answer = await soak.run("while True: print('x' * 1000)", run_timeout=5)
        must(answer["status"] == "Failed", "an endless printer did not fail", answer)
    else:
        answer = await soak.run("print('x' * 300_000)")
        if answer["status"] == "Success":
            cut = answer["run_result"]["measured"]["stdout_truncated"]
            must(cut and answer["run_result"]["stdout"].startswith("xxx"), "not cut", answer["status"])
        elif answer["run_result"]["measured"]["signal"] != 9:
            raise WrongError(f"a printer failed: {answer['message']}")
    must(len(answer["run_result"]["stdout"]) < 200_000, "the output is not cut", answer["status"])


async def threads(soak: Soak) -> None:
    """Threads that end, and threads that do not."""
    count = soak.draw.randint(2, 8)
    code = (
        f"import threading\nfound = []\nall = [threading.Thread(target=found.append, args=(n,)) for n in range({count})]\n"
        "for one in all: one.start()\nfor one in all: one.join()\nprint(sorted(found))\n"
    )
    if soak.draw.random() < 0.3:
        code += "import time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    must_print(await soak.run(code), f"{list(range(count))}\n")


async def forking(soak: Soak) -> None:
    """A program that wants to leave processes behind. It may be kept from it; only what it leaves matters."""
    code = (
        "import os, time\n"
        "for _ in range(20):\n"
        "    try:\n"
        "        if os.fork() == 0:\n"
        "            os.setsid()\n"
        "            time.sleep(3600)\n"
        "    except OSError: pass\n"
        "print('left')"
    )
    await soak.run(code, run_timeout=2)


async def files(soak: Soak) -> None:
    """A program that wants to leave files behind."""
    name = f"{soak.token}-{soak.number()}"
    code = (
        f"for place in {(*PLACES, '.')!r}:\n"
        f"    try: open(place + '/{name}', 'w').write('x' * 1000)\n"
        "    except OSError: pass\n"
        "print('tried')"
    )
    must_print(await soak.run(code), "tried\n")


async def steps(soak: Soak) -> None:
    """Steps in one interpreter, the last of which sometimes fails."""
    total, codes, printed = 1, ["total = 1"], [""]
    for _ in range(soak.draw.randint(1, 10)):
        code, total = next_step(soak, total)
        codes.append(code)
        printed.append(f"{total}\n")
    broken = soak.draw.random() < 0.2
    if broken:
        codes += ["raise KeyError('x')", "print('never')"]
    answer = await soak.ask("/run_steps", {"steps": codes})
    not_troubled(answer)
    statuses = [step["status"] for step in answer["steps"]]
    if "killed" in statuses:
        raise RefusedError(f"killed: {answer['message']}")
    must(statuses == ["ok"] * len(printed) + ["error", "not_run"] * broken, "other statuses", answer)
    must([step["stdout"] for step in answer["steps"]][: len(printed)] == printed, f"not {printed}", answer)


async def grade(soak: Soak) -> None:
    """Answers that are equal, and answers that are not."""
    a, b = soak.draw.randint(2, 99), soak.draw.randint(2, 99)
    candidate, reference, equal = soak.draw.choice(
        [
            (f"{a}.0", f"{a}", True),
            (f"{a}", f"{a + b}", False),
            (f"(x+{a})*(x-{b})", f"x^2+{a - b}*x-{a * b}", True),
            (f"\\sqrt{{{a * a * 2}}}", f"{a}\\sqrt{{2}}", True),
        ]
    )
    answer = await soak.ask("/grade", {"candidate": candidate, "reference": reference})
    if answer["rule"] == "timeout":
        raise RefusedError(f"grading timed out: {candidate} {reference}")
    must(answer["equal"] is equal, f"{candidate!r} and {reference!r} equal: {equal}", answer)


def next_step(soak: Soak, total: int | None) -> tuple[str, int]:
    """A step after a state, and the state after it. Its comment makes it differ from all others."""
    a, b, number = soak.draw.randint(2, 99), soak.draw.randint(1, 999), soak.number()
    if total is None:
        return f"# {number}\ntotal = {a * b}\nprint(total)", a * b
    if soak.draw.random() < 0.3:
        code = f"import sympy\nx = sympy.symbols('x')\ntotal = (total + int(sympy.solve(x - {a}, x)[0])) % {MODULUS}"
        return f"# {number}\n{code}\nprint(total)", (total + a) % MODULUS
    return f"# {number}\ntotal = (total * {a} + {b}) % {MODULUS}\nprint(total)", (total * a + b) % MODULUS


async def session(soak: Soak) -> None:
    """Grow, look at, end or abandon a session."""
    chosen = await pick_session(soak)
    chosen.used = time.monotonic()
    action = soak.draw.choices(
        [grow_step, grow_chains, again, failing_step, stuck_step, show, end], [8, 8, 4, 2, 1, 2, 1]
    )[0]
    try:
        await action(soak, chosen)
    except RefusedError as error:
        # A kill may have taken it, another caller may have ended it. Either way nothing more is asked of it.
        forget(soak, chosen)
        error.excused = chosen.ended or chosen.born < soak.last_kill
        raise


async def pick_session(soak: Soak) -> OpenSession:
    """One that is open, or a new one; a few are abandoned on the way."""
    if soak.sessions and soak.draw.random() < 0.05:
        forget(soak, soak.draw.choice(soak.sessions))
    if soak.sessions and (len(soak.sessions) >= MAX_SESSIONS or soak.draw.random() < 0.8):
        return soak.draw.choice(soak.sessions)
    made = OpenSession((await soak.ask("/sessions", {"seed": 7}))["id"], [])
    soak.sessions.append(made)
    return made


def forget(soak: Soak, chosen: OpenSession) -> None:
    """Ask nothing more of a session: it is abandoned, or gone."""
    if chosen in soak.sessions:
        soak.sessions.remove(chosen)


def pick_node(soak: Soak, chosen: OpenSession) -> Node | None:
    """A node to go on from; None for the root."""
    return soak.draw.choice([None, *(node for node in chosen.nodes if node.depth < MAX_DEPTH)])


def accept(chosen: OpenSession, parent: Node | None, code: str, total: int, result: dict[str, Any]) -> Node:
    """The node that a good step made. Raises WrongError and RefusedError."""
    if result["status"] in {"killed", "not_run"}:
        raise RefusedError(f"a step was {result['status']}")
    must(result["status"] == "ok" and result["stdout"] == f"{total}\n", f"expected {total}", result)
    after = "root" if parent is None else parent.id
    made = chosen.known.setdefault((after, code), result["node"])
    must(made == result["node"], f"the same step had made node {made}", result)
    node = Node(result["node"], total, 1 if parent is None else parent.depth + 1)
    if all(other.id != node.id for other in chosen.nodes):
        chosen.nodes.append(node)
    return node


async def grow_step(soak: Soak, chosen: OpenSession) -> None:
    """One step after a random node."""
    parent = pick_node(soak, chosen)
    code, total = next_step(soak, parent.total if parent else None)
    url = f"/sessions/{chosen.id}/nodes/{parent.id if parent else 'root'}/run"
    answer = await soak.ask(url, {"code": code})
    not_troubled(answer)
    accept(chosen, parent, code, total, answer["step"])


async def grow_chains(soak: Soak, chosen: OpenSession) -> None:
    """Chains from random nodes, side by side."""
    chains: list[tuple[Node | None, list[str], list[int]]] = []
    for _ in range(soak.draw.randint(1, 6)):
        parent = pick_node(soak, chosen)
        total, codes, totals = parent.total if parent else None, list[str](), list[int]()
        for _ in range(soak.draw.randint(1, MAX_DEPTH - (parent.depth if parent else 0))):
            code, total = next_step(soak, total)
            codes.append(code)
            totals.append(total)
        chains.append((parent, codes, totals))
    asked = [{"parent": parent.id if parent else "root", "steps": codes} for parent, codes, _ in chains]
    answer = await soak.ask(f"/sessions/{chosen.id}/batch", {"chains": asked})
    must(len(answer["chains"]) == len(chains), "not one result a chain", answer)
    for (first, codes, totals), result in zip(chains, answer["chains"], strict=True):
        not_troubled(result)
        parent = first
        for code, total, step in zip(codes, totals, result["steps"], strict=True):
            parent = accept(chosen, parent, code, total, step)


async def again(soak: Soak, chosen: OpenSession) -> None:
    """A step that was run before: the same node, the same output."""
    if not chosen.known:
        return
    (parent, code), node = soak.draw.choice(list(chosen.known.items()))
    total = next(each.total for each in chosen.nodes if each.id == node)
    answer = await soak.ask(f"/sessions/{chosen.id}/batch", {"chains": [{"parent": parent, "steps": [code]}]})
    not_troubled(answer["chains"][0])
    (step,) = answer["chains"][0]["steps"]
    if step["status"] in {"killed", "not_run"}:
        raise RefusedError(f"a step was {step['status']}")
    must(step["node"] == node and step["stdout"] == f"{total}\n", f"not node {node}, {total}", step)


async def failing_step(soak: Soak, chosen: OpenSession) -> None:
    """A step that raises."""
    parent = pick_node(soak, chosen)
    number = soak.number()
    url = f"/sessions/{chosen.id}/nodes/{parent.id if parent else 'root'}/run"
    answer = await soak.ask(url, {"code": f"print('before')\nraise ValueError({number})"})
    not_troubled(answer)
    step = answer["step"]
    if step["status"] in {"killed", "not_run"}:
        raise RefusedError(f"a step was {step['status']}")
    raised = step["status"] == "error" and f"ValueError: {number}" in step["stderr"]
    must(raised and step["stdout"] == "before\n", "not the error", answer)


async def stuck_step(soak: Soak, chosen: OpenSession) -> None:
    """In a session of its own: a step that must be stopped, or that leaves threads or processes behind."""
    made = (await soak.ask("/sessions", {"run_timeout": SLOW_SECONDS}))["id"]
    code = soak.draw.choice(
        [
            "while True: pass",
            "x = []\nwhile True: x.append(bytearray(10**6))",
            "import os, time\nif os.fork() == 0:\n    time.sleep(3600)",
            "import threading, time\nthreading.Thread(target=time.sleep, args=(3600,), daemon=True).start()",
            "while True: print('x' * 1000)",
            "import os\nos._exit(0)",
        ]
    )
    answer = await soak.ask(f"/sessions/{made}/nodes/root/run", {"code": code})
    not_troubled(answer)
    endless = "while" in code or "_exit" in code
    must(not endless or answer["step"]["status"] != "ok", "an endless step was ok", answer)
    if soak.draw.random() < 0.5:
        await soak.ask(f"/sessions/{made}", method="DELETE")


async def show(soak: Soak, chosen: OpenSession) -> None:
    """What the service says of the session must not be less than what is known of it."""
    at_least = len(chosen.nodes)
    answer = await soak.ask(f"/sessions/{chosen.id}", method="GET")
    must(answer["nodes"] >= at_least and answer["executed"] >= at_least, f"fewer than {at_least}", answer)


async def end(soak: Soak, chosen: OpenSession) -> None:
    """Delete it."""
    chosen.ended = True
    forget(soak, chosen)
    await soak.ask(f"/sessions/{chosen.id}", method="DELETE")


async def disconnect(soak: Soak) -> None:
    """A caller that goes away in the middle of its request. What it asked for may have been done or not."""
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("/run_code", {"code": "while True: pass", "run_timeout": 60}),
        ("/run_code", {"code": "import time\ntime.sleep(60)", "run_timeout": 60}),
        ("/run_code", {"code": "print(1)"}),
        ("/run_code/batch", {"programs": [{"code": "print(1)"}] * 30}),
        ("/run_steps", {"steps": ["x = 1", "while True: pass"], "run_timeout": 60}),
        ("/sessions", {}),
        ("/grade", {"candidate": "\\sqrt{8}", "reference": "2\\sqrt{2}"}),
    ]
    if soak.sessions:
        url = f"/sessions/{soak.draw.choice(soak.sessions).id}"
        bodies.append((f"{url}/nodes/root/run", {"code": f"while True: pass  # {soak.number()}"}))
        bodies.append((f"{url}/batch", {"chains": [{"steps": [f"x = {n}" for n in range(20)]}]}))
    url, body = soak.draw.choice(bodies)
    # httpx closes the connection of a request that is cancelled.
    with contextlib.suppress(TimeoutError, RefusedError):
        async with asyncio.timeout(soak.draw.choice([0.001, 0.01, 0.05, 0.2])):
            await soak.ask(url, body)


ACTIONS: dict[Callable[[Soak], Awaitable[None]], int] = {
    good: 12,
    algebra: 6,
    batch: 3,
    failing: 6,
    slow: 1,
    hungry: 2,
    noisy: 2,
    threads: 3,
    forking: 1,
    files: 2,
    steps: 8,
    grade: 4,
    session: 25,
    disconnect: 4,
}
"""What callers do, and how often."""
