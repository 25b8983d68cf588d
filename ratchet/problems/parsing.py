"""The process that parses answers: a JSON string a line on stdin, `true` or `false` a line on stdout.

Calculator notation (`2*x**2`, `sqrt(2)/2`) is read as a syntax tree and never computed; LaTeX goes to math-verify. Time is
bounded by the parent, memory here. The first line, `ready`, says that the imports are done.

Limits: math-verify's own. Text with words must have been refused before: it would pick out a part that it likes.
"""

import ast
import json
import re
import resource
import sys

from math_verify import (  # type: ignore[import-untyped,unused-ignore]
    LatexExtractionConfig,
    parse,
)

from ratchet.problems.verifiable import FUNCTIONS

MEMORY_BYTES = 2**30

_WRAPPERS = (re.compile(r"\\boxed\{(.*)\}"), re.compile(r"\\\((.*)\\\)"), re.compile(r"[A-Za-z]\s*=([^=]*)"))
_PLAIN = re.compile(r"[0-9A-Za-z+\-*/^(). !]+")
_SYNTAX = (ast.Expression, ast.BinOp, ast.UnaryOp, ast.Constant, ast.Name, ast.Call, ast.expr_context)


def parses(text: str) -> bool:
    """Whether the whole of an answer is one expression, tuple, set, interval or list of values."""
    plain = text.strip().strip("$").strip()
    for wrapper in _WRAPPERS:
        if match := wrapper.fullmatch(plain):
            plain = match[1].strip()
    return _is_calculation(plain) if _PLAIN.fullmatch(plain) else _is_latex(plain)


def _is_calculation(text: str) -> bool:
    if any(word not in FUNCTIONS for word in re.findall(r"[A-Za-z]{2,}", text)):
        return False
    # 2x and 3(x + 1) are products; a factorial is what stands before it.
    python = re.sub(r"(?<=[\d)])\s*(?=[A-Za-z(])", "*", text.replace("^", "**").replace("!", ""))
    try:
        tree = ast.parse(python.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    nodes = list(ast.walk(tree))
    return all(isinstance(node, (*_SYNTAX, ast.operator, ast.unaryop)) for node in nodes) and not any(
        isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and _is_zero(node.right)
        for node in nodes
    )


def _is_zero(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value == 0


def _is_latex(text: str) -> bool:
    if "$" in text:
        return False
    whole = text.replace("∞", r"\infty ").replace("π", r"\pi ").replace("**", "^")
    if "," in whole and not re.search(r"[()\[\]{}]", whole):
        # A bare list is a set of values; math-verify would read a decimal comma.
        whole = rf"\{{{whole}\}}"
    found = parse(
        f"${whole}$",
        extraction_config=[LatexExtractionConfig()],
        fallback_mode="no_fallback",
        parsing_timeout=None,
    )
    return any(not isinstance(expression, str) for expression in found)


def main() -> None:
    """Answer line by line until stdin ends."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    # Nothing that a library prints may be taken for an answer.
    answers, sys.stdout = sys.stdout, sys.stderr
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(parses(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
