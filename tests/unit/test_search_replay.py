"""A search that is run again from its journal asks for the same and ends the same; a journal that was changed does not."""

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.contracts.journal import JournalTask, Why
from ratchet.contracts.replay import Replay
from ratchet.contracts.search import Budget, SearchRequest, StrategyName, StrategyParameters
from ratchet.solutions.votes import count_votes, find_ends, vote_of
from ratchet.store.nodes import NodeRecord
from ratchet.store.search_progress import Progress
from ratchet.store.search_tasks import NodePlace, TaskRecord, ToldTask
from services.search.journal_view import journal_page
from services.search.replay import grown, replay
from services.search.saved_tree import record_of, task_of, tree_of
from services.search.strategies import ExecutedStep, Rollout, Tree, strategy_of
from services.search.task_log import TaskLog
from tests.unit.test_strategies import MAX_DEPTH, rollout_of

PRM = "prm@1"


@dataclass(frozen=True)
class Searched:
    """What a search left behind."""

    request: SearchRequest
    nodes: list[NodeRecord]
    tasks: list[TaskRecord]

    def again(
        self, nodes: Sequence[NodeRecord] | None = None, tasks: Sequence[TaskRecord] | None = None
    ) -> Replay:
        """The search run again, with the journal that is given."""
        counted = count_votes(find_ends(self.nodes), vote_of(self.request.strategy))
        answer = counted[0].ends[0].answer if counted else None
        return replay("s", self.request, answer, nodes or self.nodes, self.tasks if tasks is None else tasks)

    def journal(self, limit: int = 7) -> list[JournalTask]:
        """As people are shown it, page after page."""
        places = {node.id: NodePlace(node.parent, node.status) for node in self.nodes}
        told = [
            ToldTask(each.number, each.node, each.draw, each.ends, each.value, why_of(each))
            for each in self.tasks
        ]
        found: list[JournalTask] = []
        after: int | None = -1
        while after is not None:
            page = journal_page(places, told, after, limit)
            found, after = found + page.tasks, page.next
        return found


def why_of(task: TaskRecord) -> Why | None:
    return None if task.why is None else Why.model_validate(task.why)


def request_of(strategy: StrategyName) -> SearchRequest:
    return SearchRequest(
        problem="any",
        strategy=strategy,
        parameters=StrategyParameters(
            rollouts=40, branching_factor=3, max_depth=MAX_DEPTH, width=6, widening=0.4, exploration=1.0
        ),
        budget=Budget(),
    )


def scored(rollout: Rollout, tree: Tree) -> Rollout:
    """The rollout with scores that depend on nothing but the steps so far, like those of a PRM."""
    before = [node.text for node in tree.path(rollout.task.node)]

    def score(steps: Sequence[ExecutedStep]) -> ExecutedStep:
        texts = [*before, *(step.text for step in steps)]
        last = steps[-1]
        return (
            last
            if last.prm_score is None
            else replace(last, prm_score=random.Random("".join(texts)).random())
        )

    paths = tuple(tuple(score(path[: end + 1]) for end in range(len(path))) for path in rollout.paths)
    return Rollout(rollout.task, paths)


