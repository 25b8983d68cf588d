"""A run of rounds in figures: what `ratchet rounds run` prints last, and what the report shows."""

from collections.abc import Mapping, Sequence
from typing import Any

from ratchet.contracts.round_metrics import Figure, Measured, TrainedPrm
from ratchet.contracts.rounds import RoundView
from ratchet.states import RoundState

MEASURED = {
    "policy_pass1": "held_out.greedy",
    "system": "held_out.mcts",
    "best_of_n": "held_out.best_of_n",
    "majority": "held_out.majority",
}
PRM_FIGURES = {
    "prm_step_auc": "within_step_auc",
    "prm_end_auc": "within_end_auc",
    "prm_sibling_accuracy": "sibling_accuracy",
    "prm_first_error_f1": "first_error_f1",
}


def run_summary(rounds: Sequence[RoundView], seconds: float | None = None) -> dict[str, Any]:
    """Rounds of one run in their order: base accuracy, figures of each round, seconds in all, held-out problems."""
    first = next((each for each in rounds if each.metrics.evaluation is not None), None)
    base: Mapping[str, Measured] = {}
    if first is not None and first.number == 1 and first.metrics.evaluation is not None:
        base = first.metrics.evaluation.incumbent.measured
    return {
        "base": _accuracy(base, "policy_pass1"),
        "base_system": _accuracy(base, "system"),
        "base_best_of_n": _accuracy(base, "best_of_n"),
        "base_majority": _accuracy(base, "majority"),
        "rounds": [_round(each) for each in rounds],
        "seconds": None if seconds is None else round(seconds, 1),
        "held_out": _problems(base, "policy_pass1"),
        "held_out_system": _problems(base, "system"),
    }


def _round(view: RoundView) -> dict[str, Any]:
    metrics = view.metrics
    measured = {} if metrics.evaluation is None else metrics.evaluation.candidate.measured
    taken = None if view.ended_at is None else (view.ended_at - view.created_at).total_seconds()
    return {
        "round": view.number,
        **{name: _accuracy(measured, name) for name in MEASURED},
        "ci95": {name: measured[key].ci95 if key in measured else None for name, key in MEASURED.items()},
        "coverage": None if metrics.label is None else metrics.label.coverage,
        "label_tokens": None if metrics.label is None else metrics.label.tokens,
        **_prm_figures(metrics.prm),
        "prm_promoted": _prm_promoted(view),
        "promoted": view.state is RoundState.PROMOTED,
        "state": view.state.value,
        "reason": view.reason,
        "seconds": None if taken is None else round(taken, 1),
        "stages": {stage.value: took for stage, took in metrics.seconds.items()},
    }


def _prm_figures(prm: TrainedPrm | None) -> dict[str, float | None]:
    """Those that compare steps of one problem alone; None also where they were not known yet."""
    found: dict[str, float | None] = {}
    for name, field in PRM_FIGURES.items():
        figure: Figure | None = None if prm is None else getattr(prm.quality, field)
        found[name] = None if figure is None else figure.value
    return found


def _prm_promoted(view: RoundView) -> bool | None:
    """Whether the round's PRM serves after it; None where none was trained."""
    if view.metrics.prm is None:
        return None
    verdict = view.metrics.gate
    # Before rounds named the pair that they tested, a promoted one had the new PRM with few exceptions.
    tested = view.metrics.prm.version if verdict is None or not verdict.candidate else verdict.candidate
    return view.state is RoundState.PROMOTED and tested.endswith(view.metrics.prm.version)


def _problems(measured: Mapping[str, Measured], name: str) -> int | None:
    found = measured.get(MEASURED[name])
    return None if found is None else found.n


def _accuracy(measured: Mapping[str, Measured], name: str) -> float | None:
    found = measured.get(MEASURED[name])
    return None if found is None else found.accuracy
