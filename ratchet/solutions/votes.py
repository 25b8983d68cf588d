"""The vote over answers: trajectories that give the same answer stand together, and the heaviest answer leads."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from ratchet.solutions.answers import answer_key

Voter = TypeVar("Voter")


@dataclass(frozen=True, slots=True)
class AnswerVotes(Generic[Voter]):
    """One answer, and who voted for it."""

    key: str
    """Equal for answers that are the same number."""
    voters: tuple[Voter, ...]
    """In the order in which they were given, one at least."""
    weight: float


def count_votes(
    voters: Iterable[Voter], answer: Callable[[Voter], str], weight: Callable[[Voter], float]
) -> list[AnswerVotes[Voter]]:
    """The answers, the heaviest first; of two that weigh the same, the one that was given first."""
    by_key: dict[str, list[Voter]] = {}
    for voter in voters:
        by_key.setdefault(answer_key(answer(voter)), []).append(voter)
    counted = [
        AnswerVotes(key, tuple(group), sum(weight(voter) for voter in group)) for key, group in by_key.items()
    ]
    return sorted(counted, key=lambda votes: -votes.weight)
