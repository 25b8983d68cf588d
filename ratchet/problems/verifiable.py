"""Can a machine tell whether an answer equals this reference? A number yes, an expression that parses yes, prose no.

The syntax is that of the grader and the votes, `ratchet.notation`. Nothing is computed: `9^{9^9}` is an answer.

Limits: it parses, but is not graded, so that an expression which means something else than its author thought passes.
"""

import re
from collections.abc import Iterable

from ratchet.notation.reading import parse
from ratchet.notation.tokens import NotationError
from ratchet.notation.words import CALLABLE, TWO_LETTER_WORDS

_TEXT = re.compile(r"\\(?:text|mathrm|textrm|mbox)\s*\{([^{}]*)\}")
_SEVERAL = re.compile(r";|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])")
_CODE = re.compile(r"\b(?:np|numpy|math|sympy|scipy)\.")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_WORD = re.compile(r"[A-Za-z]{2,}")


def refusals(answers: Iterable[str]) -> dict[str, str]:
    """Why answers cannot be checked by a machine, by answer; those that can are not in it."""
    reasons = {answer: why_refused(answer) for answer in dict.fromkeys(answers)}
    return {answer: reason for answer, reason in reasons.items() if reason is not None}


def why_refused(answer: str) -> str | None:
    """Why a machine cannot check an answer, or None where it can."""
    text = answer.strip()
    if not text:
        return "the answer is empty."
    if len(text.splitlines()) > 1:
        return "the answer has more than one line."
    if _SEVERAL.search(_TEXT.sub(r" \1 ", text)):
        return "several answers in one: ask for one value, or give a list like 3, 5 if their order does not matter."
    prose = "the answer is free text, which no program can check: give a number or an expression."
    if _CODE.search(text) or text.lower() in ("n/a", "?"):
        return prose
    try:
        node = parse(text)
    except NotationError:
        return prose if _has_words(text) else "the answer is neither a number nor an expression that parses."
    return prose if any(each.kind == "words" for each in node.walk()) else None


def _has_words(text: str) -> bool:
    words = _WORD.findall(_COMMAND.sub(" ", _TEXT.sub(r" \1 ", text)))
    return any(word not in CALLABLE and (len(word) > 2 or word.lower() in TWO_LETTER_WORDS) for word in words)
