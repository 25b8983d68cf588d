"""The real sandbox service, as its own process on a loopback port."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from benchmarks.sandbox_service import living_after
from ratchet.stack.ports import free_port

ROOT = Path(__file__).parents[1]
START_SECONDS = 60
TOKEN = "the-token-of-a-sandbox-under-test"
BEARER = f"Bearer {TOKEN}"
"""Value of the Authorization header."""


@dataclass
class Sandbox:
    """A running service and a client for it."""

    process: subprocess.Popen[bytes]
    http: httpx.Client
    log: Path
    settings: dict[str, str] = field(default_factory=dict)

    def code(self, code: str, **more: Any) -> dict[str, Any]:
        """The answer of `/run_code`."""
        return self._post("/run_code", {"code": code, **more})

    def stdout(self, code: str, **more: Any) -> str:
        """What a program printed; it must have ended well."""
        answer = self.code(code, **more)
        assert answer["status"] == "Success", answer
        return str(answer["run_result"]["stdout"])

    def steps(self, *steps: str, **more: Any) -> dict[str, Any]:
        """The answer of `/run_steps`."""
        return self._post("/run_steps", {"steps": list(steps), **more})

    def grade(self, candidate: str, reference: str) -> dict[str, Any]:
        """The answer of `/grade`."""
        return self._post("/grade", {"candidate": candidate, "reference": reference})

    def health(self) -> dict[str, Any]:
        """The answer of `/health`."""
        answer: dict[str, Any] = self.http.get("/health").json()
        return answer

    def zygotes(self) -> list[psutil.Process]:
        """The zygotes: Python processes below the service, their own children apart."""
        below = psutil.Process(self.process.pid).children(recursive=True)
        python = {process.pid: process for process in below if "zygote.py" in " ".join(process.cmdline()[:6])}
        return [process for process in python.values() if process.ppid() not in python]

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        response = self.http.post(path, json=body)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer


def busy_processes(sandbox: Sandbox) -> list[psutil.Process]:
    """The processes below the service that compute for more than half of a short while."""
    below = psutil.Process(sandbox.process.pid).children(recursive=True)
    for process in below:
        process.cpu_percent()
    time.sleep(0.2)
    return [process for process in below if process.is_running() and process.cpu_percent() > 50]


@contextlib.contextmanager
def running_sandbox(log: Path, *, extra_path: str = "", **settings: str) -> Iterator[Sandbox]:
    """The service until the end of the block, then stopped as a supervisor stops it. It must leave nothing behind.

    `extra_path` comes first on its module path.
    """
    port = free_port()
    variables = {f"RATCHET_{name.upper()}": value for name, value in settings.items()}
    token = log.with_name(f"{log.name}.token")
    token.write_text(TOKEN)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [extra_path, str(ROOT)])),
        "RATCHET_PORT": str(port),
        "RATCHET_SERVICE_TOKEN_FILE": str(token),
        **variables,
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.sandbox"], env=environment, stdout=output, stderr=output
        )
    try:
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"authorization": BEARER}, timeout=60
        ) as http:
            deadline = time.monotonic() + START_SECONDS
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if http.get("/health").status_code == 200:
                        break
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
            yield Sandbox(process, http, log, settings)
    finally:
        below = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
        assert not living_after(below, 5)


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """One service for the tests of a module."""
    with running_sandbox(tmp_path_factory.mktemp("sandbox") / "log", workers="2") as running:
        yield running
