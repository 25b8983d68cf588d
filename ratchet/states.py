"""Every state machine of the system: one enum and one transition table each. Nothing else may change a state."""

from collections.abc import Mapping
from enum import StrEnum
from itertools import pairwise
from typing import TypeVar


class SearchState(StrEnum):
    """Life of a search."""

    QUEUED = "queued"
    """Stored, and waiting for a worker."""
    RUNNING = "running"
    """A worker holds the lease and grows the tree."""
    SOLVED_VERIFIED = "solved_verified"
    """An answer was verified at the level that was asked for, or better."""
    ANSWERED_UNVERIFIED = "answered_unverified"
    """There is an answer, but no verification of the level that was asked for."""
    BUDGET_EXHAUSTED = "budget_exhausted"
    """The budget ended without any answer."""
    CANCELLED = "cancelled"
    """Stopped on request; the best answer so far is kept."""
    FAILED = "failed"
    """The system could not go on; the reason is stored."""


class NodeState(StrEnum):
    """Life of a node of a search tree: one executed step."""

    OPEN = "open"
    """Its step ran; it may be expanded."""
    TERMINAL = "terminal"
    """Its step ran and ended the solution with an answer."""
    EXHAUSTED = "exhausted"
    """Nothing more can come from here: the depth limit, or a subtree with no way on."""
    ABANDONED = "abandoned"
    """Its step ran and its score collapsed: it was left, and is not selected unless another rollout takes it up."""
    FAILED = "failed"
    """Its step did not run; it is kept for the record and never selected."""


class RoundState(StrEnum):
    """Life of a self-evolution round."""

    CREATED = "created"
    SEARCHING = "searching"
    SELECTING = "selecting"
    TRAINING_POLICY = "training_policy"
    TRAINING_PRM = "training_prm"
    EVALUATING = "evaluating"
    PROMOTED = "promoted"
    REJECTED = "rejected"
    FAILED = "failed"


class ModelState(StrEnum):
    """Life of a model version in the registry."""

    CANDIDATE = "candidate"
    """Known, and not served by default."""
    SERVING = "serving"
    """The version that its service serves."""
    RETIRED = "retired"
    """Was served once; can be rolled back to."""
    REJECTED = "rejected"
    """Did not pass its gate."""


_S = TypeVar("_S", bound=StrEnum)
Transitions = Mapping[_S, frozenset[_S]]

_SEARCH_ENDS = frozenset(
    {
        SearchState.SOLVED_VERIFIED,
        SearchState.ANSWERED_UNVERIFIED,
        SearchState.BUDGET_EXHAUSTED,
        SearchState.CANCELLED,
        SearchState.FAILED,
    }
)

EXTENDABLE = _SEARCH_ENDS - {SearchState.FAILED}
"""A search that ended so can go on where it stopped; a failed one is retried."""

SEARCH_TRANSITIONS: Transitions[SearchState] = {
    SearchState.QUEUED: frozenset({SearchState.RUNNING, SearchState.CANCELLED, SearchState.FAILED}),
    # running -> running: a new worker takes over a lease that was lost. running -> queued: a worker gives it back.
    SearchState.RUNNING: _SEARCH_ENDS | {SearchState.RUNNING, SearchState.QUEUED},
    **{state: frozenset[SearchState]() for state in _SEARCH_ENDS},
    # A person, or a round, has it taken up again.
    SearchState.FAILED: frozenset({SearchState.QUEUED}),
    # It is given a larger budget.
    **{state: frozenset({SearchState.QUEUED}) for state in EXTENDABLE},
}

NODE_TRANSITIONS: Transitions[NodeState] = {
    NodeState.OPEN: frozenset({NodeState.EXHAUSTED}),
    NodeState.TERMINAL: frozenset({NodeState.EXHAUSTED}),
    NodeState.EXHAUSTED: frozenset(),
    NodeState.ABANDONED: frozenset({NodeState.OPEN, NodeState.TERMINAL, NodeState.EXHAUSTED}),
    NodeState.FAILED: frozenset(),
}

ROUND_STAGES = (
    RoundState.CREATED,
    RoundState.SEARCHING,
    RoundState.SELECTING,
    RoundState.TRAINING_POLICY,
    RoundState.TRAINING_PRM,
    RoundState.EVALUATING,
)
"""What a round goes through, in this order."""

ROUND_TRANSITIONS: Transitions[RoundState] = {
    **{stage: frozenset({following, RoundState.FAILED}) for stage, following in pairwise(ROUND_STAGES)},
    RoundState.EVALUATING: frozenset({RoundState.PROMOTED, RoundState.REJECTED, RoundState.FAILED}),
    RoundState.PROMOTED: frozenset(),
    RoundState.REJECTED: frozenset(),
    # A retry goes on with the stage that failed.
    RoundState.FAILED: frozenset(ROUND_STAGES),
}

ROUND_ENDS = frozenset({RoundState.PROMOTED, RoundState.REJECTED, RoundState.FAILED})
"""No trainer works on a round in these; a failed one waits for a person to retry it, or for nothing."""

MODEL_TRANSITIONS: Transitions[ModelState] = {
    ModelState.CANDIDATE: frozenset({ModelState.SERVING, ModelState.REJECTED}),
    ModelState.SERVING: frozenset({ModelState.RETIRED}),
    ModelState.RETIRED: frozenset({ModelState.SERVING}),
    ModelState.REJECTED: frozenset(),
}


class IllegalTransitionError(ValueError):
    """A state change that no transition table allows."""


def check_transition(table: Transitions[_S], old: _S, new: _S) -> None:
    """Raise IllegalTransitionError unless `table` allows `old` -> `new`."""
    if new not in table[old]:
        raise IllegalTransitionError(f"{type(old).__name__}: {old} -> {new} is not allowed")


def is_end(table: Transitions[_S], state: _S) -> bool:
    """Whether nothing follows `state` by itself: only on request is a failed search taken up again."""
    return state in _SEARCH_ENDS if isinstance(state, SearchState) else not table[state]
