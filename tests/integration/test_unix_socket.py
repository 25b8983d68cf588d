"""A service on a Unix socket: its callers, its health check, and a socket that was left behind."""

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ratchet.clients import SandboxClient, ServiceError
from ratchet.contracts.sandbox import RunCodeRequest
from ratchet.web.healthcheck import HANG_SECONDS, hangs, kill_children_of_init


def _start(path: Path) -> "subprocess.Popen[str]":
    env = {**os.environ, "RATCHET_SOCKET": str(path)}
    return subprocess.Popen(
        [sys.executable, "-m", "services.sandbox"], env=env, stderr=subprocess.PIPE, text=True
    )


def _check(path: Path) -> "subprocess.CompletedProcess[str]":
    env = {**os.environ, "RATCHET_SOCKET": str(path)}
    return subprocess.run(
        [sys.executable, "-m", "ratchet.web.healthcheck"],
        env=env,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("socket") / "sandbox.sock"
    process = _start(path)
    try:
        deadline = time.monotonic() + 60
        while _check(path).returncode and time.monotonic() < deadline:
            time.sleep(0.2)
        yield path
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


async def test_runs_code_over_the_socket(path: Path) -> None:
    assert _check(path).returncode == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    async with SandboxClient(f"unix://{path}") as client:
        assert (await client.health()).ready
        answer = await client.run_code(RunCodeRequest(code="print(6 * 7)"))
    assert answer.run_result is not None
    assert answer.run_result.stdout == "42\n"


def test_second_service_does_not_take_the_socket(path: Path) -> None:
    second = _start(path)
    _, said = second.communicate(timeout=60)
    assert second.returncode == 1
    assert "in use" in said
    assert _check(path).returncode == 0


async def test_socket_that_was_left_behind_is_replaced_and_absence_is_an_error(tmp_path: Path) -> None:
    left = tmp_path / "left.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(left))
    assert "no answer" in _check(left).stderr
    async with SandboxClient(f"unix://{left}", retry_seconds=0.1) as client:
        with pytest.raises(ServiceError, match="cannot be reached"):
            await client.health()
    process = _start(left)
    try:
        deadline = time.monotonic() + 60
        while (code := _check(left).returncode) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert code == 0
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


def test_a_process_hangs_when_it_was_alive_and_has_not_been_for_long(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    assert not hangs("no answer", alive), "it may still start"
    assert not hangs(None, alive)
    assert not hangs("no answer", alive)
    os.utime(alive, (time.time() - 2 * HANG_SECONDS, time.time() - 2 * HANG_SECONDS))
    assert hangs("no answer", alive)
    assert not hangs(None, alive)


def test_what_hangs_is_killed_even_where_it_is_stopped() -> None:
    # Its parent stands for a container's init.
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])"
    init = subprocess.Popen([sys.executable, "-c", code])
    try:
        deadline = time.monotonic() + 30
        while not (children := psutil.Process(init.pid).children()) and time.monotonic() < deadline:
            time.sleep(0.05)
        children[0].suspend()
        assert kill_children_of_init(init=init.pid) == [children[0].pid]
        assert init.wait(timeout=30) is not None
    finally:
        init.kill()
        init.wait()
