"""Can a machine tell whether an answer equals this reference? A number yes, an expression that parses yes, prose no.

Numbers are decided here by a regular expression. Anything else must first look like mathematics (no words, one answer,
one line) and is then parsed by `parsing.py` in a process of its own: parsing can compute, and `9^{9^9}` would not end.
The process gets memory and time limits and is replaced when it overruns them.

Limits: it parses, but is not graded, so that an expression which means something else than its author thought passes.
The process is not a jail: nothing of the text is run as a program there.
"""

import contextlib
import json
import re
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import IO

PARSE_SECONDS = 5.0
START_SECONDS = 60.0
"""Until the first answer: the imports take a second, several on a machine that is busy."""
MAX_DIGITS = 400

_DECIMAL = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+"
_NUMBER = re.compile(
    rf"""
    (?P<sign>[-+]?)\s*[$€£¥]?\s*
    (?:(?P<whole>\d+)\s+(?=\d+\s*/))?               # the 1 of 1 1/2
    (?P<value>{_DECIMAL})
    (?:[eE](?P<exponent>[-+]?\d{{1,3}}))?
    (?:\s*/\s*(?P<under>{_DECIMAL}))?
    (?:\s*%|\s+(?P<unit>[A-Za-z]{{2,}}(?:\s[A-Za-z]+)?))?
    """,
    re.VERBOSE | re.ASCII,
)
# Words after a number that make it something else than that many of a thing.
_NOT_UNITS = frozenset(
    (
        *("and", "or", "to", "of", "by", "over", "times", "plus", "minus", "pi", "sqrt", "root", "squared"),
        *("cubed", "half", "halves", "third", "thirds", "quarter", "quarters", "tenth", "tenths", "dozen"),
        *(
            "mod",
            "choose",
            "factorial",
            "if",
            "when",
            "for",
            "is",
            "not",
            "less",
            "more",
            "than",
            "at",
            "least",
            "most",
        ),
    )
)
_SPELLINGS = (("−", "-"), ("\\$", "$"), ("\\%", "%"), ("\\,", ""), ("\\!", ""), ("{,}", ","))
_FRACTION = re.compile(r"\\[dt]?frac\{(\d+)\}\{(\d+)\}")
_TEXT = re.compile(r"\\(?:text|mathrm|textrm|mbox)\s*\{([^{}]*)\}")

_SEVERAL = re.compile(r";|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])")
_NOT_PROSE = re.compile(r"\\(?:begin|end)\{[a-z]*matrix\}|\\[A-Za-z]+")
_WORD = re.compile(r"[A-Za-z]{2,}")
FUNCTIONS = frozenset(
    "sqrt exp log ln sin cos tan asin acos atan abs factorial pi oo inf".split()  # noqa: SIM905
)
"""Names that calculator notation may use."""
# Two letters may be a product, `ab`, but not these.
_SHORT_WORDS = frozenset("is to of at by no so if in on an am pm cm mm km kg mg ml ft lb oz hr".split())  # noqa: SIM905


def number(text: str) -> Fraction | None:
    """The one number that the text is, its percent sign and unit left aside; None where it is anything else."""
    plain = _plain(text)
    match = _NUMBER.fullmatch(plain)
    if match is None or sum(char.isdigit() for char in plain) > MAX_DIGITS:
        return None
    if match["unit"] and _NOT_UNITS & set(match["unit"].lower().split()):
        return None
    value = _decimal(match["value"]) * Fraction(10) ** int(match["exponent"] or 0)
    if match["under"]:
        under = _decimal(match["under"])
        if under == 0:
            return None
        value /= under
    value += int(match["whole"] or 0)
    return -value if match["sign"] == "-" else value


def refusals(answers: Iterable[str]) -> dict[str, str]:
    """Why answers cannot be checked by a machine, by answer; those that can are not in it."""
    refused: dict[str, str] = {}
    expressions: list[str] = []
    for answer in dict.fromkeys(answers):
        if number(answer) is not None:
            continue
        if reason := _not_mathematics(answer):
            refused[answer] = reason
        else:
            expressions.append(answer)
    for answer, parsed in zip(expressions, _parse(expressions), strict=True):
        if parsed is None:
            refused[answer] = f"parsing the answer took more than {PARSE_SECONDS:g} s or too much memory."
        elif not parsed:
            refused[answer] = "the answer is neither a number nor an expression that parses."
    return refused


def _decimal(text: str) -> Fraction:
    return Fraction(text.replace(",", "").rstrip(".") or 0)


def _plain(text: str) -> str:
    """The text of an answer in one spelling, without LaTeX around it and without a full stop."""
    plain = text.strip()
    for before, after in _SPELLINGS:
        plain = plain.replace(before, after)
    plain = _FRACTION.sub(r" \1/\2", _TEXT.sub(r" \1 ", plain)).strip()
    plain = re.sub(r"^([-+])\s+", r"\1", plain)
    for before, after in (("\\(", "\\)"), ("$", "$")):
        if len(plain) > 2 and plain.startswith(before) and plain.endswith(after):
            plain = plain.removeprefix(before).removesuffix(after).strip()
    # The full stop of a sentence: "12 apples."
    return plain.removesuffix(".")


def _not_mathematics(answer: str) -> str | None:
    """Why a text need not be parsed, or None."""
    text = answer.strip()
    if not text:
        return "the answer is empty."
    if len(text.splitlines()) > 1:
        return "the answer has more than one line."
    if _SEVERAL.search(_TEXT.sub(r" \1 ", text)):
        return "several answers in one: ask for one value, or give a list like 3, 5 if their order does not matter."
    words = {
        word
        for word in _WORD.findall(_NOT_PROSE.sub(" ", text))
        if word not in FUNCTIONS and (len(word) > 2 or word.lower() in _SHORT_WORDS)
    }
    if words or _TEXT.search(text) or text.lower() in ("n/a", "?"):
        return "the answer is free text, which no program can check: give a number or an expression."
    return None


def _parse(texts: Sequence[str]) -> Iterator[bool | None]:
    """Whether each text parses; None where the process ended or was ended over it."""
    done = 0
    while done < len(texts):
        for answer in _batch(texts[done:]):
            yield answer
            done += 1


def _batch(texts: Sequence[str]) -> Iterator[bool | None]:
    """The answers of one process, up to the first text that it does not survive, for which None is given."""
    command = [sys.executable, "-m", "ratchet.problems.parsing"]
    with tempfile.TemporaryFile() as questions:
        # A file, not a pipe: neither side ever waits for the other to read.
        questions.write("".join(json.dumps(text) + "\n" for text in texts).encode())
        questions.seek(0)
        process = subprocess.Popen(
            command, stdin=questions, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        )
    assert process.stdout is not None
    try:
        if _line(process.stdout, START_SECONDS) != b"ready\n":
            raise RuntimeError(f"the process that parses answers did not start: {' '.join(command)}")
        for _ in texts:
            line = _line(process.stdout, PARSE_SECONDS)
            if line not in (b"true\n", b"false\n"):
                yield None
                return
            yield line == b"true\n"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
        process.stdout.close()


def _line(stream: IO[bytes], seconds: float) -> bytes | None:
    ready, _, _ = select.select([stream], [], [], seconds)
    return stream.readline() if ready else None
