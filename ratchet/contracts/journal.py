"""What a search did, task by task, and why: `GET /search/{id}/journal`."""

from enum import StrEnum

from pydantic import Field

from ratchet.contracts.base import Contract


class Rule(StrEnum):
    """By what a strategy chose the node at which a task begins."""

    WIDEN = "widen"
    """mcts: the problem itself has had fewer rollouts of its own than a node gets."""
    UCT = "uct"
    """mcts: the child with the highest estimate and exploration, again and again, down to a node that lacks rollouts."""
    AGAIN = "again"
    """mcts: every way was tried, so another solution from the start."""
    LEVEL = "level"
    """beam, dvts: among the best candidates of its level, or of its subtree."""
    SHARE = "share"
    """rebase: its share of the draws of its level."""
    FRESH = "fresh"
    """best_of_n, majority, greedy: each solution is drawn for itself."""


class RunnerUp(Contract):
    """The best of those that were not taken."""

    node: str
    score: float | None = Field(description="Null: it was never visited.")


class Choice(Contract):
    """One choice on the way from the start to the node."""

    node: str = Field(description="What was taken.")
    estimate: float = Field(
        description="uct: mean of the backed-up values and of the PRM's seed, in [-1, 1]. Otherwise the PRM's score, in [0, 1]."
    )
    explore: float | None = Field(
        description="uct: `c * sqrt(ln N_parent / N)`. Null: it was never visited, or the rule has no such term."
    )
    score: float | None = Field(
        description="What was compared. uct: estimate and exploration; share: draws. Null: never visited, and so before others."
    )
    rank: int = Field(
        ge=1, description="Its place among the candidates. uct: those before it had nothing left to draw."
    )
    of: int = Field(ge=1, description="How many candidates there were.")
    runner_up: RunnerUp | None


class Why(Contract):
    """Why a task begins where it does."""

    rule: Rule
    steps: list[Choice] = Field(description="From the start down; empty where the start itself was chosen.")
    words: str = Field(description="The same in one or two plain sentences.")


class JournalTask(Contract):
    """A task: what the strategy asked for, what came of it, and why it was asked for."""

    number: int = Field(description="Counts the tasks in the order in which they were asked for.")
    node: str = Field(description="Where it began.")
    draw: str = Field(
        description="trajectory: all that is left of a solution; steps: the same step by step; step: one step."
    )
    order: int = Field(
        ge=0, description="Counts the tasks in the order in which the strategy was told of them, from 0."
    )
    made: list[str] = Field(description="Nodes that it was the first to add, parents before children.")
    end: str | None = Field(
        description="Where its trajectory ended; null where only a step was drawn and nothing ended."
    )
    value: float | None = Field(description="Of the trajectory, in [-1, 1]; null where it gave no answer.")
    why: Why | None = Field(
        description="The terms at the moment at which it was asked for. Null: an older version asked, or the search has low "
        "priority."
    )


class JournalPage(Contract):
    """Tasks in the order in which the strategy was told of them. Nodes that no task made were there at the start."""

    tasks: list[JournalTask]
    next: int | None = Field(
        description="`after` of the next page; null where this is the last so far: of a search under way, ask again with the "
        "`order` of the last task."
    )
