"""Inside the grading jail: parse an answer with math-verify, and compare two parsed answers.

The two sides never meet as text. Each is parsed in a process of its own (`parse`), which hands back the expression in
a restricted form: nested calls of listed sympy constructors on numbers and names. A third process (`verify`) rebuilds
both from that form, without evaluating any text, and compares them.

Limits: math-verify's own; what cannot be written in the restricted form does not parse. Time and memory are bounded
from outside.
"""

import ast
import json
import re
from fractions import Fraction
from tokenize import TokenError
from typing import Any

import sympy  # type: ignore[import-untyped,unused-ignore]
from math_verify import (  # type: ignore[import-untyped,unused-ignore]
    LatexExtractionConfig,
    parse,
    verify,
)
from sympy.parsing.sympy_parser import (  # type: ignore[import-untyped,unused-ignore]
    convert_xor,
    implicit_multiplication,
    parse_expr,
    standard_transformations,
)

# The constructors that a parsed answer may name. Nothing here does anything but build an expression.
CONSTRUCTORS = frozenset(
    """
    Integer Rational Add Mul Pow Tuple Abs sqrt exp log sin cos tan cot sec csc asin acos atan acot
    sinh cosh tanh asinh acosh atanh factorial binomial floor ceiling Min Max Mod re im conjugate sign
    Equality Unequality StrictLessThan LessThan StrictGreaterThan GreaterThan Eq Ne Lt Le Gt Ge And Or Not
    FiniteSet Interval Union Intersection Complement ProductSet EmptySet
    ImmutableDenseMatrix MutableDenseMatrix Matrix UnevaluatedExpr Half Zero One NegativeOne
    """.split()  # noqa: SIM905 - a list of words reads better as words
)
CONSTANTS = frozenset(
    "pi E I oo zoo nan true false GoldenRatio Integers Reals Naturals Naturals0 Rationals Complexes EmptySet".split()  # noqa: SIM905 - a list of words reads better as words
)
# Those that take a text: a name, and the digits of a number. Many others would evaluate one.
TEXT_CONSTRUCTORS = {
    "Symbol": re.compile(r".+", re.DOTALL),
    "Float": re.compile(r"[-+]?[\d.]+(?:e[-+]?\d+)?"),
}
MAX_FORM_CHARS = 20_000
RELATIVE, ABSOLUTE = Fraction(1, 10**6), Fraction(1, 10**12)


class RestrictedFormError(ValueError):
    """The text is not an expression in the restricted form."""


def rebuild(form: str) -> Any:
    """The sympy object that a restricted form describes. Raises RestrictedFormError; evaluates no text."""
    if len(form) > MAX_FORM_CHARS:
        raise RestrictedFormError("too long")
    try:
        tree = ast.parse(form, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise RestrictedFormError("not an expression") from error
    # Nothing is simplified or computed before both sides stand: 9**9**9 stays a tree.
    with sympy.evaluate(False):
        return _rebuild(tree.body)


def _rebuild(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=int()):
            return node.value
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_rebuild(operand)
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_rebuild(item) for item in items]
        case ast.Attribute(value=ast.Name(id="S"), attr=name) | ast.Name(id=name) if name in CONSTANTS:
            return getattr(sympy.S, name, None) or getattr(sympy, name)
        case ast.Call(func=ast.Name(id=name), args=[ast.Constant(value=str(text))], keywords=keywords) if (
            name in TEXT_CONSTRUCTORS and TEXT_CONSTRUCTORS[name].fullmatch(text)
        ):
            return getattr(sympy, name)(text, **_options(keywords))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in CONSTRUCTORS:
            return getattr(sympy, name)(*[_rebuild(argument) for argument in arguments])
        case _:
            raise RestrictedFormError(ast.unparse(node)[:80])


def _options(keywords: list[ast.keyword]) -> dict[str, int]:
    """What a symbol is assumed to be, or the precision of a number."""
    options: dict[str, int] = {}
    for keyword in keywords:
        match keyword:
            case ast.keyword(arg=str(name), value=ast.Constant(value=int(value))):
                options[name] = value
            case _:
                raise RestrictedFormError(ast.unparse(keyword)[:80])
    return options


def parse_answer(text: str) -> dict[str, str] | None:
    """Parse an answer into its restricted form and what sympy prints; None if it is not one expression as a whole."""
    plain = text.strip().strip("$").strip()
    for wrapper in _WRAPPERS:
        if match := wrapper.fullmatch(plain):
            plain = match[1].strip()
    expression = _parse_plain(plain) if _PLAIN.fullmatch(plain) else _parse_latex(plain)
    if expression is None:
        return None
    form = sympy.srepr(expression)
    try:
        rebuild(form)
    except (RestrictedFormError, TypeError, ValueError, AttributeError):
        return None
    return {"form": form, "shown": str(expression)[:500]}


