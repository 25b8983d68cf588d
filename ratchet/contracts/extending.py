"""A search that is over, and goes on with a larger budget: `POST /search/{id}/extend`."""

import math
from collections.abc import Mapping
from typing import Final

from pydantic import Field, model_validator

from ratchet.contracts.base import Contract
from ratchet.contracts.search import MAX_NODES, MAX_ROLLOUTS, MAX_SECONDS, MAX_TOKENS, Budget

MOST: Final[Mapping[str, float]] = {
    "tokens": MAX_TOKENS,
    "seconds": MAX_SECONDS,
    "nodes": MAX_NODES,
    "rollouts": MAX_ROLLOUTS,
}


class ShrinkingBudgetError(ValueError):
    """A search would have less than before; `field` says of what."""

    def __init__(self, field: str, before: float) -> None:
        super().__init__(f"The search had {before:g} already, and what it may use only grows.")
        self.field: Final = field


class Limits(Contract):
    """All that ends a search for what it has used: its budget, and the rollouts of its parameters."""

    budget: Budget
    rollouts: int


class ExtendRequest(Contract):
    """Body of `POST /search/{id}/extend`: what the search may use in all, what it has used included. What is left out grows in
    the proportion in which the others grow at the most."""

    tokens: int | None = Field(
        default=None, ge=1, le=MAX_TOKENS, description="Generated tokens.", examples=[8192]
    )
    seconds: float | None = Field(
        default=None, gt=0, le=MAX_SECONDS, description="Seconds that are worked on it."
    )
    nodes: int | None = Field(default=None, ge=1, le=MAX_NODES, description="Nodes in the tree.")
    rollouts: int | None = Field(
        default=None, ge=1, le=MAX_ROLLOUTS, description="Solutions, as in `parameters`."
    )

    @model_validator(mode="after")
    def _something_is_asked_for(self) -> "ExtendRequest":
        if not self.model_dump(exclude_none=True):
            raise ValueError("name at least one of tokens, seconds, nodes and rollouts")
        return self

    def grown(self, had: Limits) -> Limits:
        """What the search may use from now on. Raises ShrinkingBudgetError."""
        before: dict[str, float] = {**had.budget.model_dump(), "rollouts": had.rollouts}
        asked: dict[str, float] = self.model_dump(exclude_none=True)
        for name, value in asked.items():
            if value < before[name]:
                raise ShrinkingBudgetError(name, before[name])
        factor = max(value / before[name] for name, value in asked.items())
        now = {name: min(MOST[name], math.ceil(value * factor)) for name, value in before.items()} | asked
        budget = Budget(tokens=int(now["tokens"]), seconds=now["seconds"], nodes=int(now["nodes"]))
        return Limits(budget=budget, rollouts=int(now["rollouts"]))
