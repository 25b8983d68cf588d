"""A double in front of the real policy service that rewrites what it generates; every other call goes through as it is.

For measurements that need text which no model writes on demand, or that count. While the service is away, so is the double.
"""

import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ratchet.contracts.policy import Candidate, FinishReason, GenerateRequest, GenerateResponse

SECONDS = 120
PASSED_ON = ("content-type", "authorization", "accept", "x-caller")
Rewrite = Callable[[GenerateRequest, GenerateResponse], list[list[Candidate]]]
"""The candidates that callers get for a request, given what the real service has answered."""


def candidate(steps: Sequence[str], *, final: bool) -> Candidate:
    """One with these steps, and figures as a model's might be."""
    return Candidate(
        text="\n".join(steps),
        steps=list(steps),
        final=final,
        tokens=20,
        mean_logprob=-0.5,
        step_logprobs=[-0.5] * len(steps),
        finish_reason=FinishReason.END if final else FinishReason.STEP,
    )


def app(url: str, rewrite: Rewrite) -> Starlette:
    """The double of the policy service at `url`."""
    http = httpx.AsyncClient(base_url=url, timeout=SECONDS, trust_env=False)

    async def answer(request: Request) -> Response:
        body = await request.body()
        headers = {name: value for name in PASSED_ON if (value := request.headers.get(name))}
        try:
            real = await http.request(request.method, request.url.path, content=body, headers=headers)
        # AttributeError: httpcore's, when the other side is killed at the moment at which it connects.
        except (httpx.TransportError, AttributeError) as error:
            return Response(type(error).__name__, 503)
        content = real.content
        if request.url.path == "/generate" and real.is_success:
            asked = GenerateRequest.model_validate_json(body)
            answered = GenerateResponse.model_validate_json(content)
            changed = answered.model_copy(update={"candidates": rewrite(asked, answered)})
            content = changed.model_dump_json().encode()
        kept = {name: real.headers[name] for name in ("content-type", "retry-after") if name in real.headers}
        return Response(content, real.status_code, headers=kept)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await http.aclose()

    methods = ["GET", "POST", "PUT", "DELETE"]
    return Starlette(routes=[Route("/{path:path}", answer, methods=methods)], lifespan=lifespan)


@contextlib.contextmanager
def served(double: Starlette, port: int) -> Iterator[None]:
    """The double on the loopback, in a thread of its own."""
    server = uvicorn.Server(uvicorn.Config(double, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(timeout=10)
