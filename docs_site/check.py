"""What the built site holds to: each link and anchor leads somewhere, and nothing is loaded from elsewhere.

Zensical checks links between the pages' Markdown; this reads the HTML that readers get, with menus and what templates make.

Limits: what scripts add later is not seen, and links to other sites are not asked for.
"""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADS = {
    "script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src",
}  # fmt: skip
"""Elements that have a browser load something, and the attribute that names it."""

NAMES_ONLY = {"canonical", "prev", "next", "alternate"}
"""Relations of `link` that name an address, which no browser loads."""


@dataclass
class Page(HTMLParser):
    """What one page refers to."""

    loads: set[str] = field(default_factory=set)
    links: set[str] = field(default_factory=set)
    anchors: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take down what the element refers to."""
        given = {name: value for name, value in attrs if value is not None}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.add(given["href"])
        elif tag in LOADS and LOADS[tag] in given and not set(given.get("rel", "").split()) & NAMES_ONLY:
            self.loads.add(given[LOADS[tag]])


def not_in_menu(pages: Path, configuration: Path) -> Iterator[str]:
    """Pages that the menu lacks, and entries of the menu without a page, one line each."""

    def entries(item: object) -> Iterator[str]:
        match item:
            case str():
                yield item
            case list():
                for each in item:
                    yield from entries(each)
            case dict():
                yield from entries(list(item.values()))

    listed = set(entries(tomllib.loads(configuration.read_text())["project"]["nav"]))
    there = {str(file.relative_to(pages)) for file in pages.rglob("*.md")}
    yield from (f"{name} is not in the menu (docs_site/zensical.toml)" for name in sorted(there - listed))
    yield from (f"{name} is in the menu, and there is no such page" for name in sorted(listed - there))


def problems(site: Path) -> Iterator[str]:
    """What is wrong with the built site, one line each."""
    pages = {file: _read(file) for file in sorted(site.rglob("*.html"))}
    for file, page in pages.items():
        name = file.relative_to(site)
        for load in sorted(page.loads):
            if _elsewhere(load):
                yield f"{name}: loads {load} from elsewhere"
        # The page of what is not found does not know where it is asked for.
        if name.name == "404.html":
            continue
        for link in sorted(page.links | page.loads):
            if not _elsewhere(link) and not _leads(link, file, pages, site):
                yield f"{name}: {link} leads nowhere"


def _read(file: Path) -> Page:
    page = Page()
    page.feed(file.read_text())
    return page


def _elsewhere(link: str) -> bool:
    parts = urlsplit(link)
    return bool(parts.netloc) or parts.scheme not in ("", "file")


def _leads(link: str, file: Path, pages: dict[Path, Page], site: Path) -> bool:
    parts = urlsplit(link)
    target = file
    if path := unquote(parts.path):
        target = (site / path.lstrip("/") if path.startswith("/") else file.parent / path).resolve()
    if target.is_dir():
        target /= "index.html"
    if target not in pages:
        return target.is_file()
    # An empty fragment is the top, and `__` marks the theme's own switches.
    return (
        not parts.fragment
        or parts.fragment.startswith("__")
        or unquote(parts.fragment) in pages[target].anchors
    )
