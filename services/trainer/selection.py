"""From the trees of a round to training data: which trajectories are worth learning from.

Per problem the best correct trajectories, ranked by mean Q (and, once a PRM was trained, its mean score) over their steps
(rStar-Math, arXiv 2501.04519, section 3.3), no two of one canonical form. The best ones that are left are asked for (`ask`),
run again elsewhere, and what came of each is told (`tell`), until enough of them stand.

Pure: it knows neither files nor the store, and runs nothing.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import fmean
from typing import Any
from uuid import UUID

from ratchet.contracts.round_metrics import DatasetCard
from ratchet.contracts.rounds import SelectBy, Selection
from ratchet.solutions.behaviour import Behaviour
from ratchet.solutions.canonical import canonical_form
from ratchet.solutions.independence import free_draws
from ratchet.solutions.programs import fingerprint, program_of
from ratchet.store.labelled_trees import labelled_nodes
from ratchet.store.nodes import NodeRecord
from ratchet.store.rounds import RoundProblem


class Dropped(StrEnum):
    """Why a trajectory did not become training data."""

    WRONG = "wrong answer"
    DUPLICATE = "same program as a better one"
    TOO_LONG = "too long"
    LOW_Q = "mean Q too low"
    NOT_REPEATED = "run from nothing, it does not give the right answer again"
    UNGROUNDED = "its answer depends on none of the problem's quantities"
    SURPLUS = "more than are taken of a problem"
    QUARANTINED = "its problem is set aside"


@dataclass(frozen=True, slots=True)
class Trajectory:
    """A path from the first step to an answer, as one of the searches of a problem found it."""

    steps: tuple[str, ...]
    answer: str
    correct: bool
    mean_q: float
    mean_prm: float
    fingerprint: str
    first: str = ""
    """Its first step, by a name that no other tree of the problem has."""
    votes: int = 1
    """Rollouts that ended with it."""
    attempt: int = 0
    """Of the search that found it: how often the problem had been searched before."""


@dataclass(frozen=True, slots=True)
class Found:
    """What all searches of one problem have found."""

    trajectories: list[Trajectory]
    draws: dict[str, int]
    """For each first step, how often the policy began with it afresh."""
    last_attempt: int
    """The number of the last search, whether it has found something or not."""

    @property
    def correct(self) -> list[Trajectory]:
        return [each for each in self.trajectories if each.correct]


@dataclass
class Card:
    """The data set's card while it is filled in: what is in it, what is not, and why."""

    problems: int = 0
    solved: int = 0
    selected_problems: int = 0
    trajectories_found: int = 0
    trajectories_selected: int = 0
    quarantined: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    coverage: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    """By family and by difficulty: [solved, problems]."""

    def count(self, problem: RoundProblem, found: Found, choice: "Choice | None") -> None:
        """Count a problem: what was found, and what was chosen of it; None: it is set aside."""
        solved = bool(found.correct)
        self.problems += 1
        self.solved += solved
        self.trajectories_found += len(found.trajectories)
        groups = ("family", problem.family), ("difficulty", str(problem.difficulty or ""))
        for kind, name in groups:
            if name:
                count = self.coverage.setdefault(kind, {}).setdefault(name, [0, 0])
                count[0] += solved
                count[1] += 1
        if choice is None:
            self.quarantined += 1
            self.dropped[Dropped.QUARANTINED] += len(found.trajectories)
        else:
            self.selected_problems += bool(choice.taken)
            self.trajectories_selected += len(choice.taken)
            self.dropped += choice.dropped

    def close(
        self,
        *,
        from_earlier_rounds: int,
        trees: int,
        kept_apart: int,
        validation_rows: int,
        dataset: UUID,
        sha256: str,
        rows: int,
    ) -> DatasetCard:
        """The finished card, with what is known once the files are written."""
        return DatasetCard(
            problems=self.problems,
            solved=self.solved,
            selected_problems=self.selected_problems,
            trajectories_found=self.trajectories_found,
            trajectories_selected=self.trajectories_selected,
            quarantined=self.quarantined,
            dropped={str(why): count for why, count in sorted(self.dropped.items())},
            coverage=self.coverage,
            from_earlier_rounds=from_earlier_rounds,
            trees=trees,
            kept_apart=kept_apart,
            validation_rows=validation_rows,
            dataset=dataset,
            sha256=sha256,
            rows=rows,
        )


def find(trees: Iterable[tuple[int, Sequence[NodeRecord]]]) -> Found:
    """What the searches of one problem found, each given by the number of its attempt and its nodes, parents first.

    The value of an end is +1 where it was correct.
    """
    found = Found([], {}, 0)
    for number, (attempt, nodes) in enumerate(trees):
        found = Found(found.trajectories, found.draws, max(found.last_attempt, attempt))
        found.draws.update({f"{number}/{first}": n for first, n in free_draws(nodes, sampled=True).items()})
        by_id = {node.id: node for node in nodes}
        for end in nodes:
            if end.answer is not None and end.visits > 0 and end.parent is not None:
                path = path_of(by_id, end)
                found.trajectories.append(_trajectory(path, attempt, f"{number}/{path[0].id}"))
    return found


