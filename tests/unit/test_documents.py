"""Documents say what the kept results say, and name only what is there."""

import json
import re
from pathlib import Path

import pytest

from benchmarks.keep import (
    BY_PROGRAM,
    FOLDER,
    ROOT,
    Result,
    current_commit,
    keep,
    last_object,
    read_results,
    this_machine,
)
from benchmarks.tables.definitions import TABLES
from benchmarks.tables.documents import documents, filled, table_names, wrapped
from docs_site.anchors import anchor

DOCUMENTS = [*documents(), *map(ROOT.joinpath, ("CONTRIBUTING.md", "CHANGELOG.md", "docs_site/README.md"))]
LINK = re.compile(r"\]\((?!https?:)(?P<target>[^)#\s]*)(?:#(?P<anchor>[^)\s]+))?\)")
NAMED = re.compile(
    r"`(?P<path>(?:ratchet|services|benchmarks|tests|docs|docs_site|models|deploy|scripts)/[\w./-]*|[\w-]+\.(?:yml|toml|md))`"
)

ELSEWHERE = {"ratchet/bundled"}
"""In an installed wheel only."""


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


@pytest.mark.parametrize("file", documents(), ids=name_of)
def test_tables_are_what_the_kept_results_give(file: Path) -> None:
    assert file.read_text() == filled(file.read_text(), TABLES, read_results(), file.parent), (
        "run `python -m benchmarks.tables`"
    )


def test_every_result_is_complete_and_shown_by_some_document() -> None:
    shown = {
        result
        for file in documents()
        for table in table_names(file.read_text())
        for result in TABLES[table].results
    }
    assert set(read_results()) == shown


def test_every_table_stands_in_some_document() -> None:
    assert set(TABLES) == {name for file in documents() for name in table_names(file.read_text())}


@pytest.mark.parametrize("field", Result.model_fields)
def test_a_result_without_one_of_its_fields_is_refused(field: str, tmp_path: Path) -> None:
    whole = json.loads(next(FOLDER.glob("*.json")).read_text())
    (tmp_path / "broken.json").write_text(
        json.dumps({name: value for name, value in whole.items() if name != field})
    )
    with pytest.raises(ValueError, match=field):
        read_results(tmp_path)


def test_a_table_that_differs_from_its_results_is_written_anew() -> None:
    text = "before\n\n<!-- table: policy-precision -->\n| accuracy |\n| 99.9 % |\n<!-- end -->\n\nafter\n"
    made = filled(text, TABLES, read_results(), ROOT / "docs")
    assert "99.9" not in made
    assert "| tokens/s, 16 problems at once | 61.7 | 15.6 | 4.0 times |" in made
    assert "transcribed, the output was not kept" in made
    assert made.startswith("before\n\n<!-- table: policy-precision -->\n")
    assert made.endswith("<!-- end -->\n\nafter\n")


def test_a_long_command_is_broken_where_a_shell_joins_it_again() -> None:
    command = "ratchet rounds run " + " ".join(f"--set evaluation.number{number}=1" for number in range(12))
    lines = wrapped(command)
    assert len(lines) > 1
    assert " ".join(line.removesuffix(" \\").strip() for line in lines) == command


def test_what_a_program_prints_last_is_kept_with_all_that_makes_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.keep.FOLDER", tmp_path)
    monkeypatch.setattr("benchmarks.keep.ROOT", tmp_path)
    monkeypatch.setattr("benchmarks.keep.current_commit", lambda: "0" * 40)
    keep("new", ["sh", "-c", """echo progress; echo '{"seed": 7, "right": 3}'"""], what="How many are right?")
    kept = read_results(tmp_path)["new"]
    assert (kept.what, kept.seed, kept.figures) == ("How many are right?", 7, {"seed": 7, "right": 3})
    assert (kept.provenance, kept.transcribed, kept.machine) == (BY_PROGRAM, False, this_machine())
    # The same measurement once more needs no question.
    keep("new", ["echo", '{"right": 4}'], seed=8, beside="a test suite ran")
    kept = read_results(tmp_path)["new"]
    assert (kept.what, kept.seed, kept.figures) == ("How many are right?", 8, {"right": 4})
    assert kept.machine.endswith("; a test suite ran")


@pytest.mark.parametrize("command", [["false"], ["echo", "no object"], ["true"]])
def test_a_program_that_fails_or_prints_no_object_keeps_nothing(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.keep.FOLDER", tmp_path)
    monkeypatch.setattr("benchmarks.keep.ROOT", tmp_path)
    monkeypatch.setattr("benchmarks.keep.current_commit", lambda: "0" * 40)
    with pytest.raises(Exception, match="1"):
        keep("new", command, what="How many are right?")
    assert not list(tmp_path.iterdir())


def test_the_last_line_that_is_not_empty_counts() -> None:
    assert last_object('{"first": 1}\nprogress\n{"second": 2}\n\n') == {"second": 2}


def test_a_commit_is_told_with_its_changes() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    assert re.fullmatch(r"[0-9a-f]{40}(\+changes)?", current_commit())


@pytest.mark.parametrize("file", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(file: Path) -> None:
    text = file.read_text()
    for found in LINK.finditer(text):
        target = (file.parent / found["target"]).resolve() if found["target"] else file
        assert target.exists(), f"{found[0]} leads nowhere"
        if found["anchor"]:
            assert found["anchor"] in anchors(target.read_text()), f"{found[0]}: there is no such heading"


def anchors(text: str) -> set[str]:
    """Headings as GitHub names them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {anchor(heading) for heading in headings}


@pytest.mark.parametrize("file", [each for each in DOCUMENTS if each.name != "CHANGELOG.md"], ids=name_of)
def test_files_that_are_named_are_there(file: Path) -> None:
    named = {found["path"] for found in NAMED.finditer(file.read_text())} - ELSEWHERE
    assert not {path for path in named if not (ROOT / path).exists()}


def test_the_tests_behind_the_promises_are_there() -> None:
    promised = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs/explanation/security.md").read_text())
    assert len(promised) > 20
    for file, test in promised:
        assert re.search(rf"^(async )?def {test}\(", (ROOT / file).read_text(), re.MULTILINE), (
            f"{file}::{test}"
        )
