"""What searches cost beside what bounds them."""

from typing import Any

from benchmarks.tables.documents import Below, Results, Rows, Table

COST, NANO = "search-cost", "search-speed-nano"
BOTH = (NANO, "search-speed-small")


def cost(results: Results) -> Rows:
    """CPU-ms a node by the size of the tree."""
    found: dict[str, Any] = results[COST].figures["cost"]
    sizes = list(next(iter(found.values()))["ms_a_node"])
    [trees] = next(iter(found.values()))["ms_a_node_trees_at_once"]
    head = [
        "CPU-ms a node",
        *(f"one tree of {int(size):,}" for size in sizes),
        f"{trees} trees of 100 at once",
    ]
    return [
        head,
        *(
            [
                f"`{strategy}`",
                *(f"{each['ms_a_node'][size]:.2f}" for size in sizes),
                f"{each['ms_a_node_trees_at_once'][trees]:.2f}",
            ]
            for strategy, each in found.items()
        ),
    ]


def engine(results: Results) -> Rows:
    """Tokens a second through searches and by the engine alone, for each model."""
    rows = [
        ["model", "searches", "sequences", "tokens/s through searches", "by the engine alone", "utilisation"]
    ]
    for result in map(results.__getitem__, BOTH):
        for name, each in result.figures["engine"].items():
            if isinstance(each, dict):
                rows.append(
                    [
                        f"`{result.figures['model']}`",
                        name,
                        f"{each['sequences']:,}",
                        f"{each['searches']['tokens_per_second']:,.0f}",
                        f"{each['engine']['tokens_per_second']:,.0f}",
                        f"{each['utilisation']:.2f}",
                    ]
                )
    return rows


def lock_step(results: Results) -> Rows:
    """Searches beside the lock-step driver, for each model."""
    rows = [["model", "way", "tokens", "seconds", "tokens/s"]]
    for result in map(results.__getitem__, BOTH):
        found = result.figures["lock_step"]
        for name, label in (("lock_step", "lock step"), ("mcts", "`mcts`")):
            each = found[name]
            rows.append(
                [
                    f"`{result.figures['model']}`",
                    label,
                    f"{each['tokens']:,}",
                    f"{each['seconds']:.1f}",
                    f"{each['tokens_per_second']:,.0f}",
                ]
            )
    return rows


def interactive(results: Results) -> Rows:
    """Seconds of an interactive search."""
    found = results[NANO].figures["interactive"]
    rows = [["an interactive search", "median, s", "p99, s"]]
    for name, label in (("alone", "alone"), ("beside_batch", "beside a batch")):
        each = found[name]
        rows.append([label, f"{each['p50_seconds']:.2f}", f"{each['p99_seconds']:.2f}"])
    return rows


WAYS = {
    "together": "in one pass, each behind its kept prefix",
    "alone": "the same, in a pass each",
    "whole": "in one pass, each from its start",
}


def prm_reading(results: Results) -> Rows:
    """What scoring the next steps of many searches costs a trained PRM."""
    found = results["prm-reading-small"].figures
    rows = [["the next steps are read", "scored steps/s", "the first is so many times as fast"]]
    for way, words in WAYS.items():
        ratio = found["ratios"].get(f"together/{way}")
        rows.append([words, f"{found['steps_per_second'][way]:.1f}", "" if ratio is None else f"{ratio:.1f}"])
    return rows


TABLES = {
    "prm-reading": Table(("prm-reading-small",), prm_reading),
    "search-cost": Table((COST,), cost),
    "search-engine": Table(BOTH, engine),
    "search-lock-step": Table(BOTH, lock_step, Below.NOTHING),
    "search-interactive": Table((NANO,), interactive, Below.NOTHING),
}
