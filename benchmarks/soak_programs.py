"""What the callers of the soak ask for, and what answers they accept.

Each action sends one request, or a few, of a random kind, and knows what has to come back. It raises what `soak_client.py`
says.
"""

from collections.abc import Awaitable, Callable

from benchmarks.leaks import PLACES
from benchmarks.soak_client import (
    SLOW_SECONDS,
    RefusedError,
    Soak,
    WrongError,
    must,
    must_print,
    not_troubled,
)
from benchmarks.soak_sessions import disconnect, next_step, session

SLACK_SECONDS = 10.0
"""How long after its limit a slow program may take to end, on a busy machine."""


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
