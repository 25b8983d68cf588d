"""The whole of Ratchet on one machine: Postgres, Valkey, migrations, five services, workers, in one data folder.

    async with local_stack(StackConfig(data=Path(".ratchet"))) as urls:
        ...  # urls.search answers

Everything of a stack lies in its data folder (databases, logs, passwords), which it holds by a lock: two stacks run side
by side in two folders. State survives restarts. Whoever started the stack owns it: it ends with that process.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ratchet import background
from ratchet.clients import UNIX_SCHEME, ServiceError, TrainerClient
from ratchet.secret_files import ADMIN_KEY, SERVICE_TOKEN
from ratchet.settings import read_secret
from ratchet.stack import ports, postgres, valkey
from ratchet.stack.children import Plan, children
from ratchet.stack.config import PORTS, SERVICES, StackConfig, StackUrls, worker_names
from ratchet.stack.data_folder import (
    SECRETS,
    announced,
    held,
    last_model,
    make_secrets,
    open_data,
    remember_model,
)
from ratchet.stack.errors import StackError
from ratchet.stack.logs import rotate
from ratchet.stack.marked import kill_marked
from ratchet.stack.supervisor import ChildSpec, ChildStatus, Supervisor

STATUS_SECONDS = 1.0
PAIR_NEEDS = ("policy", "prm", "trainer")
PAIR_POLL_SECONDS = 0.2
PAIR_SECONDS = 60.0
"""How long a start waits for the pair."""
LONGEST_SOCKET = 107

OnStatus = Callable[[Sequence[ChildStatus]], None]


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
    every = [*PORTS, *worker_names(config.search_workers)]
    missing = [name for name in every if name not in chosen]
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


@contextlib.asynccontextmanager
async def local_stack(config: StackConfig, on_status: OnStatus | None = None) -> AsyncIterator[StackUrls]:
    """Start the stack, wait until all of it is ready, stop it at the end. Raises StackError if something cannot start.

    `on_status` is called at every change and once a second, while the stack starts, runs and stops.
    """
    unknown = set(config.services) - set(SERVICES)
    if unknown:
        raise StackError(f"Unknown service: {', '.join(sorted(unknown))}. Services: {', '.join(SERVICES)}.")
    data = open_data(config.data)
    async with held(data) as lock:
        mark = str(data)
        # What a shim could not end because it was killed too. The lock says that nothing of ours is meant to run.
        await asyncio.to_thread(kill_marked, f"{mark}::", prefix=True)
        for log in (data / "logs").glob("*.log"):
            rotate(log)
        named = config.model or os.environ.get("RATCHET_MODEL")
        plan = _plan(replace(config, model=named or last_model(data)), data)
        async with _supervised(children(plan), mark=mark, keep_open=[lock], on_status=on_status):
            if named and "policy" in config.services:
                remember_model(data, named)
            await _pair_serves(plan)
            with announced(data, plan.urls):
                yield plan.urls


def _plan(config: StackConfig, data: Path) -> Plan:
    """Choose the ports and make the passwords where there are none. The caller holds the data folder's lock."""
    chosen = _choose_ports(config)
    database = postgres.Postgres(data / "postgres", chosen["postgres"])
    queue = valkey.Valkey(data / "valkey", chosen["valkey"])
    postgres.ensure_password(database)
    valkey.prepare(queue)
    make_secrets(data)
    hosts = {name: _reachable(config.host if name == "search" else "127.0.0.1") for name in SERVICES}
    urls = StackUrls(
        **{name: f"http://{hosts[name]}:{chosen[name]}" for name in SERVICES},
        database=database.url(),
        redis=queue.url(),
        key=read_secret(data / SECRETS / ADMIN_KEY),
        token=read_secret(data / SECRETS / SERVICE_TOKEN),
    )
    if config.sandbox == "docker":
        urls = replace(urls, sandbox=f"{UNIX_SCHEME}{_socket(data)}")
    return Plan(config, data, chosen, urls, database, queue)


async def _pair_serves(plan: Plan) -> None:
    """Wait until policy and PRM serve the pair of the registry: what is asked before, the models of the settings answer.

    Where that does not come about (a checkpoint is gone, say) the stack is up all the same; the trainer's log says why.
    """
    if not set(PAIR_NEEDS) <= set(plan.config.services):
        return
    deadline = time.monotonic() + PAIR_SECONDS
    async with TrainerClient(plan.urls.trainer, key=plan.urls.key) as trainer:
        while time.monotonic() < deadline:
            with contextlib.suppress(ServiceError):
                if (await trainer.health()).detail.get("pair_serves"):
                    return
            await asyncio.sleep(PAIR_POLL_SECONDS)


@contextlib.asynccontextmanager
async def _supervised(
    children: Sequence[ChildSpec], *, mark: str, keep_open: Sequence[int], on_status: OnStatus | None
) -> AsyncIterator[None]:
    """The children run while the block does; `on_status` hears of them."""

    def tell() -> None:
        if on_status is not None:
            on_status(supervisor.status())

    async def tell_again() -> None:
        tell()

    supervisor = Supervisor(children, mark=mark, keep_open=keep_open, on_change=tell)
    async with background.running(background.repeat("status", tell_again, STATUS_SECONDS)):
        try:
            await supervisor.start()
            yield
        finally:
            await supervisor.stop()
