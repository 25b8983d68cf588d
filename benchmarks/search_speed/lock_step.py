"""The baseline: a batch of searches driven in lock step, in rStar-Math's manner, and how long it takes.

All searches of the batch advance together. In each turn every tree that is under way names a leaf; one request draws all
candidate steps of all leaves, and the turn goes on when the last of them is written; then all are executed, and all are
scored. A rollout goes on from the best candidate until all trees have ended theirs. Written from that description of its
published solver (BFS over a batch of agents), not from its code.

The comparison favours the baseline: it has our policy, PRM and sandbox, asked by one request for all that is due, and no
journal, no events, no verification.
"""

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from ratchet.clients import PolicyClient, PrmClient, SandboxClient
from ratchet.contracts.policy import GenerateRequest, Prefix, Until
from ratchet.contracts.prm import ScoreRequest
from ratchet.contracts.sandbox import RunStepsBatchRequest, RunStepsRequest, StepStatus
from ratchet.problems import Problem

CANDIDATES = 4
MAX_DEPTH = 16
MAX_STEP_TOKENS = 256
EXPLORATION = 2.0
MOST_AT_ONCE = 128
"""Sequences of one request; the contract takes 1,024."""


@dataclass
class Node:
    """A step of a tree."""

    steps: tuple[str, ...]
    score: float = 0.0
    ended: bool = False
    visits: int = 0
    value: float = 0.0
    children: list["Node"] = field(default_factory=list)


@dataclass
class LockStepTree:
    """One search: its tree, and the way of the rollout that is under way."""

    problem: Problem
    seed: int
    tokens: int = 0
    root: Node = field(default_factory=lambda: Node(()))
    way: list[Node] = field(default_factory=list)

    @property
    def leaf(self) -> Node:
        return self.way[-1]

    def begin(self) -> None:
        """Select by UCT down to a node without children."""
        self.way = [self.root]
        while self.leaf.children and not self.leaf.ended:
            parent = self.leaf
            self.way.append(max(parent.children, key=lambda child: _uct(parent, child)))

    @property
    def under_way(self) -> bool:
        return bool(self.way) and not self.leaf.ended and len(self.leaf.steps) < MAX_DEPTH

    def end(self) -> None:
        """Back the score of the last step up."""
        for node in self.way:
            node.visits += 1
            node.value += self.leaf.score


def _uct(parent: Node, child: Node) -> float:
    if child.visits == 0:
        return math.inf
    return child.value / child.visits + EXPLORATION * math.sqrt(
        math.log(max(1, parent.visits)) / child.visits
    )


@dataclass(frozen=True)
class LockStep:
    """The driver of a batch."""

    policy: PolicyClient
    prm: PrmClient
    sandbox: SandboxClient

    async def run(self, problems: Sequence[Problem], rollouts: int, seed: int) -> tuple[list[int], float]:
        """Tokens that each search has drawn, and the seconds that all took together."""
        trees = [LockStepTree(problem, seed + number) for number, problem in enumerate(problems)]
        began = time.monotonic()
        for _ in range(rollouts):
            for tree in trees:
                tree.begin()
            while active := [tree for tree in trees if tree.under_way]:
                await self._advance(active)
            for tree in trees:
                tree.end()
        return [tree.tokens for tree in trees], time.monotonic() - began

    async def _advance(self, trees: Sequence[LockStepTree]) -> None:
        """One turn of all trees: draw, then execute, then score."""
        drawn: list[list[str | None]] = []
        for start in range(0, len(trees), MOST_AT_ONCE // CANDIDATES):
            drawn += await self._draw(trees[start : start + MOST_AT_ONCE // CANDIDATES])
        candidates = [
            (tree, Node((*tree.leaf.steps, step)))
            for tree, steps in zip(trees, drawn, strict=True)
            for step in dict.fromkeys(steps)
            if step is not None
        ]
        await self._execute([node for _, node in candidates])
        for tree in trees:
            tree.leaf.children = [node for owner, node in candidates if owner is tree]
        await asyncio.gather(*map(self._score, trees))
        for tree in trees:
            # Where nothing was drawn, or nothing runs, the rollout ends.
            best = max(tree.leaf.children, key=lambda node: node.score, default=None)
            if best is None:
                tree.leaf.ended = True
            else:
                tree.way.append(best)

    async def _draw(self, trees: Sequence[LockStepTree]) -> list[list[str | None]]:
        response = await self.policy.generate(
            GenerateRequest(
                prefixes=[Prefix(problem=tree.problem.text, steps=list(tree.leaf.steps)) for tree in trees],
                seeds=[(tree.seed * 1_000_003 + tree.tokens) % 2**31 for tree in trees],
                n=CANDIDATES,
                temperature=0.7,
                top_p=0.95,
                max_tokens=MAX_STEP_TOKENS,
                until=Until.STEP,
            )
        )
        for tree, row in zip(trees, response.candidates, strict=True):
            tree.tokens += sum(candidate.tokens for candidate in row)
        return [
            [candidate.steps[0] if candidate.steps else None for candidate in row]
            for row in response.candidates
        ]

    async def _execute(self, nodes: Sequence[Node]) -> None:
        """Run each candidate with all that is before it; one that prints or fails ends its way."""
        for start in range(0, len(nodes), MOST_AT_ONCE):
            batch = nodes[start : start + MOST_AT_ONCE]
            runs = [RunStepsRequest(steps=list(node.steps), run_timeout=10.0) for node in batch]
            ran = await self.sandbox.run_steps_batch(RunStepsBatchRequest(runs=runs))
            for node, result in zip(batch, ran.results, strict=True):
                last = result.steps[-1] if result.steps else None
                failed = last is None or last.status is not StepStatus.OK
                node.score = -1.0 if failed else 0.0
                node.ended = failed or bool(last and last.stdout.strip())

    async def _score(self, tree: LockStepTree) -> None:
        ran = [node for node in tree.leaf.children if node.score >= 0]
        if ran:
            asked = ScoreRequest(problem=tree.problem.text, steps=[list(node.steps) for node in ran])
            for node, scores in zip(ran, (await self.prm.score(asked)).scores, strict=True):
                node.score = scores[-1]
