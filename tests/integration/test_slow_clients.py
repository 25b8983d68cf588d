"""Clients that are slow on purpose, against the real server on a real socket."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from ratchet.contracts.base import Health
from ratchet.settings import Settings
from ratchet.web.app import bind, create_app, server_config
from ratchet.web.connections import TimedConnection

LONG_SECONDS = 20.0
HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Hasty(TimedConnection):
    """The same, with times that a test can wait for."""

    head_seconds = 0.5
    reader_seconds = 0.5


async def endless(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers `/` at once, `/late` after a while, and anything else without end."""
    if scope["type"] != "http":
        return

    async def pieces() -> AsyncIterator[bytes]:
        while scope["path"] not in ("/", "/late"):
            yield b"x" * 65_536
            await asyncio.sleep(0)
        await asyncio.sleep(1.5 if scope["path"] == "/late" else 0)
        yield b"done"

    await StreamingResponse(pieces())(scope, receive, send)


@pytest.fixture
async def server() -> AsyncIterator[tuple[uvicorn.Server, int]]:
    config = uvicorn.Config(
        endless,
        http=Hasty,
        lifespan="off",
        log_config=None,
        port=0,
        limit_concurrency=20,
        timeout_keep_alive=5,
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield server, server.servers[0].sockets[0].getsockname()[1]
    server.force_exit = True
    server.should_exit = True
    await task


@contextlib.asynccontextmanager
async def limited() -> AsyncIterator[int]:
    """Port of a service of ours, as `serve` runs it, that takes bodies of a kilobyte."""
    settings = Settings(max_body_bytes=1024)

    @contextlib.asynccontextmanager
    async def nothing(_: FastAPI) -> AsyncIterator[None]:
        yield

    app = create_app(
        service="policy",
        summary="A test's.",
        settings=settings,
        lifespan=nothing,
        health=lambda: Health(service="policy", ready=True, version="0"),
    )

    @app.post("/parsed")
    async def parsed(body: dict[str, int]) -> int:
        return len(body)

    sock = bind(settings)
    server = uvicorn.Server(server_config(app, settings))
    task = asyncio.create_task(server.serve(sockets=[sock]))
    while not server.started:
        await asyncio.sleep(0.01)
    yield sock.getsockname()[1]
    server.should_exit = True
    await task


@contextlib.asynccontextmanager
async def connection(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**16)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


Server = tuple[uvicorn.Server, int]


@pytest.mark.parametrize("said", [b"", b"G", HEAD[:-1], HEAD + b"GET"])
async def test_a_request_whose_head_does_not_come_is_given_up(server: Server, said: bytes) -> None:
    async with connection(server[1]) as (reader, writer), asyncio.timeout(LONG_SECONDS):
        writer.write(said)
        answer = await reader.read(-1)
    assert answer.endswith(b"done\r\n0\r\n\r\n" if said.startswith(HEAD) else b"")


async def test_a_head_that_drips_is_given_up_too(server: Server) -> None:
    async with connection(server[1]) as (reader, writer), asyncio.timeout(LONG_SECONDS):
        writer.write(b"GET / HTTP/1.1\r\nX-Drip: ")
        ended = asyncio.create_task(reader.read(-1))
        while not ended.done():
            with contextlib.suppress(ConnectionError):
                writer.write(b"x")
            await asyncio.sleep(0.1)
        with contextlib.suppress(ConnectionError):
            await ended


async def test_a_reader_that_takes_nothing_is_given_up(server: Server) -> None:
    async with connection(server[1]) as (_, writer), asyncio.timeout(LONG_SECONDS):
        writer.write(HEAD.replace(b" / ", b" /endless "))
        while not server[0].server_state.connections:
            await asyncio.sleep(0.01)
        while server[0].server_state.connections:
            await asyncio.sleep(0.05)


async def test_who_waits_for_an_answer_and_who_comes_back_is_not_given_up(server: Server) -> None:
    async with connection(server[1]) as (reader, writer), asyncio.timeout(LONG_SECONDS):
        for _ in range(2):
            writer.write(HEAD.replace(b" / ", b" /late "))
            assert b"done" in await reader.readuntil(b"0\r\n\r\n")
            # Longer than a head may take: a connection between two requests is kept alive.
            await asyncio.sleep(1.0)


async def test_connections_beyond_the_limit_are_told_so(server: Server) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(19):
            _, writer = await stack.enter_async_context(connection(server[1]))
            writer.write(HEAD.replace(b" / ", b" /late "))
        async with asyncio.timeout(LONG_SECONDS):
            while len(server[0].server_state.connections) < 19:
                await asyncio.sleep(0.01)
            reader, writer = await stack.enter_async_context(connection(server[1]))
            writer.write(HEAD)
            assert b"503" in await reader.readline()


async def test_who_sends_a_body_that_is_refused_is_still_told_why() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 65_536

    evil = {"origin": "http://evil.example"}
    async with limited() as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        for headers, status in (({}, 413), (evil, 403)):
            for content in (b" " * 5_000_000, pieces()):
                sent = {"content-type": "application/json", **headers}
                answer = await http.post("/parsed", content=content, headers=sent)
                assert answer.status_code == status
                assert answer.headers["content-type"] == "application/problem+json"
        assert (await http.post("/parsed", json={"a": 1})).json() == 1
