"""PRM1 as the service holds it: scores from the policy's log-probabilities of its own steps (`likelihood`).

A caller that has them from the generation sends them along, and nothing is computed; the others are asked of the policy in
micro-batches and remembered.
"""

import asyncio
import contextlib
from collections.abc import Sequence

from ratchet.clients import PolicyClient, ServiceError
from ratchet.contracts.policy import Prefix
from ratchet.contracts.prm import ScoreRequest, ScoreResponse
from ratchet.contracts.serving import PRM1
from services.prm.batcher import MAX_BATCH, LikelihoodBatcher, TextTooLongError, place_of_too_long
from services.prm.cache import StepCache
from services.prm.likelihood import step_scores

VERSION_SECONDS = 2.0
"""How often the policy is asked for its version: PRM1 is as new as the policy that it reads."""


class PolicyNotReadyError(Exception):
    """The policy has not yet said which version of it serves; the message says where it should be."""


class LikelihoodPrm:
    """PRM1. `look_at_policy` is called again and again beside it."""

    device = None
    """It computes nothing here."""

    def __init__(self, policy: PolicyClient, cache: StepCache) -> None:
        self._policy = policy
        self._batcher = LikelihoodBatcher(policy)
        self._cache = cache
        self._serving_policy: str | None = None

    @property
    def answers_as(self) -> str | None:
        """Its name with the policy's version; None before the policy was ready."""
        return None if self._serving_policy is None else _named_after(self._serving_policy)

    async def look_at_policy(self) -> None:
        """Keep the policy's version in mind."""
        with contextlib.suppress(ServiceError):
            health = await self._policy.health()
            model = health.detail.get("model")
            if health.ready and isinstance(model, str):
                self._serving_policy = model

    async def score(self, body: ScoreRequest) -> ScoreResponse:
        """Scores of every step, of the shape of `body.steps`. Raises PolicyNotReadyError, TextTooLongError, ServiceError."""
        version = body.policy or self._serving_policy
        if version is None:
            raise PolicyNotReadyError(f"The policy at {self._policy.url} is not ready.")
        given = body.logprobs or [[None] * len(row) for row in body.steps]
        rows = await asyncio.gather(
            *(self._logprobs(body, number, logprobs, version) for number, logprobs in enumerate(given))
        )
        return ScoreResponse(
            model=_named_after(version),
            scores=[step_scores(logprobs) for logprobs, _ in rows],
            cached=sum(cached for _, cached in rows),
        )

    async def _logprobs(
        self, body: ScoreRequest, number: int, given: Sequence[float | None], version: str
    ) -> tuple[list[float], int]:
        """Log-probability of each step of the trajectory of this number, and how many of them the cache knew.

        Where the caller or the cache lacks one all are asked for, so that all scores have one source.
        """
        steps = body.steps[number]
        sent = [value for value in given if value is not None]
        if len(sent) == len(steps):
            return sent, 0
        known = self._cache.get(_named_after(version), body.problem, steps)
        found = [value for value in known if value is not None]
        if len(found) == len(steps):
            return found, len(found)
        try:
            answer = await self._batcher.ask(Prefix(problem=body.problem, steps=list(steps)), body.policy)
        except ServiceError as error:
            if place_of_too_long(error, MAX_BATCH) is None:
                raise
            raise TextTooLongError(number, f"the policy does not read so much: {error.detail}") from error
        self._cache.put(_named_after(answer.model), body.problem, steps, answer.step_logprobs)
        return answer.step_logprobs, 0


def _named_after(policy: str) -> str:
    return f"{PRM1}@{policy}"
