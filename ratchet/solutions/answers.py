"""Answers: which ones are the same?

Numbers are compared here, as exact decimals or fractions rounded to nine significant digits, so that 72, 72.0 and
71.9999999999 are one answer. What is not a number is compared by the sandbox's grader (math-verify, jailed).
"""

import re
from fractions import Fraction

from ratchet.clients import SandboxClient
from ratchet.contracts.sandbox import GradeRequest

_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d{1,3})?")
_SIGNIFICANT = 9
_MAX_DIGITS = 400


def numeric_value(answer: str) -> Fraction | None:
    """The number that the answer is written as, or None. Only plain decimals and fractions of integers count."""
    text = answer.strip().replace(",", "")
    if len(text) > _MAX_DIGITS:
        return None
    numerator, slash, denominator = text.partition("/")
    if slash:
        plain = re.fullmatch(r"[-+]?\d+", numerator.strip()) and re.fullmatch(r"\d+", denominator.strip())
        return Fraction(int(numerator), int(denominator)) if plain and int(denominator) else None
    return Fraction(text) if _NUMBER.fullmatch(text) else None


def answer_key(answer: str) -> str:
    """Equal for answers that are the same number to nine significant digits; otherwise the text itself."""
    value = numeric_value(answer)
    if value is None:
        return "text:" + " ".join(answer.split())
    if value == 0:
        return "number:0"
    # An exact integer stays exact however long it is; anything else is rounded.
    return f"number:{value if value.denominator == 1 else _rounded(value)}"


def _rounded(value: Fraction) -> Fraction:
    """To nine significant digits, or to the nearest integer where that has more."""
    exponent = len(str(abs(value.numerator))) - len(str(value.denominator))
    # Digits before the point, up to one: numerator and denominator alone do not tell which.
    if abs(value) >= Fraction(10) ** exponent:
        exponent += 1
    scale = Fraction(10) ** max(0, _SIGNIFICANT - exponent)
    return round(value * scale) / scale


def last_line(stdout: str) -> str | None:
    """The last line that is not blank, trimmed: what a program says is its answer. None where nothing was printed."""
    lines = [line.strip() for line in stdout.splitlines()]
    return next((line for line in reversed(lines) if line), None)


async def same_answer(sandbox: SandboxClient, answer: str, other: str) -> bool:
    """Whether two answers are equal: numbers here (integers exactly, others within a relative 1e-6), all else jailed."""
    ours, theirs = numeric_value(answer), numeric_value(other)
    if ours is not None and theirs is not None:
        if ours.denominator == theirs.denominator == 1:
            return ours == theirs
        return abs(ours - theirs) <= max(abs(ours), abs(theirs)) / 10**6
    if answer_key(answer) == answer_key(other):
        return True
    return (await sandbox.grade(GradeRequest(candidate=answer, reference=other))).equal
