"""Who may run next: a bounded queue that is fair between callers.

Each caller has a line of its own; a free permit goes to the lines in turn, so that one who sends a thousand requests
does not keep another waiting for all of them. Nobody may fill more than half of the queue alone.
"""

import asyncio
import contextlib
import math
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from http import HTTPStatus

MAX_RETRY_SECONDS = 60


class BusyError(Exception):
    """Too many wait, or this one waited too long."""

    def __init__(self, detail: str, status: HTTPStatus, retry_after: int) -> None:
        super().__init__(detail)
        self.status = status
        self.retry_after = retry_after
        """Seconds after which there is likely to be room."""


class Admission:
    """A number of permits and the lines before them."""

    def __init__(self, permits: int, queue_size: int, queue_timeout: float) -> None:
        self._free = permits
        self._permits = permits
        self._queue_size = queue_size
        self._queue_timeout = queue_timeout
        self._lines: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._mean_seconds = 0.01

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return sum(len(line) for line in self._lines.values())

    def check_room(self, caller: str, count: int = 1) -> None:
        """Raise BusyError if `count` more requests of the caller would not find room."""
        waiting, own = self.waiting, len(self._lines.get(caller, ()))
        new = max(0, count - self._free) if not self._lines else count
        if new == 0:
            return
        if waiting + new > self._queue_size:
            detail = f"{waiting} requests are waiting already."
            raise BusyError(detail, HTTPStatus.SERVICE_UNAVAILABLE, self._retry_after())
        if own + new > max(1, self._queue_size // 2):
            detail = f"{own} of your requests are waiting already, half of what the queue holds."
            raise BusyError(detail, HTTPStatus.TOO_MANY_REQUESTS, self._retry_after())

    @contextlib.asynccontextmanager
    async def permit(self, caller: str) -> AsyncIterator[None]:
        """The right to run, until the end of the block. Raises BusyError."""
        await self._acquire(caller)
        began = time.monotonic()
        try:
            yield
        finally:
            self._mean_seconds += 0.05 * (time.monotonic() - began - self._mean_seconds)
            self._release()

    async def _acquire(self, caller: str) -> None:
        self.check_room(caller)
        if self._free and not self._lines:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(caller, deque()).append(turn)
        try:
            async with asyncio.timeout(self._queue_timeout):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                # The turn came at the moment at which its caller stopped waiting: give it on.
                self._release()
            else:
                self._step_out(caller, turn)
            if isinstance(error, TimeoutError):
                detail = f"No worker became free in {self._queue_timeout:g} s."
                raise BusyError(detail, HTTPStatus.SERVICE_UNAVAILABLE, self._retry_after()) from error
            raise

    def _step_out(self, caller: str, turn: asyncio.Future[None]) -> None:
        line = self._lines.get(caller)
        if line is None or turn not in line:
            return
        line.remove(turn)
        if not line:
            del self._lines[caller]

    def _release(self) -> None:
        while self._lines:
            caller, line = next(iter(self._lines.items()))
            turn = line.popleft()
            if line:
                self._lines.move_to_end(caller)
            else:
                del self._lines[caller]
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def _retry_after(self) -> int:
        expected = self.waiting * self._mean_seconds / self._permits
        return min(MAX_RETRY_SECONDS, max(1, math.ceil(expected)))
