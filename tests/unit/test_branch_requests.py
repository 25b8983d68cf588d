"""What a branch asks for becomes a request and a beginning, or a problem that names the field."""

from typing import Any

import pytest

from ratchet.contracts.base import MAX_CODE_CHARS
from ratchet.contracts.branching import Beginning, BranchRequest
from ratchet.contracts.search import Parent, Priority, SearchRequest, StrategyName
from ratchet.states import NodeState
from ratchet.store.branches import BranchSource, PathNode
from ratchet.web.app import ProblemError
from services.search.branching import branch_of

A, B = "# First.\nx = 1", "# Second.\nprint(x)"


def source(*states: NodeState, beginning: Beginning | None = None, **asked: Any) -> BranchSource:
    """A search with a path of steps in these states."""
    path = tuple(
        PathNode(f"n{place}", (A, B)[place], state, "1" if state is NodeState.TERMINAL else None)
        for place, state in enumerate(states)
    )
    request = SearchRequest.model_validate({"problem": "any", "reference_answer": "1", "seed": 5, **asked})
    return BranchSource(request, beginning, path, is_pruned=False)


def branched(of: BranchSource, most: Priority | None = None, **body: Any) -> tuple[SearchRequest, Beginning]:
    return branch_of("s", of, BranchRequest.model_validate({"node": "n1", **body}), most)


def refusal(of: BranchSource, **body: Any) -> tuple[int, list[str]]:
    with pytest.raises(ProblemError) as refused:
        branched(of, **body)
    return refused.value.status, [each.field for each in refused.value.errors]


def test_what_is_left_out_is_as_it_was() -> None:
    asked: dict[str, Any] = {
        "strategy": "beam",
        "budget": {"tokens": 700, "seconds": 9},
        "parameters": {"width": 3},
    }
    request, beginning = branched(
        source(NodeState.OPEN, NodeState.OPEN, **asked),
        budget={"tokens": 50},
        parameters={"branching_factor": 2},
    )
    assert (request.strategy, request.seed, request.reference_answer) == (StrategyName.BEAM, 5, "1")
    assert (request.budget.tokens, request.budget.seconds) == (50, 9)
    assert (request.parameters.width, request.parameters.branching_factor) == (3, 2)
    assert beginning == Beginning(parent=Parent(search="s", node="n1"), steps=[A, B])


def test_a_step_is_edited_or_forbidden_and_never_both() -> None:
    of = source(NodeState.OPEN, NodeState.FAILED)
    _, edited = branched(of, edit={"text": "print(2)"}, seed=9)
    assert (edited.steps, edited.edited, edited.forbidden) == ([A, "print(2)"], True, [])
    _, forbidden = branched(of, forbid=True)
    assert (forbidden.steps, forbidden.edited, forbidden.forbidden) == ([A], False, [B])
    assert refusal(of, forbid=True, edit={"text": "print(2)"}) == (422, ["forbid"])


def test_what_was_forbidden_before_stays_so_at_the_same_place_alone() -> None:
    before = Beginning(parent=Parent(search="r", node="m"), steps=[A], forbidden=["y = 1"])
    of = source(NodeState.OPEN, NodeState.OPEN, beginning=before)
    assert branched(of, forbid=True)[1].forbidden == [B, "y = 1"]
    assert branched(of)[1].forbidden == []


def test_priority_is_a_persons_and_within_what_the_key_may_ask() -> None:
    low = source(NodeState.OPEN, NodeState.OPEN, priority="low")
    assert branched(low)[0].priority is Priority.NORMAL
    assert branched(low, Priority.LOW)[0].priority is Priority.LOW
    high = source(NodeState.OPEN, NodeState.OPEN, priority="high")
    assert branched(high, Priority.HIGH)[0].priority is Priority.HIGH


@pytest.mark.parametrize(
    ("of", "body", "status", "field"),
    [
        (source(NodeState.OPEN, NodeState.FAILED), {}, 422, "node"),
        (source(NodeState.OPEN, NodeState.TERMINAL), {}, 422, "node"),
        (source(), {}, 404, "node"),
        (source(), {"node": "root", "forbid": True}, 422, "node"),
        (source(), {"node": "root", "edit": {"text": "x = 1"}}, 422, "node"),
        (
            source(NodeState.OPEN, NodeState.OPEN, parameters={"max_depth": 2}),
            {},
            422,
            "parameters.max_depth",
        ),
        (
            source(NodeState.OPEN, NodeState.OPEN),
            {"edit": {"text": "#" * (MAX_CODE_CHARS - 2)}},
            422,
            "edit.text",
        ),
        (
            source(NodeState.OPEN, NodeState.OPEN),
            {"forbid": True, "parameters": {"temperature": 0}},
            422,
            "forbid",
        ),
        (source(NodeState.OPEN, NodeState.OPEN), {"forbid": True, "strategy": "greedy"}, 422, "forbid"),
        (BranchSource(SearchRequest(problem="any"), None, (), is_pruned=True), {}, 409, "node"),
    ],
)
def test_what_cannot_be_is_refused_by_the_field_that_says_it(
    of: BranchSource, body: dict[str, Any], status: int, field: str
) -> None:
    assert refusal(of, **body) == (status, [field])


def test_the_root_can_be_gone_on_from_whatever_is_kept() -> None:
    pruned = BranchSource(SearchRequest(problem="any"), None, (), is_pruned=True)
    assert not branched(pruned, node="root")[1].alters


def test_the_last_step_that_fits_may_be_edited() -> None:
    of = source(NodeState.OPEN, NodeState.TERMINAL, parameters={"max_depth": 2})
    assert branched(of, edit={"text": "print(3)"})[1].steps == [A, "print(3)"]
