"""The whole system on this machine, for tests: real services on the memorised checkpoint, with recorders in front.

Policy, PRM and sandbox are reached through recorders, which pass every request on as it is and keep its body: what
these services were told can so be read, and not only reasoned about.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI, Request, Response
from starlette.requests import ClientDisconnect

from ratchet.contracts.search import SearchResult
from ratchet.stack.config import StackConfig, StackUrls
from ratchet.stack.local import local_stack
from ratchet.stack.ports import free_ports
from ratchet.stack.supervisor import ChildState, ChildStatus

ROOT = Path(__file__).parents[1]
RECORDED = ("policy", "prm", "sandbox")
PASSED_ON = ("content-type", "accept", "authorization")
"""Headers that a recorder hands on."""


@dataclass(frozen=True)
class Heard:
    """One request that a service got."""

    service: str
    path: str
    body: str


def recorder(service: str, target: str, heard: list[Heard]) -> FastAPI:
    """An app that passes everything on to `target`."""
    app = FastAPI()
    client = httpx.AsyncClient(base_url=target, timeout=600, trust_env=False)

    @app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "DELETE"])
    async def pass_on(request: Request, path: str) -> Response:
        try:
            body = await request.body()
        except ClientDisconnect:
            return Response(status_code=499)
        heard.append(Heard(service, f"/{path}", body.decode()))
        kept = {name: value for name, value in request.headers.items() if name in PASSED_ON}
        try:
            answer = await client.request(request.method, f"/{path}", content=body, headers=kept)
        # AttributeError: httpcore's, when the other side is killed at the moment at which it connects.
        except (httpx.TransportError, AttributeError) as error:
            return Response(f"{type(error).__name__}", status_code=502)
        passed = {n: v for n, v in answer.headers.items() if n in ("content-type", "retry-after")}
        return Response(answer.content, status_code=answer.status_code, headers=passed)

    return app


class Keys(httpx.Auth):
    """Sends what each service of a stack asks for: search and trainer the operator's key, the others the services' token."""

    def __init__(self, urls: StackUrls) -> None:
        self._urls = urls
        self._of_operator = {httpx.URL(url).port for url in (urls.search, urls.trainer)}

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        key = self._urls.key if request.url.port in self._of_operator else self._urls.token
        request.headers["authorization"] = f"Bearer {key}"
        yield request


@dataclass
class Running:
    """A running stack, and what its parts were told."""

    urls: StackUrls
    data: Path
    http: httpx.AsyncClient
    """A client of the search API."""
    heard: list[Heard] = field(default_factory=list)
    children: Sequence[ChildStatus] = ()

    @property
    def keys(self) -> Keys:
        """For clients of any service of the stack."""
        return Keys(self.urls)

    def child(self, name: str) -> ChildStatus:
        """How a part of the stack stands."""
        return next(child for child in self.children if child.name == name)

    async def kill(self, name: str, seconds: float = 60) -> None:
        """Kill a part of the stack, and return when another one runs."""
        victim = self.child(name)
        assert victim.pid is not None
        os.kill(victim.pid, signal.SIGKILL)
        async with asyncio.timeout(seconds):
            while (now := self.child(name)).pid == victim.pid or now.state is not ChildState.READY:
                await asyncio.sleep(0.05)
        assert now.restarts == victim.restarts + 1

    async def begin(self, problem: str, **changes: Any) -> str:
        """Id of a new search."""
        response = await self.http.post("/search", json={"problem": problem, **changes})
        assert response.status_code in (200, 202), response.text
        return str(response.json()["id"])

    async def solve(self, problem: str, **changes: Any) -> SearchResult:
        """A search, up to its end."""
        response = await self.http.post("/search", json={"problem": problem, "wait": 120, **changes})
        assert response.status_code == 200, response.text
        return SearchResult.model_validate(response.json())

    async def result(self, search_id: str) -> SearchResult:
        """A search as it stands."""
        response = await self.http.get(f"/search/{search_id}")
        assert response.status_code == 200, response.text
        return SearchResult.model_validate(response.json())

    async def nodes(self, search_id: str) -> list[dict[str, Any]]:
        """The tree of a search."""
        nodes: list[dict[str, Any]] = []
        page: dict[str, Any] = {"next": ""}
        while page["next"] is not None:
            cursor = {"cursor": page["next"]} if page["next"] else {}
            response = await self.http.get(f"/search/{search_id}/tree", params=cursor)
            assert response.status_code == 200, response.text
            page = response.json()
            nodes += page["nodes"]
        return nodes

    async def until(
        self, search_id: str, holds: Callable[[SearchResult], bool], seconds: float = 120
    ) -> SearchResult:
        """The search as soon as `holds` says so of it."""
        async with asyncio.timeout(seconds):
            while not holds(found := await self.result(search_id)):
                await asyncio.sleep(0.1)
        return found


@contextlib.asynccontextmanager
async def running_stack(
    data: Path,
    checkpoint: Path,
    serve: Callable[[FastAPI], str] | None = None,
    ports: Mapping[str, int] | None = None,
    **settings: str,
) -> AsyncIterator[Running]:
    """A stack of its own in the folder `data`; with `serve` (see http_double), recorders stand before the backends."""
    ports = dict(zip(RECORDED, free_ports(len(RECORDED)), strict=True)) | dict(ports or {})
    heard: list[Heard] = []
    env = {
        "RATCHET_CACHE_DIR": str(data / "cache"),
        "RATCHET_MAX_MODEL_LEN": "1024",
        "OMP_NUM_THREADS": "1",
        **{f"RATCHET_{name.upper()}": value for name, value in settings.items()},
    }
    if serve is not None:
        for name, port in ports.items():
            env[f"RATCHET_{name.upper()}_URL"] = serve(recorder(name, f"http://127.0.0.1:{port}", heard))
    config = StackConfig(data=data, model=str(checkpoint), engine="transformers", ports=ports, env=env)
    running: Running | None = None

    def on_status(children: Sequence[ChildStatus]) -> None:
        if running is not None:
            running.children = children

    async with (
        local_stack(config, on_status) as urls,
        httpx.AsyncClient(base_url=urls.search, auth=Keys(urls), timeout=150, trust_env=False) as http,
    ):
        running = Running(urls, data, http, heard)
        while not running.children:
            await asyncio.sleep(0.05)
        yield running


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict[str, Any]:
        """The last line of stdout."""
        document: dict[str, Any] = json.loads(self.stdout.strip().splitlines()[-1])
        return document


async def ratchet(*arguments: str, cwd: Path | None = None, **environment: str) -> Done:
    """Run the command as a person does; never a traceback."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "ratchet.cli.main",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        cwd=cwd,
    )
    try:
        async with asyncio.timeout(120):
            stdout, stderr = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    done = Done(process.returncode, stdout.decode(), stderr.decode())
    assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
    return done
