"""What the callers of the soak do with sessions, and what answers they accept. A caller may also go away."""

import asyncio
import contextlib
import time
from typing import Any

from benchmarks.soak_client import (
    MODULUS,
    SLOW_SECONDS,
    Node,
    OpenSession,
    RefusedError,
    Soak,
    must,
    not_troubled,
)

MAX_SESSIONS = 8
MAX_DEPTH = 16


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
