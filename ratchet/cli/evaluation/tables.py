"""What a person sees of an evaluation."""

from collections.abc import Sequence

from rich.table import Table

from ratchet.cli.evaluation.comparison import Measured, Paired
from ratchet.cli.outcomes import Summary


def summary_table(summary: Summary) -> Table:
    """One strategy at one budget."""
    table = Table(title="Evaluation", title_justify="left", show_header=False)
    low, high = summary.ci95
    rows = {
        "accuracy": f"{summary.accuracy:.1%}  ({summary.right} of {summary.n}; 95 % interval {low:.1%} to {high:.1%})",
        "coverage": f"{summary.coverage:.1%}  have a right trajectory; the vote loses {summary.lost_by_vote:.1%}",
        "answered": str(summary.answered),
        "failed": str(summary.failed),
        **{
            f"level {level.value}": f"{count.n}, right {count.right}"
            for level, count in summary.solved_by_level.items()
        },
        "tokens per problem": f"{summary.tokens_per_problem:.0f}",
        "seconds per problem": f"{summary.seconds_per_problem:.1f}",
    }
    calibration = summary.calibration
    if calibration.mean_confidence is not None and calibration.brier is not None:
        rows["mean confidence"] = f"{calibration.mean_confidence:.2f}  (Brier score {calibration.brier:.3f})"
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def arms_table(arms: Sequence[Measured]) -> Table:
    """Strategies by budget."""
    table = _by_budget(
        "Accuracy by budget of generated tokens",
        ("strategy", "accuracy", "95 %", "coverage", "vote loses", "tokens"),
    )
    for place, arm in enumerate(arms):
        table.add_row(
            str(arm.tokens),
            arm.strategy.value,
            f"{arm.accuracy:.1%}",
            _interval(arm.ci95),
            f"{arm.coverage:.1%}",
            f"{arm.lost_by_vote:.1%}",
            f"{arm.tokens_per_search:.0f}",
            end_section=arm is not arms[-1] and arms[place + 1].tokens != arm.tokens,
        )
    return table


def pairs_table(pairs: Sequence[Paired]) -> Table:
    """Each strategy beside the baseline, problem by problem; one pair at least."""
    table = _by_budget(
        f"Points of accuracy more than {pairs[0].baseline.value}, problem by problem",
        ("strategy", "difference", "95 %", "better : worse", "p"),
    )
    for place, pair in enumerate(pairs):
        table.add_row(
            str(pair.tokens),
            pair.strategy.value,
            f"{100 * pair.difference:+.1f}",
            _interval(pair.ci95, signed=True),
            f"{pair.better} : {pair.worse}",
            f"{pair.p:.2g}",
            end_section=pair is not pairs[-1] and pairs[place + 1].tokens != pair.tokens,
        )
    return table


def _by_budget(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in ("budget", *columns):
        table.add_column(column, justify="left" if column == "strategy" else "right")
    return table


def _interval(edges: tuple[float, float], *, signed: bool = False) -> str:
    low, high = (100 * edge for edge in edges)
    return f"{low:+.1f} to {high:+.1f}" if signed else f"{low:.1f}–{high:.1f}"
