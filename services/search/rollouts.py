"""A task of the strategy as work: the policy draws steps, the sandbox runs them, the PRM scores them."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count

from pydantic import TypeAdapter, ValidationError

from ratchet.contracts.base import MAX_CODE_CHARS, StepText
from ratchet.contracts.policy import Candidate, Until
from ratchet.contracts.sandbox import StepResult, StepStatus
from ratchet.contracts.search import PrmUse, UsagePart
from ratchet.solutions.answers import answer_of, same_answer
from ratchet.store.text import replace_unstorable
from services.search.search import (
    Backends,
    NoRoom,
    PolicyQuestion,
    PrmQuestion,
    Search,
    ask_policy,
    draw_seed,
)
from services.search.strategies import Draw, ExecutedStep, Gate, Rollout, Task

_STEP_TEXT: TypeAdapter[str] = TypeAdapter(StepText)
FORBIDDEN_DRAWS = 8
"""Of one step, where a person has forbidden what the policy writes."""


async def roll_out(search: Search, backends: Backends, task: Task) -> Rollout:
    """Do what the task asks for."""
    match task.draw:
        case Draw.TRAJECTORY:
            return await _draw_trajectory(search, backends, task)
        case Draw.STEPS:
            draw = _draw_steps if task.gate is None else _draw_gated_steps
            return await draw(search, backends, task)
        case Draw.STEP:
            descent = _Descent(search, backends, task)
            drawn = await descent.draw([])
            return Rollout(task, ((drawn.step,),) if drawn is not None else (), descent.ended_by)


async def _draw_trajectory(search: Search, backends: Backends, task: Task) -> Rollout:
    """Complete a trajectory. After a step that does not run, go on from the last one that did."""
    prefix = [node.text for node in search.tree.path(task.node)]
    tried: list[tuple[ExecutedStep, ...]] = []
    good: list[ExecutedStep] = []
    ended_by: str | None = None
    draws = count()
    for _ in range(task.retries + 1):
        room = search.request.parameters.max_depth - len(prefix) - len(good)
        if room <= 0:
            break
        before = prefix + [step.text for step in good]
        left = search.request.budget.tokens - search.usage.policy.tokens
        if tried and left <= 0:
            break
        asked = _Asked(task.node if not good else None, before, Until.END, task.number)
        candidate = await _generate_allowed(search, backends, asked, draws, left)
        if isinstance(candidate, NoRoom):
            ended_by = candidate.reason
            break
        if candidate is None:
            break
        steps = await execute_steps(search, before, candidate, candidate.steps[:room])
        ran = [step for step in steps if step.status is StepStatus.OK]
        if len(ran) < len(steps):
            tried.append((*good, *steps))
            good = [_paid(step) for step in good + ran]
        else:
            good += ran
        if ran and ran[-1].answer is not None:
            break
        if len(ran) == len(steps):
            # All of it ran and nothing was printed: the policy has no more to say, or no room to say it.
            break
    tried.append(tuple(good))
    scored = await score_paths(search, backends, task.node, tried)
    return Rollout(task, tuple(path for path in scored[:-1] if path) + scored[-1:], ended_by)


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A step, and whether the policy says that it ends the solution."""

    step: ExecutedStep
    final: bool

    def passes(self, gate: Gate, before: float | None) -> bool:
        return self.step.status is StepStatus.OK and gate.passes(self.step.prm_score, before)


