"""The way to Postgres: one async engine a process, with time-outs, and one error for "not reachable".

Limits: a call is tried three times within about a second; who can wait longer tries again.
"""

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, ParamSpec, TypeVar

import orjson
from sqlalchemy import func, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from ratchet.store.errors import StoreUnavailableError

CONNECT_SECONDS = 5.0
STATEMENT_SECONDS = 30.0

P = ParamSpec("P")
T = TypeVar("T")

# Connection, login, deadlock, resources, a lock that is not to be had, shutdown, time-out, and a database or table that is not
# there yet: the server's condition, not the statement's fault.
_UNAVAILABLE_SQLSTATES = ("08", "28", "3D", "40", "42P01", "53", "55P03", "57")


def _dumps(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY).decode()


def make_engine(database_url: str, pool_size: int = 20, pool_seconds: float = CONNECT_SECONDS) -> AsyncEngine:
    """An engine for a `postgresql+asyncpg://` URL. It connects when it is first used.

    Up to `pool_size` connections are made as they are needed, and stay: a new one costs Postgres a process, and prepares each
    statement anew.

    Connections are not tried before they are used, which would cost a call of the store more than the call: after a restart of
    Postgres the first call that fails has all of them made anew, and `retried` sends it again.

    Who waits for one of its connections for more than `pool_seconds` is told that the store is not available.
    """
    return create_async_engine(
        database_url,
        pool_size=pool_size,
        max_overflow=0,
        # The one that was used last knows the statements.
        pool_use_lifo=True,
        pool_timeout=pool_seconds,
        pool_recycle=1800,
        json_serializer=_dumps,
        json_deserializer=orjson.loads,
        connect_args={
            "timeout": CONNECT_SECONDS,
            # A little more than the server's own limit, which gives the better message; this one holds when the server is
            # silent.
            "command_timeout": STATEMENT_SECONDS + 5,
            "server_settings": {
                "application_name": "ratchet",
                "statement_timeout": str(int(STATEMENT_SECONDS * 1000)),
                "idle_in_transaction_session_timeout": "60000",
            },
        },
    )


def _is_unavailable(error: BaseException) -> bool:
    if isinstance(error, DBAPIError):
        if error.connection_invalidated or isinstance(error, InterfaceError | OperationalError):
            return True
        return error.orig is not None and _is_unavailable(error.orig)
    # asyncpg's errors carry the SQLSTATE; those of its connect come without SQLAlchemy's wrapping.
    sqlstate = getattr(error, "sqlstate", None)
    if isinstance(sqlstate, str):
        return sqlstate.startswith(_UNAVAILABLE_SQLSTATES)
    return isinstance(error, PoolTimeoutError | OSError | TimeoutError)


@asynccontextmanager
async def transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """One transaction: commits at the end, rolls back on an error. Raises StoreUnavailableError."""
    with _unavailable():
        async with engine.begin() as connection:
            yield connection


@asynccontextmanager
async def reading(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection for reading, without the two messages that begin and end a transaction. Raises StoreUnavailableError.

    Each statement sees what was committed before it, as in `transaction`.
    """
    with _unavailable():
        async with engine.connect() as connection:
            yield await connection.execution_options(isolation_level="AUTOCOMMIT")


@contextmanager
def _unavailable() -> Iterator[None]:
    """Raise StoreUnavailableError for what is the server's condition."""
    try:
        yield
    except Exception as error:
        if _is_unavailable(error):
            raise StoreUnavailableError(f"The database is not reachable: {error}") from error
        raise


def retried(call: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """Try an idempotent call again, a few times and not for long, while the store is not reachable."""

    @functools.wraps(call)
    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(StoreUnavailableError),
            stop=stop_after_attempt(3),
            wait=wait_random_exponential(multiplier=0.1, max=0.5),
            reraise=True,
        ):
            with attempt:
                return await call(*args, **kwargs)
        raise AssertionError("unreachable")

    return wrapper


def from_now(seconds: float) -> Any:
    """An SQL expression: the time so many seconds from now, by the database's clock."""
    return func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, seconds)


@retried
async def ping(engine: AsyncEngine) -> None:
    """Raise StoreUnavailableError unless Postgres answers."""
    async with reading(engine) as connection:
        await connection.execute(text("SELECT 1"))


@retried
async def ready(engine: AsyncEngine) -> None:
    """Raise StoreUnavailableError unless Postgres answers and the migrations have run."""
    async with reading(engine) as connection:
        await connection.execute(text("SELECT 1 FROM alembic_version"))
