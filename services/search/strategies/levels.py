"""Searches that grow level by level: all nodes of a level are expanded by single steps, then the next level is chosen.

What is to be drawn is a function of the tree alone, so that a tree that was saved is gone on with. A node's `expansions`
say how often it was drawn from. Once all levels of a width are done and the budget is not, the width grows by itself: what
was drawn for the smaller one counts for the larger.

Levels that are done are not looked at again while the width is the same, so that a large tree costs little more to ask than a
small one.

Limits: a level waits for its slowest step. Only ends count as visits.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ratchet.contracts.journal import Rule
from ratchet.states import NodeState
from services.search.strategies.base import Draw, Rollout, Task
from services.search.strategies.recording import back_up, end_task, record_paths, start_task
from services.search.strategies.tree import Frontier, Node, Tree
from services.search.strategies.why import Choice, RunnerUp, Why, draw_of

UNSCORED = 0.5
"""The score of a step that no PRM has seen."""


@dataclass(frozen=True, slots=True)
class Level:
    """Nodes that were expanded together, and the draws that each was to have."""

    nodes: Mapping[str, int]
    children: Sequence[Node]
    """Theirs, those that may be gone on from or ended, in the order in which they were made."""
    ended: int
    """Trajectories that ended in this level or above it."""


@dataclass(frozen=True, slots=True)
class LevelWise(ABC):
    """What beam search, DVTS and REBASE share; `allot` is what they differ in."""

    rollouts: int
    """Once so many trajectories have ended, no more steps are asked for."""
    width: int
    """Draws in a level."""
    branching_factor: int
    """Draws from a node that is kept (beam, dvts)."""
    max_depth: int

    @abstractmethod
    def allot(self, tree: Tree, level: Level, width: int) -> dict[str, int]:
        """The nodes of the next level, and how often a step is drawn from each."""

    def ask(self, tree: Tree) -> Task | None:
        """The next step to draw; None when the rollouts are used up, or a level waits for steps under way."""
        if tree.top.visits >= self.rollouts:
            return None
        begun = tree.top.expansions + tree.top.expanding
        width = max(1, math.ceil(begun / self.width)) * self.width
        # A larger width always has something to draw from the start, so this ends.
        while True:
            found, waits = self._next(tree, width)
            if found is not None:
                return start_task(tree, found, Draw.STEP)
            if waits:
                return None
            width += self.width

    def is_free(self, tree: Tree) -> bool:
        """Always: what a level draws is settled when it begins, and nothing else is asked for until it is done."""
        return True

    def _next(self, tree: Tree, width: int) -> tuple[Node | None, bool]:
        """The first node that lacks a draw at this width; where there is none, whether draws under way may change that."""
        draws, ended, candidates = self._from_where(tree, width)
        while draws:
            tree.frontier = Frontier(self, width, draws, ended, candidates)
            nodes = [tree.nodes[node] for node in draws]
            for node in nodes:
                if node.expansions + node.expanding < draws[node.id]:
                    return node, False
            if any(node.expansions < draws[node.id] for node in nodes):
                return None, True
            children = [
                child
                for node in nodes
                for child in tree.children(node)
                if child.state in (NodeState.OPEN, NodeState.TERMINAL)
            ]
            ended += sum(child.state is NodeState.TERMINAL for child in children)
            draws = self.allot(tree, Level(draws, children, ended), width)
            candidates = children
        return None, False

    def _from_where(self, tree: Tree, width: int) -> tuple[Mapping[str, int], int, Sequence[Node]]:
        """The level to begin at: the first, or the one that was worked on at this width.

        Draws, ends above it, and what it was chosen from.
        """
        known = tree.frontier
        if known is not None and known.strategy == self and known.width == width:
            return known.draws, known.ended, known.candidates
        return {tree.start: width}, 0, ()

    def explain(self, tree: Tree, task: Task) -> Why:
        """Where the node stands in the level that was chosen last."""
        level, node = tree.frontier, tree.nodes[task.node]
        assert level is not None
        number = draw_of(node.expansions + node.expanding, level.draws[node.id], "draw")
        if node.id == tree.start:
            return Why(self.rule, f"The first level begins here: {number}.")
        choice, words = self.choice(tree, level, node)
        return Why(self.rule, f"{words}: {number}.", (choice,))

    @property
    def rule(self) -> Rule:
        """By what a level is chosen."""
        return Rule.LEVEL

    @abstractmethod
    def choice(self, tree: Tree, level: Frontier, node: Node) -> tuple[Choice, str]:
        """What spoke for a node of the level, and the same in words."""

    def tell(self, tree: Tree, rollout: Rollout) -> list[str]:
        """Record a step; the ids of nodes that were added or changed. Telling it again changes nothing."""
        if not end_task(tree, rollout.task):
            return []
        end, changed = record_paths(tree, rollout, self.max_depth)
        last = rollout.paths[-1][-1] if rollout.paths and rollout.paths[-1] else None
        if last is not None and last.value is not None:
            changed += back_up(tree, end, last.value)
        return list(dict.fromkeys([*changed, rollout.task.node]))


def score_of(node: Node) -> float:
    """The PRM's score of the step; UNSCORED where there is none."""
    return UNSCORED if node.prm_score is None else node.prm_score


def by_score(node: Node, candidates: Sequence[Node], taken: Collection[str]) -> Choice:
    """What spoke for a node where scores are compared; the runner-up is the best of those that are not `taken`."""
    own = _key(node)
    left = min((each for each in candidates if each.id not in taken), key=_key, default=None)
    return Choice(
        node=node.id,
        estimate=score_of(node),
        explore=None,
        score=score_of(node),
        rank=1 + sum(_key(each) < own for each in candidates),
        of=len(candidates),
        runner_up=None if left is None else RunnerUp(left.id, score_of(left)),
    )


def best_first(nodes: Sequence[Node]) -> list[Node]:
    """By score; ties go to the step made first."""
    return sorted(nodes, key=_key)


def _key(node: Node) -> tuple[float, tuple[int, int]]:
    return -score_of(node), node.ordinal