class _Descent:
    """Draws single steps below a node."""

    def __init__(self, search: Search, backends: Backends, task: Task) -> None:
        self._search = search
        self._backends = backends
        self._task = task
        self._path = search.tree.path(task.node)
        self._draws = count()
        self.ended_by: str | None = None
        """Why nothing more can be drawn, however many tokens are left."""
        # What others spend meanwhile is not taken from a trajectory that was begun.
        left = search.request.budget.tokens - search.usage.policy.tokens
        self._left = min(search.request.parameters.max_tokens, left)

    @property
    def has_room(self) -> bool:
        """Whether tokens are left for another step."""
        return self._left > 0

    async def write(self, good: Sequence[str]) -> Candidate | None:
        """The next step after those, not run yet; None when the policy writes none."""
        before = [node.text for node in self._path] + list(good)
        asked = _Asked(self._task.node if not good else None, before, Until.STEP, self._task.number)
        candidate = await _generate_allowed(self._search, self._backends, asked, self._draws, self._left)
        if isinstance(candidate, NoRoom):
            self.ended_by = candidate.reason
            return None
        if candidate is None:
            return None
        self._left -= candidate.tokens
        return candidate if candidate.steps else None

    async def draw(self, good: Sequence[ExecutedStep]) -> _Drawn | None:
        """The next step after those; None when the policy writes none."""
        search, backends = self._search, self._backends
        texts = [step.text for step in good]
        candidate = await self.write(texts)
        if candidate is None:
            return None
        before = [node.text for node in self._path] + texts
        executed = await execute_steps(search, before, candidate, candidate.steps[:1])
        if not executed:
            return None
        [step] = executed
        if step.status is StepStatus.OK:
            [scored] = await score_paths(search, backends, self._task.node, [(*good, step)])
            step = scored[-1]
        return _Drawn(step, candidate.final)


async def _draw_steps(search: Search, backends: Backends, task: Task) -> Rollout:
    """Complete a trajectory step by step, and run it when it is complete, as it is where it is drawn in one piece."""
    descent = _Descent(search, backends, task)
    prefix = [node.text for node in search.tree.path(task.node)]
    drawn: list[Candidate] = []
    texts: list[str] = []
    while len(prefix) + len(texts) < search.request.parameters.max_depth and descent.has_room:
        candidate = await descent.write(texts)
        if candidate is None:
            break
        drawn.append(candidate)
        texts.append(candidate.steps[0])
        if candidate.final:
            break
    steps = await _execute_drawn(search, prefix, drawn)
    good = steps if not steps or steps[-1].status is StepStatus.OK else [_paid(step) for step in steps[:-1]]
    tried = [tuple(steps)] if good is not steps else []
    paths = await score_paths(search, backends, task.node, [*tried, tuple(good)])
    return Rollout(task, paths, descent.ended_by)


async def _execute_drawn(search: Search, prefix: list[str], drawn: Sequence[Candidate]) -> list[ExecutedStep]:
    """Run steps that were drawn one by one, each with its own tokens."""
    if not drawn:
        return []
    texts = [each.steps[0] for each in drawn]
    priors = [prior for each in drawn for prior in each.step_logprobs[:1]]
    whole = drawn[0].model_copy(update={"steps": texts, "step_logprobs": priors})
    executed = await execute_steps(search, prefix, whole, texts)
    return [replace(step, tokens=each.tokens) for step, each in zip(executed, drawn, strict=False)]


async def _draw_gated_steps(search: Search, backends: Backends, task: Task) -> Rollout:
    """Complete a trajectory step by step. A step that the gate leaves, or that does not run, is drawn again."""
    gate = task.gate
    assert gate is not None
    descent = _Descent(search, backends, task)
    start = search.tree.nodes[task.node]
    before = gate.first if start.parent is None else start.prm_score
    tried: list[tuple[ExecutedStep, ...]] = []
    good: list[ExecutedStep] = []
    while start.depth + len(good) < search.request.parameters.max_depth and descent.has_room:
        drawn = await _draw_through_gate(descent, gate, good, before)
        taken = _choose(drawn, gate, before)
        paid = [_paid(step) for step in good]
        tried += [
            (*paid, replace(each.step, abandoned=each.step.status is StepStatus.OK))
            for each in drawn
            if each is not taken
        ]
        if taken is None:
            break
        good.append(taken.step)
        before = taken.step.prm_score
        if taken.step.answer is not None or taken.final:
            break
    tried.append(tuple(good))
    return Rollout(task, tuple(tried), descent.ended_by)


