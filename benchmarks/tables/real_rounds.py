"""What a round does to a real model, of `benchmarks.rounds_of_a_run`."""

from collections.abc import Mapping
from typing import Any

from benchmarks.tables.documents import Below, Results, Rows, Table, interval, with_interval

RUN = "rounds-small-seed1"
SPLITS = {"development": "development", "held_out": "held out"}
STRATEGIES = {
    "samples": "policy alone, a sample",
    "greedy": "policy alone, greedy",
    "mcts": "whole system",
    "best_of_n": "best-of-N",
    "majority": "majority",
}


def stages(results: Results) -> Rows:
    """What each stage of each round took and gave."""
    rows = [["round", "stage", "minutes", "what came out"]]
    for found in results[RUN].figures["rounds"]:
        seconds, label, selection, policy = (
            found[part] for part in ("seconds", "label", "selection", "policy")
        )
        quality = found["prm"]["quality"]
        validation = policy["validation"]
        told = {
            "searching": f"{label['solved']} of {label['problems']} problems solved, {label['tokens']:,} tokens",
            "selecting": f"{selection['rows']} different programs to learn from, {selection['validation_rows']} kept apart",
            "training_policy": f"{policy['steps']} steps at {policy['tokens_per_second']:.0f} tokens/s; loss of the programs "
            f"kept apart {validation['base_nll']:.3f} to {validation['nll']:.3f}, scale {validation['scale']:g}",
            "training_prm": f"{found['prm']['steps']} steps at {found['prm']['tokens_per_second']:.0f} tokens/s; on "
            f"{quality['problems']} problems that neither learnt from: AUC within a problem "
            f"{_figure(quality['within_step_auc'])} (steps), {_figure(quality['within_end_auc'])} (ends), sibling accuracy "
            f"{_figure(quality['sibling_accuracy'])}, first-error F1 {_figure(quality['first_error_f1'])}",
            "evaluating": _verdict(found),
        }
        for place, (stage, words) in enumerate(told.items()):
            if stage in seconds:
                number = str(found["round"]) if place == 0 else ""
                rows.append([number, stage.replace("_", " the "), f"{seconds[stage] / 60:.0f}", words])
    return rows


def _figure(found: Mapping[str, Any]) -> str:
    return f"{found['value']:.2f} ({interval((found['low'], found['high']), '.2f', 1)})"


def _verdict(found: Mapping[str, Any]) -> str:
    tests = [
        f"{name.partition('.')[2]} {each['decision'].replace('_', ' ')} after {each['n']} problems"
        for name, each in found["gate"]["comparisons"].items()
    ]
    return f"{found['state']}: {', '.join(tests)}"


def compared(results: Results) -> Rows:
    """The new pair beside the one that served, on all problems that both were measured on."""
    head = [
        "round",
        "problems",
        "of what",
        "before, %",
        "after, %",
        "difference, points",
        "95 % (paired)",
        "better : worse",
        "p",
    ]
    rows = [head]
    for found in results[RUN].figures["rounds"]:
        for name, each in found["compared"].items():
            split, _, strategy = name.partition(".")
            old = each.get("incumbent") or each.get("reference")
            if old is None:
                continue
            test = old["against"]
            low, high = (100 * edge for edge in test["ci95"])
            tries = f" ({each['candidate']['samples']} a problem)" if each["candidate"]["samples"] > 1 else ""
            rows.append(
                [
                    str(found["round"]),
                    f"{test['n']} {SPLITS[split]}",
                    STRATEGIES[strategy] + tries,
                    with_interval(old["accuracy"], old["ci95"]),
                    with_interval(each["candidate"]["accuracy"], each["candidate"]["ci95"]),
                    f"{100 * test['difference']:+.1f}",
                    f"{low:+.1f} – {high:+.1f}",
                    f"{test['better']} : {test['worse']}",
                    f"{test['p']:.2g}",
                ]
            )
    return rows


TABLES = {
    "real-round-stages": Table((RUN,), stages, Below.NOTHING),
    "real-round-compared": Table((RUN,), compared),
}
