"""One search: ask the strategy, do the work over HTTP, tell the strategy, until an end is reached.

The loop keeps up to `in_flight` tasks under way; batches form in the engines. It knows no database: what changed goes to
a `Journal`, which the worker provides. Tokens are reserved for tasks under way, so a budget is overrun by the error of that
estimate at most, not by all that is in flight.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from itertools import takewhile
from typing import Protocol, TypeVar

from pydantic import TypeAdapter, ValidationError

from ratchet.batching import MicroBatcher
from ratchet.clients import PolicyClient, PrmClient, SandboxClient, ServiceError
from ratchet.contracts.base import StepText
from ratchet.contracts.policy import Candidate, GenerateRequest, Prefix, Until
from ratchet.contracts.prm import ScoreRequest
from ratchet.contracts.sandbox import StepResult, StepStatus
from ratchet.contracts.search import PrmUse, SearchRequest, StrategyName, Usage, UsagePart, VerificationLevel
from ratchet.solutions.answers import last_line, same_answer
from services.search.interpreter import Interpreter
from services.search.strategies import (
    BestOfN,
    ExecutedStep,
    Greedy,
    Majority,
    Mcts,
    Node,
    Rollout,
    Strategy,
    Task,
    Tree,
)
from services.search.votes import Group, Independence, free_draws, hardly_overtaken, has_half, tally

R = TypeVar("R")
_STEP_TEXT: TypeAdapter[str] = TypeAdapter(StepText)

PINNED_SECONDS = 60.0
"""How long a search waits for a service to hold the version that it is pinned to."""
FIRST_GUESS_TOKENS = 120
"""Tokens reserved for a task before the first one has ended."""


@dataclass(frozen=True, slots=True)
class Backends:
    """The services that a search calls."""

    policy: PolicyClient
    prm: PrmClient
    sandbox: SandboxClient


class Journal(Protocol):
    """Where a search writes down what it did."""

    def note(self, nodes: Sequence[Node]) -> None:
        """These nodes are new or changed. Must not block."""


@dataclass(frozen=True, slots=True)
class PolicyQuestion:
    """What the policy is asked: all that is left of a solution after these steps."""

    steps: list[str]
    max_tokens: int
    seed: int


@dataclass(frozen=True, slots=True)
class PrmQuestion:
    """What the PRM is asked: the scores of these steps, with the policy's mean log-probability of each."""

    steps: list[str]
    logprobs: list[float]


@dataclass(slots=True)
class Search:
    """All state of one search under way."""

    request: SearchRequest
    reference: str | None
    tree: Tree
    interpreter: Interpreter
    usage: Usage = field(default_factory=Usage)
    models: dict[str, str] = field(default_factory=dict)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    """Set from outside to end the search with what it has: a cancel, or a lost lease."""

    _questions: MicroBatcher[PolicyQuestion, Candidate] | None = None
    _scores: MicroBatcher[PrmQuestion, list[float]] | None = None

    def questions(self, backends: Backends) -> MicroBatcher[PolicyQuestion, Candidate]:
        """Where rollouts of one moment ask the policy with one request."""
        if self._questions is None:
            self._questions = MicroBatcher(lambda asked: _ask_policy(self, backends, asked))
        return self._questions

    def scores(self, backends: Backends) -> MicroBatcher[PrmQuestion, list[float]]:
        """Where rollouts of one moment ask the PRM with one request."""
        if self._scores is None:
            self._scores = MicroBatcher(lambda asked: _ask_prm(self, backends, asked))
        return self._scores

    def strategy(self) -> Strategy:
        """The strategy that the request names."""
        parameters = self.request.parameters
        match self.request.strategy:
            case StrategyName.MCTS:
                return Mcts(
                    parameters.rollouts,
                    parameters.branching_factor,
                    parameters.max_depth,
                    parameters.exploration,
                    prm_values=parameters.prm is PrmUse.VALUE,
                )
            case StrategyName.BEST_OF_N:
                return BestOfN(parameters.rollouts, parameters.max_depth)
            case StrategyName.MAJORITY:
                return Majority(parameters.rollouts, parameters.max_depth)
            case StrategyName.GREEDY:
                return Greedy(1, parameters.max_depth)


