"""The children of a local stack: what is started, with which environment, after what, and when it is ready."""

import asyncio
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ratchet.clients import UNIX_SCHEME, SandboxClient, ServiceError
from ratchet.secret_files import ADMIN_KEY, SERVICE_TOKEN
from ratchet.stack import postgres, valkey
from ratchet.stack.config import WORKER_NEEDS, StackConfig, StackUrls, worker_names
from ratchet.stack.data_folder import SECRETS, problems_folder
from ratchet.stack.services import service_command, service_environment
from ratchet.stack.supervisor import ChildSpec

# Weights may have to be downloaded and converted before a policy can answer.
POLICY_READY_SECONDS = 20 * 60.0
SERVICE_READY_SECONDS = 180.0


@dataclass(frozen=True)
class Plan:
    """A stack that is about to start. `ports` names one for each of PORTS, and for each worker."""

    config: StackConfig
    data: Path
    ports: Mapping[str, int]
    urls: StackUrls
    database: postgres.Postgres
    queue: valkey.Valkey

    def log(self, name: str) -> Path:
        """The child's log file."""
        return self.data / "logs" / f"{name}.log"


def children(plan: Plan) -> list[ChildSpec]:
    """The stack's children, each after those that it needs."""
    databases = _databases(plan)
    services = [spec for spec in _services(plan) if spec.name in plan.config.services]
    present = {spec.name for spec in [*databases, *services]}
    services = [replace(spec, after=tuple(n for n in spec.after if n in present)) for spec in services]
    workers = []
    if set(WORKER_NEEDS) <= set(plan.config.services):
        workers = [_worker(plan, name) for name in worker_names(plan.config.search_workers)]
    return [*databases, *services, *workers]


def _environment(plan: Plan, own: Mapping[str, str]) -> dict[str, str]:
    """Of every child that is ours: what all of them read, what this one reads, and what the configuration adds."""
    known = os.environ.get("NO_PROXY") or os.environ.get("no_proxy")
    no_proxy = ",".join(filter(None, [known, "127.0.0.1,localhost,::1"]))
    return {
        **service_environment(),
        "PYTHONUNBUFFERED": "1",
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
        "RATCHET_LOG_LEVEL": plan.config.log_level,
        "RATCHET_HOST": "127.0.0.1",
        "RATCHET_SERVICE_TOKEN_FILE": str(plan.data / SECRETS / SERVICE_TOKEN),
        **own,
        **plan.config.env,
    }


def _store(plan: Plan) -> dict[str, str]:
    """Only for those that need it: the policy and the sandbox have no business with the store."""
    return {
        "RATCHET_DATABASE_URL": plan.urls.database,
        "RATCHET_REDIS_URL": plan.urls.redis,
        "RATCHET_ADMIN_KEY_FILE": str(plan.data / SECRETS / ADMIN_KEY),
    }


def _model_services(plan: Plan) -> dict[str, str]:
    return {
        "RATCHET_POLICY_URL": plan.urls.policy,
        "RATCHET_PRM_URL": plan.urls.prm,
        "RATCHET_SANDBOX_URL": plan.urls.sandbox,
    }


def _databases(plan: Plan) -> list[ChildSpec]:
    """Postgres, Valkey, and the migrations, which run to their end."""
    database, queue = plan.database, plan.queue
    return [
        ChildSpec(
            name="postgres",
            argv=lambda: postgres.command(database),
            prepare=lambda: postgres.prepare(database),
            ready=lambda: asyncio.to_thread(postgres.ensure_database, database),
            live=lambda: asyncio.to_thread(postgres.answers, database),
            hang_seconds=plan.config.hang_seconds,
            port=database.port,
            log=plan.log("postgres"),
            stop_signal=postgres.STOP_SIGNAL,
            stop_timeout=30.0,
        ),
        ChildSpec(
            name="valkey",
            argv=valkey.command(queue),
            prepare=lambda: valkey.prepare(queue),
            ready=lambda: asyncio.to_thread(valkey.answers, queue),
            live=lambda: asyncio.to_thread(valkey.answers, queue),
            hang_seconds=plan.config.hang_seconds,
            port=queue.port,
            log=plan.log("valkey"),
            stop_signal=valkey.STOP_SIGNAL,
            stop_timeout=30.0,
        ),
        ChildSpec(
            name="migrate",
            argv=[sys.executable, "-m", "ratchet.store.migrate"],
            env=_environment(plan, _store(plan)),
            once=True,
            after=("postgres",),
            log=plan.log("migrate"),
        ),
    ]


