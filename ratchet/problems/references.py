"""The reference answer in what a record gives for it: a number, an answer that stands alone, or a worked solution.

In a worked text the answer follows `#### ` (GSM8K) or stands in `\\boxed{}` (MATH). Several boxes that differ are refused: they
may be parts of one answer, or a note beside it.
"""

import math
import re
from decimal import Decimal

from ratchet.notation.keys import key_of
from ratchet.notation.reading import read

MAX_ANSWER_CHARS = 1000
PLAIN_DIGITS = 40
"""A decimal of so many digits is written out; a longer one keeps its exponent."""

_BOX_OR_BRACE = re.compile(
    r"\\(?:boxed|fbox)\s*(?:(?P<box>\{)|(?P<digit>\d)(?!\w|[.,/]\d))|\\.|(?P<brace>[{}])", re.DOTALL
)
"""A box opens with a brace, or holds the one digit after it, as TeX has it."""
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_CHOICE_AND_VALUE = re.compile(
    r"(?:\\(?:text|textbf|textrm|mathrm|mathbf)\s*\{\s*\([A-J]\)\s*\}[\s~]*|\([A-J]\)[\s~]+)(?P<value>.*[\w\\].*)"
)
_SPACING = re.compile(r"\\(?:q?quad\b|[ ,;:!])")
_UNIT_BEHIND = re.compile(r"(?P<number>-?\d[\d,./]*)\s*\([A-Za-z][^()\d]*\)")


class RefusalError(Exception):
    """The record cannot be used; the message says why."""


def answer_text(value: object, name: str) -> str:
    """What the field `name` says, as text. Raises RefusalError."""
    match value:
        case bool() | None:
            pass
        case int():
            return str(value)
        case float() if value.is_integer() and abs(value) < 2**53:
            return str(int(value))
        case float() if math.isfinite(value):
            return repr(value)
        case Decimal() if value.is_finite():
            return _decimal_text(value)
        case str() if value.strip():
            return value.strip()
        case [one] if not isinstance(one, list):
            return answer_text(one, name)
        case list() if value:
            raise RefusalError(
                f"the field {name} is a list of {len(value)}: ask for one value, or give a text like 3, 5."
            )
        case dict() if value:
            # Not the names: they are the file's, and a refusal may be told to those who must not read it.
            raise RefusalError(
                f"the field {name} has fields of its own: name the one that is meant, as {name}.FIELD."
            )
    raise RefusalError(f"the field {name} must be a number or a text that is not blank.")


def _decimal_text(value: Decimal) -> str:
    if abs(value.adjusted()) >= PLAIN_DIGITS:
        return str(value)
    return str(int(value)) if value == value.to_integral_value() else f"{value:f}"


def reference_in(text: str) -> str:
    """The answer in an answer field: after `#### `, in the box, or the text itself. Raises RefusalError."""
    if "####" in text:
        return _after_marker(text)
    if held := [each for each in boxed(text) if each]:
        return _one_of(held)
    if len(text.splitlines()) > 1:
        raise RefusalError(
            r"the answer has more than one line, and no answer after '####' or in \boxed{}. Where the last line is the answer, "
            "let the field hold that alone."
        )
    return without_choice(text)


def reference_of_solution(solution: str) -> str:
    """The answer of a worked solution: after `#### ` or in the box. Raises RefusalError where it has neither."""
    if "####" in solution:
        return _after_marker(solution)
    held = [each for each in boxed(solution) if each]
    if not held:
        raise RefusalError(r"no answer in \boxed{} in the solution.")
    return _one_of(held)


def without_unit(answer: str) -> str:
    """ASDiv's `9 (pens)` as 9; any other answer as it is."""
    found = _UNIT_BEHIND.fullmatch(answer)
    return found["number"] if found else answer


def without_choice(answer: str) -> str:
    r"""`\textbf{(B)}\ 5` as 5: which choice it was says nothing where the choices are not asked for."""
    if len(answer) > MAX_ANSWER_CHARS:
        # It is refused later; the pattern takes time that grows with its square.
        return answer
    found = _CHOICE_AND_VALUE.fullmatch(_SPACING.sub(" ", answer).strip())
    return found["value"] if found else answer


def _after_marker(worked: str) -> str:
    answer = worked.rpartition("####")[2].strip()
    if not answer:
        raise RefusalError("no answer after '####'.")
    held = [each for each in boxed(answer) if each]
    return _one_of(held) if held else _THOUSANDS.sub("", answer)


def _one_of(held: list[str]) -> str:
    answers = {key_of(read(answer)): answer for answer in map(_unboxed, held)}
    if len(answers) > 1:
        raise RefusalError(
            rf"{len(answers)} different answers in \boxed{{}} in the solution: name the right one in the field answer."
        )
    return without_choice(next(iter(answers.values())))


def _unboxed(answer: str) -> str:
    """The inside of a box in a box."""
    inner = boxed(answer)
    whole = len(inner) == 1 and re.fullmatch(rf"\\(?:boxed|fbox)\s*\{{\s*{re.escape(inner[0])}\s*\}}", answer)
    return inner[0] if whole and inner[0] else answer


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
