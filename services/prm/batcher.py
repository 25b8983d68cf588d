"""Trajectories whose likelihoods are asked for within a few milliseconds go to the policy as one request."""

import asyncio
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

from ratchet.batching import MicroBatcher
from ratchet.clients import PolicyClient, ServiceError
from ratchet.contracts.policy import LikelihoodRequest, Prefix

WINDOW_SECONDS = 0.005
"""How long the first question waits for others."""
MAX_BATCH = 64
"""Trajectories in one request to the policy, and in one pass of a trained PRM."""
MAX_REQUESTS = 64
"""Requests to the policy that are under way at once."""
_TRAJECTORY = re.compile(r"trajectories\.([0-9]{1,4})")


class TextTooLongError(Exception):
    """A trajectory has more tokens than the model reads that scores it."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number
        """Of the trajectory among those that are to be scored."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Mean log-probability of each step (nats), and the version of the policy that said so."""

    model: str
    step_logprobs: list[float]


def place_of_too_long(error: Exception, trajectories: int) -> int | None:
    """Which of so many trajectories the policy refuses as longer than what it reads; None where it says nothing of that."""
    if isinstance(error, ServiceError) and error.status == HTTPStatus.UNPROCESSABLE_ENTITY:
        for wrong in error.errors:
            match = _TRAJECTORY.fullmatch(wrong.field)
            if match and int(match[1]) < trajectories:
                return int(match[1])
    return None


class LikelihoodBatcher:
    """Collects trajectories and asks the policy for their likelihoods. Raises what the client raises."""

    def __init__(self, policy: PolicyClient) -> None:
        self._policy = policy
        self._batcher = MicroBatcher(
            self._answer, window_seconds=WINDOW_SECONDS, max_batch=MAX_BATCH, max_under_way=MAX_REQUESTS
        )

    async def ask(self, trajectory: Prefix, version: str | None = None) -> Answer:
        """The likelihood of one trajectory's steps under a version of the policy; None: the serving one."""
        return await self._batcher.ask((version, trajectory))

    async def _answer(self, batch: Sequence[tuple[str | None, Prefix]]) -> list[Answer | Exception]:
        by_version: dict[str | None, list[int]] = defaultdict(list)
        for number, (version, _) in enumerate(batch):
            by_version[version].append(number)
        answers: dict[int, Answer | Exception] = {}

        async def request(version: str | None, numbers: list[int]) -> None:
            left = numbers
            while left:
                trajectories = [batch[number][1] for number in left]
                try:
                    response = await self._policy.likelihood(
                        LikelihoodRequest(trajectories=trajectories, model=version)
                    )
                except Exception as error:  # noqa: BLE001 - an unknown version is not for those who ask for others
                    refused = place_of_too_long(error, len(left))
                    # What one caller wants to know is too long; the others' answers do not depend on it.
                    of_this_error = left if refused is None else [left[refused]]
                    answers.update(dict.fromkeys(of_this_error, error))
                    left = [number for number in left if number not in of_this_error]
                    continue
                for number, logprobs in zip(left, response.step_logprobs, strict=True):
                    answers[number] = Answer(response.model, logprobs)
                break

        await asyncio.gather(*(request(version, numbers) for version, numbers in by_version.items()))
        return [answers[number] for number in range(len(batch))]
