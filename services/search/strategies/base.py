"""What a strategy and its caller say to one another."""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from ratchet.contracts.sandbox import StepStatus
from services.search.strategies.gate import Gate
from services.search.strategies.tree import Tree
from services.search.strategies.why import Why


class Draw(Enum):
    """What a task asks the policy for."""

    TRAJECTORY = auto()
    """All that is left of a solution, in one piece."""
    STEPS = auto()
    """All that is left of a solution, one step at a time. With a gate each is run and scored before the next is drawn."""
    STEP = auto()
    """One step."""


@dataclass(frozen=True, slots=True)
class Task:
    """Draw what follows `node`; run and score its steps."""

    number: int
    """Counts the tasks of one search from 0; identifies the task and orders what it made."""
    node: str
    draw: Draw
    retries: int = 0
    """TRAJECTORY: how often to go on from the last good step after one that does not run."""
    gate: Gate | None = None
    """STEPS: which of them are left; None: none, and all are run when the last one is drawn."""


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
    abandoned: bool = False
    """It ran, and the gate left it."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """What came of a task: the paths below its node that were tried.

    The last one is what stands, those before it ended in a step that did not run or was abandoned. A trajectory without
    an answer is a dead end, of value -1.
    """

    task: Task
    paths: tuple[tuple[ExecutedStep, ...], ...]
    ended_by: str | None = None
    """Why nothing can follow the last step that stands; None where something can, or need not."""


class Strategy(Protocol):
    """One way to grow a tree."""

    def ask(self, tree: Tree) -> Task | None:
        """The next task, marked in `tree` as in flight; None when there is none until a rollout under way is told.

        None with nothing in flight: the search has nothing left to do.
        """

    def is_free(self, tree: Tree) -> bool:
        """Whether the next task would be the same whatever those under way bring: it need not wait for them."""

    def explain(self, tree: Tree, task: Task) -> Why:
        """Why the task begins where it does; to be asked at once after `ask` gave it. Changes nothing."""

    def tell(self, tree: Tree, rollout: Rollout) -> list[str]:
        """Record a rollout; the ids of nodes that were added or changed. Telling it again changes nothing."""
