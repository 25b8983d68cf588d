"""Accuracy per generated token, strategy by strategy, as PNG and SVG: dark ink on white."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from ratchet.cli.evaluation.comparison import Measured
from ratchet.contracts.search import StrategyName

INK, FAINT = "#1c1e22", "#8a8f98"
COLOURS = {
    StrategyName.GREEDY: "#2f7ed8",
    StrategyName.MAJORITY: "#8d5bbf",
    StrategyName.BEST_OF_N: "#b0761a",
    StrategyName.MCTS: "#d1495b",
}
OTHERS = ("#2a9d8f", "#7a8b1f", "#c2679c", "#4f5d75")
"""For strategies without a colour of their own, in their order."""
INCHES = (6.2, 4.2)
PNG_DPI = 200


def write_plots(arms: Sequence[Measured], title: str, stem: Path) -> list[Path]:
    """Write `stem`.png and `stem`.svg. Bands are 95 % intervals; thin dotted lines are the coverage."""
    paths = [stem.with_name(f"{stem.name}.{suffix}") for suffix in ("png", "svg")]
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "ratchet"}):
        figure = _figure(arms, title)
        figure.savefig(paths[0], format="png")
        figure.savefig(paths[1], format="svg", metadata={"Date": None, "Creator": None})
    return paths


def _figure(arms: Sequence[Measured], title: str) -> Figure:
    figure = Figure(INCHES, dpi=PNG_DPI, layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    strategies = list(dict.fromkeys(arm.strategy for arm in arms))
    spare = iter(OTHERS * len(strategies))
    for strategy in strategies:
        curve = sorted((arm for arm in arms if arm.strategy is strategy), key=lambda arm: arm.tokens)
        colour = COLOURS.get(strategy) or next(spare)
        tokens = [arm.tokens_per_search for arm in curve]
        axes.plot(
            tokens,
            [100 * arm.accuracy for arm in curve],
            color=colour,
            marker="o",
            markersize=4.5,
            label=strategy.value,
        )
        low, high = ([100 * arm.ci95[edge] for arm in curve] for edge in (0, 1))
        if len(curve) > 1:
            axes.fill_between(tokens, low, high, color=colour, alpha=0.12, linewidth=0)
            coverage = [100 * arm.coverage for arm in curve]
            axes.plot(tokens, coverage, color=colour, linewidth=0.9, linestyle=(0, (1, 2)))
        else:
            axes.vlines(tokens, low, high, color=colour, linewidth=1.2, alpha=0.7)
    axes.set_xscale("log")
    # Greedy spends its budget on nothing; it stands where its tokens are.
    ticks = sorted(
        {round(arm.tokens_per_search) if arm.strategy is StrategyName.GREEDY else arm.tokens for arm in arms}
    )
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0f} %")
    axes.set_xlabel("generated tokens a problem", color=INK)
    axes.set_ylabel("accuracy (dotted: coverage)", color=INK)
    axes.set_title(title, color=INK, fontsize=9, loc="left", parse_math=False)
    axes.grid(color=FAINT, alpha=0.25, linewidth=0.7)
    axes.tick_params(colors=FAINT, labelcolor=INK, labelsize=9)
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(FAINT)
    figure.legend(loc="outside right center", frameon=False, labelcolor=INK, fontsize=9)
    return figure
