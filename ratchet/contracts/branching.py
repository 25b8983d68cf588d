"""A search that goes on from a step of another one: `POST /search/{id}/branch`."""

from typing import Annotated

from pydantic import AfterValidator, Field

from ratchet.contracts.base import Contract, StepText, not_blank
from ratchet.contracts.search import Budget, Parent, StrategyName, StrategyParameters


class StepEdit(Contract):
    """What takes the place of a step."""

    text: Annotated[StepText, AfterValidator(not_blank)] = Field(
        examples=["# Half as many in May.\nmay = 48 / 2"]
    )


class BranchRequest(Contract):
    """Body of `POST /search/{id}/branch`. What is left out is as it was in that search."""

    node: str = Field(
        min_length=1,
        max_length=64,
        description="Go on from this node; `root` is the bare problem.",
        examples=["root"],
    )
    edit: StepEdit | None = Field(default=None, description="The node's step is replaced by this one.")
    forbid: bool = Field(
        default=False,
        description="Go on from the node's parent instead, and never take this step as the next one, however it is written.",
    )
    budget: Budget | None = Field(default=None, description="The new search's own.")
    seed: int | None = Field(default=None, ge=0, lt=2**31)
    strategy: StrategyName | None = None
    parameters: StrategyParameters | None = Field(
        default=None, description="Those that are given; the others are as they were."
    )


class Beginning(Contract):
    """What a branched search was given to begin with. It is stored beside the request."""

    parent: Parent
    steps: list[StepText] = Field(description="From the first; run and scored, not drawn.")
    edited: bool = Field(default=False, description="The last of them was written by a person.")
    forbidden: list[StepText] = Field(
        default_factory=list, description="Steps that are never taken as the next one after those."
    )

    @property
    def alters(self) -> bool:
        """Whether the search is another one than the policy would have had by itself."""
        return bool(self.steps or self.forbidden)