def _trajectory(path: Sequence[NodeRecord], attempt: int, first: str) -> Trajectory:
    scores = [node.prm_score for node in path if node.prm_score is not None]
    texts = tuple(node.text for node in path)
    end = path[-1]
    return Trajectory(
        steps=texts,
        answer=end.answer or "",
        correct=end.value_sum > 0,
        mean_q=fmean(node.value_sum / max(1, node.visits) for node in path),
        mean_prm=fmean(scores) if scores else 0.5,
        fingerprint=fingerprint(program_of(list(texts))),
        first=first,
        votes=end.visits,
        attempt=attempt,
    )


def path_of(by_id: dict[str, NodeRecord], end: NodeRecord) -> list[NodeRecord]:
    """From the first step to `end`; the root is not a step."""
    path: list[NodeRecord] = []
    node: NodeRecord | None = end
    while node is not None and node.parent is not None:
        path.append(node)
        node = by_id.get(node.parent)
    return path[::-1]


class Choice:
    """What is taken of one problem: candidates are asked for, the best first, until enough of them were told to stand."""

    def __init__(self, found: Found, rules: Selection, *, trained_prm: bool, seed: int) -> None:
        self.taken: list[Trajectory] = []
        self.dropped: Counter[str] = Counter()
        self._rules = rules
        candidates = found.trajectories if rules.how is SelectBy.UNVERIFIED else found.correct
        self._drop(Dropped.WRONG, len(found.trajectories) - len(candidates))
        self._left = _rank(candidates, rules, trained_prm=trained_prm, seed=seed)
        self._known: dict[str, Dropped] = {}
        """Why another program of this canonical form is not taken."""
        self._forms: dict[str, str] = {}

    def ask(self) -> list[Trajectory]:
        """As many of the best as are missing, each of which has to be told; none: it is done."""
        asked: list[Trajectory] = []
        left: list[Trajectory] = []
        forms: set[str] = set()
        for each in self._left:
            if len(self.taken) + len(asked) == self._rules.per_problem:
                left.append(each)
            elif (why := self._reason(each)) is not None:
                self._drop(why)
            elif self._form(each) in forms:
                # What comes of its like decides.
                left.append(each)
            else:
                forms.add(self._form(each))
                asked.append(each)
        if not asked:
            for each in left:
                self._drop(self._reason(each) or Dropped.SURPLUS)
            left = []
        self._left = left
        return asked

    def tell(self, trajectory: Trajectory, why: Dropped | None) -> None:
        """What came of one that was asked for; None: it stands."""
        if why is None:
            self.taken.append(trajectory)
            self._known[self._form(trajectory)] = Dropped.DUPLICATE
            return
        self._drop(why)
        if why is Dropped.UNGROUNDED:
            self._known[self._form(trajectory)] = why

    def _reason(self, each: Trajectory) -> Dropped | None:
        """Why a candidate is not worth trying."""
        rules = self._rules
        if (known := self._known.get(self._form(each))) is not None:
            return known
        if (rules.max_chars is not None and sum(map(len, each.steps)) > rules.max_chars) or (
            rules.max_steps is not None and len(each.steps) > rules.max_steps
        ):
            return Dropped.TOO_LONG
        return Dropped.LOW_Q if each.mean_q < rules.min_mean_q else None

    def _form(self, each: Trajectory) -> str:
        """Equal for programs that compute the same in the same way, whatever names and intermediate variables they have."""
        form = self._forms.get(each.fingerprint)
        if form is None:
            form = canonical_form(program_of(list(each.steps)), compute=False)
            self._forms[each.fingerprint] = form
        return form

    def _drop(self, why: Dropped, count: int = 1) -> None:
        if count:
            self.dropped[why] += count


def _rank(
    candidates: list[Trajectory], rules: Selection, *, trained_prm: bool, seed: int
) -> list[Trajectory]:
    if rules.how is not SelectBy.SCORE:
        shuffled = list(candidates)
        random.Random(seed).shuffle(shuffled)  # noqa: S311 - a sample, not a secret
        return shuffled
    # The PRM's score on the scale of Q, counted half: it is an estimate, Q was measured.
    prm = 0.5 if trained_prm else 0.0
    return sorted(candidates, key=lambda each: -(each.mean_q + prm * (2 * each.mean_prm - 1)))


def verdict(behaviour: Behaviour | None) -> Dropped | None:
    """Whether a correct trajectory stands, by how it behaved when it was run again; None: it does.

    Where the problem states nothing that could be changed, it is taken for computed.
    """
    if behaviour is None:
        return Dropped.NOT_REPEATED
    return Dropped.UNGROUNDED if behaviour.grounded is False else None


def weighted(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of a file of solutions, each weighed so that all problems weigh alike: 1/k for the k lines of one."""
    of_problem: defaultdict[str, int] = defaultdict(int)
    for line in lines:
        of_problem[line["id"]] += 1
    return [{**line, "weight": round(1 / of_problem[line["id"]], 6)} for line in lines]


def tree_line(
    problem_id: str, problem: RoundProblem, number: int, nodes: Sequence[NodeRecord]
) -> dict[str, Any] | None:
    """A tree as the PRM's training reads it; None for one without an answer."""
    if not any(node.answer is not None for node in nodes if node.parent is not None):
        return None
    return {
        "problem_id": problem_id,
        "problem": problem.text,
        "round": number,
        "nodes": labelled_nodes(nodes),
    }
