"""The sandbox in a container: what the engine is asked for. `make compose-test` runs it for real."""

import os
import subprocess
import sys
from pathlib import Path

from services.sandbox.container import ContainerSettings, options


def test_engine_is_asked_for_a_container_without_network_privileges_and_secrets(tmp_path: Path) -> None:
    token = tmp_path.with_name("token")
    token.write_text("the-token-of-the-services")
    settings = ContainerSettings(
        workers=3, socket=tmp_path / "sandbox.sock", port=8003, service_token_file=token
    )
    asked = options(settings, tmp_path / "sandbox.sock", user=1234)
    assert asked["network_mode"] == "none"
    assert asked["read_only"] is True
    assert asked["cap_drop"] == ["ALL"]
    assert asked["user"].startswith("1234:")
    assert "no-new-privileges:true" in asked["security_opt"]
    assert any(option.startswith("seccomp={") for option in asked["security_opt"])
    assert "privileged" not in asked
    assert asked["volumes"] == {str(tmp_path): {"bind": "/run/sandbox", "mode": "rw"}}
    assert asked["environment"] == {"RATCHET_WORKERS": "3", "RATCHET_SOCKET": "/run/sandbox/sandbox.sock"}


def _run(**env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "services.sandbox.container"],
        env={**os.environ, **env}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_without_an_engine_it_says_so(tmp_path: Path) -> None:
    done = _run(
        DOCKER_HOST=f"unix://{tmp_path}/nowhere.sock", RATCHET_SOCKET=str(tmp_path / "s/sandbox.sock")
    )
    assert done.returncode == 1
    assert "no Docker engine answers" in done.stderr
    assert "Traceback" not in done.stderr


def test_it_wants_a_socket() -> None:
    done = _run(RATCHET_SOCKET="")
    assert done.returncode == 1
    assert "RATCHET_SOCKET" in done.stderr
