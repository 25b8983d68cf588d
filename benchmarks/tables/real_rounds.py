"""What a round does to a real model, of `benchmarks.rounds_of_a_run`."""

from collections.abc import Mapping
from typing import Any

from benchmarks.tables.documents import Results, Rows, Table, interval

RUN = "rounds-small-seed1"


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
        }
        for place, (stage, words) in enumerate(told.items()):
            if stage in seconds:
                number = str(found["round"]) if place == 0 else ""
                rows.append(
                    [
                        number,
                        stage.replace("_", " the ").replace("prm", "PRM"),
                        f"{seconds[stage] / 60:.0f}",
                        words,
                    ]
                )
    return rows


def _figure(found: Mapping[str, Any]) -> str:
    return f"{found['value']:.2f} ({interval((found['low'], found['high']), '.2f', 1)})"


TABLES = {"real-round-stages": Table((RUN,), stages)}