def grow(
    strategy: StrategyName,
    seed: int,
    in_flight: int,
    workers: int = 1,
    *,
    hand_over: bool = True,
    look: Callable[[Tree], None] = lambda _: None,
) -> Searched:
    """A search whose rollouts are told in random order, by one worker after another; `look` sees the tree after each.

    Each takes over what the one before had in flight; without `hand_over`, as in 0.1.0, that is lost.
    """
    request, rng, tree, tasks = request_of(strategy), random.Random(seed), Tree(), list[TaskRecord]()
    progress: Progress | None = None
    for worker in range(1, workers + 1):
        log, prm = TaskLog(worker, tree.asked, progress), None
        waiting = [] if progress is None else [task_of(task) for task in progress.tasks]
        for _ in range(30):
            while len(waiting) < in_flight and (task := strategy_of(request, prm).ask(tree)) is not None:
                log.ask(task, prm, strategy_of(request, prm).explain(tree, task))
                waiting.append(task)
            if not waiting:
                break
            task = waiting.pop(rng.randrange(len(waiting)))
            depth = tree.nodes[task.node].depth
            rollout = scored(rollout_of(task, depth, random.Random(seed * 1000 + task.number)), tree)
            tasks.append(log.tell(tree, rollout))
            strategy_of(request, prm).tell(tree, rollout)
            look(tree)
            prm = PRM
        if worker < workers:
            nodes = sorted((record_of(node) for node in tree.nodes.values()), key=lambda node: node.depth)
            progress = Progress(tree.asked, log.under_way) if hand_over else None
            tree = tree_of(nodes, progress, lost=worker * in_flight)
    return Searched(request, [record_of(node) for node in tree.nodes.values()], tasks)


@pytest.mark.parametrize("strategy", [each for each in StrategyName if each is not StrategyName.AUTO])
@given(
    seed=st.integers(0, 10_000),
    in_flight=st.integers(1, 6),
    workers=st.integers(1, 3),
    hand_over=st.booleans(),
)
@settings(max_examples=20, deadline=None)
def test_the_same_tasks_are_asked_for_and_the_same_tree_grows(
    strategy: StrategyName, seed: int, in_flight: int, workers: int, hand_over: bool
) -> None:
    searched = grow(strategy, seed, in_flight, workers, hand_over=hand_over)
    found = searched.again()
    assert found.same_tasks
    assert found.same_tree, found.differing_nodes
    assert found.holds
    assert found.place in (None, 1)
    assert (found.answer, found.place) == (found.leading, None if found.answer is None else 1)
    assert [task.number for task in found.tasks] == [task.number for task in searched.tasks]
    shown = searched.journal()
    assert [task.made for task in shown] == [task.made for task in found.tasks]
    assert [(task.end, task.value) for task in shown] == [(task.end, task.value) for task in found.tasks]
    assert [task.order for task in shown] == list(range(len(shown)))
    if hand_over or workers == 1:
        assert all(task.why is not None for task in shown)
    made = [node for task in found.tasks for node in task.made]
    assert sorted(made) == sorted(node.id for node in searched.nodes if node.parent is not None)


def test_the_tree_is_seen_as_it_grew() -> None:
    searched = grow(StrategyName.MCTS, 5, 2)
    seen = [
        (set(tree.nodes), tree.root.visits)
        for tree in grown(searched.request, searched.nodes, searched.tasks)
    ]
    assert len(seen) == len(searched.tasks)
    assert seen[-1][0] == {node.id for node in searched.nodes}
    for (before, earlier), (after, later) in itertools.pairwise(seen):
        assert before <= after
        assert earlier <= later


def test_a_task_that_begins_elsewhere_is_seen_and_the_replay_goes_on() -> None:
    searched = grow(StrategyName.MCTS, 5, 2)
    place = next(place for place, task in enumerate(searched.tasks) if task.node != "root" and place > 3)
    moved = [*searched.tasks]
    moved[place] = replace(moved[place], node="root")
    found = searched.again(tasks=moved)
    assert not found.same_tasks
    assert not found.holds
    assert len(found.tasks) == len(searched.tasks)
    assert not found.tasks[place].same


def test_a_node_that_was_changed_is_seen() -> None:
    searched = grow(StrategyName.MCTS, 5, 2)
    changed = [replace(node, visits=node.visits + 1) if node.depth == 1 else node for node in searched.nodes]
    found = searched.again(nodes=changed)
    assert not found.same_tree
    assert set(found.differing_nodes) <= {node.id for node in changed if node.depth == 1}


def test_an_answer_that_no_trajectory_gave_has_no_place() -> None:
    searched = grow(StrategyName.BEST_OF_N, 5, 2)
    found = replay("s", searched.request, "no such answer", searched.nodes, searched.tasks)
    assert (found.place, found.same_tasks, found.holds) == (None, True, False)
