"""The service under attack: a client for its API, and what can be seen of it from the host.

`running_service` starts it as a process of its own on a free loopback port, whole or without some layers. A service that runs
elsewhere (`--url`) has no `process`: attacks that have to be watched on the host are then not run.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psutil

from benchmarks.sandbox_service import living_after
from ratchet.clients import UNIX_SCHEME
from ratchet.contracts.sandbox import ROOT_NODE
from ratchet.stack.ports import free_port
from services.sandbox.layers import NONE, Layer

ROOT = Path(__file__).parents[2]
START_SECONDS = 60.0
ANSWER_SECONDS = 40.0
"""How long an answer may take, with the wait for a free worker."""
SETTINGS = {"WORKERS": "2", "SESSION_MEMORY_MB": "256", "MAX_SESSIONS": "32"}
"""Small limits, so that a small attack fills them."""


class BrokenSandboxError(Exception):
    """The service failed, instead of saying how the program ended."""


@dataclass(frozen=True)
class Service:
    """A running service."""

    http: httpx.Client
    process: psutil.Process | None

    def post(self, path: str, body: dict[str, Any], *, patience: float = ANSWER_SECONDS) -> dict[str, Any]:
        """The answer to a request. Raises BrokenSandboxError unless it is a success and the sandbox itself held."""
        response = self.http.post(path, json=body, timeout=patience)
        if not response.is_success:
            raise BrokenSandboxError(f"{path}: {response.status_code} {response.text[:300]}")
        answer: dict[str, Any] = response.json()
        if answer.get("status") == "SandboxError":
            raise BrokenSandboxError(f"{path}: {answer['message']}")
        return answer

    def health(self) -> dict[str, Any]:
        """The `detail` of `/health`."""
        detail: dict[str, Any] = self.http.get("/health").raise_for_status().json()["detail"]
        return detail

    def zygotes_replaced(self) -> int:
        """How many zygotes died or were given up so far; a program must not be able to move this."""
        return int(self.health()["zygotes_replaced"])

    def session(self, **limits: float) -> "Session":
        """A new session, deleted at the end of the `with` block."""
        return Session(self, str(self.post("/sessions", dict(limits))["id"]))

    def processes(self) -> list[psutil.Process]:
        """All processes below the service."""
        assert self.process is not None
        return self.process.children(recursive=True)

    def cpu_seconds(self) -> float:
        """Processor time of all that lives below the service now."""
        total = 0.0
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def alive(self) -> bool:
        """Whether it still does all that it is there for."""
        try:
            program = self.post("/run_code", {"code": "print(6 * 7)"})["run_result"]["stdout"]
            with self.session() as session:
                step = session.run(ROOT_NODE, "print(6 * 7)")["stdout"]
            verdict = self.post("/grade", {"candidate": "sqrt(4)", "reference": "2"})["equal"]
        except (httpx.HTTPError, BrokenSandboxError):
            return False
        return bool(program == step == "42\n" and verdict)


@dataclass(frozen=True)
class Session:
    """A session of the service."""

    service: Service
    id: str

    def run(self, parent: str, code: str, *, patience: float = ANSWER_SECONDS) -> dict[str, Any]:
        """The result of one step after `parent`."""
        path = f"/sessions/{self.id}/nodes/{parent}/run"
        step: dict[str, Any] = self.service.post(path, {"code": code}, patience=patience)["step"]
        return step

    def batch(self, *chains: tuple[str, list[str]]) -> list[list[dict[str, Any]]]:
        """The results of chains of steps, each after its own parent."""
        body = {"chains": [{"parent": parent, "steps": steps} for parent, steps in chains]}
        answers = self.service.post(f"/sessions/{self.id}/batch", body)["chains"]
        return [answer["steps"] for answer in answers]

    def state(self) -> dict[str, Any]:
        """What the service says of it."""
        answer: dict[str, Any] = self.service.http.get(f"/sessions/{self.id}").raise_for_status().json()
        return answer

    def delete(self) -> None:
        """End it; it may be gone already."""
        self.service.http.delete(f"/sessions/{self.id}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.delete()


@contextlib.contextmanager
def service_at(url: str) -> Iterator[Service]:
    """A service that somebody else runs."""
    path = url.removeprefix(UNIX_SCHEME) if url.startswith(UNIX_SCHEME) else None
    transport = (
        None if path is None else httpx.HTTPTransport(uds=path, limits=httpx.Limits(max_connections=100))
    )
    base = url if path is None else "http://sandbox"
    with httpx.Client(base_url=base, transport=transport, timeout=ANSWER_SECONDS) as http:
        http.get("/health").raise_for_status()
        yield Service(http, None)


@contextlib.contextmanager
def running_service(without: frozenset[Layer] = NONE) -> Iterator[Service]:
    """The service as a process, until the end of the block. Raises BrokenSandboxError with its log if it won't start."""
    port = free_port()
    module = ["benchmarks.attack.weakened", *sorted(without)] if without else ["services.sandbox"]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "RATCHET_PORT": str(port),
        **{f"RATCHET_{name}": value for name, value in SETTINGS.items()},
    }
    with tempfile.TemporaryFile() as log:
        process = psutil.Popen(
            [sys.executable, "-m", *module], env=environment, stdout=log, stderr=log, cwd=ROOT
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=ANSWER_SECONDS) as http:
                _wait_until_ready(process, http, log.fileno())
                yield Service(http, process)
        finally:
            _stop(process)


def _wait_until_ready(process: psutil.Popen, http: httpx.Client, log: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(httpx.TransportError):
            if http.get("/health").status_code == 200:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            said = os.pread(log, 1 << 20, 0).decode(errors="replace")[-2000:]
            raise BrokenSandboxError(f"The service did not start: {said or 'it said nothing'}")
        time.sleep(0.05)


def _stop(process: psutil.Popen) -> None:
    # A weakened service does not end all that a control has left behind. What is still there is killed here.
    below = process.children(recursive=True) if process.is_running() else []
    process.terminate()
    try:
        process.wait(timeout=15)
    except (psutil.TimeoutExpired, subprocess.TimeoutExpired):
        process.kill()
        process.wait()
    for one in living_after(below, 1):
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
