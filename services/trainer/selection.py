"""From the trees of a round to training data: which trajectories are worth learning from, and which problems to distrust.

Per problem the best correct trajectories, ranked by mean Q (and, once a PRM was trained, its mean score) over their steps
(rStar-Math, arXiv 2501.04519, section 3.3), no two the same but for names and comments. A problem whose reference answer no
trajectory gives, while several different programs agree on another one and the PRM stands behind them, is set aside.

Pure: it knows neither files nor the store.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import fmean
from typing import Any
from uuid import UUID

from ratchet.contracts.round_metrics import DatasetCard
from ratchet.contracts.rounds import Disagreement, SelectBy, Selection
from ratchet.solutions.answers import answer_key
from ratchet.solutions.programs import fingerprint, program_of
from ratchet.states import NodeState
from ratchet.store.nodes import NodeRecord
from ratchet.store.rounds import RoundProblem


class Dropped(StrEnum):
    """Why a trajectory did not become training data."""

    WRONG = "wrong answer"
    DUPLICATE = "same program as a better one"
    TOO_LONG = "too long"
    LOW_Q = "mean Q too low"
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


@dataclass
class Chosen:
    """What selection made of a problem."""

    problem: RoundProblem
    trajectories: list[Trajectory]
    solved: bool
    quarantine: Disagreement | None = None


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

    def close(
        self, *, from_earlier_rounds: int, trees: int, dataset: UUID, sha256: str, rows: int
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
            dataset=dataset,
            sha256=sha256,
            rows=rows,
        )


def trajectories(trees: Sequence[Sequence[NodeRecord]]) -> list[Trajectory]:
    """All trajectories with an answer of the trees of one problem; the value of an end is +1 where it was correct."""
    found: list[Trajectory] = []
    for nodes in trees:
        by_id = {node.id: node for node in nodes}
        for end in nodes:
            if end.answer is None or end.visits == 0:
                continue
            path = path_of(by_id, end)
            scores = [node.prm_score for node in path if node.prm_score is not None]
            texts = tuple(node.text for node in path)
            found.append(
                Trajectory(
                    steps=texts,
                    answer=end.answer,
                    correct=end.value_sum > 0,
                    mean_q=fmean(node.value_sum / max(1, node.visits) for node in path),
                    mean_prm=fmean(scores) if scores else 0.5,
                    fingerprint=fingerprint(program_of(list(texts))),
                )
            )
    return found


def path_of(by_id: dict[str, NodeRecord], end: NodeRecord) -> list[NodeRecord]:
    """From the first step to `end`; the root is not a step."""
    path: list[NodeRecord] = []
    node: NodeRecord | None = end
    while node is not None and node.parent is not None:
        path.append(node)
        node = by_id.get(node.parent)
    return path[::-1]


def choose(
    problem: RoundProblem,
    trees: Sequence[Sequence[NodeRecord]],
    rules: Selection,
    card: Card,
    *,
    trained_prm: bool,
    seed: int,
) -> Chosen:
    """What is taken of one problem; it is counted in the card."""
    found = trajectories(trees)
    correct = [each for each in found if each.correct]
    card.problems += 1
    card.solved += bool(correct)
    card.trajectories_found += len(found)
    for kind, name in (("family", problem.family), ("difficulty", str(problem.difficulty or ""))):
        if name:
            count = card.coverage.setdefault(kind, {}).setdefault(name, [0, 0])
            count[0] += bool(correct)
            count[1] += 1
    distrust = quarantine(found, rules) if trained_prm else None
    if distrust is not None:
        card.quarantined += 1
        card.dropped[Dropped.QUARANTINED] += len(found)
        return Chosen(problem, [], solved=False, quarantine=distrust)
    if rules.how is SelectBy.UNVERIFIED:
        candidates = found
    else:
        card.dropped[Dropped.WRONG] += len(found) - len(correct)
        candidates = correct
    taken = _take(_rank(candidates, rules, trained_prm=trained_prm, seed=seed), rules, card)
    card.trajectories_selected += len(taken)
    card.selected_problems += bool(taken)
    return Chosen(problem, taken, solved=bool(correct))


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


def _take(ranked: list[Trajectory], rules: Selection, card: Card) -> list[Trajectory]:
    taken: list[Trajectory] = []
    seen: set[str] = set()
    for each in ranked:
        if each.fingerprint in seen:
            why = Dropped.DUPLICATE
        elif (rules.max_chars is not None and sum(map(len, each.steps)) > rules.max_chars) or (
            rules.max_steps is not None and len(each.steps) > rules.max_steps
        ):
            why = Dropped.TOO_LONG
        elif each.mean_q < rules.min_mean_q:
            why = Dropped.LOW_Q
        elif len(taken) == rules.per_problem:
            why = Dropped.SURPLUS
        else:
            seen.add(each.fingerprint)
            taken.append(each)
            continue
        card.dropped[why] += 1
    return taken


def quarantine(found: Sequence[Trajectory], rules: Selection) -> Disagreement | None:
    """The disagreement for which the reference answer is not trusted; None where it is trusted."""
    if any(each.correct for each in found):
        return None
    groups: defaultdict[str, list[Trajectory]] = defaultdict(list)
    for each in found:
        groups[answer_key(each.answer)].append(each)
    for group in sorted(groups.values(), key=len, reverse=True):
        programs = {each.fingerprint for each in group}
        score = fmean(each.mean_prm for each in group)
        if len(programs) >= rules.quarantine_programs and score >= rules.quarantine_prm:
            return Disagreement(answer=group[0].answer, programs=len(programs), prm_score=round(score, 4))
    return None


def tree_line(
    problem_id: str, problem: RoundProblem, number: int, nodes: Sequence[NodeRecord]
) -> dict[str, Any] | None:
    """A tree as the PRM's training reads it; None for one without an answer."""
    steps = [node for node in nodes if node.parent is not None]
    if not any(node.answer is not None for node in steps):
        return None
    roots = {node.id for node in nodes if node.parent is None}
    return {
        "problem_id": problem_id,
        "problem": problem.text,
        "round": number,
        "nodes": [
            {
                "id": node.id,
                "parent": None if node.parent in roots else node.parent,
                "text": node.text,
                "ran": node.state is not NodeState.FAILED,
                "q": max(-1.0, min(1.0, node.value_sum / node.visits)) if node.visits else 0.0,
                "visits": node.visits,
                "terminal": node.answer is not None,
                # Of an end that was abandoned nobody asked whether it was right.
                "correct": None if node.answer is None or not node.visits else node.value_sum > 0,
            }
            for node in steps
        ],
    }
