"""Problem sources: a JSON Lines file becomes a list of problems with their reference answers.

Three kinds of line are known, each by its fields: problem/answer, GSM8K's question/answer (the answer
follows `#### `) and SVAMP's Body+Question/Answer. Nothing is guessed: a line that fits none is an error
that names file and line.
"""

import hashlib
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from pydantic import TypeAdapter, ValidationError

from ratchet.contracts.base import ProblemText

MAX_ANSWER_CHARS = 1000

_PROBLEM_TEXT: TypeAdapter[str] = TypeAdapter(ProblemText)
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


class ProblemFileError(ValueError):
    """A problem file cannot be used. The message names the file, the line and the fix."""


@dataclass(frozen=True)
class Problem:
    """A problem and its reference answer."""

    id: str
    """First 16 hex digits of the SHA-256 of text and answer: the same wherever the problem comes from."""
    text: str
    answer: str
    source: str
    """File name and line, as `gsm8k_train.jsonl:17`."""


@dataclass(frozen=True)
class Duplicate:
    """A problem text that a file holds more than once."""

    line: int
    first_line: int
    conflicting: bool
    """The two lines give different answers. Both are kept then; otherwise the later one is dropped."""


@dataclass(frozen=True)
class ProblemFile:
    """What a file holds."""

    problems: list[Problem]
    duplicates: list[Duplicate]
    sha256: str
    """Of the file's bytes."""


def read_problems(path: Path) -> ProblemFile:
    """Read a JSON Lines file. Raises ProblemFileError."""
    if path.suffix == ".parquet":
        raise ProblemFileError(f"{path}: Parquet is not read yet. Convert it to JSON Lines first.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ProblemFileError(f"{path}: cannot be read: {error.strerror}.") from error
    problems: list[Problem] = []
    duplicates: list[Duplicate] = []
    seen: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        problem = _problem_of(_object_of(line, where), where, f"{path.name}:{number}")
        key = " ".join(problem.text.split())
        first_line, first_id = seen.setdefault(key, (number, problem.id))
        if first_line != number:
            duplicates.append(Duplicate(number, first_line, conflicting=first_id != problem.id))
            if first_id == problem.id:
                continue
        problems.append(problem)
    if not problems:
        raise ProblemFileError(f"{path}: holds no problem. Expected one JSON object a line.")
    return ProblemFile(problems, duplicates, hashlib.sha256(content).hexdigest())


def sample(problems: list[Problem], *, seed: int, offset: int = 0, limit: int | None = None) -> list[Problem]:
    """Shuffle the whole list with `random.Random(seed)`, then take `limit` problems from `offset` on.

    The order depends only on the list and the seed, so disjoint offsets give disjoint samples.
    """
    shuffled = list(problems)
    random.Random(seed).shuffle(shuffled)  # noqa: S311 - a sample, not a secret
    return shuffled[offset : None if limit is None else offset + limit]


def problem_id(text: str, answer: str) -> str:
    """Short content hash of a problem: runs of white space count as one space."""
    return hashlib.sha256(f"{' '.join(text.split())}\0{answer}".encode()).hexdigest()[:16]


def _object_of(line: bytes, where: str) -> Mapping[str, Any]:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise ProblemFileError(f"{where}: not valid JSON: {error.msg} (column {error.colno}).") from error
    if not isinstance(value, dict):
        raise ProblemFileError(f"{where}: expected a JSON object with the fields problem and answer.")
    return value


def _problem_of(fields: Mapping[str, Any], where: str, source: str) -> Problem:
    if "problem" in fields:
        text, answer = _text(fields, "problem", where), _answer(fields, "answer", where)
    elif "Body" in fields and "Question" in fields:
        text = join_svamp(_text(fields, "Body", where), _text(fields, "Question", where))
        answer = _answer(fields, "Answer", where)
    elif "question" in fields:
        text = _text(fields, "question", where)
        answer = _gsm8k_answer(_answer(fields, "answer", where), where)
    else:
        names = ", ".join(sorted(fields)) or "none"
        raise ProblemFileError(
            f"{where}: the fields are {names}; expected problem and answer, GSM8K's question and answer, "
            "or SVAMP's Body, Question and Answer."
        )
    if len(answer) > MAX_ANSWER_CHARS:
        raise ProblemFileError(
            f"{where}: the answer has {len(answer)} characters, more than {MAX_ANSWER_CHARS}."
        )
    try:
        _PROBLEM_TEXT.validate_python(text)
    except ValidationError as error:
        raise ProblemFileError(f"{where}: the problem is not usable: {error.errors()[0]['msg']}.") from error
    return Problem(id=problem_id(text, answer), text=text, answer=answer, source=source)


def join_svamp(body: str, question: str) -> str:
    """SVAMP's two parts as one text; its bodies often lack the full stop."""
    body = body.strip()
    return f"{body}{'' if body.endswith(('.', '!', '?', ',')) else '.'} {question.strip()}"


def _gsm8k_answer(worked: str, where: str) -> str:
    _, marker, answer = worked.rpartition("####")
    if not marker or not answer.strip():
        raise ProblemFileError(
            f"{where}: no answer after '####'. Name the fields problem and answer if the answer stands alone."
        )
    return _THOUSANDS.sub("", answer.strip())


def _text(fields: Mapping[str, Any], name: str, where: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value.strip():
        raise ProblemFileError(f"{where}: the field {name} must be a text that is not blank.")
    return value.strip()


def _answer(fields: Mapping[str, Any], name: str, where: str) -> str:
    match fields.get(name):
        case bool() | None:
            pass
        case float(value) if value.is_integer() and abs(value) < 2**53:
            return str(int(value))
        case int() | float() as value:
            return repr(value)
        case str(value) if value.strip():
            return value.strip()
    raise ProblemFileError(f"{where}: the field {name} must be a number or a text that is not blank.")
