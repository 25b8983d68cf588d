"""A TCP proxy between browser and API, with which a test loses connections as a network does.

It copies bytes and reads none of them. Limit: what was cut in the middle is gone, as on a real line.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

PIECE = 65_536
CONNECT_SECONDS = 5.0


@dataclass
class Proxy:
    """Listens on a port of the loopback that stays the same, and passes on to `target` (host, port)."""

    target: tuple[str, int]
    port: int = 0
    _server: asyncio.Server | None = None
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def url(self) -> str:
        """Where the browser asks."""
        return f"http://127.0.0.1:{self.port}"

    async def listen(self) -> None:
        """Take connections (again)."""
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> int:
        """Break every connection off, without a goodbye; returns how many ends that were."""
        broken = list(self._open)
        for writer in broken:
            writer.transport.abort()
        return len(broken)

    def away(self) -> None:
        """Refuse connections and break off those there are, until `listen`."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                far_reader, far_writer = await asyncio.open_connection(*self.target)
        except OSError:
            writer.transport.abort()
            self._open.discard(writer)
            return
        self._open.add(far_writer)
        copying = (_copy(reader, far_writer), _copy(far_reader, writer))
        try:
            await asyncio.gather(*copying)
        finally:
            for end in (writer, far_writer):
                end.transport.abort()
                self._open.discard(end)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(PIECE):
            writer.write(piece)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


@contextlib.asynccontextmanager
async def proxying(host: str, port: int) -> AsyncIterator[Proxy]:
    """A proxy that passes on to this address while the block runs."""
    proxy = Proxy((host, port))
    await proxy.listen()
    try:
        yield proxy
    finally:
        proxy.away()
