"""Reading the metrics of rounds that may have ended anywhere: what is not there is None, and shows as a dash."""

from collections.abc import Sequence
from dataclasses import dataclass

from ratchet.contracts.round_metrics import Figure, Measured, MeasuredPair
from ratchet.contracts.rounds import RoundView
from ratchet.contracts.search import StrategyName
from ratchet.states import ROUND_ENDS

DASH = "–"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share in [0, 1] with its 95 % interval; `tokens` is what the policy generated for one problem, on average."""

    value: float
    low: float
    high: float
    n: int
    tokens: float | None = None
    outcomes: str = ""


def accuracy_of(pair: MeasuredPair, strategy: StrategyName) -> Estimate | None:
    """Accuracy of a pair's strategy on the held-out problems."""
    found = pair.measured.get(f"held_out.{strategy}")
    return None if found is None else estimate_of_measured(found)


def estimate_of_measured(found: Measured) -> Estimate:
    """The accuracy of one strategy of one pair."""
    low, high = found.ci95
    # An interval that was rounded may leave out a share of 0 or 1.
    return Estimate(
        found.accuracy,
        min(low, found.accuracy),
        max(high, found.accuracy),
        found.n,
        found.tokens,
        found.outcomes,
    )


def estimate_of(figure: Figure) -> Estimate | None:
    """A figure of a PRM's quality, where there is one."""
    if figure.value is None or figure.low is None or figure.high is None:
        return None
    return Estimate(figure.value, min(figure.low, figure.value), max(figure.high, figure.value), figure.n)


def start_of(rounds: Sequence[RoundView]) -> tuple[MeasuredPair, str] | None:
    """What the run began with, as it was measured first, and its name: "base", or the version that served already."""
    for view in rounds:
        evaluation, models = view.metrics.evaluation, view.metrics.models
        if evaluation is not None and evaluation.incumbent.measured:
            return evaluation.incumbent, (
                "base" if models is None or models.policy == models.base else models.policy
            )
    return None


def state_name(view: RoundView) -> str:
    """For people."""
    name = view.state.value.replace("_", " ")
    return f"{name}, paused" if view.paused and view.state not in ROUND_ENDS else name


def percent(value: float | None) -> str:
    """12.3 %."""
    return DASH if value is None else f"{100 * value:.1f} %"


def count(value: float | None) -> str:
    """12,345."""
    return DASH if value is None else f"{value:,.0f}"
