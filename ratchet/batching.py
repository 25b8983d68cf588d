"""Questions that are asked in the same moment go to a service as one request.

Rollouts of a search that begin together stay together: one answer wakes them all, and their next questions come in one
moment again. For small models a request costs more than what it asks for; for large ones only those services are asked this
way whose answers take about as long for one as for many.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")


class Together(Generic[Q, A]):
    """Collects the questions of one turn of the event loop; `send` answers them in their order, or raises for all."""

    def __init__(self, send: Callable[[Sequence[Q]], Awaitable[Sequence[A]]]) -> None:
        self._send = send
        self._waiting: list[tuple[Q, asyncio.Future[A]]] = []
        self._sending: set[asyncio.Task[None]] = set()

    async def ask(self, question: Q) -> A:
        """The answer to one question. Raises what `send` raises."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[A] = loop.create_future()
        self._waiting.append((question, answer))
        if len(self._waiting) == 1:
            # After all that is ready to run now has run.
            loop.call_soon(self._flush)
        return await answer

    def _flush(self) -> None:
        # Who was cancelled in the meantime is not asked for.
        batch = [(question, answer) for question, answer in self._waiting if not answer.done()]
        self._waiting = []
        if batch:
            task = asyncio.create_task(self._deliver(batch))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
            for _, answer in batch:
                answer.add_done_callback(lambda _: self._drop(task, batch))

    def _drop(self, task: "asyncio.Task[None]", batch: Sequence[tuple[Q, "asyncio.Future[A]"]]) -> None:
        """Give a request up when nobody waits for it any more."""
        if all(answer.cancelled() for _, answer in batch):
            task.cancel()

    async def _deliver(self, batch: Sequence[tuple[Q, "asyncio.Future[A]"]]) -> None:
        try:
            answers = await self._send([question for question, _ in batch])
        except Exception as error:  # noqa: BLE001 - handed to each of those who wait
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)
            return
        for (_, waiting), found in zip(batch, answers, strict=True):
            if not waiting.done():
                waiting.set_result(found)
