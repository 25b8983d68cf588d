"""One spelling for the signs and the markup of an answer, before it is read. Regular expressions of bounded work."""

import re

from ratchet.notation.words import UNITS

CURRENCY = "¤"
"""Stands for an escaped dollar, which is always money: `$18$` is mathematics."""

_SIGNS = str.maketrans(
    {
        **dict.fromkeys("−–—‐‑‒﹣－", "-"),
        **dict.fromkeys("×·⋅∗✕", "*"),
        **{"÷": "/", "∕": "/", "⁄": "/", "√": "\\sqrt ", "π": "\\pi ", "∞": "\\infty ", "≤": "<=", "≥": ">="},
        **{
            "⩽": "<=",
            "⩾": ">=",
            "≠": "!=",
            "≈": "=",
            "±": "\\pm ",
            "∓": "\\mp ",
            "∪": "\\cup ",
            "∩": "\\cap ",
        },
        **{
            "∈": "\\in ",
            "∅": "\\emptyset ",
            "ℝ": "\\mathbb{R}",
            "º": "°",
            "％": "%",
            "∶": ":",
            "∧": "&",
            "∨": "|",
        },
        **{"½": " 1/2", "⅓": " 1/3", "⅔": " 2/3", "¼": " 1/4", "¾": " 3/4", "⅕": " 1/5", "⅛": " 1/8"},
        **dict.fromkeys("\u00a0\u2002\u2003\u2007\u2009\u200a\u202f\u3000\n\t\r", " "),
        **dict.fromkeys("\u200b\u2060\ufeff", ""),
        **dict.fromkeys('‘’“”`"', "'"),
        **dict(
            zip(
                "αβγδεζηθλμνξρστφχψω",
                map(
                    "\\{} ".format,
                    (
                        "alpha beta gamma delta epsilon zeta eta theta lambda mu nu xi rho sigma tau phi chi psi omega".split()  # noqa: SIM905
                    ),
                ),
                strict=True,
            )
        ),
    }
)
_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+", strict=True))
_SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True))

_RAISED = re.compile(f"[{''.join(_SUPERSCRIPTS)}]+")
_LOWERED = re.compile(f"[{''.join(_SUBSCRIPTS)}]+")
_TEXT = re.compile(
    r"\\(?:text(?:rm|bf|it|normal|tt|sf)?|math(?:rm|bf|it|sf|tt)|mbox|hbox|operatorname|bm|boldsymbol)\s*\{([^{}]*)\}"
)
_TEXT_UNIT = re.compile(r"(?<=[\w})\]])\s*\\(?:text|mathrm|mbox)\s*\{[\s~]*([mgshlL])\s*\}")
_REPLACEMENTS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # Thousands in TeX: 10,\!080, 10{,}080, 10\,080.
        (r"(?<=\d)(?:\{,\}|,\s*\\!)\s*(?=\d{3}(?!\d))", ""),
        (r"(?<=\d)(?:\\,|\\ |~|\\;)(?=\d{3}(?!\d))", ""),
        (r"(?<!\\)\\!", ""),
        (r"\\(?:left|right|[bB]igg?[lrm]?)(?![A-Za-z])\s*\.?", " "),
        (
            r"\\(?:displaystyle|textstyle|limits|nolimits|quad|qquad|hfill|triangle|angle|measuredangle)(?![A-Za-z])",
            " ",
        ),
        (r"\\(?:h|v)?phantom\s*(?:\{[^{}]*\}|-)", ""),
        (r"\\(?:label|tag)\s*\{[^{}]*\}", ""),
        (r"(?<!\\)\\[,;: >]|~", " "),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\[dt]binom(?![A-Za-z])", r"\\binom"),
        (r"\^\s*\{?\s*\\(?:circ|degree)(?![A-Za-z])\s*\}?|\\degree(?![A-Za-z])", "°"),
        (r"(?<!\\)\\%", "%"),
        (r"(?<!\\)\\[#&]", " "),
        (r"\\(?:lvert|rvert|vert|mid)(?![A-Za-z])", "|"),
        (r"\\pounds(?![A-Za-z])", "£"),
        (r"\\euro(?![A-Za-z])(?:\{\})?", "€"),
        (r"\\(?:cent|textcent)(?![A-Za-z])", " cents "),
        (r"US\$", "$"),
        (r"\\mathbb\s*\{?\s*([A-Z])\s*\}?", r"\\mathbb\1 "),
        (r"\b([AaPp])\.\s?[Mm]\b\.?", r"\1m"),
        (r"(?<=[A-Za-z])\.(?=\s)", ""),
        # A set by its condition: {x | x > 3}.
        (r"\\\{\s*[A-Za-z]\s*(?:\\in\s*\\mathbbR\s*)?(?:\||:)([^|:{}]*)\\\}", r"(\1)"),
        # What Python's and numpy's own forms say about types.
        (r"\b(?:np|numpy|sympy|sp|math|cmath|mpmath|mp|S|fractions|decimal)\.(?=[A-Za-z])", ""),
        (r"\bGoldenRatio\b", "((1+sqrt(5))/2)"),
        (r"\bdict_(?:values|keys)\(", "list("),
        (r"\bmpc\(real='?([^',()]+)'?,\s*imag='?([^',()]+)'?\)", r"(\1+(\2)*i)"),
        (r"(?<=[)\]])\s*U\s*(?=[(\[])", r" \\cup "),
        (r"\b(?:float|u?int|complex|longdouble)(?:8|16|32|64|128|256)\s*\(", "Float("),
        (r"\bInterval\.(open|Lopen|Ropen)\b", r"Interval\1"),
        (r",\s*(?:dtype|domain|precision|evaluate|shape)\s*=\s*'?[\w.]+'?(?=\s*[,)])", ""),
        (r"(?<=\])\s+(?=\[)", ","),
    )
)
_FLOAT = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?"
_NUMPY_ROW = re.compile(rf"\[\s*({_FLOAT}(?:\s+{_FLOAT})+)\s*\]")
_WRAPPERS = tuple(
    re.compile(pattern)
    for pattern in (
        r"\\(?:boxed|fbox)\s*\{(.*)\}",
        r"\\(?:boxed|fbox)\s+(\S+)",
        r"\\\((.*)\\\)",
        r"\\\[(.*)\\\]",
        r"\*\*([^*]+)\*\*",
        r"'([^']*)'",
    )
)
_DOLLARS = re.compile(r"\$([^$]*)\$(?!\s*[\d.])")
"""Mathematics between two dollars; in `$5, $6` the second one belongs to the 6."""


