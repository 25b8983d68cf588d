"""A problem with its reference answer, what stands for a record that is none, and the forms in which texts are compared."""

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from decimal import Decimal

EXCERPT_CHARS = 200

_LONGEST_LEVEL = 6
_PICTURED = {"<super>": "^", "<sub>": "_", "<fraction>": " "}
"""Kinds of compatibility characters that mean something else than the digits in them: 10² is not 102."""


class ProblemFileError(ValueError):
    """A problem source cannot be used. The message names the source, the line and the fix.

    `quote` is what the message ends with from the source's own content. `told` is the message without it, for those who may
    name a file and may not read it.
    """

    def __init__(self, told: str, quote: str = "") -> None:
        super().__init__(f"{told} {quote}".strip())
        self.told = told


@dataclass(frozen=True)
class Problem:
    """A problem and its reference answer."""

    id: str
    """First 16 hex digits of the SHA-256 of text and answer: the same wherever the problem comes from."""
    text: str
    answer: str
    source: str
    """File name and line, as `gsm8k_train.jsonl:17`."""
    family: str = ""
    """What kind of problem it is (MATH's subject, a reasoning-gym task); empty where the source does not say."""
    difficulty: int | None = None
    """Number of steps or a level, as the source has it."""


@dataclass(frozen=True)
class Refused:
    """A record that cannot be used, and why."""

    source: str
    reason: str
    text: str
    """The beginning of the problem."""


def problem_id(text: str, answer: str) -> str:
    """Short content hash of a problem: runs of white space count as one space."""
    return hashlib.sha256(f"{' '.join(text.split())}\0{answer}".encode()).hexdigest()[:16]


def normal_form(text: str) -> str:
    """The text without what does not make another problem of it: case, white space, forms of the same letter."""
    return " ".join(one_form(text).casefold().split())


def one_form(text: str) -> str:
    """The text with one form for each letter (NFKC), exponents, indices and fractions apart from other digits."""
    signs = (
        _PICTURED.get(unicodedata.decomposition(letter).partition(" ")[0], "") + letter for letter in text
    )
    return unicodedata.normalize("NFKC", "".join(signs))


def excerpt(text: str) -> str:
    """The beginning of a text, on one line, without what no store holds."""
    printable = text[: 4 * EXCERPT_CHARS].replace("\0", " ").encode(errors="replace").decode()
    line = " ".join(printable.split())
    return line if len(line) <= EXCERPT_CHARS else line[: EXCERPT_CHARS - 1] + "…"


def level_of(value: object) -> int | None:
    """A difficulty as a number: 3, 3.0, "3" and MATH's "Level 3" are 3; anything else, or a long one, is none."""
    match value:
        case bool():
            return None
        case int() | float() | Decimal() if abs(value) < 10**_LONGEST_LEVEL and value == int(value):
            return int(value)
        case str() if found := re.fullmatch(
            rf"(?:level\s*)?(\d{{1,{_LONGEST_LEVEL}}})", value.strip(), re.IGNORECASE
        ):
            return int(found[1])
    return None


def join_svamp(body: str, question: str) -> str:
    """SVAMP's two parts as one text; its bodies often lack the full stop."""
    body = body.strip()
    return f"{body}{'' if body.endswith(('.', '!', '?', ',')) else '.'} {question.strip()}"
