"""What a strategy and its caller say to one another."""

from dataclasses import dataclass
from typing import Protocol

from ratchet.contracts.sandbox import StepStatus
from services.search.strategies.tree import Tree


@dataclass(frozen=True, slots=True)
class Task:
    """A rollout: complete a trajectory from `node` to its end; run and score its steps."""

    number: int
    """Counts the tasks of one search from 0; identifies the task and orders what it made."""
    node: str
    retries: int
    """How often to go on from the last good step after one that does not run."""


@dataclass(frozen=True, slots=True)
class ExecutedStep:
    """A step that was generated, run and (where it ran) scored."""

    text: str
    status: StepStatus
    stdout: str
    stderr: str
    prm_score: float | None
    prior: float
    """Mean log-probability under the policy, nats."""
    tokens: int
    seconds: float
    answer: str | None = None
    """Set where this step ends the solution."""
    value: float | None = None
    """Set with `answer`: value of the trajectory that ends here, in [-1, 1]."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """What came of a task: the paths below its node that were tried.

    The last one is the trajectory that stands, those before it ended in a step that did not run. A trajectory without an
    answer is a dead end, of value -1.
    """

    task: Task
    paths: tuple[tuple[ExecutedStep, ...], ...]


class Strategy(Protocol):
    """One way to grow a tree."""

    def ask(self, tree: Tree) -> Task | None:
        """The next task, marked in `tree` as in flight; None when there is none until a rollout under way is told.

        None with nothing in flight: the search has nothing left to do.
        """

    def tell(self, tree: Tree, rollout: Rollout) -> list[str]:
        """Record a rollout; the ids of nodes that were added or changed. Telling it again changes nothing."""

    def weight(self, prm_scores: list[float], visits: int) -> float:
        """What one trajectory adds to its answer's vote: `prm_scores` of its steps, `visits` of its end."""
