"""What no HTTP library sends: broken JSON, lying lengths, endless bodies, clients that trickle, readers that vanish.

Limit: an attack that the server answers by closing the connection counts as refused.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from benchmarks.fuzz.generated import Seen

ANSWER_SECONDS = 30.0
TRICKLES = 40
"""Clients at once that send a byte now and then."""
BAD_JSON = (
    b"",
    b"{",
    b"[]",
    b"null",
    b'"text"',
    b"NaN",
    b'{"problem": NaN}',
    b'{"problem": Infinity, "code": -Infinity}',
    b'{"problem": "\\ud800", "code": "\\udfff"}',
    b'{"problem": "\\u0000", "code": "\\u0000"}',
    b'\xff\xfe{"problem": 1}',
    b'\xef\xbb\xbf{"problem": "a"}',
    b'{"problem": "a", "problem": "b"}',
    b'{"seed": ' + b"9" * 5000 + b"}",
    b'{"seed": 1e999}',
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b"\x00" * 1000,
)
PATHS = {
    "search": "/search",
    "policy": "/generate",
    "prm": "/score",
    "sandbox": "/run_code",
    "trainer": "/rounds",
}


@dataclass(frozen=True)
class Target:
    """A service, a route of it that takes a body, and the key that opens it."""

    name: str
    host: str
    port: int
    path: str
    key: str

    def head(self, *lines: str) -> bytes:
        """A POST's request line and headers."""
        own = [
            f"POST {self.path} HTTP/1.1",
            f"Host: {self.host}:{self.port}",
            f"Authorization: Bearer {self.key}",
            "Content-Type: application/json",
        ]
        return "\r\n".join([*own, *lines, "", ""]).encode()


def target(name: str, url: str, key: str) -> Target:
    """The service at a URL."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return Target(name, parts.hostname, parts.port, PATHS[name], key)


@contextlib.asynccontextmanager
async def connected(to: Target) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A bare connection."""
    reader, writer = await asyncio.open_connection(to.host, to.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def answer(to: Target, *parts: bytes) -> int | None:
    """The status for what is sent; None where the server only closes. Raises TimeoutError if it does neither."""
    async with asyncio.timeout(ANSWER_SECONDS), connected(to) as (reader, writer):
        with contextlib.suppress(OSError):
            for part in parts:
                writer.write(part)
                await writer.drain()
        try:
            words = (await reader.readline()).split()
        except OSError:
            return None
        return int(words[1]) if len(words) > 1 and words[1].isdigit() else None


async def bad_json(to: Target, seen: Seen) -> None:
    """Bodies that are no JSON, or no object, or hold what a number or a text may not."""
    for body in BAD_JSON:
        _note(to, "bad JSON", seen, await answer(to, to.head(f"Content-Length: {len(body)}"), body))


async def lying_lengths(to: Target, seen: Seen) -> None:
    """Heads that say something else than what follows."""
    for lines in (
        ("Content-Length: -1",),
        ("Content-Length: 99999999999999999999",),
        ("Content-Length: 5", "Content-Length: 7"),
        ("Content-Length: 5", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: gzip",),
        ("Content-Encoding: gzip", "Content-Length: 2"),
        ("Expect: 200-maybe", "Content-Length: 2"),
        ("X-Long: " + "a" * 200_000, "Content-Length: 2"),
    ):
        _note(to, "lying head", seen, await answer(to, to.head(*lines), b"{}"))
    for chunk in (b"zz\r\n{}\r\n", b"-5\r\n{}\r\n", b"ffffffffffffffffff\r\n{}\r\n", b"2\r\n{}garbage"):
        _note(to, "bad chunk", seen, await answer(to, to.head("Transfer-Encoding: chunked"), chunk))


async def huge_bodies(to: Target, seen: Seen) -> None:
    """More than any limit: announced, and in chunks whose sum nobody has announced. Both must be refused as too large."""
    block = b"x" * 65536
    chunk = b"%x\r\n%s\r\n" % (len(block), block)
    announced = await answer(to, to.head(f"Content-Length: {2**31}"), *[block] * 64)
    chunked = await answer(to, to.head("Transfer-Encoding: chunked"), *[chunk] * 1600, b"0\r\n\r\n")
    for status in (announced, chunked):
        # The connection may break before the answer is read.
        if status not in (413, None):
            seen.server_errors.append(f"{to.name}: a huge body was answered with {status}")
        _note(to, "huge body", seen, status)


async def trickle(to: Target, seen: Seen) -> None:
    """Many clients that never come to an end, while a good request is answered at once."""

    async def one(number: int) -> None:
        with contextlib.suppress(OSError):
            async with connected(to) as (_, writer):
                head = to.head("Content-Length: 1000")
                # Half of them never end the head, half never the body.
                sent = head[: len(head) - 3] if number % 2 else head
                writer.write(sent)
                for _ in range(5):
                    await writer.drain()
                    await asyncio.sleep(0.2)
                    writer.write(b"x")

    slow = [asyncio.create_task(one(number)) for number in range(TRICKLES)]
    await asyncio.sleep(0.3)
    async with asyncio.timeout(5):
        probe = f"GET /livez HTTP/1.1\r\nHost: {to.host}:{to.port}\r\n\r\n".encode()
        status = await answer(to, probe)
    if status != 200:
        seen.server_errors.append(f"{to.name}: /livez answered {status} beside slow clients")
    await asyncio.gather(*slow)
    for _ in slow:
        _note(to, "slow client", seen, None)


async def vanishing_readers(to: Target, path: str, seen: Seen) -> None:
    """Readers of an event stream that reset the connection."""
    for wait in (0.0, 0.05, 0.2) * 5:
        reader, writer = await asyncio.open_connection(to.host, to.port)
        head = f"GET {path} HTTP/1.1\r\nHost: {to.host}:{to.port}\r\nAuthorization: Bearer {to.key}\r\n\r\n"
        writer.write(head.encode())
        await writer.drain()
        await asyncio.sleep(wait)
        sock = writer.get_extra_info("socket")
        # Closing sends a reset.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        del reader
        _note(to, "vanishing reader", seen, None)


def _note(to: Target, attack: str, seen: Seen, status: int | None) -> None:
    seen.note(f"{to.name}: {attack}", status or 0)


ATTACKS: tuple[Callable[[Target, Seen], Awaitable[None]], ...] = (
    bad_json,
    lying_lengths,
    huge_bodies,
    trickle,
)
