"""The steps that a branched search is given to begin with: run in the sandbox and scored like any others, and drawn by nobody.

They are laid as a task of number 0 that no strategy asked for; every task begins at the last of them or below it
(`Tree.start`). What is laid is written down with the tree, so that whoever takes the search up finds it.

Limit: trajectories of one beginning share their first step, so that they count as one independent find at the most
(`ratchet.solutions.independence`): what a person gave does not speak for itself.
"""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from ratchet.clients import ServiceError
from ratchet.contracts.policy import Candidate, FinishReason, LikelihoodRequest, Prefix
from ratchet.contracts.sandbox import StepStatus
from ratchet.states import NodeState
from ratchet.store.nodes import NodeRecord
from services.search.rollouts import execute_steps, score_paths
from services.search.search import Backends, Search, why_too_long
from services.search.strategies import Draw, ExecutedStep, Node, Rollout, Task, Tree
from services.search.strategies.recording import back_up, record_paths
from services.search.strategies.tree import ROOT, node_id

N = TypeVar("N", Node, NodeRecord)
_TASK = Task(0, ROOT, Draw.STEPS)


class BeginningFailedError(Exception):
    """A step that was given does not run: the search cannot begin."""


async def lay_beginning(search: Search, backends: Backends) -> list[Node]:
    """Have the search begin after the steps that it was given; the nodes that are new.

    Raises BeginningFailedError, ServiceError, SandboxFailedError.
    """
    if search.beginning is None or not search.beginning.steps:
        return []
    new: list[str] = []
    laid = laid_steps(search.tree.nodes, search.beginning.steps)
    if not is_whole(laid, search.beginning.steps):
        [steps] = await score_paths(search, backends, ROOT, [await _execute(search, backends)])
        new = record_beginning(search.tree, steps, search.request.parameters.max_depth)
        laid = laid_steps(search.tree.nodes, search.beginning.steps)
    search.usage.nodes = len(search.tree.nodes) - 1
    begin_at(search.tree, laid)
    return [search.tree.nodes[ROOT], *(search.tree.nodes[node] for node in new)] if new else []


def failed_step(search: Search) -> str | None:
    """Why the search cannot begin; None where it can."""
    if search.beginning is None:
        return None
    laid = laid_steps(search.tree.nodes, search.beginning.steps)
    if not laid or laid[-1].status is StepStatus.OK:
        return None
    which = "The edited step" if search.beginning.edited and len(laid) == len(search.beginning.steps) else ""
    error = laid[-1].stderr.strip().splitlines()[-1:] or [str(laid[-1].status)]
    return f"{which or f'Step {len(laid)} of the given beginning'} does not run: {error[0]}"


def why_nothing_follows(tree: Tree) -> str | None:
    """Why there is nothing to search for after the beginning; None where there is."""
    if tree.start == ROOT:
        return None
    if tree.top.state is NodeState.TERMINAL:
        return "the given beginning gives an answer"
    if tree.top.ended_by is not None:
        return f"nothing can follow the given beginning: {tree.top.ended_by}"
    if tree.top.state is NodeState.EXHAUSTED:
        return "the given beginning is as long as a solution may be"
    return None


async def _execute(search: Search, backends: Backends) -> tuple[ExecutedStep, ...]:
    assert search.beginning is not None
    texts = search.beginning.steps
    priors = await _priors(search, backends, texts)
    given = Candidate(
        text="\n".join(texts),
        steps=texts,
        final=False,
        tokens=0,
        mean_logprob=sum(priors) / len(priors),
        step_logprobs=priors,
        finish_reason=FinishReason.STEP,
    )
    return tuple(await execute_steps(search, [], given, texts))


async def _priors(search: Search, backends: Backends, texts: Sequence[str]) -> list[float]:
    """How likely the policy finds the steps, which it has not written: PRM1 scores by it."""
    prefix = Prefix(problem=search.request.problem, steps=list(texts))
    request = LikelihoodRequest(trajectories=[prefix], model=search.request.models.policy)
    try:
        response = await backends.policy.likelihood(request)
    except ServiceError as error:
        reason = why_too_long(error, "trajectories")
        if reason is None:
            raise
        raise BeginningFailedError(f"The policy does not read the given beginning: {reason}") from error
    search.models["policy"] = response.model
    return response.step_logprobs[0]


def record_beginning(tree: Tree, steps: Sequence[ExecutedStep], max_depth: int) -> list[str]:
    """Add the given steps, up to one that does not run; the ids of the nodes. An answer counts as a rollout."""
    end, made = record_paths(tree, Rollout(_TASK, (tuple(steps),)), max_depth)
    if steps and steps[-1].value is not None:
        back_up(tree, end, steps[-1].value)
    return made


def laid_steps(nodes: Mapping[str, N], texts: Sequence[str]) -> list[N]:
    """Those of the nodes that are the given steps, from the first on; after one that does not run there is none."""
    found: list[N] = []
    above = ROOT
    for text in texts:
        ids = [node_id(above, text, status) for status in (StepStatus.OK, StepStatus.ERROR)]
        node = next((nodes[each] for each in ids if each in nodes), None)
        if node is None:
            break
        found.append(node)
        if node.status is not StepStatus.OK:
            break
        above = node.id
    return found


def is_whole(laid: Sequence[Node], texts: Sequence[str]) -> bool:
    """Whether nothing is left to be laid."""
    return len(laid) == len(texts) or (
        bool(laid) and (laid[-1].status is not StepStatus.OK or laid[-1].answer is not None)
    )


def begin_at(tree: Tree, laid: Sequence[Node]) -> None:
    """Have every task begin at the last of the nodes, or below it."""
    if laid:
        tree.start = laid[-1].id
        tree.asked = max(tree.asked, _TASK.number + 1)