async def _draw_through_gate(
    descent: _Descent, gate: Gate, good: Sequence[ExecutedStep], before: float | None
) -> list[_Drawn]:
    """Draws of the next step, up to the first that passes."""
    drawn: list[_Drawn] = []
    while len(drawn) <= gate.redraws and descent.has_room:
        one = await descent.draw(good)
        if one is None:
            break
        drawn.append(one)
        if one.passes(gate, before):
            break
    return drawn


def _choose(drawn: Sequence[_Drawn], gate: Gate, before: float | None) -> _Drawn | None:
    """The one that passed; otherwise the best that ran, as a node from which all go down is itself to blame."""
    if drawn and drawn[-1].passes(gate, before):
        return drawn[-1]
    ran = [each for each in drawn if each.step.status is StepStatus.OK]
    return max(ran, key=lambda each: each.step.prm_score or 0.0, default=None)


def _paid(step: ExecutedStep) -> ExecutedStep:
    """The step as the beginning of one more path: what it cost is counted in the path that it was drawn for."""
    return replace(step, tokens=0, seconds=0.0)


async def _end_value(search: Search, backends: Backends, answer: str, prm_score: float | None) -> float:
    """Value of a trajectory with this answer: with a reference +1 or -1, otherwise the PRM's view of it, in [-1, 1]."""
    if search.reference is not None:
        return 1.0 if await same_answer(backends.sandbox, answer, search.reference) else -1.0
    return 0.0 if prm_score is None else 2.0 * prm_score - 1.0


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the policy is asked to go on with."""

    node: str | None
    """The node after which it goes on; None where steps of the task stand in between."""
    steps: list[str]
    until: Until
    task: int


async def _generate_allowed(
    search: Search, backends: Backends, asked: _Asked, draws: Iterator[int], left: int
) -> Candidate | NoRoom | None:
    """What follows after the steps, drawn again where it begins with a step that is forbidden there.

    What was drawn in vain is paid for. None where the policy writes nothing else.
    """
    for _ in range(FORBIDDEN_DRAWS):
        candidate = await _generate(search, backends, asked.steps, asked.until, asked.task, next(draws), left)
        if isinstance(candidate, NoRoom) or not candidate.steps:
            return candidate
        if asked.node is None or not search.forbids(asked.node, candidate.steps[0]):
            return candidate
        left -= candidate.tokens
        if left <= 0:
            break
    return None


async def _generate(
    search: Search, backends: Backends, steps: list[str], until: Until, task: int, draw: int, left: int
) -> Candidate | NoRoom:
    """What follows after the steps, from one sequence of at most `left` tokens."""
    parameters = search.request.parameters
    question = PolicyQuestion(
        steps=steps,
        until=until,
        max_tokens=max(1, min(parameters.max_tokens, left)),
        seed=draw_seed(search.request, task, draw),
    )
    began = time.monotonic()
    if parameters.batch_rollouts:
        candidate = await search.questions(backends).ask(question)
    else:
        [candidate] = await ask_policy(search, backends, [question])
    _charge(search.usage.policy, began, 0 if isinstance(candidate, NoRoom) else candidate.tokens)
    return candidate


async def execute_steps(
    search: Search, prefix: list[str], candidate: Candidate, steps: list[str]
) -> list[ExecutedStep]:
    """Run the candidate's steps after the prefix; up to the first that fails or that gives the answer."""
    if not steps:
        return []
    began = time.monotonic()
    runnable = _runnable(prefix, steps)
    done = await search.interpreter.run(prefix + runnable) if runnable else []
    seconds = _charge(search.usage.sandbox, began, 0)
    results: Sequence[StepResult] = done[len(prefix) :]
    if len(runnable) < len(steps):
        results = [*results, StepResult(status=StepStatus.ERROR, stderr="the step is no text, or too long")]
    if any(result.status is not StepStatus.OK for result in done[: len(prefix)]):
        # The prefix ran before and does not run now: whatever follows it cannot be trusted.
        results = [StepResult(status=StepStatus.ERROR, stderr="an earlier step did not run again")]
    shares = _token_shares(candidate.tokens, steps)
    executed: list[ExecutedStep] = []
    for text, result, tokens, prior in zip(steps, results, shares, candidate.step_logprobs, strict=False):
        ok = result.status is StepStatus.OK
        executed.append(
            ExecutedStep(
                # A step that was not run may be what no store, event or log can hold.
                text=replace_unstorable(text)[:MAX_CODE_CHARS],
                status=result.status,
                stdout=result.stdout,
                stderr=result.stderr,
                prm_score=None,
                prior=prior,
                tokens=tokens,
                seconds=seconds / len(steps),
                # A step that gives an answer ends the solution.
                answer=answer_of(result) if ok else None,
            )
        )
        if not ok or executed[-1].answer is not None:
            break
    return executed


