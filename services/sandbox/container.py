"""`python -m services.sandbox.container`: the sandbox service in one hardened container, for hosts with a Docker engine.

The same service and jail as without Docker, one wall further out: no network (the API comes over a Unix socket in a folder that
is shared), a read-only root, no capability, a system call filter of our own, limits of memory and processes. This process
only starts the container, passes its log on, and ends it when it is told to stop; it needs the engine, the container does not.
"""

import contextlib
import hashlib
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from pydantic import Field

from ratchet.settings import SandboxSettings, load

PROFILE = Path(__file__).with_name("seccomp-container.json")
FOLDER = "/run/sandbox"
LABEL = "ratchet.sandbox"
IMAGE_USER = 10001
STOP_SECONDS = 15
ENGINE_SECONDS = 60


class ContainerSettings(SandboxSettings):
    """The sandbox service's own settings go into the container; these are about it."""

    sandbox_image: str = Field(
        default="ratchet-sandbox:local",
        description="Image of the sandbox in a container (Dockerfile's target sandbox).",
    )
    sandbox_memory: str = Field(default="4g", description="Memory limit of the sandbox's container.")
    sandbox_pids: int = Field(default=4096, ge=64, description="Process limit of the sandbox's container.")


def options(settings: ContainerSettings, socket: Path, user: int) -> dict[str, Any]:
    """What the engine is asked for: arguments of docker's `containers.run`."""
    inside = {"socket": f"{FOLDER}/{socket.name}"}
    own = settings.model_dump(
        # No token: who may use the socket is said by its folder, and the container gets to see no secret.
        include=set(SandboxSettings.model_fields) - {"socket", "host", "port", "service_token_file"},
        exclude_unset=True,
    )
    return {
        "image": settings.sandbox_image,
        "detach": True,
        "auto_remove": True,
        "init": True,
        "user": f"{user}:{user if user == IMAGE_USER else os.getgid()}",
        "network_mode": "none",
        "read_only": True,
        "tmpfs": {"/tmp": ""},  # noqa: S108 - the container's own
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true", f"seccomp={PROFILE.read_text()}", "apparmor=unconfined"],
        "mem_limit": settings.sandbox_memory,
        "pids_limit": settings.sandbox_pids,
        "volumes": {str(socket.parent): {"bind": FOLDER, "mode": "rw"}},
        "environment": {f"RATCHET_{name.upper()}": str(value) for name, value in (own | inside).items()},
        "labels": {LABEL: _label_value(socket)},
    }


def _label_value(socket: Path) -> str:
    """The value of the container's label, the same for every start on the same socket."""
    return hashlib.sha256(str(socket).encode()).hexdigest()[:16]


def main() -> NoReturn:
    """Run the container until it ends, or we are told to stop. Exits with a message where it cannot be had."""
    settings = load(ContainerSettings)
    if settings.socket is None:
        sys.exit(
            "ratchet: the sandbox in a container needs RATCHET_SOCKET, a path in a folder that only we use."
        )
    try:
        import docker
        from docker.errors import APIError, DockerException, ImageNotFound
    except ImportError:
        sys.exit("ratchet: the Python package docker is missing. Install it (the extra local has it).")
    socket = settings.socket.absolute()
    socket.parent.mkdir(parents=True, exist_ok=True)
    # Root has no business in the container, even without capabilities; the image's user then owns the folder.
    user = os.getuid() or IMAGE_USER
    if os.getuid() == 0:
        os.chown(socket.parent, user, user)
    try:
        client = docker.from_env(timeout=ENGINE_SECONDS)
        # A process of ours that was killed has left its container running.
        for stale in client.containers.list(filters={"label": f"{LABEL}={_label_value(socket)}"}):
            stale.remove(force=True)
        container = client.containers.run(**options(settings, socket, user))
    except ImageNotFound:
        sys.exit(
            f"ratchet: there is no image {settings.sandbox_image}. Build it: docker build --target sandbox "
            f"--tag {settings.sandbox_image} ."
        )
    except APIError as error:
        sys.exit(f"ratchet: the engine does not start the sandbox: {error.explanation or error}")
    except DockerException as error:
        sys.exit(f"ratchet: no Docker engine answers ({error}). Start it, or set DOCKER_HOST.")

    def stop(_number: int, _frame: FrameType | None) -> None:
        def end() -> None:
            with contextlib.suppress(DockerException):
                container.stop(timeout=STOP_SECONDS)

        # In a thread: the handler interrupts a read from the same engine.
        threading.Thread(target=end, daemon=True).start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    code = 1
    with contextlib.suppress(DockerException):
        for piece in container.logs(stream=True, follow=True):
            sys.stderr.buffer.write(piece)
            sys.stderr.flush()
        code = int(container.wait(timeout=STOP_SECONDS)["StatusCode"])
    sys.exit(code)


if __name__ == "__main__":
    main()
