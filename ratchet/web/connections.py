"""Connections that are slow on purpose: uvicorn waits for ever for a request's head, and for a reader of an answer.

Limits: an event stream that is quiet is no slow reader; only bytes that nobody takes are counted.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

HEAD_SECONDS = 20.0
"""From the connection, or from the first byte of a request, to the end of its head."""
READER_SECONDS = 60.0
"""For a reader to take what is more than the buffers hold."""

# httptools' where it is installed, otherwise h11's; uvicorn says no more of it than that it is a protocol.
_Protocol: Any = AutoHTTPProtocol


class TimedConnection(_Protocol):  # type: ignore[misc]  # see _Protocol
    """uvicorn's HTTP protocol, which closes the connection of a client that is too slow."""

    head_seconds = HEAD_SECONDS
    reader_seconds = READER_SECONDS
    _head: asyncio.TimerHandle | None = None
    _reader: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._head = self.loop.call_later(self.head_seconds, self._end)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_serving():
            self._stop(self._head)
            self._head = None
        elif self._head is None:
            # The beginning of the next request, or what is left of a body that nobody reads any more.
            self._head = self.loop.call_later(self.head_seconds, self._end)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reader = self.loop.call_later(self.reader_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop(self._reader)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop(self._head)
        self._stop(self._reader)
        super().connection_lost(exc)

    def _is_serving(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _end(self) -> None:
        if not self._is_serving():
            self.transport.close()

    @staticmethod
    def _stop(timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()
