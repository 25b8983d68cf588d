"""A problem with its reference answer, and how one record of a file (a JSON object, a Parquet row) becomes one.

Four kinds of record are known, each by its fields: problem/answer, MATH's problem/solution (the answer is in
`\\boxed{}`), GSM8K's question/answer (the answer follows `#### `) and SVAMP's Body+Question/Answer. Nothing is guessed:
a record without these fields is an error that names file and line. A record that has them, but with values that cannot
be used, is refused by itself, and the rest of the file goes on. So is a solution with several boxes that differ: they may be
parts of one answer, or a note beside it.
"""

import hashlib
import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ratchet.contracts.base import ProblemText, Text
from ratchet.notation.keys import key_of
from ratchet.notation.reading import read

MAX_ANSWER_CHARS = 1000
EXCERPT_CHARS = 200
COLUMNS = frozenset(
    [
        "problem",
        "question",
        "Body",
        "Question",
        "answer",
        "Answer",
        "solution",
        "choices",
        "options",
        "family",
        "subject",
        "type",
        "Type",
        "difficulty",
        "level",
    ]
)
"""The fields that are looked at."""

_PROBLEM_TEXT: TypeAdapter[str] = TypeAdapter(ProblemText)
_ANSWER_TEXT: TypeAdapter[str] = TypeAdapter(Text)
_BOX_OR_BRACE = re.compile(
    r"\\(?:boxed|fbox)\s*(?:(?P<box>\{)|(?P<digit>\d)(?!\w|[.,/]\d))|\\.|(?P<brace>[{}])", re.DOTALL
)
"""A box opens with a brace, or holds the one digit after it, as TeX has it."""
_LONGEST_LEVEL = 6
_PICTURED = {"<super>": "^", "<sub>": "_", "<fraction>": " "}
"""Kinds of compatibility characters that mean something else than the digits in them: 10² is not 102."""
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


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


class _RefusalError(ValueError):
    pass


def problem_of(fields: Mapping[str, Any], where: str, source: str) -> Problem | Refused:
    """The problem that a record holds. Raises ProblemFileError, with `where`, if it has not the fields of one."""
    if "problem" in fields:
        names: tuple[str, ...] = ("problem",)
        answer_name = "answer" if "answer" in fields or "solution" not in fields else "solution"
    elif "Body" in fields and "Question" in fields:
        names, answer_name = ("Body", "Question"), "Answer"
    elif "question" in fields:
        names, answer_name = ("question",), "answer"
    else:
        raise ProblemFileError(
            f"{where}: expected the fields problem and answer, MATH's problem and solution, GSM8K's question and answer, or "
            "SVAMP's Body, Question and Answer.",
            _known(fields),
        )
    if answer_name not in fields:
        raise ProblemFileError(f"{where}: {_no_answer(answer_name)}", _known(fields))
    try:
        parts = [_text(fields, name) for name in names]
        text = parts[0] if len(parts) == 1 else join_svamp(*parts)
        answer = _answer(fields, answer_name)
        if answer_name == "solution":
            answer = _boxed_answer(answer)
        elif names == ("question",):
            answer = _gsm8k_answer(answer)
        _check(text, answer)
        _check_choice(fields, answer)
    except _RefusalError as refusal:
        shown = " ".join(str(fields.get(name) or "") for name in names)
        return Refused(source, str(refusal), excerpt(shown))
    family = next((fields[name] for name in ("family", "subject", "type", "Type") if fields.get(name)), "")
    level = next((fields[name] for name in ("difficulty", "level") if fields.get(name) is not None), None)
    return Problem(problem_id(text, answer), text, answer, source, excerpt(str(family)), level_of(level))


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
        case int() | float() if abs(value) < 10**_LONGEST_LEVEL and value == int(value):
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


def boxed(solution: str) -> list[str]:
    """What the boxes (`\\boxed{…}`) of a worked solution hold; one whose braces do not close is none."""
    held: list[str] = []
    # For each brace that is open, where it opened, and how many boxes were known then if it is a box's.
    opened: list[tuple[int, int | None]] = []
    for found in _BOX_OR_BRACE.finditer(solution):
        if found["digit"]:
            held.append(found["digit"])
        elif found["box"]:
            opened.append((found.end(), len(held)))
        elif found["brace"] == "{":
            opened.append((found.end(), None))
        elif found["brace"] and opened:
            start, before = opened.pop()
            if before is not None:
                # Of boxes in a box the outer one counts.
                held[before:] = [solution[start : found.start()].strip()]
    return held


def _check(text: str, answer: str) -> None:
    if len(answer) > MAX_ANSWER_CHARS:
        raise _RefusalError(f"the answer has {len(answer)} characters, more than {MAX_ANSWER_CHARS}.")
    for what, kind, value in (("problem", _PROBLEM_TEXT, text), ("answer", _ANSWER_TEXT, answer)):
        try:
            kind.validate_python(value)
        except ValidationError as error:
            raise _RefusalError(f"the {what} is not usable: {error.errors()[0]['msg']}.") from error


def _check_choice(fields: Mapping[str, Any], answer: str) -> None:
    choices = fields.get("choices") or fields.get("options")
    if (
        isinstance(choices, list | dict)
        and answer.isdecimal()
        and len(answer) < 3
        and int(answer) <= len(choices)
    ):
        raise _RefusalError("the answer may be the place of a choice and not its value: give the value.")


def _boxed_answer(solution: str) -> str:
    answers = {key_of(read(answer)): answer for answer in boxed(solution) if answer}
    if not answers:
        raise _RefusalError(r"no answer in \boxed{} in the solution.")
    if len(answers) > 1:
        raise _RefusalError(
            rf"{len(answers)} different answers in \boxed{{}} in the solution: name the right one in the field answer."
        )
    return next(iter(answers.values()))


def _gsm8k_answer(worked: str) -> str:
    _, marker, answer = worked.rpartition("####")
    if not marker or not answer.strip():
        raise _RefusalError(
            "no answer after '####'. Name the fields problem and answer if the answer stands alone."
        )
    return _THOUSANDS.sub("", answer.strip())


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value.strip():
        raise _RefusalError(f"the field {name} must be a text that is not blank.")
    return value.strip()


def _answer(fields: Mapping[str, Any], name: str) -> str:
    match fields.get(name):
        case bool() | None:
            pass
        case float(value) if value.is_integer() and abs(value) < 2**53:
            return str(int(value))
        case int(value):
            return str(value)
        case float(value) if math.isfinite(value):
            return repr(value)
        case Decimal() as value if value.is_finite():
            return f"{value:f}"
        case str(value) if value.strip():
            return value.strip()
    raise _RefusalError(_no_answer(name))


def _known(fields: Mapping[str, Any]) -> str:
    return f"The fields are {', '.join(map(str, sorted(fields))) or 'none'}."


def _no_answer(name: str) -> str:
    return f"the field {name} must be a number or a text that is not blank."
