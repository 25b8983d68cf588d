"""Micro-batching: questions that come within a few milliseconds, or while their answerer is busy, are answered together."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from ratchet.clients import PolicyClient
from ratchet.contracts.policy import LikelihoodRequest, Prefix

WINDOW_SECONDS = 0.005
MAX_BATCH = 64

_Q = TypeVar("_Q")
_A = TypeVar("_A")


class MicroBatcher(Generic[_Q, _A]):
    """Collects questions for `answer`, which gives an answer or an error to each, or raises what all of them get.

    At most `at_once` collections are answered at a time; what comes meanwhile goes into the next.
    """

    def __init__(
        self, answer: Callable[[list[_Q]], Awaitable[Sequence[_A | Exception]]], *, at_once: int
    ) -> None:
        self._answer = answer
        self._turns = asyncio.Semaphore(at_once)
        self._waiting: list[tuple[_Q, asyncio.Future[_A]]] = []
        self._asking: set[asyncio.Task[None]] = set()

    async def ask(self, question: _Q) -> _A:
        """The answer to one question. Raises its error."""
        answer: asyncio.Future[_A] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, answer))
        if len(self._waiting) == 1:
            task = asyncio.create_task(self._flush())
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)
        return await answer

    async def _flush(self) -> None:
        await asyncio.sleep(WINDOW_SECONDS)
        async with self._turns:
            everything, self._waiting = self._waiting, []
            batches = [
                everything[start : start + MAX_BATCH] for start in range(0, len(everything), MAX_BATCH)
            ]
            await asyncio.gather(*(self._ask(batch) for batch in batches))

    async def _ask(self, batch: list[tuple[_Q, "asyncio.Future[_A]"]]) -> None:
        # Those who went away are not asked for.
        batch = [(question, answer) for question, answer in batch if not answer.done()]
        if not batch:
            return
        try:
            answers = await self._answer([question for question, _ in batch])
        except Exception as error:  # noqa: BLE001 - handed to each of those who wait
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)
            return
        for (_, answer), found in zip(batch, answers, strict=True):
            if answer.done():
                continue
            if isinstance(found, Exception):
                answer.set_exception(found)
            else:
                answer.set_result(found)


@dataclass(frozen=True, slots=True)
class Answer:
    """Mean log-probability of each step, and the version of the policy that said so."""

    model: str
    step_logprobs: list[float]


class LikelihoodBatcher:
    """Collects trajectories and asks the policy for their likelihoods. Raises what the client raises."""

    def __init__(self, policy: PolicyClient) -> None:
        self._policy = policy
        self._batcher = MicroBatcher(self._answer, at_once=MAX_BATCH)

    async def ask(self, trajectory: Prefix, version: str | None = None) -> Answer:
        """The likelihood of one trajectory's steps under a version of the policy; None: the serving one."""
        return await self._batcher.ask((version, trajectory))

    async def _answer(self, batch: list[tuple[str | None, Prefix]]) -> list[Answer | Exception]:
        by_version: dict[str | None, list[int]] = defaultdict(list)
        for number, (version, _) in enumerate(batch):
            by_version[version].append(number)
        answers: dict[int, Answer | Exception] = {}

        async def request(version: str | None, numbers: list[int]) -> None:
            trajectories = [batch[number][1] for number in numbers]
            try:
                response = await self._policy.likelihood(
                    LikelihoodRequest(trajectories=trajectories, model=version)
                )
            except Exception as error:  # noqa: BLE001 - an unknown version is not the fault of those who ask for others
                answers.update(dict.fromkeys(numbers, error))
                return
            for number, logprobs in zip(numbers, response.step_logprobs, strict=True):
                answers[number] = Answer(response.model, logprobs)

        await asyncio.gather(*(request(version, numbers) for version, numbers in by_version.items()))
        return [answers[number] for number in range(len(batch))]
