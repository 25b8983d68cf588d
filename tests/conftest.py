"""Real servers for every test: one embedded Postgres and one embedded Valkey a session, a fresh database a module.

With `-n` (pytest-xdist) the tests of a file run in one process, one after another, and so do the files that share a
stack, so that each stack is started once.
"""

import re
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from ratchet.events import Events
from ratchet.stack import ports
from ratchet.stack.postgres import Postgres, drop_database, ensure_database, running_postgres
from ratchet.stack.valkey import running_valkey
from ratchet.store.engine import make_engine
from ratchet.store.migrate import migrate
from ratchet.store.searches import SearchStore
from tests.http_double import serving
from tests.models import make_memorised_checkpoint
from tests.running_stack import Running, running_stack
from tests.small_rounds import Rounds, running_rounds

SHARED_STACKS = {
    "tests/e2e/test_search.py": "stack",
    "tests/e2e/test_replay.py": "stack",
    "tests/e2e/test_auto.py": "stack",
    "tests/e2e/test_bad_input.py": "stack",
    "tests/e2e/test_openapi.py": "stack",
    "tests/e2e/test_keys.py": "stack",
    "tests/chaos/test_kill.py": "stack",
    "tests/e2e/test_rounds.py": "rounds",
    "tests/e2e/test_rounds_set_aside.py": "rounds",
    "tests/e2e/test_serving_pairs.py": "rounds",
    "tests/chaos/test_round_kills.py": "rounds",
}
"""Files whose tests use a stack of the session, and which."""


class ByStack(LoadScopeScheduling):
    """Gives a file to one process, and the files of a shared stack to the same one.

    pytest-xdist's own `loadgroup` does nothing with pytest 9.2: it renames tests in a way that no longer takes.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return SHARED_STACKS.get(file, file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByStack:
    """What xdist asks for a scheduler."""
    return ByStack(config, log)


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Bytes are counted, not written out: packed ones can hold the time, and two processes that collect in different seconds
    would have no test in common."""
    return argname if isinstance(val, bytes) else None


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


@pytest.fixture(scope="module")
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """The module's database, with this version's tables."""
    engine = make_engine(database_url)
    await migrate(engine)
    yield engine
    await engine.dispose()


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a running Valkey, password included. Database 0 is shared: use key names of your own."""
    with running_valkey(tmp_path_factory.mktemp("valkey"), durable=False) as server:
        yield server.url()


@pytest.fixture(scope="module")
def store(engine: AsyncEngine) -> SearchStore:
    """The searches in the module's database."""
    return SearchStore(engine)


@pytest.fixture(scope="module")
async def events(redis_url: str) -> AsyncIterator[Events]:
    """The events of searches."""
    events = Events(redis_url)
    yield events
    await events.aclose()


@pytest.fixture
def free_port() -> int:
    """A loopback port that nobody uses."""
    return ports.free_port()


@pytest.fixture(scope="session")
def memorised_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that knows `models.REMEMBERED`, `ENDLESS` and `HOPELESS`, and nothing else."""
    return make_memorised_checkpoint(tmp_path_factory.mktemp("models") / "memorised")


@pytest.fixture(scope="session")
async def stack(
    memorised_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Running]:
    """Everything that `ratchet up` starts, on the memorised checkpoint. A short lease, so that a lost worker is missed
    soon."""
    with serving() as serve:
        data = tmp_path_factory.mktemp("stack")
        async with running_stack(data, memorised_checkpoint, serve, lease_seconds="3") as running:
            yield running


@pytest.fixture(scope="session")
async def rounds(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rounds]:
    """Another stack, with nano: its models change."""
    async with running_rounds(tmp_path_factory.mktemp("rounds")) as running:
        yield running
