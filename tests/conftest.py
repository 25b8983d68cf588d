"""Real servers for every test: one embedded Postgres and one embedded Valkey a session, a fresh database a module."""

import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from models import make_memorised_checkpoint
from ratchet.stack import ports
from ratchet.stack.postgres import Postgres, drop_database, ensure_database, running_postgres
from ratchet.stack.valkey import running_valkey


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A running server; without fsync, as nothing here outlives the session."""
    with running_postgres(tmp_path_factory.mktemp("postgres"), durable=False) as server:
        yield server


@pytest.fixture(scope="module")
def database_url(postgres: Postgres, request: pytest.FixtureRequest) -> Iterator[str]:
    """SQLAlchemy's URL (asyncpg) of an empty database that this module has for itself."""
    module = re.sub(r"\W", "_", Path(str(request.path)).stem)[:40]
    name = f"{module}_{uuid.uuid4().hex[:8]}"
    assert ensure_database(postgres, name)
    yield postgres.url(name)
    drop_database(postgres, name)


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a running Valkey, password included. Database 0 is shared: use key names of your own."""
    with running_valkey(tmp_path_factory.mktemp("valkey"), durable=False) as server:
        yield server.url()


@pytest.fixture
def free_port() -> int:
    """A loopback port that nobody uses."""
    return ports.free_port()


@pytest.fixture(scope="session")
def memorised_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that knows `models.REMEMBERED`, `ENDLESS` and `HOPELESS`, and nothing else."""
    return make_memorised_checkpoint(tmp_path_factory.mktemp("models") / "memorised")
