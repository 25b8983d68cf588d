"""How often does the gate of a round err?"""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.tables.documents import Results, Rows, Table

SOURCE = "gate-errors"


def errors(results: Results) -> Rows:
    """Pairs whose true difference is known, where there are problems enough."""
    return _cells(results[SOURCE].figures["cells"], "accuracy of the old pair", "accuracy")


def few_problems(results: Results) -> Rows:
    """The same where there are few problems."""
    return _cells(results[SOURCE].figures["capped"], "problems at hand", "cap")


def drift(results: Results) -> Rows:
    """What is lost when every new pair is a little worse."""
    head = ["compared with", "rounds", "each new pair worse by", "lost, mean", "lost, worst of 20 runs"]
    return [
        head,
        *(
            [
                "the best pair so far" if each["best_is_held"] else "the pair that serves",
                str(each["rounds"]),
                *(_points(each[what]) for what in ("each_worse_by", "lost_mean", "lost_95")),
            ]
            for each in results[SOURCE].figures["drift"]
        ),
    ]


def _cells(cells: Sequence[Mapping[str, Any]], title: str, name: str) -> Rows:
    head = ["alone", "as a system", "promoted", "found worse", "not decided", "problems, mean", "90 % within"]
    rows = [[title, *head]]
    for each in cells:
        alone, system = each["difference"]
        rows.append(
            [
                f"{each[name]:g}",
                f"{100 * alone:+g}",
                f"{100 * system:+g}",
                *(_share(each[what]) for what in ("promoted", "found_worse", "not_decided")),
                f"{each['problems_mean']:,.0f}",
                f"{each['problems_90']:,.0f}",
            ]
        )
    return rows


def _share(found: Mapping[str, Any]) -> str:
    low, high = (100 * edge for edge in found["ci95"])
    return f"{100 * found['share']:.1f} % ({low:.1f} – {high:.1f})"


def _points(share: float) -> str:
    return f"{100 * share:.1f} points"


TABLES: Mapping[str, Table] = {
    "gate-errors": Table((SOURCE,), errors),
    "gate-few-problems": Table((SOURCE,), few_problems),
    "gate-drift": Table((SOURCE,), drift),
}
