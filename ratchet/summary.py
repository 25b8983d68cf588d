"""A run of rounds in figures: what `ratchet rounds run` prints last, and what the report shows."""

from collections.abc import Sequence
from typing import Any

from ratchet.contracts.rounds import RoundView
from ratchet.states import RoundState

MEASURED = {
    "policy_pass1": "held_out.greedy",
    "system": "held_out.mcts",
    "best_of_n": "held_out.best_of_n",
    "majority": "held_out.majority",
}


def run_summary(rounds: Sequence[RoundView], seconds: float | None = None) -> dict[str, Any]:
    """Rounds of one run in their order: base accuracy, figures of each round, seconds in all, held-out problems."""
    first = next((each for each in rounds if each.metrics.get("evaluation")), None)
    base = _measured(first, "incumbent") if first is not None and first.number == 1 else {}
    return {
        "base": _accuracy(base, "policy_pass1"),
        "base_system": _accuracy(base, "system"),
        "base_best_of_n": _accuracy(base, "best_of_n"),
        "base_majority": _accuracy(base, "majority"),
        "rounds": [_round(each) for each in rounds],
        "seconds": None if seconds is None else round(seconds, 1),
        "held_out": base.get("held_out.greedy", {}).get("n"),
    }


def _round(view: RoundView) -> dict[str, Any]:
    measured = _measured(view, "candidate")
    quality = (view.metrics.get("prm") or {}).get("quality", {})
    taken = None if view.ended_at is None else (view.ended_at - view.created_at).total_seconds()
    return {
        "round": view.number,
        **{name: _accuracy(measured, name) for name in MEASURED},
        "ci95": {name: measured.get(key, {}).get("ci95") for name, key in MEASURED.items()},
        "coverage": view.metrics.get("label", {}).get("coverage"),
        "prm_auc": quality.get("step_auc", {}).get("value"),
        "prm_promoted": _prm_promoted(view),
        "promoted": view.state is RoundState.PROMOTED,
        "state": view.state.value,
        "reason": view.reason,
        "seconds": None if taken is None else round(taken, 1),
        "stages": view.metrics.get("seconds", {}),
    }


def _prm_promoted(view: RoundView) -> bool | None:
    """Whether the round's PRM serves after it; None where none was trained."""
    if not view.metrics.get("prm"):
        return None
    judged = view.metrics.get("gate", {}).get("prm") or {}
    return view.state is RoundState.PROMOTED and not judged.get("loses", False)


def _measured(view: RoundView, who: str) -> dict[str, Any]:
    found: dict[str, Any] = (view.metrics.get("evaluation") or {}).get(who, {}).get("measured", {})
    return found


def _accuracy(measured: dict[str, Any], name: str) -> float | None:
    found: float | None = measured.get(MEASURED[name], {}).get("accuracy")
    return found
