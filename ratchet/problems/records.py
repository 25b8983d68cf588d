"""How one record of a file (a JSON object, a row of a table) becomes a problem.

Known are, by their fields in small or capital letters: problem and answer, MATH's problem and solution, question and answer
(GSM8K, AIME), and body, question and answer (SVAMP, ASDiv). Nothing is guessed: a record without these fields is an error
that names those it has, and a `Naming` says which of them hold the problem. A record that has them, but with values that
cannot be used, is refused by itself, and the rest of the file goes on.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ratchet.contracts.base import ProblemText, Text
from ratchet.problems.problem import (
    Problem,
    ProblemFileError,
    Refused,
    excerpt,
    join_svamp,
    level_of,
    problem_id,
)
from ratchet.problems.references import (
    MAX_ANSWER_CHARS,
    RefusalError,
    answer_text,
    reference_in,
    reference_of_solution,
    without_unit,
)

SHOWN_FIELDS = 30

_CHOICES = ("choices", "options")
_FAMILY = ("family", "subject", "type")
_LEVEL = ("difficulty", "level")
_BESIDE = ("passage", "context", "table", "paragraph", "premise")
"""Texts without which a question may not be understood."""
_PICTURES = ("image", "images", "picture", "figure")
_PARTS = ("problem", "question", "body", "answer", "solution")
FIELDS = frozenset([*_PARTS, *_CHOICES, *_FAMILY, *_LEVEL, *_BESIDE, *_PICTURES])
"""The names that are looked at, whatever the case of their letters."""

_ASKED = ("question", "problem", "prompt", "input", "query", "instruction", "problem_statement", "text")
_ANSWERED = (
    *("answer", "final_answer", "final_ans", "expected_answer", "reference_answer", "ground_truth", "gt"),
    *("correct_answer", "gold", "gold_answer", "target", "output", "response", "completion", "label"),
    *("correct", "solution", "reward_model"),
)
_TALK = ("messages", "conversations", "conversation", "prompt")
"""What fields are called elsewhere: for the proposal in an error alone."""

_PROBLEM_TEXT: TypeAdapter[str] = TypeAdapter(ProblemText)
_ANSWER_TEXT: TypeAdapter[str] = TypeAdapter(Text)
_CHOICE = re.compile(r"\(?(?P<letter>[A-Z])[).]?|(?P<place>\d{1,2})")


@dataclass(frozen=True)
class Naming:
    """Where a problem is, if its fields have other names: names, or paths like `reward_model.ground_truth`."""

    problem: tuple[str, ...] = ()
    """Several are joined, as a text and the question about it."""
    answer: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All that are named."""
        return self.problem if self.answer is None else (*self.problem, self.answer)


USUAL = Naming()


@dataclass(frozen=True)
class _Parts:
    """Names of the fields that a record's problem is in."""

    problem: tuple[str, ...]
    answer: str
    kind: str


def problem_of(
    fields: Mapping[str, Any], where: str, source: str, naming: Naming = USUAL
) -> Problem | Refused:
    """The problem that a record holds. Raises ProblemFileError, with `where`, if it has not the fields of one."""
    names = _by_small_name(fields)
    parts = _parts(fields, names, where, naming)
    try:
        texts = [_text(value_at(fields, name), name) for name in parts.problem]
        text = texts[0] if len(texts) == 1 else join_svamp(texts[0], " ".join(texts[1:]))
        answer = _reference(fields, parts)
        _check(text, answer)
        _check_choice(_first(fields, names, _CHOICES), answer)
        if not naming.problem:
            _check_whole(fields, names, parts)
    except RefusalError as refusal:
        shown = " ".join(str(value_at(fields, name) or "") for name in parts.problem)
        return Refused(source, str(refusal), excerpt(shown))
    family = _first(fields, names, _FAMILY) or ""
    level = level_of(_first(fields, names, _LEVEL))
    return Problem(problem_id(text, answer), text, answer, source, excerpt(str(family)), level)


