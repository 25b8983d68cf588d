"""Finds the marks in a document and puts the tables between them."""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from benchmarks.keep import FOLDER, ROOT, Result

MARKED = re.compile(r"<!-- table: (?P<name>[a-z0-9-]+) -->\n.*?<!-- end -->", re.DOTALL)
LONGEST_LINE = 130
"""Of a command."""

Results = Mapping[str, Result]
Rows = Sequence[Sequence[str]]
"""Cells in Markdown; the first row is the head."""


class Below(StrEnum):
    """What stands below a table."""

    SOURCES = "sources"
    """From which files, commits, machines and days its figures are, and the commands."""
    COMMANDS = "commands"
    NOTHING = "nothing"
    """Another table of the page says it, or the table itself."""


@dataclass(frozen=True)
class Table:
    """One table: the results that it shows, and how."""

    results: tuple[str, ...]
    rows: Callable[[Results], Rows]
    below: Below = Below.SOURCES


def documents() -> list[Path]:
    """All documents that may hold tables."""
    return [
        ROOT / "README.md",
        *sorted((ROOT / "docs").rglob("*.md")),
        ROOT / "models" / "nano" / "README.md",
    ]


def table_names(text: str) -> list[str]:
    """The tables that a document asks for, in its order."""
    return [found["name"] for found in MARKED.finditer(text)]


def filled(text: str, tables: Mapping[str, Table], results: Results, folder: Path) -> str:
    """The document, which lies in `folder`, with its tables made anew. Raises KeyError for an unknown table or result."""

    def made(found: re.Match[str]) -> str:
        table = tables[found["name"]]
        used = {name: results[name] for name in table.results}
        parts = [markdown(table.rows(used))]
        if table.below is Below.SOURCES:
            parts += sources(used, folder)
        elif table.below is Below.COMMANDS:
            parts.append(commands(used.values()))
        return f"<!-- table: {found['name']} -->\n" + "\n\n".join(parts) + "\n<!-- end -->"

    return MARKED.sub(made, text)


def markdown(rows: Rows) -> str:
    """A Markdown table."""
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(
        f"| {' | '.join(cells)} |".replace("|  |", "| |").replace("|  |", "| |") for cells in lines
    )


def sources(used: Results, folder: Path) -> Iterable[str]:
    """Paragraphs that say where figures are from: one for each commit, machine and day, with the commands as a block."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for name, result in used.items():
        key = (result.seed, result.commit, result.machine, result.date, result.transcribed)
        groups.setdefault(key, []).append(name)
    for names in groups.values():
        result = used[names[0]]
        links = ", ".join(f"[{name}]({os.path.relpath(FOLDER / f'{name}.json', folder)})" for name in names)
        seed = "" if result.seed is None else f"seed {result.seed}; "
        origin = "; transcribed, the output was not kept" if result.transcribed else ""
        yield f"<sub>{links}: {seed}{result.machine}; {result.date}, commit `{result.commit[:7]}`{origin}.</sub>"
        yield commands(used[name] for name in names)


def commands(results: Iterable[Result]) -> str:
    """The commands as a block of code."""
    return "\n".join(f"    {line}" for result in results for line in wrapped(result.command))


def wrapped(command: str) -> list[str]:
    """A long command as several lines, broken before options."""
    lines = [""]
    for part in re.split(r" (?=--)", command):
        if lines[-1] and len(lines[-1]) + len(part) > LONGEST_LINE:
            lines[-1] += " \\"
            lines.append("  " + part)
        else:
            lines[-1] = f"{lines[-1]} {part}" if lines[-1] else part
    return lines


def percent(share: float) -> str:
    """A share as a figure in percent, without the sign: 0.4275 is 42.75."""
    return f"{100 * share:.5g}"


def interval(edges: Sequence[float], form: str = ".1f", scale: float = 100) -> str:
    """A 95 % interval; by default of a share, in percent."""
    low, high = (f"{scale * edge:{form}}" for edge in edges)
    return f"{low} – {high}"


def with_interval(share: float, edges: Sequence[float] | None) -> str:
    """A share in percent, with its interval where there is one."""
    return percent(share) if edges is None else f"{percent(share)} ({interval(edges)})"
