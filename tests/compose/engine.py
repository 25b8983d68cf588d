"""A Docker engine: the one that is there, otherwise one that is started for the test, and base images for it.

An engine that is started here has no bridge and no packet filter, for it must change nothing on its host: builds then use
the host's network, and networks of containers have no way out (`internal` or not). Where no registry is in reach, stand-ins
under the names of the base images are made of Debian packages (as root): the Dockerfile and the compose file stay as they are.
"""

import contextlib
import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

DEBIAN = "http://deb.debian.org/debian"
TORCH_PORT = 18321
"""Fixed: the address is an argument of the build, and another one would build again."""
HERE = Path(__file__).parent


class EngineError(Exception):
    """No engine, or it does not do what it is told."""


def run(
    *command: str, seconds: float = 600, env: dict[str, str] | None = None, stdin: str | None = None
) -> str:
    """Standard output of a command. Raises EngineError with what it said."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, env=env, input=stdin, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(f"{' '.join(command)[:200]}: {error}") from error
    if done.returncode != 0:
        raise EngineError(f"{' '.join(command)[:200]}: {(done.stdout + done.stderr)[-4000:]}")
    return done.stdout


class Engine:
    """An engine, and the environment in which the docker command reaches it."""

    def __init__(self, env: dict[str, str], folder: Path) -> None:
        self.env = env
        self.folder = folder

    @property
    def has_bridge(self) -> bool:
        """Whether containers and builds have a way out by default."""
        return "bridge" in self.docker("network", "ls", "--format", "{{.Name}}").split()

    def docker(self, *arguments: str, seconds: float = 600, stdin: str | None = None) -> str:
        """Run `docker`. Raises EngineError."""
        return run("docker", *arguments, seconds=seconds, env=self.env, stdin=stdin)

    def inspect(self, name: str) -> dict[str, object]:
        """What the engine knows of a container. Raises EngineError."""
        found: dict[str, object] = json.loads(self.docker("inspect", name))[0]
        return found


def _answers(env: dict[str, str]) -> bool:
    try:
        run("docker", "info", seconds=20, env=env)
    except EngineError:
        return False
    return True


@contextlib.contextmanager
def engine(folder: Path) -> Iterator[Engine]:
    """The engine that `docker` reaches; otherwise one that keeps its data in the folder and ends with the block."""
    env = dict(os.environ)
    if _answers(env):
        # Not within a `suppress`: it would swallow what goes wrong in the block.
        yield Engine(env, folder)
        return
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        raise EngineError(
            "No Docker engine answers. Start one; or, as root, install docker.io: one is then started here."
        )
    folder.mkdir(parents=True, exist_ok=True)
    socket = f"unix://{folder / 'docker.sock'}"
    places = [
        "--data-root",
        folder / "data",
        "--exec-root",
        folder / "exec",
        "--pidfile",
        folder / "docker.pid",
    ]
    harmless = ["--iptables=false", "--bridge=none", "--ip-forward=false"]
    with (folder / "dockerd.log").open("w") as log:
        command = ["dockerd", *map(str, places), "--host", socket, *harmless]
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    # The classic builder: this engine may be older than the client's own.
    env |= {"DOCKER_HOST": socket, "DOCKER_BUILDKIT": "0"}
    try:
        for _ in range(60):
            if _answers(env):
                break
            time.sleep(0.5)
        else:
            raise EngineError(f"dockerd did not start: {(folder / 'dockerd.log').read_text()[-2000:]}")
        yield Engine(env, folder)
    finally:
        process.terminate()
        process.wait(60)


def compose_commands() -> list[list[str]]:
    """The compose commands that are there; COMPOSE names another."""
    named = os.environ.get("COMPOSE")
    candidates = [[named]] if named else [["docker", "compose"], ["docker-compose"]]
    found = []
    for candidate in candidates:
        with contextlib.suppress(EngineError):
            run(*candidate, "version", seconds=20)
            found.append(candidate)
    return found


def base_images(engine: Engine, folder: Path, images: dict[str, str]) -> dict[str, str]:
    """Have an image for each part (python, postgres, redis). Says of each whether it is its own or a stand-in."""
    kinds = {}
    for part, image in images.items():
        try:
            engine.docker("image", "inspect", image)
            marked = engine.docker(
                "image", "inspect", "--format", '{{index .Config.Labels "stand-in"}}', image
            )
            kinds[part] = "stand-in" if marked.strip() == "yes" else "own"
            continue
        except EngineError:
            pass
        try:
            engine.docker("pull", "--quiet", image, seconds=900)
            kinds[part] = "own"
        except EngineError as error:
            print(
                f"{image} cannot be pulled; a stand-in is made ({str(error)[-100:].strip()})", file=sys.stderr
            )
            _STAND_INS[part](engine, folder, image)
            kinds[part] = "stand-in"
    return kinds


def _debian(folder: Path, suite: str, packages: Sequence[str]) -> Path:
    root = folder / f"root-{suite}"
    if not (root / "etc/debian_version").exists():
        if shutil.which("debootstrap") is None:
            raise EngineError("Stand-ins for base images need debootstrap: apt install debootstrap")
        run(
            "debootstrap",
            "--variant=minbase",
            f"--include={','.join(packages)}",
            suite,
            str(root),
            DEBIAN,
            seconds=1800,
        )
    return root


def _import(engine: Engine, root: Path, image: str, *changes: str) -> None:
    with subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE) as tar:
        options = [part for change in (*changes, "LABEL stand-in=yes") for part in ("--change", change)]
        subprocess.run(
            ["docker", "import", *options, "-", image],
            stdin=tar.stdout, stdout=subprocess.DEVNULL, env=engine.env, check=True, timeout=900,
        )  # fmt: skip


def _python(engine: Engine, folder: Path, image: str) -> None:
    root = _debian(folder, "bookworm", ("python3", "python3-pip", "python3-venv", "ca-certificates"))
    shutil.copy("/etc/ssl/certs/ca-certificates.crt", root / "etc/ssl/certs/ca-certificates.crt")
    for file in (root / "usr/lib").glob("python3*/EXTERNALLY-MANAGED"):
        file.unlink()
    if not (root / "usr/bin/python").exists():
        (root / "usr/bin/python").symlink_to("python3")
    _import(engine, root, image, 'CMD ["python3"]', "ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt")


def _databases(folder: Path) -> Path:
    root = _debian(folder, "trixie", ("postgresql-17", "valkey-server", "ca-certificates"))
    shutil.copy(HERE / "postgres-stand-in", root / "usr/local/bin/postgres-stand-in")
    for place, owner in (("var/lib/postgresql/data", "postgres"), ("data", "valkey")):
        (root / place).mkdir(parents=True, exist_ok=True)
        run("chroot", str(root), "chown", f"{owner}:", f"/{place}")
    return root


def _postgres(engine: Engine, folder: Path, image: str) -> None:
    _import(engine, _databases(folder), image, 'ENTRYPOINT ["/usr/local/bin/postgres-stand-in"]')


def _redis(engine: Engine, folder: Path, image: str) -> None:
    _import(engine, _databases(folder), image, 'CMD ["valkey-server"]')


_STAND_INS = {"python": _python, "postgres": _postgres, "redis": _redis}


@contextlib.contextmanager
def torch_index(folder: Path, version: str) -> Iterator[str]:
    """An index with the torch wheel that pip finds on this host, for a build that reaches no other."""
    wheels = folder / "torch-index/torch"
    if not list(wheels.glob("*.whl")):
        run(
            sys.executable,
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--dest",
            str(wheels),
            f"torch=={version}",
            seconds=1800,
        )
    handler = functools.partial(_Quiet, directory=str(wheels.parent))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", TORCH_PORT), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{TORCH_PORT}"
    finally:
        server.shutdown()
        server.server_close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass
