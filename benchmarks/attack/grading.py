"""Grading: text that is to be parsed as an answer, and is not meant as one.

Nothing of it may be evaluated. The control evaluates the same text in a program.
"""

import functools
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from benchmarks.attack.attack import Attack, Program, Seen, excerpt
from benchmarks.attack.service import BrokenSandboxError, Service

attack = functools.partial(Attack, category="grading")

SECONDS = 4.0
"""A comparison takes two at its longest."""


@dataclass(frozen=True)
class Injects:
    """Whether the text is found equal to what it would compute, which no reading as mathematics says."""

    text: str
    value: int

    def __call__(self, service: Service) -> Seen:
        answer = service.post("/grade", {"candidate": self.text, "reference": str(self.value)})
        evaluated = str(self.value) in (answer["candidate_parsed"] or "").replace(self.text, "")
        return Seen(bool(answer["equal"]) or evaluated, excerpt(answer))


@dataclass(frozen=True)
class Occupies:
    """Whether the pair is graded for longer than it may be, or costs the grader its life."""

    candidate: str
    reference: str = "x + 1"

    def __call__(self, service: Service) -> Seen:
        before, began = service.zygotes_replaced(), time.monotonic()
        try:
            answer = service.post("/grade", {"candidate": self.candidate, "reference": self.reference})
        except httpx.TimeoutException:
            return Seen(True, f"no answer in {time.monotonic() - began:.1f} s")
        except BrokenSandboxError as error:
            return Seen(True, str(error))
        seconds, replaced = time.monotonic() - began, service.zygotes_replaced() - before
        through = bool(answer["equal"]) or seconds > SECONDS or replaced > 0
        return Seen(through, f"{seconds:.1f} s, {replaced} replaced: {excerpt(answer)}")


@dataclass(frozen=True)
class ReachesJail:
    """Whether a word of the candidate is in the memory of any process of the jails while the pair is graded."""

    form: str
    """The candidate, with `{word}` where the word stands."""

    def __call__(self, service: Service) -> Seen:
        word = "".join(secrets.choice("123456789") for _ in range(24))
        candidate = self.form.replace("{word}", word)
        with ThreadPoolExecutor(1) as threads:
            verdict = threads.submit(service.post, "/grade", {"candidate": candidate, "reference": REFERENCE})
            found = 0
            while not verdict.done() and not found:
                found = sum(holds(process, word.encode()) for process in graders(service))
            seen = excerpt(verdict.result())
        return Seen(found > 0, f"{found} processes held it; {seen}")


_MEMBERS = [f"sin(x + {number})" for number in range(120)]
SLOW, REFERENCE = f"[{', '.join(_MEMBERS)}]", f"[{', '.join(reversed(_MEMBERS))}]"
"""Lists whose members are compared each with each, which takes longer than a look into the memory."""


def graders(service: Service) -> list[psutil.Process]:
    """The processes that compare now: those below the service that compute."""
    return [process for process in service.processes() if _runs(process)]


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_RUNNING)
    except psutil.NoSuchProcess:
        return False


def holds(process: psutil.Process, word: bytes) -> bool:
    """Whether the word stands in the memory that the process may write."""
    try:
        maps = Path(f"/proc/{process.pid}/maps").read_text().splitlines()
        with Path(f"/proc/{process.pid}/mem").open("rb", buffering=0) as memory:
            for line in maps:
                place, rights, *_ = line.split()
                if not rights.startswith("rw"):
                    continue
                start, end = (int(part, 16) for part in place.split("-"))
                memory.seek(start)
                if word in memory.read(end - start):
                    return True
    except OSError:
        pass
    return False


PAYLOADS = {
    "an import": ("__import__('math').factorial(5)", 120),
    "an import inside a function": ("sqrt(__import__('math').factorial(5)**2)", 120),
    "a lambda": ("(lambda: 120)()", 120),
    "a comprehension": ("sum([k for k in range(16)])", 120),
    "an attribute": ("(120).__abs__()", 120),
    "a walk over classes": ("[120 for c in [().__class__.__base__.__subclasses__()]][0]", 120),
    "eval": ("eval('60*2')", 120),
    "a file": ("120*len(open('/dev/null').read()+'x')", 120),
    "a format": ("int(f'{60*2}')", 120),
    "a walrus": ("(y:=120)", 120),
    "sympy's own parser": ("sympify('60*2')", 120),
}
"""Each is Python that gives the number, and no way to write the number."""

LATEX = {
    "an import": "\\frac{__import__('math').factorial(5)}{1}",
    "a file": "\\input{/etc/passwd}",
    "text that is code": "\\text{eval('60*2')}",
    "an operator name": "\\operatorname{eval}(60*2)",
    "a definition": "\\def\\x{120}\\x\\x",
}

HOGS = {
    "a tower of powers": "9**9**9**9",
    "a tower of powers, in LaTeX": "9^{9^{9^{9}}}",
    "a factorial": "factorial(99999999)",
    "a factorial of factorials": "9!!!!!!!!",
    "parentheses": "(" * 990 + "x" + ")" * 990,
    "open parentheses": "(" * 1900,
    "fractions in fractions": "\\frac{1}{" * 180 + "x" + "}" * 180,
    "roots in roots": "\\sqrt{" * 250 + "x" + "}" * 250,
    "digits": "9" * 1900 + "x",
    "an exponent": "1e" + "9" * 100,
    "a binomial": "\\binom{99999999}{44444444}",
    "a sum": "\\sum_{k=1}^{99999999999} \\sin(k)",
    "an integral": "\\int_0^1 x^{x^{x^{x}}} \\sin(\\cos(\\tan(x))) dx",
    "a polynomial": "(x+1)^{99999}(x-1)^{99999}",
    "a matrix": "\\begin{pmatrix}" + "\\\\".join(["&".join("x" * 16)] * 16) + "\\end{pmatrix}",
    "superscripts of a number that is none": "٣²³" * 300,
}

ATTACKS = [
    *(
        attack(
            name=f"evaluates {name}",
            probe=Injects(text, value),
            control=Program(f"import sympy\nproof(eval({text!r}, dict(vars(sympy))) == {value})"),
            control_is="the same text, evaluated in a program, where it gives the number",
        )
        for name, (text, value) in PAYLOADS.items()
    ),
    *(
        attack(
            name=f"evaluates {name}, as LaTeX",
            probe=Injects(text, 120),
            control=Injects("\\frac{240}{2}", 120),
            control_is="a fraction of the same value, which is found equal",
        )
        for name, text in LATEX.items()
    ),
    *(
        attack(
            name=f"occupies the grader by {name}",
            probe=Occupies(text),
            control=Occupies("1 + x", "x + 1"),
            control_is="a pair that is equal, which the probe would see: none of these may be",
        )
        for name, text in HOGS.items()
    ),
    attack(
        name="brings code into the grading jail",
        probe=ReachesJail(SLOW.replace("]", ", __import__('os').getpid() + {word}]")),
        control=ReachesJail(SLOW.replace("sin(x + 119)", "sin(x + {word})")),
        control_is="the word as a number in an answer that can be read, which the comparison must hold",
        alone=True,
        local=True,
    ),
]
