"""The code in a text that talks about it: models that chat put it into fences (CommonMark 0.31, section 4.5).

Limits: a fence that is a line of a multi-line string is taken for one.
"""

import ast
import re

_FENCE = re.compile(r"^[ \t]*(?:```|~~~)[ \t]*([A-Za-z0-9_+-]*)[ \t]*$", re.MULTILINE)


def fenced_code(text: str) -> str:
    """What stands in the text's fences, one after another; the text itself where code comes first, or no fence opens.

    A fence that names a language opens; one that does not opens only where another one follows. Never raises.
    """
    fences = list(_FENCE.finditer(text))
    if not fences or not (fences[0][1] or len(fences) > 1) or _is_program(text[: fences[0].start()]):
        return text
    blocks: list[str] = []
    start: int | None = None
    for fence in fences:
        if fence[1] or start is None:
            start = fence.end() + 1
        else:
            blocks.append(text[start : fence.start()])
            start = None
    if start is not None:
        blocks.append(text[start:])
    return "\n".join(block.strip("\n") for block in blocks)


def _is_program(text: str) -> bool:
    """Whether this does something when it is run; a word alone is a name, but no program."""
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return any(not isinstance(each, ast.Expr) or isinstance(each.value, ast.Call) for each in body)
