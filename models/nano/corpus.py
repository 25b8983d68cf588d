"""nano's weak corpus: demonstrations in the step format, whose steps are wrong at rates that depend on family and step.

Nothing but these errors is in it: a wrong operator, a wrong operand, off by one, a step left out, code that does not parse.
Each step has one error that it prefers, as people have misconceptions; where its rate is high the model that learns from this
corpus prefers the error too, and only search and verification can tell. Rates were set on the development split.
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ratchet.problems.nano import Split, instances
from ratchet.problems.nano.instance import Instance, Step

RATES: dict[str, tuple[float, ...]] = {
    "packs": (0.40,),
    "change": (0.30, 0.42),
    "discount": (0.30, 0.55, 0.66),
    "travel": (0.28, 0.40, 0.42),
    "ages": (0.30, 0.62, 0.68),
    "remainder": (0.70,),
    "common_divisor": (0.35, 0.66),
    "meet_again": (0.36, 0.40),
    "digit_sum": (0.38, 0.40),
    "sequence": (0.68, 0.32, 0.36),
    "count": (0.36, 0.38, 0.30),
    "average": (0.32, 0.68),
    "minutes": (0.28, 0.34, 0.40),
    "savings": (0.28, 0.40, 0.67),
    "garden": (0.30, 0.70, 0.34),
    "factory": (0.28, 0.32, 0.66, 0.40),
    "divisors": (0.36, 0.67, 0.30),
    "bus": (0.26, 0.32, 0.34, 0.36),
    "chain": (0.24, 0.28, 0.30, 0.66, 0.30),
    "party": (0.24, 0.28, 0.30, 0.58, 0.34, 0.36),
    "ratio": (0.36, 0.38, 0.69),
    "last_digit": (0.36, 0.68),
    "primes": (0.38, 0.36),
}
"""Chance of an error, by family and step."""
PREFERRED = 0.8
"""Share of a step's errors that are its preferred one."""

_NUMBER = re.compile(r"(?<![\w.])\d+(?![\w.])")
_OPERATOR = re.compile(r" (\*\*|//|[-+*%]) ")
_VARIABLE = re.compile(r"(?<![\w(])[a-f](?![\w(])(?! for)(?! in)")
_OTHER = {"+": "-", "-": "+", "*": "+", "//": "*", "%": "//", "**": "*"}
_WRAPPED = {"max(": "min(", "min(": "max(", "len(": "sum(", "sum(": "len("}


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A problem with steps that may be wrong."""

    problem: str
    steps: tuple[str, ...]
    correct: bool
    """All steps are those of the worked solution."""


def wrong_operator(step: Step, _: Instance, place: int) -> Step | None:
    """Another operator, or another function around it."""
    for right, wrong in _WRAPPED.items():
        if step.expression.startswith(right):
            return replace(step, expression=wrong + step.expression[len(right) :])
    found = list(_OPERATOR.finditer(step.expression))
    if not found:
        return None
    at = found[place % len(found)]
    expression = f"{step.expression[: at.start()]} {_OTHER[at[1]]} {step.expression[at.end() :]}"
    return replace(step, expression=expression)


def wrong_operand(step: Step, instance: Instance, place: int) -> Step | None:
    """Another number of the problem in place of one."""
    found = list(_NUMBER.finditer(step.expression))
    if not found:
        return None
    at = found[-1 - place % len(found)]
    others = [number for number in instance.numbers if str(number) != at[0]]
    if not others:
        return None
    number = others[place % len(others)]
    return replace(step, expression=step.expression[: at.start()] + str(number) + step.expression[at.end() :])


def off_by_one(step: Step, _: Instance, place: int) -> Step | None:
    """One too many, or one too few; a range that ends too early."""
    if " + 1)" in step.expression:
        return replace(step, expression=step.expression.replace(" + 1)", ")", 1))
    if step.expression.endswith(" - 1"):
        return replace(step, expression=step.expression.removesuffix(" - 1"))
    if step.expression.startswith("["):
        return None
    return replace(step, expression=f"{step.expression} {'+-'[place % 2]} 1")


def syntax_error(step: Step, _: Instance, place: int) -> Step | None:
    """Code that does not parse, or names what does not exist."""
    if place % 2:
        return replace(step, expression=step.expression + ")")
    return replace(step, expression="( " + step.expression)


KINDS = (wrong_operator, wrong_operand, off_by_one)


def preferred_error(step: Step, instance: Instance, place: int) -> Step:
    """The step's misconception: the same kind of error at the same place for all problems of its family."""
    order = sum(map(ord, instance.family)) + place
    for turn in range(len(KINDS)):
        found = KINDS[(order + turn) % len(KINDS)](step, instance, 0)
        if found is not None and found.expression != step.expression:
            return found
    return replace(step, expression=f"{step.expression} + 1")


def demonstrate(instance: Instance, rng: random.Random) -> Demonstration:
    """The worked solution with its errors."""
    steps: list[Step] = []
    last = len(instance.steps) - 1
    for place, step in enumerate(instance.steps):
        if rng.random() >= RATES[instance.family][place]:
            steps.append(step)
            continue
        if rng.random() < PREFERRED:
            steps.append(preferred_error(step, instance, place))
            continue
        kind = rng.choice([*KINDS, syntax_error, None])
        if kind is None:
            # Left out: what follows uses the variable before it, or fails. The last one cannot be left out.
            if place < last:
                continue
            kind = off_by_one
        steps.append(kind(step, instance, rng.randrange(4)) or step)
    # An error may find nothing to change.
    return Demonstration(instance.text, tuple(step.text for step in steps), tuple(steps) == instance.steps)


def demonstrations(seed: int) -> Iterator[Demonstration]:
    """The corpus, without end: problems of the training split, the families in turn."""
    rng = random.Random(f"corpus/{seed}")  # noqa: S311 - noise, not secrets
    for instance in instances(Split.TRAIN, seed, unique=False):
        yield demonstrate(instance, rng)
