"""The documentation's site: it builds without warnings, has all of the code's commands and routes, and reads as GitHub does."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from markdown import Markdown
from markdown_it import MarkdownIt

from docs_site import ROOT
from docs_site.anchors import anchor
from docs_site.check import not_in_menu, problems
from docs_site.pages import rewritten, site_files

PAGES = [ROOT / name for name in site_files() if name.endswith(".md")]
BLOCKS = ("h1", "h2", "h3", "h4", "li", "tr", "pre", "blockquote")
"""Elements that are lost where the two readers of Markdown differ."""

# The build takes some ten seconds of a core, which may be a long time where others have it.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def site() -> Path:
    """The site, built as `make docs` does."""
    done = subprocess.run(
        [sys.executable, "-m", "docs_site"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=800,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return ROOT / "build" / "site"


def test_it_builds_without_warnings_and_has_every_page(site: Path) -> None:
    for page in PAGES:
        place = Path(site_files()[str(page.relative_to(ROOT))])
        html = place.with_name("index.html" if place.name == "README.md" else place.stem + ".html")
        assert (site / html).is_file(), place


def test_the_reference_has_the_commands_the_routes_and_the_client(site: Path) -> None:
    commands = (site / "reference" / "cli.html").read_text()
    assert {"ratchet-solve", "ratchet-rounds-run", "ratchet-keys-create"} <= set(
        re.findall(r'id="([^"]+)"', commands)
    )
    assert "--min-confidence" in commands
    for service, route in (("search", "post-search"), ("trainer", "post-rounds"), ("sandbox", "post-run_code"),
                           ("policy", "post-generate"), ("prm", "post-score")):  # fmt: skip
        page = (site / "reference" / f"http-{service}.html").read_text()
        assert f'id="{route}"' in page, route
        assert (site / "reference" / "openapi" / f"{service}.json").is_file()
    client = (site / "reference" / "python.html").read_text()
    assert {"clientsolve", "asyncclientbatch", "branchoptions"} <= set(re.findall(r'id="([^"]+)"', client))
    assert "min_confidence" in client
    assert "&lt;class" not in client


def test_what_is_wrong_with_a_site_is_found(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(
        '<a href="there.html#here">1</a><a href="there.html#gone">2</a><a href="gone.html">3</a>'
        '<a href="https://elsewhere.example/">4</a><script src="https://elsewhere.example/x.js"></script><img src="gone.png">'
    )
    (tmp_path / "there.html").write_text('<h1 id="here">Here</h1><a href="#here">up</a>')
    assert list(problems(tmp_path)) == [
        "index.html: loads https://elsewhere.example/x.js from elsewhere",
        "index.html: gone.html leads nowhere",
        "index.html: gone.png leads nowhere",
        "index.html: there.html#gone leads nowhere",
    ]


def test_a_page_that_the_menu_lacks_is_found(tmp_path: Path) -> None:
    (tmp_path / "new.md").write_text("# New\n")
    (tmp_path / "zensical.toml").write_text('[project]\nnav = [{ "Home" = ["old.md"] }]\n')
    assert [line.split()[0] for line in not_in_menu(tmp_path, tmp_path / "zensical.toml")] == [
        "new.md",
        "old.md",
    ]


def test_links_lead_to_the_same_on_the_site_and_others_are_named() -> None:
    placed = {"docs/a/b.md": "a/b.md", "CHANGELOG.md": "project/changelog.md"}
    text = "[log](../../CHANGELOG.md#top) [code](../../ratchet/x.py) `[no](link.md)`\n```\n[no](link.md)\n```\n[own](#here)"
    assert rewritten(text, "docs/a/b.md", placed) == (
        "[log](../project/changelog.md#top) code (`ratchet/x.py`) `[no](link.md)`\n```\n[no](link.md)\n```\n[own](#here)"
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_reads_alike_on_the_site_and_in_a_browser_of_the_repository(page: Path) -> None:
    """Python-Markdown makes the site; the other reads as CommonMark with GitHub's tables."""
    text = page.read_text()
    # Notes of this form are a paragraph more on the site.
    text = re.sub(r"^> \[!\w+\]$", ">", text, flags=re.MULTILINE)
    ours = Markdown(extensions=["tables", "sane_lists", "toc", "pymdownx.superfences"]).convert(text)
    theirs = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text)
    assert _blocks(ours) == _blocks(theirs)


def _blocks(html: str) -> dict[str, int]:
    # Blocks of code are tables on the site only where lines are numbered, which none are.
    return {name: len(re.findall(rf"<{name}[ >]", html)) for name in BLOCKS}


@pytest.mark.parametrize(
    ("heading", "name"),
    [
        ("The door", "the-door"),
        ("What `--model` takes, and why", "what---model-takes-and-why"),
        ("POST /run_code", "post-run_code"),
    ],
)
def test_headings_are_named_as_github_does(heading: str, name: str) -> None:
    assert anchor(heading) == name
