"""What a round does to a real model, of `benchmarks.rounds_of_a_run`."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from benchmarks.tables.documents import Below, Results, Rows, Table, interval

RUN, ON_GPU, PARTS = "rounds-small-seed1", "rounds-small-gpu", "gpu-parts"


def stages(run: str, unit: str, seconds_of: int, results: Results) -> Rows:
    """What each stage of each round took and gave. A unit of time has so many seconds."""
    rows = [["round", "stage", unit, "what came out"]]
    for found in results[run].figures["rounds"]:
        seconds, label, selection, policy = (
            found[part] for part in ("seconds", "label", "selection", "policy")
        )
        validation = policy["validation"]
        told = {
            "searching": f"{label['solved']} of {label['problems']} problems solved, {label['tokens']:,} tokens",
            "selecting": f"{selection['rows']} different programs to learn from, {selection['validation_rows']} kept apart",
            "training_policy": f"{policy['steps']} steps at {policy['tokens_per_second']:.0f} tokens/s; loss of the programs "
            f"kept apart {validation['base_nll']:.3f} to {validation['nll']:.3f}, scale {validation['scale']:g}",
        } | ({"training_prm": _prm(found["prm"])} if found["prm"] else {})
        for place, (stage, words) in enumerate(told.items()):
            if stage in seconds:
                number = str(found["round"]) if place == 0 else ""
                rows.append(
                    [
                        number,
                        stage.replace("_", " the ").replace("prm", "PRM"),
                        f"{seconds[stage] / seconds_of:.0f}",
                        words,
                    ]
                )
    return rows


def _prm(found: Mapping[str, Any]) -> str:
    quality = found["quality"]
    return (
        f"{found['steps']} steps at {found['tokens_per_second']:.0f} tokens/s; on "
        f"{quality['problems']} problems that neither learnt from: AUC within a problem "
        f"{_figure(quality['within_step_auc'])} (steps), {_figure(quality['within_end_auc'])} (ends), sibling accuracy "
        f"{_figure(quality['sibling_accuracy'])}, first-error F1 {_figure(quality['first_error_f1'])}"
    )


def decoder(results: Results) -> Rows:
    """What a token of a whole batch takes on a GPU."""
    rows = [["sequences", "plain step, ms", "recorded step, ms", "draw, not recorded then, ms"]]
    for found in results[PARTS].figures["steps"]:
        figures = (found[name] for name in ("plain_step_ms", "recorded_step_ms", "draw_ms"))
        rows.append([str(found["rows"]), *(f"{each:.2f}" for each in figures)])
    return rows


def _figure(found: Mapping[str, Any]) -> str:
    return f"{found['value']:.2f} ({interval((found['low'], found['high']), '.2f', 1)})"


TABLES = {
    "real-round-stages": Table((RUN,), partial(stages, RUN, "minutes", 60)),
    "gpu-round-stages": Table((ON_GPU,), partial(stages, ON_GPU, "seconds", 1)),
    "gpu-decoder": Table((PARTS,), decoder, Below.NOTHING),
}
