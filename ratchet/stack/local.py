"""The whole of Ratchet on one machine: Postgres, Valkey, migrations, five services, workers, in one data folder.

    async with local_stack(StackConfig(data=Path(".ratchet"))) as urls:
        ...  # urls.search answers

Everything of a stack lies in its data folder (databases, logs, passwords), which it holds by a lock: two
stacks run side by side in two folders. State survives restarts. Whoever started the stack owns it: it ends
with that process.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from ratchet.clients import UNIX_SCHEME, SandboxClient, ServiceError
from ratchet.stack import ports, postgres, valkey
from ratchet.stack.errors import StackError
from ratchet.stack.logs import rotate
from ratchet.stack.supervisor import ChildSpec, ChildStatus, Supervisor, kill_marked

SERVICES = ("sandbox", "policy", "prm", "search", "trainer")
WORKER_NEEDS = ("sandbox", "policy", "prm")
PORTS = ("postgres", "valkey", *SERVICES)
# Weights may have to be downloaded and converted before a policy can answer.
POLICY_READY_SECONDS = 20 * 60.0
# What a killed stack's children may take to end before the folder is free again.
ORPHAN_SECONDS = 20.0
STATUS_SECONDS = 1.0
LONGEST_SOCKET = 107

OnStatus = Callable[[Sequence[ChildStatus]], None]


def default_data() -> Path:
    """`$RATCHET_DATA`, otherwise `.ratchet` in the current folder."""
    return Path(os.environ.get("RATCHET_DATA") or ".ratchet")


@dataclass(frozen=True)
class StackConfig:
    """What may differ between local stacks. `ports`: by part (see PORTS), a free one where none is given.

    `model` and `engine` go to the policy service (None: its defaults); `host` is the address that the search
    API binds, everything else stays on loopback. `sandbox`: a process of this machine, or a container of its Docker
    engine (image `ratchet-sandbox:local`, unless RATCHET_SANDBOX_IMAGE says otherwise). `env` is added to the
    environment of every service. `services` may name fewer than all: then workers run only where all
    that they need does, and with none the databases stand alone.
    """

    data: Path = field(default_factory=default_data)
    model: str | None = None
    engine: str | None = None
    ports: Mapping[str, int] = field(default_factory=dict)
    host: str = "127.0.0.1"
    search_workers: int = 1
    sandbox: Literal["process", "docker"] = "process"
    services: tuple[str, ...] = SERVICES
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StackUrls:
    """Where the parts of a running stack answer. `database` and `redis` hold passwords."""

    search: str
    policy: str
    prm: str
    sandbox: str
    trainer: str
    database: str
    redis: str


def _start_ticks(pid: int) -> int | None:
    """When the process began, in clock ticks after boot; None if there is none. Tells a reused pid."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None


def running_stack(data: Path | None = None) -> StackUrls | None:
    """The URLs of the stack that is up in the data folder, or None."""
    file = (data or default_data()).expanduser() / "stack.json"
    try:
        entry = json.loads(file.read_text())
        if _start_ticks(entry["pid"]) != entry["start_ticks"]:
            return None
        return StackUrls(**entry["urls"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_private(path: Path, text: str) -> None:
    """Replace the file at once; only we may read it."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    fresh.replace(path)


def _open_data(data: Path) -> Path:
    """Make the data folder, for us alone; raises StackError."""
    try:
        data = data.expanduser().resolve()
        if not data.exists():
            data.mkdir(mode=0o700, parents=True)
        # What root writes into another user's stack, that user could no longer use.
        for folder in (data / "postgres", data / "valkey"):
            if folder.exists() and folder.stat().st_uid != os.geteuid():
                raise StackError(
                    f"The data folder {data} belongs to uid {folder.stat().st_uid}, and this is uid "
                    f"{os.geteuid()}: run as its owner, or choose another folder with --data or RATCHET_DATA."
                )
        (data / "logs").mkdir(exist_ok=True)
        (data / "run").mkdir(exist_ok=True)
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise StackError(
            f"The data folder {data} cannot be used: {reason}. Choose another with --data or RATCHET_DATA."
        ) from error
    return data


def _holder(lock: Path) -> int | None:
    """The pid in the lock if the process that wrote it lives."""
    try:
        pid, ticks = (int(part) for part in lock.read_text().split())
    except (OSError, ValueError):
        return None
    return pid if _start_ticks(pid) == ticks else None


@contextlib.asynccontextmanager
async def _held(data: Path) -> AsyncIterator[int]:
    """Hold the data folder's lock; gives its descriptor, which the shims share, so that it outlasts a killed stack."""
    path = data / "lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StackError(
            f"The data folder {data} cannot be used: {error.strerror}: {path}. Run as its owner, or choose "
            "another with --data or RATCHET_DATA."
        ) from error
    try:
        deadline = time.monotonic() + ORPHAN_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                holder = _holder(path)
                if holder is not None or time.monotonic() > deadline:
                    who = f"process {holder}" if holder is not None else "another process"
                    urls = running_stack(data)
                    where = f" (search API at {urls.search})" if urls else ""
                    raise StackError(
                        f"The data folder {data} is in use by the stack of {who}{where}. Stop that one first, "
                        "or choose another folder with --data or RATCHET_DATA."
                    ) from None
                # Its stack was killed; what that had started is just being stopped.
                await asyncio.sleep(0.2)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()} {_start_ticks(os.getpid())}\n".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _choose_ports(config: StackConfig) -> dict[str, int]:
    unknown = set(config.ports) - set(PORTS)
    if unknown:
        raise StackError(f"Unknown part in ports: {', '.join(sorted(unknown))}. Parts: {', '.join(PORTS)}.")
    chosen = {name: port for name, port in config.ports.items() if port}
    for name, port in chosen.items():
        if not ports.is_free(port, config.host if name == "search" else "127.0.0.1"):
            raise StackError(
                f"Port {port} for {name} cannot be bound (in use?). Choose another, or none for a free one."
            )
    missing = [name for name in PORTS if name not in chosen]
    return chosen | dict(zip(missing, ports.free_ports(len(missing)), strict=True))


