"""Trainer service: rounds and the model registry."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, FiniteFloat

from ratchet.contracts.base import Contract, Text
from ratchet.states import ModelState


class ModelKind(StrEnum):
    """What a model is for."""

    POLICY = "policy"
    PRM = "prm"


class ModelView(Contract):
    """One version in the registry."""

    version: str = Field(examples=["small@3f2a91c0"])
    kind: ModelKind
    state: ModelState
    parent: str | None
    uri: str
    sha256: str
    dataset: str | None = None
    metrics: dict[str, Any] = Field(default_factory=dict)
    created_at: datetime


class ModelRegistration(Contract):
    """Body of `POST /models`: a version that is there already, in a local folder or on a hub."""

    version: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._/@+-]{0,199}$",
        description="A name of your own.",
        examples=["small@3f2a91c0"],
    )
    kind: ModelKind
    uri: Annotated[Text, Field(min_length=1, max_length=2000)] = Field(
        description="Absolute path of a local folder, or a hub id.",
        examples=["Qwen/Qwen2.5-Coder-0.5B-Instruct"],
    )
    sha256: str = Field(
        pattern=r"^[0-9a-f]{64}$", description="Of the weights, as the policy and PRM services report it."
    )
    parent: Annotated[Text, Field(min_length=1, max_length=200)] | None = Field(
        default=None, description="Registered version that this one was trained from."
    )
    metrics: dict[
        Annotated[Text, Field(max_length=100)], FiniteFloat | Annotated[Text, Field(max_length=1000)]
    ] = Field(default_factory=dict, max_length=100)


class ServedBy(StrEnum):
    """Why a pair was made to serve."""

    ROUND = "round"
    """Its gate promoted it."""
    PERSON = "person"
    """Somebody promoted one of its versions."""
    ROLLBACK = "rollback"
    """It served before, and somebody went back to it."""
    SETTINGS = "settings"
    """The policy service was started with its policy."""


class ServingPair(Contract):
    """A policy and the PRM beside it, as they were made to serve."""

    id: int = Field(description="Grows: the highest one serves.")
    policy: str = Field(examples=["nano-r2-policy@3f2a91c0"])
    prm: str = Field(examples=["nano-r1-prm@928ea3be"])
    why: ServedBy
    round: str | None = Field(description="Id of the round that promoted it.")
    before: int | None = Field(description="The pair that a rollback goes to. None: nothing served before.")
    created_at: datetime


class PairList(Contract):
    """Pairs that were made to serve, the newest first: that one serves."""

    pairs: list[ServingPair]


class Rollback(Contract):
    """Body of `POST /pairs/rollback`."""

    pair: int = Field(
        ge=1,
        le=2**63 - 1,
        description="Id of the pair that serves and is to be left. Sent again, the request goes back once.",
        examples=[7],
    )


class ModelList(Contract):
    """Versions, the newest first."""

    models: list[ModelView]


class DatasetView(Contract):
    """A data set that a round has made."""

    id: str
    name: str
    round: str | None = Field(description="Id of the round.")
    uri: str
    sha256: str = Field(description="Of the file.")
    rows: int


class Ancestor(Contract):
    """A version, and the data that it was trained on."""

    model: ModelView
    dataset: DatasetView | None


class Lineage(Contract):
    """Where a version comes from: itself first, then the one that it was trained from, down to the base."""

    versions: list[Ancestor]
