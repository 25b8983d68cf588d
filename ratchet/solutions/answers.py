"""Answers: what does a step answer, and which answers are the same?

How an answer is written is read in one place, `ratchet.notation`, for votes, problem files and the grader alike. Numbers
are compared here, everything else by the sandbox's grader. Programs print anything: no text makes a function here raise.
"""

import hashlib
from fractions import Fraction
from functools import lru_cache

from pydantic import ValidationError

from ratchet.clients import SandboxClient
from ratchet.contracts.sandbox import GradeRequest, StepResult
from ratchet.notation.keys import key_of
from ratchet.notation.numbers import is_same_number
from ratchet.notation.reading import read, read_number


def numeric_value(answer: str) -> Fraction | None:
    """The one number that the answer is, its percent sign and unit left aside; None where it is anything else."""
    number = read_number(answer)
    return None if number is None else number.value


# More than a tree of 10,000 nodes has: with fewer, each vote over such a tree would read all of its answers again.
@lru_cache(maxsize=16_384)
def answer_key(answer: str) -> str:
    """Equal for answers that stand together in a vote: one number, expression or set of solutions in any spelling."""
    return key_of(read(answer))


def answer_group(answer: str) -> str:
    """A short name of the answer's key, for those who draw votes: 16 hexadecimal digits."""
    return hashlib.sha256(answer_key(answer).encode()).hexdigest()[:16]


def last_line(stdout: str) -> str | None:
    """The last line that is not blank, trimmed: what a program says is its answer. None where nothing was printed."""
    lines = [line.strip() for line in stdout.splitlines()]
    return next((line for line in reversed(lines) if line), None)


def answer_of(step: StepResult) -> str | None:
    """What a step that ran answers: the last line that it printed, if that is one that the grader reads.

    None where it printed nothing, a line of more than MAX_ANSWER_CHARS, or more than is kept: a flood of numbers says nothing.
    """
    line = None if step.stdout_truncated else last_line(step.stdout)
    return line if line is not None and grade_request(line, line) else None


def grade_request(answer: str, other: str) -> GradeRequest | None:
    """The question whether two answers are equal; None where one is nothing that the grader takes (too long, no text)."""
    try:
        return GradeRequest(candidate=answer, reference=other)
    except ValidationError:
        return None


async def same_answer(sandbox: SandboxClient, answer: str, other: str) -> bool:
    """Whether two answers are equal: numbers and equal texts here, all else by the sandbox's grader.

    What the grader does not take equals nothing but itself. Raises ServiceError.
    """
    ours, theirs = read_number(answer), read_number(other)
    if ours is not None and theirs is not None:
        return is_same_number(ours, theirs)
    if answer.strip() == other.strip():
        return True
    request = grade_request(answer, other)
    return request is not None and (await sandbox.grade(request)).equal