def _services(plan: Plan) -> list[ChildSpec]:
    """All five, in the order of what they need."""
    model = {"RATCHET_MODEL": plan.config.model, "RATCHET_ENGINE": plan.config.engine}
    policy = _service(plan, "policy", env={name: value for name, value in model.items() if value})
    return [
        _sandbox_container(plan) if plan.config.sandbox == "docker" else _service(plan, "sandbox"),
        replace(policy, ready_timeout=POLICY_READY_SECONDS),
        _service(plan, "prm", "policy", env={"RATCHET_POLICY_URL": plan.urls.policy}),
        _service(
            plan,
            "search",
            "migrate",
            "valkey",
            env={
                **_store(plan),
                "RATCHET_HOST": plan.config.host,
                "RATCHET_TRAINER_URL": plan.urls.trainer,
            },
        ),
        _service(
            plan,
            "trainer",
            "migrate",
            "valkey",
            env={
                **_store(plan),
                **_model_services(plan),
                "RATCHET_ROUNDS_DIR": str(plan.data / "rounds"),
                "RATCHET_PROBLEMS_DIR": str(problems_folder(plan.data)),
            },
        ),
    ]


def _service(plan: Plan, name: str, *after: str, env: Mapping[str, str] | None = None) -> ChildSpec:
    url: str = getattr(plan.urls, name)
    return ChildSpec(
        name=name,
        argv=service_command(name),
        env=_environment(plan, {"RATCHET_PORT": str(plan.ports[name]), **(env or {})}),
        ready=f"{url}/readyz",
        live=f"{url}/livez",
        hang_seconds=plan.config.hang_seconds,
        url=url,
        port=plan.ports[name],
        after=after,
        log=plan.log(name),
        ready_timeout=SERVICE_READY_SECONDS,
    )


def _sandbox_container(plan: Plan) -> ChildSpec:
    """The process that starts the container and passes its log on. The service answers on a Unix socket."""

    async def is_ready(*, answers: bool = False) -> bool:
        async with SandboxClient(plan.urls.sandbox, retry_seconds=0.0) as client:
            try:
                return (await client.health()).ready or answers
            except ServiceError:
                return False

    return ChildSpec(
        name="sandbox",
        argv=service_command("sandbox.container"),
        env=_environment(plan, {"RATCHET_SOCKET": plan.urls.sandbox.removeprefix(UNIX_SCHEME)}),
        ready=is_ready,
        live=lambda: is_ready(answers=True),
        hang_seconds=plan.config.hang_seconds,
        url=plan.urls.sandbox,
        log=plan.log("sandbox"),
        ready_timeout=SERVICE_READY_SECONDS,
    )


def _worker(plan: Plan, name: str) -> ChildSpec:
    url = f"http://127.0.0.1:{plan.ports[name]}"
    return ChildSpec(
        name=name,
        argv=service_command("search.worker"),
        env=_environment(
            plan,
            {**_store(plan), **_model_services(plan), "RATCHET_PORT": str(plan.ports[name])},
        ),
        # Not `/readyz`: what it waits for is started by the same supervisor, and says for itself when it is ready.
        ready=f"{url}/livez",
        live=f"{url}/livez",
        hang_seconds=plan.config.hang_seconds,
        url=url,
        port=plan.ports[name],
        # Its first jobs may be those of an earlier run, and they need all of these.
        after=("migrate", "valkey", *WORKER_NEEDS),
        log=plan.log(name),
        ready_timeout=SERVICE_READY_SECONDS,
    )