def columns_read(columns: Sequence[str], naming: Naming) -> list[str]:
    """The columns of a table that are looked at; all of them where they make no problem, to be named in the error."""
    small = {name.lower() for name in columns}
    asked = bool(naming.problem) or not small.isdisjoint(("problem", "question"))
    answered = naming.answer is not None or "answer" in small or {"problem", "solution"} <= small
    heads = {name if name in columns else name.partition(".")[0] for name in naming.names}
    if not (asked and answered and heads <= set(columns)):
        return list(columns)
    return [name for name in columns if name in heads or name.lower() in FIELDS]


def _by_small_name(fields: Mapping[str, Any]) -> dict[str, str]:
    """The record's names by their small letters; of `answer` and `Answer` the small one counts."""
    names = {name.lower(): name for name in fields}
    return names | {name: name for name in fields if name == name.lower()}


def _parts(fields: Mapping[str, Any], names: Mapping[str, str], where: str, naming: Naming) -> _Parts:
    for name in naming.names:
        if value_at(fields, name, _ABSENT) is _ABSENT:
            raise ProblemFileError(f"{where}: there is no field {name}.", _known(fields))
    if naming.problem:
        problem, kind = naming.problem, "named"
    elif "problem" in names:
        problem, kind = (names["problem"],), "problem"
    elif "body" in names and "question" in names:
        problem, kind = (names["body"], names["question"]), "body"
    elif "question" in names:
        problem, kind = (names["question"],), "question"
    else:
        raise ProblemFileError(
            f"{where}: expected the fields problem and answer, MATH's problem and solution, GSM8K's question and answer, or "
            "SVAMP's Body, Question and Answer.",
            f"{_known(fields)} {_proposal(fields)}",
        )
    if naming.answer is not None:
        return _Parts(problem, naming.answer, "named")
    if kind in ("problem", "named") and "solution" in names and _blank(fields, names.get("answer")):
        return _Parts(problem, names["solution"], "solution")
    if "answer" not in names:
        raise ProblemFileError(
            f"{where}: there is no field answer, which must be a number or a text.",
            f"{_known(fields)} {_proposal(fields, problem)}",
        )
    return _Parts(problem, names["answer"], kind)


def _blank(fields: Mapping[str, Any], name: str | None) -> bool:
    value = None if name is None else fields[name]
    return value in (None, [], {}) or (isinstance(value, str) and not value.strip())


def _reference(fields: Mapping[str, Any], parts: _Parts) -> str:
    value = value_at(fields, parts.answer)
    answer = answer_text(value, parts.answer)
    if parts.kind == "solution":
        return reference_of_solution(answer)
    if not isinstance(value, str | list):
        return answer
    return without_unit(answer) if parts.kind == "body" else reference_in(answer)


# --- fields ----------------------------------------------------------------------------------------------------------

_ABSENT = object()


def value_at(fields: object, path: str, absent: object = None) -> Any:
    """The value of the field `path`: a name, or names and places in lists with dots between them."""
    if isinstance(fields, Mapping) and path in fields:
        return fields[path]
    name, dot, rest = path.partition(".")
    match fields:
        case Mapping() if dot and name in fields:
            return value_at(fields[name], rest, absent)
        case list() if name.isascii() and name.isdecimal() and len(name) < 7 and int(name) < len(fields):
            return value_at(fields[int(name)], rest, absent) if dot else fields[int(name)]
    return absent


def _first(fields: Mapping[str, Any], names: Mapping[str, str], wanted: Iterable[str]) -> Any:
    """The first of the wanted fields that says something."""
    return next(
        (value for name in wanted if (value := fields.get(names.get(name, name))) not in (None, "")), None
    )


def _text(value: object, name: str) -> str:
    if isinstance(value, Mapping | list) and value:
        within = f"{name}.0.content" if isinstance(value, list) else f"{name}.FIELD"
        raise RefusalError(
            f"the field {name} is no text and has parts of its own: name the one that is meant, as {within}."
        )
    if not isinstance(value, str) or not value.strip():
        raise RefusalError(f"the field {name} must be a text that is not blank.")
    return value.strip()


