"""A search run again from its journal: does the strategy, told the same, ask for the same and come to the same answer?

The journal holds each task with what came of it, in the order of asking and telling; the nodes hold the steps. So a strategy,
which is pure, can be taken through a search again: it is asked until as many tasks are asked for as then, and told what it was
told then. What policy, sandbox and PRM answered is taken from the journal and not asked for again: that they would answer the
same again is not claimed. What a lost worker had under way the next one did, or in older journals nobody.

Limits: a step that several tasks found has the score that the earliest of them saw, also where a later one was told first. A
task that was in flight at the end left nothing to be compared with. A step that was no text (NUL, half a surrogate pair), and
one that another version of Python parsed, has another id now, so that the trees differ there.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ratchet.contracts.branching import Beginning
from ratchet.contracts.replay import Replay, ReplayedTask
from ratchet.contracts.sandbox import StepStatus
from ratchet.contracts.search import SearchRequest
from ratchet.solutions.answers import answer_key
from ratchet.solutions.votes import AnswerGroup, count_votes, find_ends, vote_of
from ratchet.store.nodes import NodeRecord
from ratchet.store.search_tasks import PathEnd, TaskRecord
from services.search.beginning import begin_at, laid_steps, record_beginning
from services.search.strategies import Draw, ExecutedStep, Rollout, Task, Tree, strategy_of
from services.search.strategies.recording import end_task, start_task

SHOWN_DIFFERENCES = 10
MOST_COUNTS = 200
"""How often the votes are counted on the way: counting takes as long as the tree is large."""


def replay(
    search: str,
    request: SearchRequest,
    answer: str | None,
    nodes: Sequence[NodeRecord],
    tasks: Sequence[TaskRecord],
    beginning: Beginning | None = None,
) -> Replay:
    """The search run again. `nodes` are its tree, `tasks` its journal in the order of telling, `answer` what it gave, and
    `beginning` what it was given to begin with."""
    again = _Again(request, {node.id: node for node in nodes}, {task.number: task for task in tasks})
    if beginning is not None:
        again.begin(beginning)
    every = math.ceil(len(tasks) / MOST_COUNTS)
    replayed: list[ReplayedTask] = []
    for place, task in enumerate(tasks):
        if place and task.fence != tasks[place - 1].fence:
            again.hand_over(task)
        counted = place % every == 0 or place == len(tasks) - 1
        replayed.append(again.take(task, counted=counted))
    differing = again.differing_nodes()
    groups = again.groups()
    keys = [group.key for group in groups]
    key = None if answer is None else answer_key(answer)
    return Replay(
        search=search,
        strategy=request.strategy,
        tasks=replayed,
        workers=len({task.fence for task in tasks}),
        same_tasks=all(task.same for task in replayed),
        same_tree=not differing,
        differing_nodes=differing[:SHOWN_DIFFERENCES],
        answer=answer,
        leading=_leading(groups),
        place=keys.index(key) + 1 if key in keys else None,
    )


def grown(request: SearchRequest, nodes: Sequence[NodeRecord], tasks: Sequence[TaskRecord]) -> Iterator[Tree]:
    """The tree of a search as it grew: it is given after each task that was told."""
    again = _Again(request, {node.id: node for node in nodes}, {task.number: task for task in tasks})
    for place, task in enumerate(tasks):
        if place and task.fence != tasks[place - 1].fence:
            again.hand_over(task)
        again.take(task, counted=False)
        yield again.tree


@dataclass(slots=True)
class _Again:
    """A tree that is grown again, and the tasks that are under way in it."""

    request: SearchRequest
    nodes: Mapping[str, NodeRecord]
    records: Mapping[int, TaskRecord]
    """By number."""
    tree: Tree = field(default_factory=Tree)
    under_way: dict[int, Task] = field(default_factory=dict)
    same: dict[int, bool] = field(default_factory=dict)

    def begin(self, beginning: Beginning) -> None:
        """Lay the steps that the search was given."""
        given = laid_steps(self.nodes, beginning.steps)
        steps = [_executed(self.nodes[node.id]) for node in given]
        record_beginning(self.tree, steps, self.request.parameters.max_depth)
        begin_at(self.tree, laid_steps(self.tree.nodes, beginning.steps))

    def hand_over(self, record: TaskRecord) -> None:
        """Another worker takes the search up, whose first task this is; what was under way is its own, or gone."""
        if record.taken_over is not None:
            self._ask_up_to(record.first)
            return
        for node in self.tree.nodes.values():
            node.in_flight = node.expanding = 0
        self.tree.pending.clear()
        self.under_way.clear()
        self.tree.asked = record.first

    def take(self, record: TaskRecord, *, counted: bool) -> ReplayedTask:
        """Ask until as much is asked for as then, and tell what came of this task."""
        self._ask_up_to(record.asked)
        before, visits = set(self.tree.nodes), self.tree.root.visits
        task = self.under_way.pop(record.number, None)
        if task is not None:
            paths = tuple(self._path(record, end) for end in record.ends)
            rollout = Rollout(task, paths, record.ended_by)
            strategy_of(self.request, record.prm).tell(self.tree, rollout)
        return ReplayedTask(
            number=record.number,
            asked=record.asked,
            node=record.node,
            draw=record.draw.lower(),
            same=self.same.get(record.number, False),
            made=[node for node in self.tree.nodes if node not in before],
            end=self._end(record) if self.tree.root.visits > visits else None,
            value=record.value,
            leading=_leading(self.groups()) if counted else None,
        )

    def _ask_up_to(self, asked: int) -> None:
        while self.tree.asked < asked:
            self._ask(self.tree.asked)

    def _ask(self, number: int) -> None:
        """Ask the strategy for the task of this number; where it asks for another one, that one is done all the same."""
        record = self.records.get(number)
        known = self.request.models.prm if record is None else record.prm
        task = strategy_of(self.request, known).ask(self.tree)
        if record is None:
            # It was never told: it was in flight at the end, or its worker was lost.
            self.tree.asked = number + 1
            return
        self.same[number] = task is not None and (task.node, task.draw.name) == (record.node, record.draw)
        if task is None or not self.same[number]:
            if task is not None:
                end_task(self.tree, task)
                self.tree.nodes[task.node].expansions -= 1
            self.tree.asked = number
            start = self.tree.nodes.get(record.node)
            if start is None:
                # The trees are no longer the same; what began here cannot be told.
                self.tree.asked = number + 1
                return
            task = start_task(self.tree, start, Draw[record.draw])
        self.under_way[number] = task

    def _path(self, record: TaskRecord, end: PathEnd) -> tuple[ExecutedStep, ...]:
        """The steps below the task's node, as they were told."""
        steps: list[ExecutedStep] = []
        node = self.nodes[end.node]
        while node.id != record.node:
            assert node.parent is not None
            last = node.id == end.node
            value = record.value if last and end is record.ends[-1] else None
            steps.append(replace(_executed(node), value=value, abandoned=last and end.abandoned))
            node = self.nodes[node.parent]
        return tuple(reversed(steps))

    def _end(self, record: TaskRecord) -> str:
        """The last node that stands of what the task drew."""
        if not record.ends:
            return record.node
        end = self.nodes[record.ends[-1].node]
        stands = end.id == record.node or (end.status is StepStatus.OK and not record.ends[-1].abandoned)
        return end.id if stands or end.parent is None else end.parent

    def groups(self) -> list[AnswerGroup]:
        """The vote over the tree so far, the leading answer first."""
        return count_votes(find_ends(self.tree.nodes.values()), vote_of(self.request.strategy))

    def differing_nodes(self) -> list[str]:
        """Nodes that are in one tree alone, or differ in what the search learnt of them."""
        ids = dict.fromkeys([*self.nodes, *self.tree.nodes])
        return [each for each in ids if not self._is_same(each)]

    def _is_same(self, node_id: str) -> bool:
        then, now = self.nodes.get(node_id), self.tree.nodes.get(node_id)
        if then is None or now is None:
            return False
        counts = (then.visits, then.expansions, then.state) == (now.visits, now.expansions, now.state)
        return counts and math.isclose(then.value_sum, now.value_sum, rel_tol=1e-9, abs_tol=1e-9)


def _executed(node: NodeRecord) -> ExecutedStep:
    assert node.status is not None
    return ExecutedStep(
        text=node.text,
        status=node.status,
        stdout=node.stdout,
        stderr=node.stderr,
        prm_score=node.prm_score,
        prior=node.prior,
        tokens=0,
        seconds=0.0,
        answer=node.answer,
    )


def _leading(groups: Sequence[AnswerGroup]) -> str | None:
    return groups[0].ends[0].answer if groups else None
