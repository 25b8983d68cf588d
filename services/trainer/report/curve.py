"""The accuracy curve: policy and whole system on held-out problems after each round, beside a goal.

A line joins the pairs that were served one after another; a rejected pair is a hollow mark beside it. The SVG takes its ink
from the page (light or dark); the PNG is dark on white.
"""

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ratchet.contracts.rounds import RoundView
from ratchet.contracts.search import StrategyName
from ratchet.states import RoundState
from services.trainer.report.metrics import Estimate, accuracy_of, start_of, state_name

GOAL = (0.42, 0.68, 0.78, 0.85, 0.90)
"""Accuracy of base and rounds 1 to 4 that the project set out to reach: a climb in the manner of rStar-Math. Not measured."""
INK, FAINT = "#1c1e22", "#8a8f98"
"""In the SVG these become the page's colours."""
INCHES = (4.7, 3.8)
PNG_DPI = 240
CROWD = 12
"""With so many rounds, the ticks carry numbers alone."""
LEAST_ROOM = 0.08
"""Accuracy below which no label fits under a point."""


@dataclass(frozen=True, slots=True)
class Line:
    """How a strategy is drawn; `shift` keeps the intervals of neighbours apart, in rounds."""

    strategy: StrategyName
    label: str
    color: str
    shift: float
    thin: bool = False


LINES = (
    Line(StrategyName.MAJORITY, "majority", "#8d5bbf", 0.0, thin=True),
    Line(StrategyName.BEST_OF_N, "best-of-N", "#b0761a", 0.0, thin=True),
    Line(StrategyName.MCTS, "whole system (MCTS + PRM)", "#d1495b", 0.05),
    Line(StrategyName.GREEDY, "policy pass@1", "#2f7ed8", -0.05),
)


@dataclass(frozen=True, slots=True)
class Point:
    """One strategy after one round (0: before the first)."""

    number: int
    estimate: Estimate
    served: bool


def points(rounds: Sequence[RoundView], strategy: StrategyName) -> list[Point]:
    """Of what was measured on held-out problems; rounds in their order."""
    start = start_of(rounds)
    before = None if start is None else accuracy_of(start[0], strategy)
    first = [] if before is None else [Point(0, before, served=True)]
    return first + [
        Point(view.number, estimate, served=view.state is RoundState.PROMOTED)
        for view in rounds
        if view.metrics.evaluation is not None
        and (estimate := accuracy_of(view.metrics.evaluation.candidate, strategy))
    ]


def svg(rounds: Sequence[RoundView]) -> str:
    """An <svg> element to put into a page: its ink is `var(--ink)` and `var(--faint)`, its text stays text."""
    target = io.StringIO()
    # These settings hold for the whole process meanwhile; nothing else in the trainer draws.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "ratchet"}):
        _figure(rounds).savefig(target, format="svg", metadata={"Date": None, "Creator": None})
    element = target.getvalue()
    element = element[element.index("<svg") :].replace(INK, "var(--ink)").replace(FAINT, "var(--faint)")
    # The page decides how wide it is.
    return re.sub(
        r' width="[^"]*pt" height="[^"]*pt"',
        ' role="img" aria-label="Accuracy on held-out problems after each round"',
        re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL),
        count=1,
    )


def png(rounds: Sequence[RoundView], title: str) -> bytes:
    """The same with a title, for a README or a message."""
    target = io.BytesIO()
    _figure(rounds, title).savefig(target, format="png")
    return target.getvalue()


def _figure(rounds: Sequence[RoundView], title: str | None = None) -> Figure:
    figure = Figure(INCHES, dpi=PNG_DPI, layout="constrained", facecolor="white" if title else "none")
    axes = figure.add_subplot(facecolor="none")
    axes.plot(
        range(len(GOAL)),
        [100 * share for share in GOAL],
        color=FAINT,
        linestyle=(0, (5, 3)),
        linewidth=1.4,
        label="the project's goal",
        zorder=1,
    )
    lowest = min(GOAL)
    for line in LINES:
        drawn = points(rounds, line.strategy)
        _draw(axes, line, drawn)
        lowest = min([lowest, *(each.estimate.low for each in drawn)])
    _frame(axes, rounds, lowest)
    if title:
        axes.set_title(title, color=INK, fontsize=10, loc="left", parse_math=False)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles[::-1],
        labels[::-1],
        loc="outside lower center",
        ncols=2,
        frameon=False,
        labelcolor=INK,
        fontsize=9,
    )
    return figure


def _draw(axes: Axes, line: Line, drawn: Sequence[Point]) -> None:
    served = [each for each in drawn if each.served]
    axes.plot(
        [each.number + line.shift for each in served],
        [100 * each.estimate.value for each in served],
        color=line.color,
        linewidth=0.9 if line.thin else 1.9,
        marker="." if line.thin else "o",
        markersize=4 if line.thin else 5,
        label=line.label,
        zorder=2 if line.thin else 4,
    )
    for each in drawn:
        x, y = each.number + line.shift, 100 * each.estimate.value
        if not line.thin:
            axes.vlines(
                x,
                100 * each.estimate.low,
                100 * each.estimate.high,
                color=line.color,
                linewidth=1.2,
                alpha=0.7,
                zorder=3,
            )
        if not each.served:
            axes.plot(
                x,
                y,
                color=line.color,
                marker="o",
                markersize=4 if line.thin else 6,
                markerfacecolor="none",
                linestyle="",
                zorder=5,
            )
        if line.strategy is StrategyName.GREEDY:
            # Beside the line: a rejected pair lies below it, but there must be room above the axis.
            above = each.served or each.estimate.low < LEAST_ROOM
            end, offset, side = (each.estimate.high, 3, "bottom") if above else (each.estimate.low, -3, "top")
            axes.annotate(
                f"{y:.1f}",
                (x, 100 * end),
                (0, offset),
                textcoords="offset points",
                ha="right",
                va=side,
                color=line.color,
                fontsize=8.5,
                fontweight="bold",
            )


def _frame(axes: Axes, rounds: Sequence[RoundView], lowest: float) -> None:
    last = max([len(GOAL) - 1, *(view.number for view in rounds)])
    start = start_of(rounds)
    ticks = {0: "base" if start is None or start[1] == "base" else "start"}
    ticks |= {each: str(each) for each in range(1, last + 1)}
    for view in rounds if last < CROWD else ():
        if view.state is not RoundState.PROMOTED:
            ticks[view.number] += f"\n{state_name(view).replace(', ', chr(10))}"
    axes.set_xticks(list(ticks), list(ticks.values()), color=INK, fontsize=9)
    axes.set_xlim(-0.5, last + 0.3)
    floor = 10 * math.floor(10 * max(0.0, lowest - 0.02))
    # Room above 100 % for the label of a point there.
    axes.set_ylim(floor, 104)
    axes.set_yticks(range(floor, 101, 10 if floor >= 30 else 20))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0f} %")
    axes.tick_params(colors=FAINT, labelcolor=INK, labelsize=9, length=3)
    axes.set_xlabel("round", color=INK, fontsize=9)
    axes.set_ylabel("accuracy on held-out problems", color=INK, fontsize=9)
    axes.grid(axis="y", color=FAINT, alpha=0.25, linewidth=0.7)
    axes.set_axisbelow(True)
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(FAINT)