def _runnable(prefix: Sequence[str], steps: Sequence[str]) -> list[str]:
    """The steps up to the first that no program can hold: a hot or broken model writes NUL, half a character, or no end."""
    left = MAX_CODE_CHARS - sum(map(len, prefix))
    runnable: list[str] = []
    for step in steps:
        left -= len(step)
        if left < 0 or not _is_text(step):
            break
        runnable.append(step)
    return runnable


def _is_text(step: str) -> bool:
    try:
        _STEP_TEXT.validate_python(step)
    except ValidationError:
        return False
    return True


async def score_paths(
    search: Search, backends: Backends, start: str, paths: Sequence[tuple[ExecutedStep, ...]]
) -> tuple[tuple[ExecutedStep, ...], ...]:
    """The paths below the node `start`, with the PRM's scores for the steps that ran and the values of their ends."""
    chains = [[step for step in path if step.status is StepStatus.OK] for path in paths]
    scored: list[tuple[ExecutedStep, ...]] = []
    for path, scores in zip(paths, await _prm_scores(search, backends, start, chains), strict=True):
        left = iter(scores)
        steps = [
            await _with_score(search, backends, step, next(left)) if step.status is StepStatus.OK else step
            for step in path
        ]
        scored.append(tuple(steps))
    return tuple(scored)


async def _prm_scores(
    search: Search, backends: Backends, start: str, chains: Sequence[Sequence[ExecutedStep]]
) -> Sequence[Sequence[float | None]]:
    """The PRM's scores for the steps of each chain below the node `start`; None each where the search uses no PRM."""
    if not any(chains) or search.request.parameters.prm is PrmUse.NONE:
        return [[None] * len(chain) for chain in chains]
    prefix = search.tree.path(start)
    texts, priors = [node.text for node in prefix], [node.prior for node in prefix]
    questions = [
        PrmQuestion(texts + [step.text for step in chain], priors + [step.prior for step in chain])
        for chain in chains
        if chain
    ]
    began = time.monotonic()
    found = iter(await asyncio.gather(*map(search.scores(backends).ask, questions)))
    _charge(search.usage.prm, began, 0)
    return [next(found)[len(prefix) :] if chain else [] for chain in chains]


async def _with_score(
    search: Search, backends: Backends, step: ExecutedStep, score: float | None
) -> ExecutedStep:
    """The step with its score and, where it gives an answer, the value of the trajectory."""
    value = None if step.answer is None else await _end_value(search, backends, step.answer, score)
    return replace(step, prm_score=score, value=value)


def _charge(part: UsagePart, began: float, tokens: int) -> float:
    """Add a call that began then to the usage; the seconds that it took."""
    seconds = time.monotonic() - began
    part.calls += 1
    part.tokens += tokens
    part.seconds += seconds
    return seconds


def _token_shares(tokens: int, steps: Sequence[str]) -> list[int]:
    """A candidate's tokens divided among its steps by length; the engine counts only the whole."""
    length = sum(len(step) for step in steps) or 1
    shares: list[int] = []
    passed = 0
    for step in steps:
        passed += len(step)
        shares.append(tokens * passed // length - sum(shares))
    return shares