async def grow(search: Search, backends: Backends, journal: Journal, deadline: float) -> str:
    """Grow the tree until an end is reached; the reason why it ended. `deadline` is of the monotonic clock."""
    strategy, request = search.strategy(), search.request
    running: set[asyncio.Task[Rollout]] = set()
    stopped = asyncio.create_task(search.stop.wait())
    reserve = _Reserve()
    try:
        while True:
            # The token budget is not among the reasons: it only ends the asking, as what is under way is paid for.
            reason = _reason_to_end(search, strategy, deadline)
            while (
                reason is None
                and len(running) < request.parameters.in_flight
                and search.usage.policy.tokens + reserve.expected(len(running)) < request.budget.tokens
                and (task := strategy.ask(search.tree)) is not None
            ):
                running.add(asyncio.create_task(roll_out(search, backends, task)))
            if reason is not None or not running:
                return reason or _why_nothing_is_left(search)
            await asyncio.wait(
                {*running, stopped},
                timeout=max(0.0, deadline - time.monotonic()),
                return_when=asyncio.FIRST_COMPLETED,
            )
            for ended in [under_way for under_way in running if under_way.done()]:
                running.discard(ended)
                rollout = ended.result()
                reserve.learn(sum(step.tokens for path in rollout.paths for step in path))
                _record(search, strategy, rollout, journal)
    finally:
        for pending in (*running, stopped):
            pending.cancel()
        await asyncio.gather(*running, stopped, return_exceptions=True)


def _record(search: Search, strategy: Strategy, rollout: Rollout, journal: Journal) -> None:
    changed = strategy.tell(search.tree, rollout)
    search.usage.nodes = len(search.tree.nodes) - 1
    search.usage.rollouts = search.tree.root.visits
    journal.note([search.tree.nodes[node] for node in changed])


class _Reserve:
    """Expected tokens of the tasks under way: as many as the mean of those that ended."""

    def __init__(self) -> None:
        self._count = 0
        self._mean = float(FIRST_GUESS_TOKENS)

    def learn(self, tokens: int) -> None:
        self._count += 1
        self._mean += (tokens - self._mean) / self._count

    def expected(self, tasks: int) -> float:
        return tasks * self._mean


def _reason_to_end(search: Search, strategy: Strategy, deadline: float) -> str | None:
    budget = search.request.budget
    if search.stop.is_set():
        return "cancelled"
    if time.monotonic() >= deadline:
        return f"budget of {budget.seconds:g} seconds used up"
    if len(search.tree.nodes) > budget.nodes:
        return f"budget of {budget.nodes} nodes used up"
    if search.request.parameters.early_stop:
        votes = tally(search.tree, strategy)
        # As long as the verification that was asked for is not within reach, a clear lead is no reason to stop.
        level = search.request.require
        least = 1 if level is VerificationLevel.EXECUTION else search.request.parameters.min_agreement
        if search.reference is not None:
            if any(node.value_sum > 0 for node in search.tree.terminals()):
                return "a trajectory gives the reference answer"
        elif hardly_overtaken(votes, least) and _in_reach(search, votes, least):
            return "the leading answer can hardly be overtaken"
    return None


def _in_reach(search: Search, groups: list[Group], least: int) -> bool:
    """Whether the leading answer can be verified as was asked for, whatever its programs are worth."""
    if search.request.require is VerificationLevel.EXECUTION:
        return True
    independence = Independence(free_draws(search.tree, sampled=is_sampled(search.request)))
    return independence.count(groups[0].trajectories) >= least and has_half(groups, groups[0])


def is_sampled(request: SearchRequest) -> bool:
    """Whether two rollouts from the root are two draws: at temperature 0 they are one and the same."""
    return request.strategy is not StrategyName.GREEDY and request.parameters.temperature > 0


def _why_nothing_is_left(search: Search) -> str:
    if search.tree.rollouts >= search.request.parameters.rollouts:
        return "all rollouts done"
    return f"budget of {search.request.budget.tokens} tokens used up"


async def roll_out(search: Search, backends: Backends, task: Task) -> Rollout:
    """Complete a trajectory. After a step that does not run, go on from the last one that did."""
    prefix = [node.text for node in search.tree.path(task.node)]
    tried: list[tuple[ExecutedStep, ...]] = []
    good: list[ExecutedStep] = []
    for attempt in range(task.retries + 1):
        room = search.request.parameters.max_depth - len(prefix) - len(good)
        if room <= 0:
            break
        before = prefix + [step.text for step in good]
        candidate = await _generate(search, backends, before, task.number, attempt)
        steps = await execute_steps(search, before, candidate, candidate.steps[:room])
        ran = [step for step in steps if step.status is StepStatus.OK]
        if len(ran) < len(steps):
            tried.append((*good, *steps))
            # What they cost is counted in the path that ends here.
            good = [replace(step, tokens=0, seconds=0.0) for step in good + ran]
        else:
            good += ran
        if ran and ran[-1].answer is not None:
            break
        if len(ran) == len(steps):
            # All of it ran and nothing was printed: the policy has no more to say, or no room to say it.
            break
    tried.append(tuple(good))
    scored = await _score(search, backends, task.node, tried)
    return Rollout(task, tuple(path for path in scored[:-1] if path) + scored[-1:])


