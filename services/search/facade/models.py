"""The models of the façade: names for how much is searched. What answers in each is the pair that serves."""

from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import Field

from ratchet.contracts.base import Contract
from ratchet.contracts.search import StrategyName

CREATED: Final = 1_764_000_000
"""Clients want a date of each model, in Unix seconds: that of these names."""

SEARCHES: Final[Mapping[str, Mapping[str, Any]]] = {
    # The defaults of POST /search, with the strategy that measured best.
    "ratchet": {"strategy": StrategyName.AUTO},
    # Four trajectories and their vote: the fewest by which programs can agree and one be outvoted.
    "ratchet-fast": {
        "strategy": StrategyName.MAJORITY,
        "parameters": {"rollouts": 4},
        "budget": {"tokens": 1024, "seconds": 120.0},
    },
    # Four times the rollouts, tokens and nodes of `ratchet`.
    "ratchet-max": {
        "strategy": StrategyName.AUTO,
        "parameters": {"rollouts": 64},
        "budget": {"tokens": 16_384, "seconds": 1800.0, "nodes": 4096},
    },
}
"""Fields of `POST /search` that each name stands for; the others have their defaults."""


class FacadeModel(Contract):
    """A name that a completion may ask for."""

    id: str = Field(examples=["ratchet"])
    object: Literal["model"] = "model"
    created: int = CREATED
    owned_by: Literal["ratchet"] = "ratchet"


class FacadeModels(Contract):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[FacadeModel]


def every_model() -> FacadeModels:
    """All names, the usual one first."""
    return FacadeModels(data=[FacadeModel(id=name) for name in SEARCHES])
