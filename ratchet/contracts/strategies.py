"""Which strategy measured best for a policy with its PRM: what a search with the strategy `auto` takes."""

from typing import Annotated

from pydantic import Field, field_validator

from ratchet.contracts.base import Contract, Text
from ratchet.contracts.search import StrategyName
from ratchet.contracts.serving import ModelVersion


class StrategyChoice(Contract):
    """The strategy of one policy version with one PRM version, and the measurement that speaks for it."""

    policy: ModelVersion
    prm: ModelVersion
    strategy: StrategyName = Field(description="Any but `auto`.")
    accuracy: float = Field(ge=0, le=1, description="Of this strategy, the mean over its budgets.")
    n: int = Field(ge=1, le=10_000_000, description="Problems.")
    tokens: list[Annotated[int, Field(ge=1, le=10_000_000)]] = Field(
        min_length=1, max_length=100, description="Budgets at which it was measured."
    )
    compared: list[StrategyName] = Field(
        min_length=1, max_length=100, description="What it was the best of, itself among them."
    )
    source: Text = Field(min_length=1, max_length=1000, description="Which problems those were.")

    @field_validator("strategy")
    @classmethod
    def _is_one_that_searches(cls, value: StrategyName) -> StrategyName:
        if value is StrategyName.AUTO:
            raise ValueError("auto cannot stand for itself")
        return value


class StrategyChoices(Contract):
    """Choices, the newest first."""

    choices: list[StrategyChoice]
