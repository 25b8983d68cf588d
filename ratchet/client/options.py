"""What a caller may say of a search besides its problem, and where the service is."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from ratchet.contracts.branching import BranchRequest
from ratchet.contracts.extending import ExtendRequest
from ratchet.contracts.search import (
    Budget,
    PinnedModels,
    Priority,
    SearchRequest,
    StrategyName,
    StrategyParameters,
    VerificationLevel,
)
from ratchet.contracts.search_list import SearchFilter
from ratchet.stack.config import default_data
from ratchet.stack.data_folder import running_stack
from ratchet.states import SearchState


class SolveOptions(TypedDict, total=False):
    """Fields of `POST /search`; what is left out has the service's default."""

    reference_answer: str
    strategy: StrategyName | str
    parameters: StrategyParameters | Mapping[str, Any]
    budget: Budget | Mapping[str, Any]
    models: PinnedModels | Mapping[str, Any]
    seed: int
    priority: Priority | str
    require: VerificationLevel | str
    min_confidence: float


def search_request(problem: str, options: Mapping[str, Any]) -> SearchRequest:
    """The request. Raises pydantic's ValidationError, a ValueError, that names the field."""
    return SearchRequest.model_validate({**options, "problem": problem})


class BranchOptions(TypedDict, total=False):
    """Fields of `POST /search/{id}/branch`; `edit` is the text of the step."""

    edit: str
    forbid: bool
    budget: Budget | Mapping[str, Any]
    seed: int
    strategy: StrategyName | str
    parameters: StrategyParameters | Mapping[str, Any]


def branch_request(node: str, options: Mapping[str, Any]) -> BranchRequest:
    """The request. Raises pydantic's ValidationError, a ValueError, that names the field."""
    edit = {"edit": {"text": options["edit"]}} if options.get("edit") is not None else {}
    return BranchRequest.model_validate({**options, **edit, "node": node})


class ExtendOptions(TypedDict, total=False):
    """Fields of `POST /search/{id}/extend`: what the search may use in all."""

    tokens: int
    seconds: float
    nodes: int
    rollouts: int


def extend_request(options: Mapping[str, Any]) -> ExtendRequest:
    """The request. Raises pydantic's ValidationError, a ValueError, that names the field."""
    return ExtendRequest.model_validate(options)


class ListOptions(TypedDict, total=False):
    """What searches are found by: fields of SearchFilter."""

    text: str
    state: SearchState | str
    level: VerificationLevel | str
    model: str
    strategy: StrategyName | str


def search_filter(only: Mapping[str, Any]) -> SearchFilter:
    """What the list is narrowed down to. Raises pydantic's ValidationError, a ValueError, that names the field."""
    return SearchFilter.model_validate(only)


def find_service(url: str | None, key: str | None, data: Path | str | None) -> tuple[str, str | None]:
    """Address and key: what is given, otherwise `RATCHET_KEY`, otherwise the stack that runs in the data folder.

    Raises ValueError where no address is given and no stack runs.
    """
    if url is not None:
        return url, key or os.environ.get("RATCHET_KEY")
    folder = Path(data) if data is not None else default_data()
    running = running_stack(folder)
    if running is None:
        raise ValueError(
            f"no stack runs in {folder}: start one with `ratchet up`, or give the url of a service"
        )
    return running.search, key or running.key
