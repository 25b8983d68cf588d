"""One search under way: its state, and the questions that it asks of policy and PRM.

Questions of one moment are one request.
"""

import asyncio
import contextlib
import hashlib
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TypeAlias, TypeVar

from ratchet.batching import MicroBatcher
from ratchet.clients import PolicyClient, PrmClient, SandboxClient, ServiceError
from ratchet.contracts.branching import Beginning
from ratchet.contracts.calibration import AnswerCalibration
from ratchet.contracts.policy import Candidate, GenerateRequest, Prefix, Until
from ratchet.contracts.prm import ScoreRequest
from ratchet.contracts.search import PrmUse, SearchRequest, StrategyName, Usage
from ratchet.solutions.programs import step_fingerprint
from ratchet.store.search_progress import Progress
from services.search.interpreter import Interpreter
from services.search.right_of_way import RightOfWay
from services.search.strategies import Strategy, Tree, strategy_of

R = TypeVar("R")
FindCalibration: TypeAlias = Callable[[str, str], Awaitable[AnswerCalibration | None]]
"""The calibration of a policy version with a PRM version."""

PINNED_SECONDS = 60.0
"""How long a search waits for a service to hold the version that it is pinned to."""


@dataclass(frozen=True, slots=True)
class Backends:
    """The services that a search calls."""

    policy: PolicyClient
    prm: PrmClient
    sandbox: SandboxClient


@dataclass(frozen=True, slots=True)
class PolicyQuestion:
    """What the policy is asked: what follows after these steps."""

    steps: list[str]
    until: Until
    max_tokens: int
    seed: int


@dataclass(frozen=True, slots=True)
class PrmQuestion:
    """What the PRM is asked: the scores of these steps, with the policy's mean log-probability of each."""

    steps: list[str]
    logprobs: list[float]


@dataclass(frozen=True, slots=True)
class NoRoom:
    """The policy's answer where the steps so far fill all that it reads and writes."""

    reason: str


async def no_calibration(policy: str, prm: str) -> None:
    """Where no search is calibrated."""


@dataclass(slots=True)
class Search:
    """All state of one search under way."""

    request: SearchRequest
    reference: str | None
    tree: Tree
    interpreter: Interpreter
    usage: Usage = field(default_factory=Usage)
    models: dict[str, str] = field(default_factory=dict)
    progress: Progress | None = None
    """Where an earlier worker left it, if one has said so: what was under way is so in the tree, and has to be done."""
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    """Set from outside to end the search with what it has: a cancel, or a lost lease."""
    right_of_way: RightOfWay = field(default_factory=RightOfWay)
    """Shared by the searches of a worker: which of them is under way."""
    find_calibration: FindCalibration = no_calibration
    calibration: AnswerCalibration | None = None
    """Of the models that have worked on it; None as well where it was not looked up yet."""
    beginning: Beginning | None = None
    """What it was given to begin with, where it was branched from another search."""

    _calibrated: tuple[str, str] | None = None
    _questions: MicroBatcher[PolicyQuestion, Candidate | NoRoom] | None = None
    _scores: MicroBatcher[PrmQuestion, list[float | None]] | None = None

    def questions(self, backends: Backends) -> MicroBatcher[PolicyQuestion, Candidate | NoRoom]:
        """Where rollouts of one moment ask the policy with one request."""
        if self._questions is None:
            self._questions = MicroBatcher(lambda asked: ask_policy(self, backends, asked))
        return self._questions

    def scores(self, backends: Backends) -> MicroBatcher[PrmQuestion, list[float | None]]:
        """Where rollouts of one moment ask the PRM with one request."""
        if self._scores is None:
            self._scores = MicroBatcher(lambda asked: _ask_prm(self, backends, asked))
        return self._scores

    async def learn_calibration(self) -> None:
        """Look up, once, how probable answers of these models are; only of what is both sampled and scored can it be told.

        Calibrations are of searches that the policy began: they say nothing of one that a person has altered.
        """
        if self.beginning is not None and self.beginning.alters:
            return
        pair = self.models.get("policy"), self.models.get("prm")
        if pair[0] and pair[1] and pair != self._calibrated and is_sampled(self.request):
            self._calibrated = pair[0], pair[1]
            self.calibration = await self.find_calibration(pair[0], pair[1])

    @property
    def min_confidence(self) -> float | None:
        """What the answer's probability has to reach; None: the level alone decides."""
        if self.request.min_confidence is not None or self.calibration is None:
            return self.request.min_confidence
        return self.calibration.min_confidence

    async def learn_prm(self, backends: Backends) -> None:
        """Ask which PRM serves, where the gate depends on it and no version was asked for."""
        parameters = self.request.parameters
        gated = self.request.strategy is StrategyName.MCTS or parameters.shared_draws
        depends = gated and parameters.gate is None
        if not depends or parameters.prm is PrmUse.NONE or self.request.models.prm is not None:
            return
        # Not known, nothing is gated until the first score says which it is.
        with contextlib.suppress(ServiceError):
            model = (await backends.prm.health()).detail.get("model")
            if isinstance(model, str):
                self.models["prm"] = model

    def forbids(self, node: str, step: str) -> bool:
        """Whether the step may not come next after this node."""
        if self.beginning is None or node != self.tree.start:
            return False
        fingerprint = step_fingerprint(step)
        return any(step_fingerprint(each) == fingerprint for each in self.beginning.forbidden)

    def strategy(self) -> Strategy:
        """The strategy that the request names."""
        return strategy_of(self.request, self.models.get("prm") or self.request.models.prm)


