"""The search tree: nodes are executed steps, the root is the bare problem.

A node's id is a hash of its parent's id and its step's code, so the same step after the same prefix is the same node,
whichever task found it and in whatever order. Where two tasks found it, what is kept is what the earlier task (by number) saw.
"""

import hashlib
from bisect import insort
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ratchet.contracts.sandbox import StepStatus
from ratchet.solutions.programs import step_fingerprint
from ratchet.states import NODE_TRANSITIONS, NodeState, check_transition

ROOT = "root"


@dataclass(slots=True)
class Node:
    """One executed step. `visits` counts the rollouts that went through it, `value_sum` their values."""

    id: str
    parent: str | None
    ordinal: tuple[int, int]
    """Number of the task that made it, and its place in that task's rollout."""
    depth: int
    state: NodeState
    text: str = ""
    status: StepStatus | None = None
    stdout: str = ""
    stderr: str = ""
    prm_score: float | None = None
    prior: float = 0.0
    tokens: int = 0
    seconds: float = 0.0
    answer: str | None = None
    ended_by: str | None = None
    """Why nothing can follow it, where that is not its depth, its answer or its failure."""
    visits: int = 0
    value_sum: float = 0.0
    ended: int = 0
    """Rollouts that ended here."""
    expansions: int = 0
    """Tasks that began here: each took one child on its way."""
    expanding: int = 0
    """Tasks under way that began here."""
    children: list[str] = field(default_factory=list)
    in_flight: int = 0
    """Tasks under way that go through here."""

    @property
    def q(self) -> float:
        """Mean backed-up value, in [-1, 1]; 0 before the first visit."""
        return self.value_sum / self.visits if self.visits else 0.0


@dataclass(frozen=True, slots=True)
class Frontier:
    """How far a search that grows level by level has come. The levels above are done, and change no more."""

    strategy: object
    """Whose levels these are."""
    width: int
    draws: Mapping[str, int]
    """The nodes of the level that is worked on, and the draws of each."""
    ended: int
    """Trajectories that ended above it."""
    candidates: Sequence[Node] = ()
    """What the level was chosen from; none of the first one."""


@dataclass(slots=True)
class Tree:
    """Nodes by id, and what is in flight."""

    nodes: dict[str, Node] = field(
        default_factory=lambda: {ROOT: Node(ROOT, None, (-1, 0), 0, NodeState.OPEN)}
    )
    start: str = ROOT
    """Every task begins at this node or below it: the root, or the last step of a beginning that was given."""
    asked: int = 0
    """Tasks asked so far: the number of the next one."""
    pending: set[int] = field(default_factory=set)
    frontier: Frontier | None = field(default=None, compare=False)
    """Saves a search the way to the level that it works on. None: it finds it anew, and finds the same."""

    @property
    def rollouts(self) -> int:
        """Rollouts that were completed or are under way."""
        return self.root.visits + self.root.in_flight

    @property
    def root(self) -> Node:
        return self.nodes[ROOT]

    @property
    def top(self) -> Node:
        """The node `start`."""
        return self.nodes[self.start]

    def children(self, node: Node) -> list[Node]:
        return [self.nodes[child] for child in node.children]

    def path(self, node_id: str) -> list[Node]:
        """From the first step to the node; empty for the root."""
        path: list[Node] = []
        node = self.nodes[node_id]
        while node.parent is not None:
            path.append(node)
            node = self.nodes[node.parent]
        return path[::-1]

    def ancestors(self, node_id: str) -> Iterator[Node]:
        """The node and all above it, up to the root."""
        current: str | None = node_id
        while current is not None:
            node = self.nodes[current]
            yield node
            current = node.parent

    def terminals(self) -> list[Node]:
        """Ends of trajectories that gave an answer, in the order of their ordinals."""
        found = [node for node in self.nodes.values() if node.answer is not None and node.visits > 0]
        return sorted(found, key=lambda node: node.ordinal)

    def add(self, parent: Node, step: Node) -> Node:
        """Insert `step` under `parent`, or merge it with the same step that is there; the node that stands."""
        there = self.nodes.get(step.id)
        if there is None:
            self.nodes[step.id] = step
            self._insert(parent, step)
            return step
        there.tokens += step.tokens
        there.seconds += step.seconds
        if there.state is NodeState.ABANDONED and step.state is not NodeState.ABANDONED:
            check_transition(NODE_TRANSITIONS, there.state, step.state)
            there.state = step.state
        if step.ordinal < there.ordinal:
            there.ordinal, there.text = step.ordinal, step.text
            there.status, there.stdout, there.stderr = step.status, step.stdout, step.stderr
            there.prm_score, there.prior, there.answer = step.prm_score, step.prior, step.answer
            parent.children.remove(there.id)
            self._insert(parent, there)
        return there

    def _insert(self, parent: Node, child: Node) -> None:
        """Among the children by its ordinal."""
        insort(parent.children, child.id, key=lambda each: self.nodes[each].ordinal)

    def close(self, node: Node, reason: str) -> None:
        """Nothing can follow this node: it is not gone on from."""
        node.ended_by = reason
        # Another node may be kept in its place.
        self.frontier = None
        if node.state is NodeState.OPEN:
            check_transition(NODE_TRANSITIONS, node.state, NodeState.EXHAUSTED)
            node.state = NodeState.EXHAUSTED

    def settle(self, node: Node, limit: Callable[[Node], float]) -> list[str]:
        """Mark as exhausted each node from here up that has no way on left and nothing under way below it; their ids.

        A node gets no more expansions than `limit` says of it. The start stays open: the policy can always be asked for
        another solution.
        """
        changed = []
        for current in self.ancestors(node.id):
            if current.id == self.start:
                break
            if (
                current.state is NodeState.OPEN
                and current.in_flight == 0
                and current.expansions >= limit(current)
                and all(child.state is not NodeState.OPEN for child in self.children(current))
            ):
                check_transition(NODE_TRANSITIONS, current.state, NodeState.EXHAUSTED)
                current.state = NodeState.EXHAUSTED
                changed.append(current.id)
        return changed


def node_id(parent: str, text: str, status: StepStatus) -> str:
    """Id of the step `text` under `parent`. A step that did not run is told from one that did."""
    ran = "ok" if status is StepStatus.OK else "failed"
    return hashlib.sha256(f"{parent}\0{ran}\0{step_fingerprint(text)}".encode()).hexdigest()[:16]