async def _end_value(search: Search, backends: Backends, answer: str, prm_score: float | None) -> float:
    """Value of a trajectory with this answer: with a reference +1 or -1, otherwise the PRM's view of it, in [-1, 1]."""
    if search.reference is not None:
        return 1.0 if await same_answer(backends.sandbox, answer, search.reference) else -1.0
    return 0.0 if prm_score is None else 2.0 * prm_score - 1.0


async def _generate(
    search: Search, backends: Backends, steps: list[str], task: int, attempt: int
) -> Candidate:
    """All that is left of a solution, from one sequence."""
    parameters, budget = search.request.parameters, search.request.budget
    left = max(1, budget.tokens - search.usage.policy.tokens)
    question = PolicyQuestion(
        steps=steps,
        max_tokens=min(parameters.max_tokens, left),
        # Every question of a search has a seed of its own, which depends only on the search's seed and the task.
        seed=(search.request.seed * 1_000_003 + task * 101 + attempt) % 2**31,
    )
    began = time.monotonic()
    if parameters.batch_rollouts:
        candidate = await search.questions(backends).ask(question)
    else:
        [candidate] = await _ask_policy(search, backends, [question])
    _charge(search.usage.policy, began, candidate.tokens)
    return candidate


async def _ask_policy(
    search: Search, backends: Backends, questions: Sequence[PolicyQuestion]
) -> list[Candidate]:
    parameters = search.request.parameters
    request = GenerateRequest(
        prefixes=[Prefix(problem=search.request.problem, steps=each.steps) for each in questions],
        seeds=[each.seed for each in questions],
        temperature=0.0 if search.request.strategy is StrategyName.GREEDY else parameters.temperature,
        top_p=parameters.top_p,
        max_tokens=min(each.max_tokens for each in questions),
        until=Until.END,
        model=search.request.models.policy,
    )
    response = await _ask_until_held(lambda: backends.policy.generate(request), request.model)
    search.models["policy"] = response.model
    return [candidate for [candidate] in response.candidates]


async def execute_steps(
    search: Search, prefix: list[str], candidate: Candidate, steps: list[str]
) -> list[ExecutedStep]:
    """Run the candidate's steps after the prefix; up to the first that fails or that gives the answer."""
    if not steps:
        return []
    began = time.monotonic()
    # A hot or broken model writes what no program can hold (NUL, half a surrogate pair): such a step fails unrun.
    runnable = list(takewhile(_is_text, steps))
    done = await search.interpreter.run(prefix + runnable) if runnable else []
    seconds = _charge(search.usage.sandbox, began, 0)
    results: Sequence[StepResult] = done[len(prefix) :]
    if len(runnable) < len(steps):
        results = [*results, StepResult(status=StepStatus.ERROR, stderr="the step is no text")]
    if any(result.status is not StepStatus.OK for result in done[: len(prefix)]):
        # The prefix ran before and does not run now: whatever follows it cannot be trusted.
        results = [StepResult(status=StepStatus.ERROR, stderr="an earlier step did not run again")]
    shares = _token_shares(candidate.tokens, steps)
    executed: list[ExecutedStep] = []
    for text, result, tokens, prior in zip(steps, results, shares, candidate.step_logprobs, strict=False):
        ok = result.status is StepStatus.OK
        executed.append(
            ExecutedStep(
                text=text,
                status=result.status,
                stdout=result.stdout,
                stderr=result.stderr,
                prm_score=None,
                prior=prior,
                tokens=tokens,
                seconds=seconds / len(steps),
                # A step that prints ends the solution: the last line that it prints is the answer.
                answer=last_line(result.stdout) if ok else None,
            )
        )
        if not ok or executed[-1].answer is not None:
            break
    return executed


def _is_text(step: str) -> bool:
    try:
        _STEP_TEXT.validate_python(step)
    except ValidationError:
        return False
    return True


async def _score(
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


async def _ask_prm(search: Search, backends: Backends, questions: Sequence[PrmQuestion]) -> list[list[float]]:
    request = ScoreRequest(
        problem=search.request.problem,
        steps=[each.steps for each in questions],
        logprobs=[each.logprobs for each in questions],
        model=search.request.models.prm,
        policy=search.request.models.policy,
    )
    response = await _ask_until_held(lambda: backends.prm.score(request), request.model)
    search.models["prm"] = response.model
    return response.scores


async def _ask_until_held(ask: Callable[[], Awaitable[R]], pinned: str | None) -> R:
    """The answer of a service, asked again for PINNED_SECONDS while it does not hold the pinned version.

    One that was just restarted holds its own model alone, until whoever pinned the search has it load the version again.
    Raises ServiceError.
    """
    until = time.monotonic() + PINNED_SECONDS
    while True:
        try:
            return await ask()
        except ServiceError as error:
            if pinned is None or error.status != HTTPStatus.NOT_FOUND or time.monotonic() > until:
                raise
        await asyncio.sleep(1.0)


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
