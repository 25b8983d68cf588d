"""The documents' commands are those of this version: each `ratchet …`, `make …` and `python -m …` in them, with its options
and variables.

Whether they do what is said, the tests of the commands and of the tutorial show.
"""

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from ratchet.cli.main import app
from tests.unit.test_documents import DOCUMENTS

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z][\w-]*):", MAKEFILE, re.MULTILINE))
VARIABLES = set(re.findall(r"\$\((?:[a-z]+ (?:\$\()?)?([A-Z]+)", MAKEFILE))

_FENCE = re.compile(r"^ *```[^\n]*\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^(?:\$ )?(?:exec )?(?P<command>(?:ratchet|make|python -m) .+?)\s*$")
_AFTER = re.compile(r"\s(?:#|\||>|&&|2>|&)(?:\s|$)")
"""Where a shell's command is over: a comment, or what is done with its output."""


def commands(text: str) -> Iterator[str]:
    """The commands of a document: lines of its blocks, and pieces of code in its text."""
    for block in _FENCE.findall(text):
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            if found := _COMMAND.match(line.strip()):
                yield _AFTER.split(found["command"])[0].strip()
    for code in re.findall(r"`([^`\n]+)`", _FENCE.sub("", text)):
        if found := _COMMAND.match(code.replace("\\|", "|")):
            yield _AFTER.split(found["command"])[0].strip()


def wrong(command: str) -> str | None:
    """What is wrong with a command; None: nothing."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        return str(error)
    if words[0] == "python":
        return None if importlib.util.find_spec(words[2]) else f"no module {words[2]}"
    return wrong_make(words[1:]) if words[0] == "make" else wrong_ratchet(words[1:])


def wrong_make(words: list[str]) -> str | None:
    """A target that is none, or a variable that no recipe reads."""
    for word in words:
        name, is_variable, _ = word.partition("=")
        if is_variable and name not in VARIABLES:
            return f"no recipe reads {name}"
        if not is_variable and name.startswith("-"):
            continue
        if not is_variable and name not in TARGETS and name != "…":
            return f"no target {name}"
    return None


def wrong_ratchet(words: list[str]) -> str | None:
    """A command that is none, or an option that it does not have. `a|b` names two; `…` and COMMAND stand for any."""
    command: Any = typer.main.get_command(app)
    while words and (children := getattr(command, "commands", None)):
        if words[0].startswith("-") or words[0] in ("…", "COMMAND"):
            break
        names = words[0].split("|")
        if unknown := [name for name in names if name not in children]:
            return f"no command {unknown[0]}"
        command, words = children[names[0]], words[1:]
    known = {option for each in command.params for option in (*each.opts, *each.secondary_opts)} | {"--help"}
    for word in words:
        option = word.partition("=")[0]
        if re.fullmatch(r"--[a-z][\w-]*", option) and option not in known:
            return f"no option {option}"
    return None


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_commands_of_a_document_are_ours(file: Path) -> None:
    found = {command: reason for command in commands(file.read_text()) if (reason := wrong(command))}
    assert found == {}


def test_there_is_something_to_check() -> None:
    found = [command for file in DOCUMENTS for command in commands(file.read_text())]
    assert sum(command.startswith("ratchet ") for command in found) > 100
    assert sum(command.startswith("make ") for command in found) > 50


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("ratchet solve '1 + 1' --tokens 300", None),
        ("ratchet data usage|prune", None),
        ("ratchet sovle '1 + 1'", "no command sovle"),
        ("ratchet data usage|wipe", "no command wipe"),
        ("ratchet solve '1 + 1' --token 300", "no option --token"),
        ("ratchet rounds run --no-such=3", "no option --no-such"),
        ("make test ARGS=tests/unit", None),
        ("make tset", "no target tset"),
        ("make test ARG=tests/unit", "no recipe reads ARG"),
        ("ratchet solve 'open", "No closing quotation"),
        ("python -m benchmarks.api_lode", "no module benchmarks.api_lode"),
    ],
)
def test_a_command_that_is_not_ours_is_found(command: str, reason: str | None) -> None:
    assert wrong(command) == reason


def test_commands_are_read_as_a_shell_does() -> None:
    text = "Use `ratchet up`.\n```\n$ ratchet eval x.jsonl \\\n    --limit 3 | tail -1\nmake demo  # all\nlook\n```\n"
    assert list(commands(text)) == ["ratchet eval x.jsonl --limit 3", "make demo", "ratchet up"]
