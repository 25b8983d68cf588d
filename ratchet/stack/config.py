"""What a local stack is made of, and what may differ between two of them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

SERVICES = ("sandbox", "policy", "prm", "search", "trainer")
WORKER_NEEDS = ("sandbox", "policy", "prm")
PORTS = ("postgres", "valkey", *SERVICES)


def worker_names(count: int) -> list[str]:
    """Names of so many search workers, as children of the stack."""
    return [f"search-worker-{number}" for number in range(1, count + 1)]


def default_data() -> Path:
    """`$RATCHET_DATA`, otherwise `.ratchet` in the current folder."""
    return Path(os.environ.get("RATCHET_DATA") or ".ratchet")


@dataclass(frozen=True)
class StackConfig:
    """What may differ between local stacks. `ports`: by part (see PORTS), a free one where none is given.

    `model` and `engine` go to the policy service (None: the model with which the folder's policy was last started, so that what
    was trained from it goes on serving, and otherwise the defaults); `host` is the address that the search API binds,
    everything else stays on loopback. `sandbox`: a process of this machine, or a container of its Docker engine (image
    `ratchet-sandbox:local`, unless RATCHET_SANDBOX_IMAGE says otherwise). `env` is added to the environment of every
    service. `services` may name fewer than all: then workers run only where all that they need does, and with none the
    databases stand alone. A part that says nothing for `hang_seconds` is killed and started again.
    """

    data: Path = field(default_factory=default_data)
    model: str | None = None
    engine: str | None = None
    ports: Mapping[str, int] = field(default_factory=dict)
    host: str = "127.0.0.1"
    search_workers: int = 1
    sandbox: Literal["process", "docker"] = "process"
    services: tuple[str, ...] = SERVICES
    hang_seconds: float = 60.0
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StackUrls:
    """Where the parts of a running stack answer. `database` and `redis` hold passwords.

    `key` is the operator's, for search and trainer; `token` is what policy, PRM and sandbox ask for.
    """

    search: str
    policy: str
    prm: str
    sandbox: str
    trainer: str
    database: str
    redis: str
    key: str
    token: str