def _socket(data: Path) -> Path:
    """Where the sandbox in a container listens: a folder of its own, which the container sees."""
    path = data / "sandbox" / "sandbox.sock"
    if len(os.fsencode(path)) > LONGEST_SOCKET:
        raise StackError(
            f"{path} is too long for a Unix socket: choose a shorter data folder with --data or RATCHET_DATA."
        )
    return path


def _reachable(host: str) -> str:
    """The host part of a URL under which we reach a server that binds `host`."""
    if host in ("0.0.0.0", "", "::"):  # noqa: S104
        host = "::1" if host == "::" else "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _children(
    config: StackConfig, data: Path, chosen: Mapping[str, int], urls: StackUrls,
    database: postgres.Postgres, queue: valkey.Valkey,
) -> list[ChildSpec]:  # fmt: skip
    """The stack's children, each after those that it needs."""

    def log(name: str) -> Path:
        return data / "logs" / f"{name}.log"

    no_proxy = ",".join(
        filter(None, [os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), "127.0.0.1,localhost,::1"])
    )
    common = {
        "PYTHONUNBUFFERED": "1",
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
        "RATCHET_LOG_LEVEL": config.log_level,
        "RATCHET_HOST": "127.0.0.1",
        "RATCHET_POLICY_URL": urls.policy,
        "RATCHET_PRM_URL": urls.prm,
        "RATCHET_SANDBOX_URL": urls.sandbox,
        "RATCHET_SEARCH_URL": urls.search,
        "RATCHET_TRAINER_URL": urls.trainer,
    }
    # Only for those that need them: the policy and the sandbox have no business with the store.
    store = {"RATCHET_DATABASE_URL": urls.database, "RATCHET_REDIS_URL": urls.redis}

    def service(
        name: str, *after: str, env: Mapping[str, str] | None = None, ready_timeout: float = 180.0
    ) -> ChildSpec:
        url: str = getattr(urls, name)
        return ChildSpec(
            name=name,
            argv=[sys.executable, "-m", f"services.{name}"],
            env={**common, "RATCHET_PORT": str(chosen[name]), **(env or {}), **config.env},
            ready=f"{url}/health",
            url=url,
            port=chosen[name],
            after=after,
            log=log(name),
            ready_timeout=ready_timeout,
        )

    def sandbox_container() -> ChildSpec:
        async def ready() -> bool:
            async with SandboxClient(urls.sandbox, retry_seconds=0.0) as client:
                try:
                    return (await client.health()).ready
                except ServiceError:
                    return False

        path = urls.sandbox.removeprefix(UNIX_SCHEME)
        return replace(
            service("sandbox"),
            argv=[sys.executable, "-m", "services.sandbox.container"],
            env={**common, "RATCHET_SOCKET": path, **config.env},
            ready=ready,
            port=None,
        )

    def worker(number: int) -> ChildSpec:
        name = f"search-worker-{number}"
        ready_file = data / "run" / f"{name}.ready"

        async def ready() -> bool:
            return ready_file.exists()

        return ChildSpec(
            name=name,
            argv=[sys.executable, "-m", "services.search.worker"],
            env={**common, **store, "RATCHET_READY_FILE": str(ready_file), **config.env},
            ready=ready,
            prepare=lambda: ready_file.unlink(missing_ok=True),
            # Its first jobs may be those of an earlier run, and they need all of these.
            after=("migrate", "valkey", *WORKER_NEEDS),
            log=log(name),
        )

    policy = {
        name: value
        for name, value in [("RATCHET_MODEL", config.model), ("RATCHET_ENGINE", config.engine)]
        if value
    }
    databases = [
        ChildSpec(
            name="postgres",
            argv=lambda: postgres.command(database),
            prepare=lambda: postgres.prepare(database),
            ready=lambda: asyncio.to_thread(postgres.ensure_database, database),
            port=database.port,
            log=log("postgres"),
            stop_signal=postgres.STOP_SIGNAL,
            stop_timeout=30.0,
        ),
        ChildSpec(
            name="valkey",
            argv=valkey.command(queue),
            prepare=lambda: valkey.prepare(queue),
            ready=lambda: asyncio.to_thread(valkey.answers, queue),
            port=queue.port,
            log=log("valkey"),
            stop_signal=valkey.STOP_SIGNAL,
            stop_timeout=30.0,
        ),
        ChildSpec(
            name="migrate",
            argv=[sys.executable, "-m", "ratchet.store.migrate"],
            env={**common, **store, **config.env},
            once=True,
            after=("postgres",),
            log=log("migrate"),
        ),
    ]
    services = {
        "sandbox": sandbox_container() if config.sandbox == "docker" else service("sandbox"),
        "policy": service("policy", env=policy, ready_timeout=POLICY_READY_SECONDS),
        "prm": service("prm", "policy"),
        "search": service("search", "migrate", "valkey", env={**store, "RATCHET_HOST": config.host}),
        "trainer": service(
            "trainer", "migrate", "valkey", env={**store, "RATCHET_ROUNDS_DIR": str(data / "rounds")}
        ),
    }
    chosen_services = [spec for name, spec in services.items() if name in config.services]
    workers = [worker(number) for number in range(1, config.search_workers + 1)]
    if not set(WORKER_NEEDS) <= set(config.services):
        workers = []
    present = {spec.name for spec in [*databases, *chosen_services]}
    return [
        *databases,
        *(replace(spec, after=tuple(n for n in spec.after if n in present)) for spec in chosen_services),
        *workers,
    ]


