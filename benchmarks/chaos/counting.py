"""Stands before the policy and counts the tokens that it was paid for; what it cannot reach is away (503), as it is."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

PASSED_ON = ("content-type", "authorization", "accept")
SECONDS = 120.0


@dataclass
class Counted:
    """What the policy has written, whether anybody kept it or not."""

    tokens: int = 0


def _app(url: str, counted: Counted) -> Starlette:
    http = httpx.AsyncClient(base_url=url, timeout=SECONDS, trust_env=False)

    async def pass_on(request: Request) -> Response:
        headers = {name: value for name in PASSED_ON if (value := request.headers.get(name))}
        try:
            real = await http.request(
                request.method, request.url.path, content=await request.body(), headers=headers
            )
        except httpx.TransportError as error:
            return Response(f"{type(error).__name__}", 503)
        if request.url.path == "/generate" and real.is_success:
            candidates = orjson.loads(real.content)["candidates"]
            counted.tokens += sum(each["tokens"] for row in candidates for each in row)
        kept = {name: real.headers[name] for name in ("content-type", "retry-after") if name in real.headers}
        return Response(real.content, real.status_code, headers=kept)

    methods = ["GET", "POST", "PUT", "DELETE"]
    return Starlette(routes=[Route("/{path:path}", pass_on, methods=methods)])


@contextlib.contextmanager
def counting(url: str, port: int) -> Iterator[Counted]:
    """Serve on this port, in a thread of its own, while the block runs."""
    counted = Counted()
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))
        config = uvicorn.Config(_app(url, counted), log_level="error", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        try:
            yield counted
        finally:
            server.should_exit = True
            thread.join(timeout=10)