# --- checks ----------------------------------------------------------------------------------------------------------


def _check(text: str, answer: str) -> None:
    if len(answer) > MAX_ANSWER_CHARS:
        raise RefusalError(f"the answer has {len(answer)} characters, more than {MAX_ANSWER_CHARS}.")
    for what, kind, value in (("problem", _PROBLEM_TEXT, text), ("answer", _ANSWER_TEXT, answer)):
        try:
            kind.validate_python(value)
        except ValidationError as error:
            raise RefusalError(f"the {what} is not usable: {error.errors()[0]['msg']}.") from error


def _check_choice(choices: object, answer: str) -> None:
    """Raises RefusalError if the answer may be the letter or the place of a choice."""
    found = _CHOICE.fullmatch(answer)
    if not choices or not isinstance(choices, list | dict | str) or found is None:
        return
    if found["letter"] or isinstance(choices, str) or int(found["place"]) <= len(choices):
        raise RefusalError("the answer may be the place of a choice and not its value: give the value.")


def _check_whole(fields: Mapping[str, Any], names: Mapping[str, str], parts: _Parts) -> None:
    """Raises RefusalError if the problem may need what another field holds; who names its fields knows."""
    asked = parts.problem[-1]
    for name in _BESIDE:
        if name in names and not _blank(fields, names[name]):
            beside = names[name]
            raise RefusalError(
                f"the field {beside} may be a part of the problem: name both, as ?problem={beside}&problem={asked}, or "
                f"?problem={asked} alone."
            )
    for name in _PICTURES:
        if name in names and not _blank(fields, names[name]):
            raise RefusalError(
                f"the field {names[name]} has a picture, which is not read: name ?problem={asked} to go without."
            )


# --- errors ----------------------------------------------------------------------------------------------------------


def _known(fields: Mapping[str, Any]) -> str:
    names = sorted(map(str, fields))
    more = f" and {len(names) - SHOWN_FIELDS} more" if len(names) > SHOWN_FIELDS else ""
    return f"The fields are {', '.join(names[:SHOWN_FIELDS]) or 'none'}{more}."


def _proposal(fields: Mapping[str, Any], problem: tuple[str, ...] = ()) -> str:
    """How to name the fields, with those that other sets use where the record has them."""
    asked = None if problem else _place(fields, _ASKED, "user")
    answered = _place(fields, _ANSWERED, "assistant")
    options = [] if problem else [f"problem={asked or 'FIELD'}"]
    options.append(f"answer={answered or 'FIELD'}")
    return (
        f"If they have other names, say so behind the name of the file or data set: ?{'&'.join(options)} (FIELD may be a path, "
        "as prompt.0.content)."
    )


def _place(fields: Mapping[str, Any], usual: Iterable[str], role: str) -> str | None:
    names = _by_small_name(fields)
    for name in [names[name] for name in (*usual, *_TALK) if name in names]:
        match fields[name]:
            case str(text) if text.strip():
                return name
            case bool() | None:
                pass
            case [Mapping() as first, *_] if "role" in first or "from" in first:
                if (turn := _turn(fields[name], role)) is not None:
                    return f"{name}.{turn}"
            case [str() | int() | float() | Decimal()] | int() | float() | Decimal():
                return name
            case Mapping() as inner if (
                within := _place(inner, (*usual, "value", "content"), role)
            ) is not None:
                return f"{name}.{within}"
    return None


def _turn(talk: list[Any], role: str) -> str | None:
    """Where in a chat the text of the role is, as `0.content`."""
    roles = ("user", "human") if role == "user" else ("assistant", "gpt")
    for place, message in enumerate(talk):
        if isinstance(message, Mapping) and (message.get("role") or message.get("from")) in roles:
            return f"{place}.{'content' if 'content' in message else 'value'}"
    return None