def is_sampled(request: SearchRequest) -> bool:
    """Whether two rollouts from the root are two draws: at temperature 0 they are one and the same."""
    return request.strategy is not StrategyName.GREEDY and request.parameters.temperature > 0


def draw_seed(request: SearchRequest, task: int, draw: int) -> int:
    """The seed of a task's draw (63 bits): the same whenever this search is made again, and another for every problem.

    Callers give one seed for all their problems. Were it the same for these, too, problems that differ by their numbers alone
    would be solved, or not, all together: their texts lead to the same choices, and the choices would be made alike.
    """
    name = f"{request.seed}/{task}/{draw}/{request.problem}"
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


async def ask_policy(
    search: Search, backends: Backends, questions: Sequence[PolicyQuestion]
) -> list[Candidate | NoRoom]:
    """One candidate for each question, where there is room for one. Those that differ in how far they go are other requests."""
    kinds = dict.fromkeys((each.until, each.max_tokens) for each in questions)
    groups = [[each for each in questions if (each.until, each.max_tokens) == kind] for kind in kinds]
    answered = await asyncio.gather(*(_ask_policy_alike(search, backends, group) for group in groups))
    found = dict(zip(kinds, map(iter, answered), strict=True))
    return [next(found[each.until, each.max_tokens]) for each in questions]


async def _ask_policy_alike(
    search: Search, backends: Backends, questions: Sequence[PolicyQuestion]
) -> list[Candidate | NoRoom]:
    parameters = search.request.parameters
    request = GenerateRequest(
        prefixes=[Prefix(problem=search.request.problem, steps=each.steps) for each in questions],
        seeds=[each.seed for each in questions],
        temperature=0.0 if search.request.strategy is StrategyName.GREEDY else parameters.temperature,
        top_p=parameters.top_p,
        max_tokens=questions[0].max_tokens,
        until=questions[0].until,
        shared=parameters.shared_draws,
        model=search.request.models.policy,
    )
    try:
        response = await search.right_of_way.ask(
            search.request.priority,
            lambda: _ask_until_held(lambda: backends.policy.generate(request), request.model),
        )
    except ServiceError as error:
        reason = why_too_long(error, "prefixes")
        if reason is None or not any(each.steps for each in questions):
            raise
        if len(questions) == 1:
            # What the policy wrote has filled all that it reads: the branch ends here, and not the search.
            return [NoRoom(reason)]
        return [(await _ask_policy_alike(search, backends, [each]))[0] for each in questions]
    search.models["policy"] = response.model
    search.usage.policy.prompt_tokens += response.prompt_tokens
    return [candidate for [candidate] in response.candidates]


def why_too_long(error: ServiceError, texts: str) -> str | None:
    """Why a model does not take one of the `texts` of a request, longer than what it reads; None for any other error."""
    if error.status != HTTPStatus.UNPROCESSABLE_ENTITY:
        return None
    # A field of such a text has more parts to its name.
    found = (wrong.message for wrong in error.errors if re.fullmatch(rf"{texts}\.\d+", wrong.field))
    return next(found, None)


async def _ask_prm(
    search: Search, backends: Backends, questions: Sequence[PrmQuestion]
) -> list[list[float | None]]:
    """Scores of all steps of each question; None each where the PRM does not read so much."""
    request = ScoreRequest(
        problem=search.request.problem,
        steps=[each.steps for each in questions],
        logprobs=[each.logprobs for each in questions],
        model=search.request.models.prm,
        policy=search.request.models.policy,
    )
    try:
        response = await _ask_until_held(lambda: backends.prm.score(request), request.model)
    except ServiceError as error:
        if why_too_long(error, "steps") is None:
            raise
        if len(questions) == 1:
            return [[None for _ in questions[0].steps]]
        return [(await _ask_prm(search, backends, [each]))[0] for each in questions]
    search.models["prm"] = response.model
    return [list(scores) for scores in response.scores]


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
