"""The entry point `ratchet`. Each command module imports what is heavy only when its command runs."""

import typer

from ratchet.cli import evaluate, models, problems, rounds, solve, up, verify

app = typer.Typer(
    name="ratchet",
    help="A math solver that searches over executed steps and verifies its answers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

for command in (solve, up, evaluate, verify):
    command.register(app)
app.add_typer(models.app, name="models")
app.add_typer(problems.app, name="problems")
app.add_typer(rounds.app, name="rounds")


@app.callback()
def _root() -> None:
    """Keeps `ratchet COMMAND` the form even if there were only one command."""


if __name__ == "__main__":
    app()
