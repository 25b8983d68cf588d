"""Why a task begins where it does: the terms of the rule, and the same in words.

A strategy says it of the task that it has just been asked for, from the tree alone: asking costs no more for it, and a search
that nobody watches is not asked why.
"""

from dataclasses import dataclass
from typing import Any

from ratchet.contracts.journal import Rule


@dataclass(frozen=True, slots=True)
class RunnerUp:
    """The best of those that were not taken."""

    node: str
    score: float | None


@dataclass(frozen=True, slots=True)
class Choice:
    """One choice on the way down; `ratchet.contracts.journal.Choice` says what the fields mean."""

    node: str
    estimate: float
    explore: float | None
    score: float | None
    rank: int
    of: int
    runner_up: RunnerUp | None

    def terms(self) -> dict[str, Any]:
        """As JSON takes it."""
        other = self.runner_up
        return {
            "node": self.node,
            "estimate": self.estimate,
            "explore": self.explore,
            "score": self.score,
            "rank": self.rank,
            "of": self.of,
            "runner_up": None if other is None else {"node": other.node, "score": other.score},
        }


@dataclass(frozen=True, slots=True)
class Why:
    """Why a task begins where it does."""

    rule: Rule
    words: str
    steps: tuple[Choice, ...] = ()

    def terms(self) -> dict[str, Any]:
        """As JSON takes it: the fields of `ratchet.contracts.journal.Why`."""
        return {"rule": self.rule.value, "steps": [step.terms() for step in self.steps], "words": self.words}


def times(count: int, thing: str) -> str:
    """`1 rollout`, `3 rollouts`."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def draw_of(number: int, most: int, thing: str) -> str:
    """`draw 3 of 8`, where `number` is the one at hand."""
    return f"{thing} {number} of {most}"
