"""Text from the code as Markdown: cells of tables, and what must not be read as markup."""

from collections.abc import Iterable, Sequence


def cell(text: str) -> str:
    """One line that stands in a cell and is read as Markdown. A bar within backticks ends no cell, others are written out."""
    return prose(" ".join(text.split()), bar="&#124;")


def prose(text: str, bar: str = "|") -> str:
    """Text as a docstring has it: nothing in it is HTML, and what stands in backticks is code."""
    parts = text.split("`")
    parts[::2] = [part.replace("&", "&amp;").replace("<", "&lt;").replace("|", bar) for part in parts[::2]]
    return "`".join(parts)


def code(text: str) -> str:
    """Text as code within a line."""
    return f"`{text}`"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; its cells are Markdown already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
