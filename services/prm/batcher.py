"""Micro-batching: questions that come within a few milliseconds go to the policy as one request."""

import asyncio
from dataclasses import dataclass

from ratchet.clients import PolicyClient
from ratchet.contracts.policy import LikelihoodRequest, Prefix

WINDOW_SECONDS = 0.005
MAX_BATCH = 64


@dataclass(frozen=True, slots=True)
class Answer:
    """Mean log-probability of each step, and the version of the policy that said so."""

    model: str
    step_logprobs: list[float]


class LikelihoodBatcher:
    """Collects trajectories and asks the policy for their likelihoods. Raises what the client raises."""

    def __init__(self, policy: PolicyClient) -> None:
        self._policy = policy
        self._waiting: list[tuple[Prefix, asyncio.Future[Answer]]] = []
        self._asking: set[asyncio.Task[None]] = set()

    async def ask(self, trajectory: Prefix) -> Answer:
        """The likelihood of one trajectory's steps."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((trajectory, answer))
        if len(self._waiting) == 1:
            task = asyncio.create_task(self._flush())
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)
        return await answer

    async def _flush(self) -> None:
        await asyncio.sleep(WINDOW_SECONDS)
        everything, self._waiting = self._waiting, []
        batches = [everything[start : start + MAX_BATCH] for start in range(0, len(everything), MAX_BATCH)]
        await asyncio.gather(*(self._ask(batch) for batch in batches))

    async def _ask(self, batch: list[tuple[Prefix, "asyncio.Future[Answer]"]]) -> None:
        # Those who went away are not asked for.
        batch = [(trajectory, answer) for trajectory, answer in batch if not answer.done()]
        if not batch:
            return
        try:
            response = await self._policy.likelihood(
                LikelihoodRequest(trajectories=[trajectory for trajectory, _ in batch])
            )
        except Exception as error:  # noqa: BLE001 - handed to each of those who wait
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)
            return
        for (_, answer), logprobs in zip(batch, response.step_logprobs, strict=True):
            if not answer.done():
                answer.set_result(Answer(response.model, logprobs))
