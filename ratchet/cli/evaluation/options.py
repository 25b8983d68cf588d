"""Reads the options of `ratchet eval` that hold lists. Everything wrong is a typer.BadParameter that names the option."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import typer
from pydantic import ValidationError

from ratchet.cli.evaluation.plan import Comparison
from ratchet.cli.overrides import read_override
from ratchet.contracts.search import Budget, SearchRequest, StrategyName

T = TypeVar("T")

_HAVE_OPTIONS = {"rollouts": "--rollouts", "early_stop": "--early-stop"}
DEFAULT_BASELINE = StrategyName.BEST_OF_N


def comparison_of(
    compared: str | None,
    strategy: StrategyName | None,
    tokens: str | None,
    seeds: str | None,
    baseline: str | None,
    seed: int,
) -> Comparison | None:
    """The comparison that the options ask for; None where they ask for one strategy."""
    if compared is None:
        for given, hint in ((seeds, "--seeds"), (baseline, "--baseline")):
            if given is not None:
                raise typer.BadParameter("it goes with --compare.", param_hint=hint)
        return None
    if strategy is not None:
        raise typer.BadParameter(
            "--compare names the strategies; leave one of the two out.", param_hint="--strategy"
        )
    strategies = _given(compared, strategy_list, "--compare")
    budgets = [Budget().tokens] if tokens is None else _given(tokens, whole_numbers, "--tokens")
    first = DEFAULT_BASELINE if DEFAULT_BASELINE in strategies else strategies[0]
    chosen = first if baseline is None else _given(baseline, _strategy, "--baseline")
    if chosen not in strategies:
        raise typer.BadParameter(f"{chosen} is not among those that are compared.", param_hint="--baseline")
    chosen_seeds = [seed] if seeds is None else _given(seeds, whole_numbers, "--seeds")
    _require_possible(budgets, chosen_seeds)
    return Comparison(tuple(strategies), tuple(budgets), tuple(chosen_seeds), chosen)


def _require_possible(budgets: Sequence[int], seeds: Sequence[int]) -> None:
    """Raise typer.BadParameter unless each budget and each seed is one that a request may have."""
    for field, values, hint in (("budget", budgets, "--tokens"), ("seed", seeds, "--seeds")):
        for value in values:
            try:
                SearchRequest.model_validate(
                    {"problem": "any", field: {"tokens": value} if field == "budget" else value}
                )
            except ValidationError as error:
                raise typer.BadParameter(f"{value}: {error.errors()[0]['msg']}", param_hint=hint) from None


def one_budget(tokens: str | None) -> int | None:
    """The budget of one strategy."""
    if tokens is None:
        return None
    found = _given(tokens, whole_numbers, "--tokens")
    if len(found) > 1:
        raise typer.BadParameter("several budgets go with --compare.", param_hint="--tokens")
    return found[0]


def strategy_parameters(changes: Sequence[str] | None) -> dict[str, Any]:
    """Parameters of the strategy, each `name=value`; whether there is such a one, the request says."""
    found: dict[str, Any] = {}
    for change in changes or ():
        name, value = _given(change, lambda text: read_override(text, example="in_flight=1"), "--set")
        if name in _HAVE_OPTIONS:
            raise typer.BadParameter(
                f"{name} has an option of its own: {_HAVE_OPTIONS[name]}.", param_hint="--set"
            )
        found[name] = value
    return found


def whole_numbers(text: str) -> list[int]:
    """Whole numbers, parted by commas, none of them twice. Raises ValueError."""
    return _each(text, _whole)


def strategy_list(text: str) -> list[StrategyName]:
    """Names of strategies, parted by commas, none of them twice. Raises ValueError."""
    return _each(text, _strategy)


def _each(text: str, read: Callable[[str], T]) -> list[T]:
    found = [read(part.strip()) for part in text.split(",")]
    if len(set(found)) < len(found):
        raise ValueError(f"{text!r} names one of them twice.")
    return found


def _given(text: str, read: Callable[[str], T], hint: str) -> T:
    try:
        return read(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=hint) from None


def _whole(text: str) -> int:
    if not (text.isascii() and text.lstrip("-").isdigit()):
        raise ValueError(f"{text!r} is no whole number; numbers are parted by commas, like 300,600,1200.")
    return int(text)


def _strategy(text: str) -> StrategyName:
    try:
        return StrategyName(text)
    except ValueError:
        known: Sequence[str] = [each.value for each in StrategyName]
        raise ValueError(f"{text!r} is no strategy. Strategies: {', '.join(known)}.") from None