_WRAPPERS = (re.compile(r"\\boxed\{(.*)\}"), re.compile(r"\\\((.*)\\\)"), re.compile(r"[A-Za-z]\s*=([^=]*)"))
_PLAIN = re.compile(r"[0-9A-Za-z+\-*/^(). !]+")
_WORD = re.compile(r"[A-Za-z]{2,}")
_PLAIN_NAMES = {
    **{
        name: getattr(sympy, name)
        for name in ("sqrt", "exp", "log", "sin", "cos", "tan", "asin", "acos", "atan")
    },
    **{"ln": sympy.log, "abs": sympy.Abs, "pi": sympy.pi, "oo": sympy.oo, "inf": sympy.oo, "e": sympy.E},
    **{"i": sympy.I, "factorial": sympy.factorial},
}
_TRANSFORMATIONS = (
    *standard_transformations,
    *(convert_xor, implicit_multiplication),
)


def _parse_plain(text: str) -> Any:
    """An expression in calculator notation: `2*x^2`, `sqrt(2)/2`, `3 + 4i`, `10!`."""
    # sympy evaluates what it parses as Python: let nothing through but numbers, operators, and names known here.
    if any(word not in _PLAIN_NAMES for word in _WORD.findall(text)) or re.search(r"\.\s*[A-Za-z(]", text):
        return None
    names = dict(_PLAIN_NAMES)
    letters = set(re.findall(r"[A-Za-z]", text)) - {"e", "i"}
    names |= {letter: sympy.Symbol(letter, real=True) for letter in letters}
    try:
        return parse_expr(text, local_dict=names, transformations=_TRANSFORMATIONS, evaluate=False)
    except (SyntaxError, TypeError, ValueError, AttributeError, TokenError):
        return None


_ENVIRONMENT = re.compile(r"\\(?:begin|end)\{[a-z]*matrix\}")
_COMMAND = re.compile(r"\\[A-Za-z]+")
# Two letters may be a product, `ab`, but not these.
_TWO_LETTER_WORDS = frozenset(
    [
        "or",
        "is",
        "to",
        "of",
        "at",
        "by",
        "no",
        "so",
        "if",
        "in",
        "on",
        "an",
        "cm",
        "mm",
        "km",
        "kg",
        "mg",
        "ml",
        "ft",
        "lb",
        "oz",
        "hr",
        "pi",
        "ln",
    ]
)


def _parse_latex(text: str) -> Any:
    """An expression in LaTeX, all of it. Text with words is refused: math-verify would pick a part that it likes."""
    outside = _COMMAND.sub(" ", _ENVIRONMENT.sub(" ", text))
    if "\\text" in text or "\\mathrm" in text or "$" in text:
        return None
    for word in _WORD.findall(outside.replace("oo", "")):
        if len(word) > 2 or word.lower() in _TWO_LETTER_WORDS:
            return None
    whole = (
        re.sub(r"(?<![A-Za-z\\])oo(?![A-Za-z])", r"\\infty ", text)
        .replace("∞", r"\infty ")
        .replace("π", r"\pi ")
    )
    if "," in whole and not re.search(r"[()\[\]{}]", whole):
        # A bare list is a set of values; math-verify would read a decimal comma.
        whole = rf"\{{{whole}\}}"
    found = parse(
        f"${whole}$",
        extraction_config=[LatexExtractionConfig()],
        fallback_mode="no_fallback",
        parsing_timeout=None,
    )
    return next((expression for expression in found if not isinstance(expression, str)), None)


def equal(candidate: Any, reference: Any) -> bool:
    """Whether two sympy objects are the same value. Numbers are compared with the grader's own tolerance."""
    ours, theirs = _number(candidate), _number(reference)
    if ours is not None and theirs is not None:
        difference = abs(ours - theirs)
        return difference <= max(RELATIVE * max(abs(ours), abs(theirs)), ABSOLUTE)
    return bool(verify([reference], [candidate], timeout_seconds=None))


def _number(expression: Any) -> Fraction | None:
    if not isinstance(expression, sympy.Expr) or not expression.is_number:
        return None
    value = expression.evalf(40)
    if not value.is_Float:
        return Fraction(int(value.p), int(value.q)) if value.is_Rational else None
    return Fraction(str(value))


def answer(task: str, text: str) -> str:
    """What the child prints: for `parse` a form or null, for `verify` (a JSON list of two forms) true or false."""
    if task == "parse":
        return json.dumps(parse_answer(text))
    candidate, reference = json.loads(text)
    return json.dumps(equal(rebuild(candidate), rebuild(reference)))
