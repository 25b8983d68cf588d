"""Reading the metrics of a round that may have ended anywhere: what is not there is None, and shows as a dash."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ratchet.contracts.rounds import RoundView
from ratchet.contracts.search import StrategyName
from ratchet.states import ROUND_ENDS

DASH = "–"
INCUMBENT, CANDIDATE = "incumbent", "candidate"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share in [0, 1] with its 95 % interval; `tokens` is what the policy generated for one problem, on average."""

    value: float
    low: float
    high: float
    n: int | None = None
    tokens: float | None = None
    outcomes: str = ""


def at(tree: Any, *path: str) -> Any:
    """What lies at the end of the path; None where it breaks off."""
    for name in path:
        if not isinstance(tree, Mapping):
            return None
        tree = tree.get(name)
    return tree


def entries(tree: Any, *path: str) -> Mapping[str, Any]:
    """The mapping at the end of the path; an empty one where there is none."""
    found = at(tree, *path)
    return found if isinstance(found, Mapping) else {}


def number(tree: Any, *path: str) -> float | None:
    """The finite number at the end of the path."""
    found = at(tree, *path)
    is_number = isinstance(found, int | float) and not isinstance(found, bool)
    return found if is_number and math.isfinite(found) else None


def measured(view: RoundView, who: str, strategy: StrategyName) -> Estimate | None:
    """Accuracy of a pair's strategy on the held-out problems."""
    found = at(view.metrics, "evaluation", who, "measured", f"held_out.{strategy}")
    value, n = number(found, "accuracy"), number(found, "n")
    if value is None:
        return None
    low, high = _interval(at(found, "ci95"), value)
    outcomes = at(found, "outcomes")
    return Estimate(
        value,
        low,
        high,
        None if n is None else int(n),
        number(found, "tokens"),
        outcomes if isinstance(outcomes, str) else "",
    )


def prm_figure(view: RoundView, name: str) -> Estimate | None:
    """A figure of the PRM's quality on problems that it was not trained on."""
    found = at(view.metrics, "prm", "quality", name)
    value, n = number(found, "value"), number(found, "n")
    if value is None:
        return None
    low, high = _interval((number(found, "low"), number(found, "high")), value)
    return Estimate(value, low, high, None if n is None else int(n))


def start_of(rounds: Sequence[RoundView]) -> tuple[RoundView, str] | None:
    """The round that measured what the run began with, and what that is: "base", or the version that served already."""
    for view in rounds:
        if entries(view.metrics, "evaluation", INCUMBENT, "measured"):
            base, policy = at(view.metrics, "models", "base"), at(view.metrics, "models", "policy")
            return view, "base" if policy in (base, None) else str(policy)
    return None


def state_name(view: RoundView) -> str:
    """For people."""
    named = view.state.value.replace("_", " ")
    return f"{named}, paused" if view.paused and view.state not in ROUND_ENDS else named


def percent(value: float | None) -> str:
    """12.3 %."""
    return DASH if value is None else f"{100 * value:.1f} %"


def count(value: float | None) -> str:
    """12,345."""
    return DASH if value is None else f"{value:,.0f}"


def _interval(ends: Any, value: float) -> tuple[float, float]:
    match ends:
        case [int() | float() as low, int() | float() as high]:
            return min(low, value), max(high, value)
        case _:
            return value, value