def respell(text: str) -> str:
    """The text in one spelling of its signs, without markup around it."""
    plain = text.strip().translate(_SIGNS)
    plain = _RAISED.sub(lambda run: f"^{{{''.join(map(_SUPERSCRIPTS.__getitem__, run[0]))}}}", plain)
    plain = _LOWERED.sub(lambda run: f"_{{{''.join(map(_SUBSCRIPTS.__getitem__, run[0]))}}}", plain)
    plain = plain.replace("\\$", CURRENCY)
    before = None
    while plain != before:
        before = plain
        plain = _unwrap(plain)
    plain = re.sub(r"^\s*=|^\s*\\(?:approx|sim|simeq|therefore)(?![A-Za-z])", "", plain)
    for pattern, replacement in _REPLACEMENTS:
        plain = pattern.sub(replacement, plain)
    plain = re.sub(r"'([^']*)'", r" \1 ", plain)
    plain = _NUMPY_ROW.sub(lambda row: f"[{','.join(row[1].split())}]", plain).strip()
    # The full stop of a sentence: "12 apples."
    return plain.removesuffix(".") if not plain.endswith("..") else plain


def _unwrap(text: str) -> str:
    plain = _TEXT_UNIT.sub(lambda unit: f" {UNITS[unit[1]]} ", text)
    plain = _TEXT.sub(r" \1 ", plain).strip()
    plain = _DOLLARS.sub(r" \1 ", plain.replace("$$", "$")).strip()
    plain = re.sub(r"\$(?=\s*[-+]?\s*[\d.])", CURRENCY, plain)
    for wrapper in _WRAPPERS:
        match = wrapper.fullmatch(plain)
        if match and _balanced(match[1]):
            plain = match[1].strip()
    return plain


def _balanced(text: str) -> bool:
    """Whether no brace closes that was not opened: `a}+{b` was not wrapped as a whole."""
    depth = 0
    for sign in text:
        depth += {"{": 1, "}": -1}.get(sign, 0)
        if depth < 0:
            return False
    return depth == 0
