"""Micro-batching: questions that come at about the same time are answered with one call.

A rollout asks one question at a time, and rollouts that one answer wakes ask their next questions in the same moment.
For small models a call costs more than what it asks for, and a network reads many short texts in little more time than
one.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")

REQUEST_CHARS = 400_000
"""Of text that one request carries: in JSON a character has up to six bytes, and services take 4 MiB."""


def within_a_request(
    questions: Iterable[Q], chars: Callable[[Q], int], *, most: int = 256, limit: int = REQUEST_CHARS
) -> Iterator[list[Q]]:
    """The questions in order, cut into requests of at most `limit` characters and `most` questions.

    A question of more characters is a request alone.
    """
    request: list[Q] = []
    left = limit
    for question in questions:
        size = chars(question)
        if request and (size > left or len(request) == most):
            yield request
            request, left = [], limit
        request.append(question)
        left -= size
    if request:
        yield request


class MicroBatcher(Generic[Q, A]):
    """Collects questions and has `answer` answer them in batches, in the order in which they came.

    `answer` gives an answer or an error for each question of a batch, or raises what all of them get. It is cancelled when
    nobody waits for the batch any more.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Q]], Awaitable[Sequence[A | Exception]]],
        *,
        window_seconds: float = 0.0,
        max_batch: int | None = None,
        max_under_way: int | None = None,
    ) -> None:
        """Collect for `window_seconds` from the first question on; 0 means one turn of the event loop.

        A batch has at most `max_batch` questions, and at most `max_under_way` batches are answered at once: what comes
        meanwhile waits, and goes into the next. None means no bound.
        """
        self._answer = answer
        self._window_seconds = window_seconds
        self._max_batch = max_batch
        self._max_under_way = max_under_way
        self._waiting: list[tuple[Q, asyncio.Future[A]]] = []
        self._collecting: asyncio.Task[None] | None = None
        self._under_way: set[asyncio.Task[None]] = set()

    async def ask(self, question: Q) -> A:
        """The answer to one question. Raises its error, or what `answer` raises."""
        answer: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, answer))
        if len(self._waiting) == 1:
            self._collecting = asyncio.create_task(self._collect())
        return await answer

    async def _collect(self) -> None:
        """Send all that waits. A new task starts after all that is ready to run now: that is the turn of the event loop."""
        if self._window_seconds:
            await asyncio.sleep(self._window_seconds)
        while self._waiting:
            if len(self._under_way) == self._max_under_way:
                await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
            else:
                self._send_batch()

    def _send_batch(self) -> None:
        # Nobody asks for those who were cancelled in the meantime.
        waiting = [(question, answer) for question, answer in self._waiting if not answer.done()]
        size = len(waiting) if self._max_batch is None else self._max_batch
        batch, self._waiting = waiting[:size], waiting[size:]
        if not batch:
            return
        task = asyncio.create_task(self._deliver(batch))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        for _, answer in batch:
            answer.add_done_callback(lambda _: _cancel_if_unwanted(task, batch))

    async def _deliver(self, batch: "Sequence[tuple[Q, asyncio.Future[A]]]") -> None:
        """Ask, and give each of those who wait its answer."""
        try:
            answers = await self._answer([question for question, _ in batch])
        except asyncio.CancelledError:
            # Whoever stopped the call: nobody may wait for it for ever.
            for _, answer in batch:
                answer.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - handed to each of those who wait
            answers = [error] * len(batch)
        for (_, waiting), found in zip(batch, answers, strict=True):
            if waiting.done():
                continue
            if isinstance(found, Exception):
                waiting.set_exception(found)
            else:
                waiting.set_result(found)


def _cancel_if_unwanted(task: "asyncio.Task[None]", batch: "Sequence[tuple[Q, asyncio.Future[A]]]") -> None:
    """Give a call up when nobody waits for it any more."""
    if all(answer.cancelled() for _, answer in batch):
        task.cancel()
