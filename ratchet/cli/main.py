"""The entry point `ratchet`. Each command module imports what is heavy only when its command runs."""

import codecs
import io
import json
import sys
from typing import Annotated, Any

import typer

from ratchet import __version__
from ratchet.cli import (
    batch,
    calibrate,
    data,
    evaluate,
    export,
    keys,
    models,
    problems,
    replay,
    rounds,
    searches,
    solve,
    up,
    verify,
)


class Program(typer.Typer):
    """The program. A terminal that cannot show a character shows its escape instead: no output may end a command."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        codecs.register_error("json-escape", _json_escape)
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="json-escape")
        return super().__call__(*args, **kwargs)


def _json_escape(error: UnicodeError) -> tuple[str, int]:
    """As JSON escapes it, so that an object that is printed stays one."""
    assert isinstance(error, UnicodeEncodeError)
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


app = Program(
    name="ratchet",
    help="A math solver that searches over executed steps and verifies its answers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

for command in (solve, batch, up, evaluate, calibrate, replay, verify, export):
    command.register(app)
app.add_typer(keys.app, name="keys")
app.add_typer(data.app, name="data")
app.add_typer(models.app, name="models")
app.add_typer(problems.app, name="problems")
app.add_typer(rounds.app, name="rounds")
app.add_typer(searches.app, name="searches")


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ratchet {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_tell_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """What holds for every command."""


if __name__ == "__main__":
    app()
