"""A problem with its reference answer, and how one record of a file (a JSON object, a Parquet row) becomes one.

Four kinds of record are known, each by its fields: problem/answer, MATH's problem/solution (the answer is the last
`\\boxed{}`), GSM8K's question/answer (the answer follows `#### `) and SVAMP's Body+Question/Answer. Nothing is guessed:
a record without these fields is an error that names file and line. A record that has them, but with values that cannot
be used, is refused by itself, and the rest of the file goes on.
"""

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ratchet.contracts.base import ProblemText

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
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


class ProblemFileError(ValueError):
    """A problem source cannot be used. The message names the source, the line and the fix."""


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
        known = ", ".join(sorted(fields)) or "none"
        raise ProblemFileError(
            f"{where}: the fields are {known}; expected problem and answer, MATH's problem and solution, "
            "GSM8K's question and answer, or SVAMP's Body, Question and Answer."
        )
    if answer_name not in fields:
        raise ProblemFileError(f"{where}: {_no_answer(answer_name)}")
    try:
        parts = [_text(fields, name) for name in names]
        text = parts[0] if len(parts) == 1 else join_svamp(*parts)
        answer = _answer(fields, answer_name)
        if answer_name == "solution":
            answer = _boxed_answer(answer)
        elif names == ("question",):
            answer = _gsm8k_answer(answer)
        _check(text, answer)
    except _RefusalError as refusal:
        shown = " ".join(str(fields.get(name) or "") for name in names)
        return Refused(source, str(refusal), excerpt(shown))
    family = next((fields[name] for name in ("family", "subject", "type", "Type") if fields.get(name)), "")
    level = next((fields[name] for name in ("difficulty", "level") if fields.get(name) is not None), None)
    return Problem(problem_id(text, answer), text, answer, source, str(family).strip(), level_of(level))


def problem_id(text: str, answer: str) -> str:
    """Short content hash of a problem: runs of white space count as one space."""
    return hashlib.sha256(f"{' '.join(text.split())}\0{answer}".encode()).hexdigest()[:16]


def normal_form(text: str) -> str:
    """The text without what does not make another problem of it: case, white space, forms of the same letter."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def excerpt(text: str) -> str:
    """The beginning of a text, on one line."""
    line = " ".join(text[: 4 * EXCERPT_CHARS].split())
    return line if len(line) <= EXCERPT_CHARS else line[: EXCERPT_CHARS - 1] + "…"


def level_of(value: object) -> int | None:
    """A difficulty as a number: 3, 3.0, "3" and MATH's "Level 3" are 3; anything else is none."""
    match value:
        case bool():
            return None
        case int():
            return value
        case float() if value.is_integer():
            return int(value)
        case str() if found := re.fullmatch(r"(?:level\s*)?(\d{1,6})", value.strip(), re.IGNORECASE):
            return int(found[1])
    return None


def join_svamp(body: str, question: str) -> str:
    """SVAMP's two parts as one text; its bodies often lack the full stop."""
    body = body.strip()
    return f"{body}{'' if body.endswith(('.', '!', '?', ',')) else '.'} {question.strip()}"


def last_boxed(solution: str) -> str | None:
    """What the last `\\boxed{…}` of a worked solution holds, None where there is none or its braces do not close."""
    opened = max(solution.rfind("\\boxed{"), solution.rfind("\\fbox{"))
    start = solution.find("{", opened)
    if opened < 0:
        return None
    depth = 0
    for end in range(start, len(solution)):
        depth += {"{": 1, "}": -1}.get(solution[end], 0)
        if depth == 0:
            return solution[start + 1 : end].strip()
    return None


def _check(text: str, answer: str) -> None:
    if len(answer) > MAX_ANSWER_CHARS:
        raise _RefusalError(f"the answer has {len(answer)} characters, more than {MAX_ANSWER_CHARS}.")
    try:
        _PROBLEM_TEXT.validate_python(text)
    except ValidationError as error:
        raise _RefusalError(f"the problem is not usable: {error.errors()[0]['msg']}.") from error


def _boxed_answer(solution: str) -> str:
    answer = last_boxed(solution)
    if not answer:
        raise _RefusalError(r"no answer in \boxed{} in the solution.")
    return answer


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
        case int() | float() as value:
            return repr(value)
        case str(value) if value.strip():
            return value.strip()
    raise _RefusalError(_no_answer(name))


def _no_answer(name: str) -> str:
    return f"the field {name} must be a number or a text that is not blank."
