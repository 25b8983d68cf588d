"""`ratchet problems`: what a problem set holds, what of it cannot be used and why, before anything is spent on it."""

from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table

from ratchet.cli.display import clean
from ratchet.problems import Overlap, ProblemFileError, ProblemSet, find_overlaps, load

app = typer.Typer(help="Problem sets.", no_args_is_help=True)

SHOWN = 10
"""Lines of each kind for people; the JSON object has all of them."""


@app.callback()
def problems() -> None:
    """Problem sets."""


@app.command()
def inspect(
    spec: Annotated[
        str,
        typer.Argument(
            metavar="SPEC",
            help="A problem file (JSON Lines, JSON, CSV, Parquet), nano:train?count=1500, hub:gsm8k?split=train, "
            "hub:org/name?config=…, or reasoning-gym:chain_sum?size=500. Where fields have other names: "
            "'mine.jsonl?problem=input&answer=target'.",
        ),
    ],
    against: Annotated[
        str | None, typer.Option(metavar="SPEC", help="Evaluation problems that must not be in SPEC.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Look at a sample of this many problems.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> None:
    """Count, check and compare problems. Exit code 0: fine, 1: nothing usable or contaminated, 2: no such source."""
    held = _load(spec, limit, "SPEC")
    evaluation = None if against is None else _load(against, limit, "--against")
    overlaps = [] if evaluation is None else find_overlaps(held.problems, evaluation.problems)
    if json:
        print(orjson.dumps(_findings(held, evaluation, overlaps)).decode(), flush=True)
    else:
        _show(held, evaluation, overlaps, Console(soft_wrap=True, highlight=False, markup=False, emoji=False))
    raise typer.Exit(1 if overlaps or not held.problems else 0)


def _load(spec: str, limit: int | None, hint: str) -> ProblemSet:
    try:
        return load(spec, limit=limit)
    except ProblemFileError as error:
        raise typer.BadParameter(clean(str(error)), param_hint=hint) from None


def _findings(held: ProblemSet, evaluation: ProblemSet | None, overlaps: list[Overlap]) -> dict[str, Any]:
    difficulties = Counter(problem.difficulty for problem in held.problems)
    findings: dict[str, Any] = {
        "spec": held.spec,
        "sha256": held.sha256,
        "problems": len(held.problems),
        "families": dict(sorted(Counter(problem.family for problem in held.problems).items())),
        "difficulties": {str(level): count for level, count in sorted(difficulties.items(), key=str)},
        "refused": held.refused,
        "duplicates": held.duplicates,
    }
    if evaluation is not None:
        shown = [
            {"evaluation": o.evaluation.source, "train": o.train.source, "share": round(o.share, 4)}
            for o in overlaps
        ]
        findings |= {
            "against": evaluation.spec,
            "against_problems": len(evaluation.problems),
            "overlaps": shown,
        }
    return findings


def _show(held: ProblemSet, evaluation: ProblemSet | None, overlaps: list[Overlap], console: Console) -> None:
    conflicting = sum(duplicate.conflicting for duplicate in held.duplicates)
    console.print(
        f"{held.spec}: {len(held.problems)} problems, {len(held.refused)} refused, {len(held.duplicates)} duplicates "
        f"({conflicting} with another answer). SHA-256 {held.sha256[:16]}"
    )
    console.print(_by_family(held))
    _lines(console, "Refused", (f"{r.source}: {r.reason}  {r.text}" for r in held.refused))
    _lines(
        console,
        "Duplicates",
        (
            f"{d.source} is {d.first_source} again, with "
            + ("another answer: both are dropped" if d.conflicting else "the same answer: dropped")
            for d in held.duplicates
        ),
    )
    if evaluation is not None:
        console.print(
            f"Contamination: {len(overlaps)} of the {len(evaluation.problems)} problems of {evaluation.spec} are in it."
        )
        _lines(
            console,
            "Shared words",
            (f"{o.share:.0%} of {o.evaluation.source} is in {o.train.source}" for o in overlaps),
        )


def _by_family(held: ProblemSet) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    levels = sorted({p.difficulty for p in held.problems}, key=lambda level: (level is None, level or 0))
    for column in ("family", "problems", *("no level" if level is None else str(level) for level in levels)):
        table.add_column(column, justify="left" if column == "family" else "right")
    counts = Counter((problem.family, problem.difficulty) for problem in held.problems)
    for family in sorted({problem.family for problem in held.problems}):
        row = [counts[family, level] for level in levels]
        table.add_row(clean(family) or "no family", str(sum(row)), *(str(count or "") for count in row))
    return table


def _lines(console: Console, title: str, lines: Iterable[str]) -> None:
    every = list(lines)
    if every:
        console.print(f"{title}:", style="bold")
    for line in every[:SHOWN]:
        console.print(f"  {clean(line)}")
    if len(every) > SHOWN:
        console.print(f"  … and {len(every) - SHOWN} more; --json has all of them.")