@contextlib.asynccontextmanager
async def local_stack(config: StackConfig, on_status: OnStatus | None = None) -> AsyncIterator[StackUrls]:
    """Start the stack, wait until all of it is ready, stop it at the end. Raises StackError if something cannot start.

    `on_status` is called at every change and once a second, while the stack starts, runs and stops.
    """
    unknown = set(config.services) - set(SERVICES)
    if unknown:
        raise StackError(f"Unknown service: {', '.join(sorted(unknown))}. Services: {', '.join(SERVICES)}.")
    data = _open_data(config.data)
    async with _held(data) as lock:
        mark = str(data)
        # What a shim could not end because it was killed too. The lock says that nothing of ours is meant to run.
        await asyncio.to_thread(kill_marked, f"{mark}::", prefix=True)
        for log in (data / "logs").glob("*.log"):
            rotate(log)
        chosen = _choose_ports(config)
        database = postgres.Postgres(data / "postgres", chosen["postgres"])
        queue = valkey.Valkey(data / "valkey", chosen["valkey"])
        postgres.ensure_password(database)
        valkey.prepare(queue)
        hosts = {name: _reachable(config.host if name == "search" else "127.0.0.1") for name in PORTS}
        urls = StackUrls(
            **{
                name: f"http://{hosts[name]}:{chosen[name]}"
                for name in ("search", "policy", "prm", "sandbox", "trainer")
            },
            database=database.url(),
            redis=queue.url(),
        )
        if config.sandbox == "docker":
            urls = replace(urls, sandbox=f"{UNIX_SCHEME}{_socket(data)}")
        children = _children(config, data, chosen, urls, database, queue)
        async with _supervised(children, mark=mark, keep_open=[lock], on_status=on_status):
            entry = {"pid": os.getpid(), "start_ticks": _start_ticks(os.getpid()), "urls": asdict(urls)}
            _write_private(data / "stack.json", json.dumps(entry, indent=2) + "\n")
            try:
                yield urls
            finally:
                (data / "stack.json").unlink(missing_ok=True)


@contextlib.asynccontextmanager
async def _supervised(
    children: Sequence[ChildSpec], *, mark: str, keep_open: Sequence[int], on_status: OnStatus | None
) -> AsyncIterator[None]:
    """The children run while the block does; `on_status` hears of them."""

    def tell() -> None:
        if on_status is not None:
            on_status(supervisor.status())

    async def tell_regularly() -> None:
        while True:
            await asyncio.sleep(STATUS_SECONDS)
            tell()

    supervisor = Supervisor(children, mark=mark, keep_open=keep_open, on_change=tell)
    ticker = asyncio.create_task(tell_regularly())
    try:
        await supervisor.start()
        yield
    finally:
        try:
            await supervisor.stop()
        finally:
            ticker.cancel()
