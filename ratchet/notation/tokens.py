"""An answer's text as tokens.

Limits: 2,000 tokens, 400 digits a number. A letter run that is no known name is a word, or, of two letters, a product.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from ratchet.notation import words
from ratchet.notation.spelling import CURRENCY

MAX_DIGITS = 400


class NotationError(ValueError):
    """The text is no answer in this syntax."""


@dataclass(frozen=True)
class Token:
    """One token."""

    kind: str
    """number, imaginary, based, symbol, constant, function, word, command, or the sign itself."""
    text: str
    spaced: bool
    """Whether a blank stands before it."""
    value: Fraction = Fraction(0)
    place: Fraction | None = None


_NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,3}(?!\d))?"
_TOKEN = re.compile(
    rf"""
    (?P<space>\s+)
    |(?P<based>0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO][0-7]+)(?!\w)
    |(?P<repeating>\d*\.\d*\\(?:overline|bar|dot)\s*(?:\{{\s*\d+\s*\}}|\d))
    |(?P<thousands>[1-9]\d{{0,2}}(?:,\d{{3}})+(?!\d|,\d)(?:\.\d*)?)
    |(?P<imaginary>{_NUMBER}[jJ])(?![A-Za-z])
    |(?P<number>{_NUMBER})
    |(?P<command>\\(?:[A-Za-z]+|[{{}}|\\]))
    |(?P<letters>[A-Za-z]+)
    |(?P<sign>\*\*|<=|>=|==|!=|[-+*/^()\[\]{{}}|,;:=<>!%°&_$€£¥₹¤¢])
    """,
    re.VERBOSE | re.ASCII,
)
_OPENING, _CLOSING = frozenset("([{"), frozenset(")]}")
_PREFIXES = {"x": 16, "b": 2, "o": 8}


def tokenize(text: str) -> list[Token]:
    """The tokens of a respelt text. Raises NotationError."""
    tokens: list[Token] = []
    position, depth, spaced = 0, 0, False
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is not None and match.lastgroup == "thousands" and depth:
            # Between brackets a comma parts members.
            match = re.compile(r"(?P<number>\d+)").match(text, position)
        if match is None or match.lastgroup is None:
            raise NotationError(f"unknown sign: {text[position]!a}")
        position = match.end()
        kind, token = match.lastgroup, match[0]
        if kind == "space":
            spaced = True
            continue
        depth += (token in _OPENING) - (token in _CLOSING)
        if kind == "letters":
            position = _add_letters(tokens, token, spaced, text, position)
        else:
            tokens.append(_token(kind, token, spaced))
        spaced = False
    return tokens


def _token(kind: str, text: str, spaced: bool) -> Token:
    match kind:
        case "number" | "thousands":
            return Token("number", text, spaced, *_decimal(text.replace(",", "")))
        case "imaginary":
            return Token("imaginary", text, spaced, *_decimal(text[:-1]))
        case "repeating":
            return Token("number", text, spaced, _repeating(text))
        case "based":
            return Token("based", f"{_PREFIXES[text[1].lower()]} {text[2:].upper()}", spaced)
        case "command":
            return _command(text[1:], spaced)
    same = {"**": "^", "==": "=", CURRENCY: "$"}
    return Token(same.get(text, text), text, spaced)


def _decimal(text: str) -> tuple[Fraction, Fraction | None]:
    """The value, and the last place of what is no integer as written."""
    mantissa, _, exponent = text.lower().partition("e")
    if sum(map(len, mantissa.split("."))) > MAX_DIGITS:
        raise NotationError("too many digits")
    whole, point, digits = mantissa.partition(".")
    value = Fraction(f"{whole or 0}.{digits or 0}") * Fraction(10) ** int(exponent or 0)
    if not point and not exponent:
        return value, None
    return value, Fraction(10) ** (int(exponent or 0) - len(digits))


def _repeating(text: str) -> Fraction:
    """0.1\\overline{6} is exactly 1/6."""
    start, run = re.split(r"\\[a-z]+", text)
    digits = re.sub(r"\D", "", run)
    if len(text) > MAX_DIGITS:
        raise NotationError("too many digits")
    value, place = _decimal(start)
    return value + Fraction(int(digits), 10 ** len(digits) - 1) * (place or 1)


def _command(name: str, spaced: bool) -> Token:
    if name in words.FUNCTIONS:
        return Token("function", name, spaced)
    if name in words.CONSTANTS:
        return Token("constant", words.CONSTANTS[name], spaced)
    if name in words.GREEK:
        return Token("symbol", "lambda" if name == "lamda" else name, spaced)
    return Token("command", name, spaced)


def _add_letters(tokens: list[Token], run: str, spaced: bool, text: str, position: int) -> int:
    """The tokens of a run of letters that ends at a position. Returns where the next token begins."""
    following = re.compile(r"\d+").match(text, position)
    if run == "percent":
        tokens.append(Token("%", run, spaced))
    elif run in words.CONSTANTS and not (following and len(run) == 1):
        tokens.append(Token("constant", words.CONSTANTS[run], spaced))
    elif run in words.GREEK:
        tokens.append(Token("symbol", "lambda" if run == "lamda" else run, spaced))
    elif run in words.PREFIX_FUNCTIONS or (run in words.CALLABLE and _is_called(text, position)):
        tokens.append(Token("function", run, spaced))
    elif run in words.EMPTY_SETS or run == "Reals":
        tokens.append(Token("command", run, spaced))
    elif len(run) == 1 and following:
        # x1 is a name, as x_1 is.
        tokens.append(Token("symbol", f"{run}{following[0]}", spaced))
        return following.end()
    elif len(run) == 1:
        tokens.append(Token("symbol", run, spaced))
    elif len(run) == 2 and run.lower() not in words.TWO_LETTER_WORDS:
        tokens += [_letter(run[0], spaced), _letter(run[1], False)]
    else:
        tokens.append(Token("word", run, spaced))
    return position


def _is_called(text: str, position: int) -> bool:
    return text[position:].lstrip().startswith("(")


def _letter(letter: str, spaced: bool) -> Token:
    constant = words.CONSTANTS.get(letter)
    return Token("constant", constant, spaced) if constant else Token("symbol", letter, spaced)
