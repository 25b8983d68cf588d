"""A search that was run again from its journal: `GET /search/{id}/replay`."""

from pydantic import Field

from ratchet.contracts.base import Contract
from ratchet.contracts.search import StrategyName


class ReplayedTask(Contract):
    """One task: what the strategy asked for, and what it was told."""

    number: int = Field(
        description="Counts the tasks of the search from 0, in the order in which they were asked for."
    )
    asked: int = Field(description="Tasks that had been asked for when the strategy was told of this one.")
    node: str = Field(description="The node that it began at.")
    draw: str = Field(
        description="What the policy was asked for: a trajectory, its steps one by one, or one step."
    )
    same: bool = Field(description="Asked again, the strategy began at the same node, with the same draw.")
    made: list[str] = Field(description="Nodes that it was the first to add, parents before children.")
    end: str | None = Field(
        description="The node at which its trajectory ended; none where only a step was drawn and nothing ended."
    )
    value: float | None = Field(description="Of the trajectory, in [-1, 1]; none where it gave no answer.")
    leading: str | None = Field(description="The answer that leads the vote after it.")


class Replay(Contract):
    """A search run again: strategy and vote are asked anew, policy, sandbox and PRM are taken from the journal."""

    search: str
    strategy: StrategyName
    tasks: list[ReplayedTask] = Field(description="In the order in which the strategy was told of them.")
    workers: int = Field(description="How many workers had the search, one after another.")
    same_tasks: bool = Field(description="The strategy asked for the same tasks.")
    same_tree: bool = Field(
        description="The tree has the same nodes with the same visits, values and states."
    )
    differing_nodes: list[str] = Field(description="Where the trees differ; the first ten.")
    answer: str | None = Field(description="The answer of the search.")
    leading: str | None = Field(
        description="The answer that leads the vote over the tree that was grown again."
    )
    place: int | None = Field(
        description="Where the search's answer stands in that vote, from 1. It is not the first where the leading answer was "
        "not given again by its program, or does not equal the reference answer. None: it is not among them."
    )

    @property
    def holds(self) -> bool:
        """Whether everything came out as it was journalled."""
        return self.same_tasks and self.same_tree and (self.answer is None or self.place is not None)
