"""What a branch asks for, as the request and the beginning of a new search. Pure."""

from http import HTTPStatus

from ratchet.contracts.base import MAX_CODE_CHARS, FieldError
from ratchet.contracts.branching import Beginning, BranchRequest
from ratchet.contracts.search import Parent, Priority, SearchRequest, StrategyName
from ratchet.states import NodeState
from ratchet.store.branches import BranchSource
from ratchet.web.app import ProblemError, invalid
from services.search.strategies.tree import ROOT


def branch_of(
    search: str, source: BranchSource, asked: BranchRequest, most: Priority | None = None
) -> tuple[SearchRequest, Beginning]:
    """The new search; `most` is the highest priority that the caller may ask for. Raises a problem (404, 409, 422)."""
    request = _request_of(source.request, asked, most)
    _require_node(source, asked)
    steps = [node.text for node in source.path]
    forbidden: list[str] = []
    if asked.forbid:
        forbidden = [steps.pop()]
    elif asked.edit is not None:
        steps[-1] = asked.edit.text
    if source.beginning is not None and source.beginning.steps == steps:
        # What was forbidden here before stays so.
        forbidden += [each for each in source.beginning.forbidden if each not in forbidden]
    beginning = Beginning(
        parent=Parent(search=search, node=asked.node),
        steps=steps,
        edited=asked.edit is not None,
        forbidden=forbidden,
    )
    _require_room(request, beginning)
    return request, beginning


def _request_of(before: SearchRequest, asked: BranchRequest, most: Priority | None) -> SearchRequest:
    changes: dict[str, object] = {"wait": 0.0, "priority": _priority(before.priority, most)}
    for name in ("parameters", "budget"):
        given = getattr(asked, name)
        if given is not None:
            changes[name] = getattr(before, name).model_copy(
                update={each: getattr(given, each) for each in given.model_fields_set}
            )
    for name in ("strategy", "seed"):
        given = getattr(asked, name)
        if given is not None:
            changes[name] = given
    return before.model_copy(update=changes)


def _priority(before: Priority, most: Priority | None) -> Priority:
    """As it was, and no less than normal: a person waits for it. At most what the caller may ask for."""
    order = list(Priority)
    wanted = max(before, Priority.NORMAL, key=order.index)
    return wanted if most is None else min(wanted, most, key=order.index)


def _require_node(source: BranchSource, asked: BranchRequest) -> None:
    if asked.forbid and asked.edit is not None:
        raise invalid("forbid", "A step is either edited or forbidden, not both.")
    if asked.node == ROOT:
        if asked.forbid or asked.edit is not None:
            raise invalid(
                "node", "The root is the bare problem, and no step that could be edited or forbidden."
            )
        return
    if source.is_pruned:
        raise _refused(
            HTTPStatus.CONFLICT,
            "The tree of this search is no longer kept: only its root can be gone on from.",
        )
    if not source.path:
        raise _refused(HTTPStatus.NOT_FOUND, f"This search has no node {asked.node}.")
    if asked.forbid or asked.edit is not None:
        return
    node = source.path[-1]
    if node.state is NodeState.FAILED:
        raise invalid("node", "This step does not run: edit it, or forbid it.")
    if node.answer is not None:
        raise invalid(
            "node",
            "This step gives an answer, and nothing follows it: edit it, forbid it, or take one above.",
        )


def _refused(status: HTTPStatus, message: str) -> ProblemError:
    return ProblemError(status, message, errors=[FieldError(field="node", message=message)])


def _require_room(request: SearchRequest, beginning: Beginning) -> None:
    count, most = len(beginning.steps), request.parameters.max_depth
    # A step that is edited may be the last one, and give the answer.
    if count > most or (count == most and not beginning.edited):
        raise invalid(
            "parameters.max_depth",
            f"The beginning has {count} steps, and a solution may have {most}: raise it.",
        )
    if sum(map(len, beginning.steps)) > MAX_CODE_CHARS:
        field = "edit.text" if beginning.edited else "node"
        raise invalid(field, f"The beginning has more than {MAX_CODE_CHARS} characters.")
    never_sampled = request.strategy is StrategyName.GREEDY or request.parameters.temperature == 0
    if beginning.forbidden and never_sampled:
        raise invalid(
            "forbid",
            "At temperature 0 the policy would write the same step again: choose another strategy or temperature.",
        )
