"""The page of the command line, from the commands themselves."""

from collections.abc import Iterator
from typing import Any

import typer

from docs_site.markdown import cell, code, prose, table
from ratchet.cli.main import app

INTRODUCTION = """# Command line

Made from the commands of this version; `ratchet COMMAND --help` says the same. For all commands 2 is the exit code of a
wrong use, 3 of a system that failed and 130 of an interruption, each with a message that says what to do; 0 and 1 are the
command's own. With `--json` the result is all that stands on stdout.
"""


def page() -> str:
    """The whole page, in Markdown."""
    root = typer.main.get_command(app)
    # What typer builds are commands of its own copy of Click, which has no public types.
    context: Any = root.make_context("ratchet", [], resilient_parsing=True)
    commands = list(_commands(root, "ratchet"))
    overview = table(
        ("command", "what it does"),
        (
            (f"[{code(name)}](#{name.replace(' ', '-')})", cell(command.get_short_help_str(200)))
            for name, command in commands
        ),
    )
    return "\n".join(
        [INTRODUCTION, overview, *(_section(name, command, context) for name, command in commands)]
    )


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """All commands that do something, with their full names, in the order of the help."""
    children = getattr(command, "commands", None)
    if children is None:
        yield name, command
        return
    for each, child in children.items():
        yield from _commands(child, f"{name} {each}")


def _section(name: str, command: Any, context: Any) -> str:
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    parts = [f"## {name}\n", f"{prose(command.help or '')}\n", f"```text\n{usage}\n```\n"]
    for kind in ("argument", "option"):
        records = [each.get_help_record(context) for each in command.params if each.param_type_name == kind]
        if records:
            parts.append(table((kind, "meaning"), ((code(names), cell(said)) for names, said in records)))
    return "\n".join(parts)
