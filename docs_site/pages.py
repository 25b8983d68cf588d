"""The committed pages, laid out for the site: each document at its place, and links that leave the site made plain.

Limits: a link is `[text](target)` outside of code; reference-style links are not rewritten.
"""

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from docs_site import ROOT

BESIDE = {
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/reporting.md",
    "docs_site/README.md": "project/site.md",
    "models/nano/README.md": "project/nano.md",
    ".env.example": "reference/env.example.txt",
}
"""Files outside of docs/ that the site has too, and where."""

FOLDERS = {"docs": "", "benchmarks/results": "measurements/results"}
"""Folders whose files all are on the site, and where."""

_FENCE = re.compile(r"^ {0,3}(```+|~~~+)")
_LINK = re.compile(
    r"`+[^`]*`+|(?P<bang>!?)\[(?P<text>[^\]\n]*)\]\((?P<target>(?!https?:|mailto:|#)[^)\s#]+)(?P<anchor>#[^)\s]*)?\)"
)
"""Code, which is left alone, or a link to a file."""


def site_files(root: Path = ROOT) -> dict[str, str]:
    """Where each file of the checkout that the site has lies there; both paths are relative."""
    placed = dict(BESIDE)
    for folder, place in FOLDERS.items():
        for file in sorted((root / folder).rglob("*")):
            if file.is_file():
                placed[str(file.relative_to(root))] = str(Path(place) / file.relative_to(root / folder))
    return placed


def lay_out(target: Path, root: Path = ROOT) -> None:
    """Write the committed pages and what they show into `target`."""
    placed = site_files(root)
    for source, place in placed.items():
        file = target / place
        file.parent.mkdir(parents=True, exist_ok=True)
        if source.endswith(".md"):
            text = rewritten((root / source).read_text(), source, placed)
            if not file.exists() or file.read_text() != text:
                file.write_text(text)
        else:
            shutil.copyfile(root / source, file)


def rewritten(text: str, source: str, placed: Mapping[str, str]) -> str:
    """A document's text with its links as they are on the site. `source` is its path in the checkout.

    A link to a file that the site does not have becomes the file's path: the reader has it in the checkout.
    """

    def link(found: re.Match[str]) -> str:
        if found["target"] is None:
            return found[0]
        path = os.path.normpath(Path(source).parent / found["target"])
        if path in placed:
            target = os.path.relpath(placed[path], Path(placed[source]).parent)
            return f"{found['bang']}[{found['text']}]({target}{found['anchor'] or ''})"
        label = found["text"]
        return f"`{path}`" if label.strip("`") == path else f"{label} (`{path}`)"

    return "\n".join(line if code else _LINK.sub(link, line) for line, code in lines_with_code(text))


def lines_with_code(text: str) -> Iterator[tuple[str, bool]]:
    """Each line, and whether it stands in a fenced block."""
    fence = ""
    for line in text.split("\n"):
        found = _FENCE.match(line)
        if found and not fence:
            fence = found[1]
            yield line, True
        elif fence:
            yield line, True
            if found and line.strip().startswith(fence) and not line.strip().strip(fence[0]):
                fence = ""
        else:
            yield line, False
