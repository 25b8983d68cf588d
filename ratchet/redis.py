"""The way to Redis: clients with time-outs, bounded retry and a pool that waits instead of failing.

Limits: a call is tried four times within about two seconds, then raises redis-py's ConnectionError or TimeoutError.
"""

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

CONNECT_SECONDS = 2.0
REPLY_SECONDS = 5.0


def make_redis(url: str, *, connections: int = 16, reply_seconds: float = REPLY_SECONDS) -> Redis:
    """A client that returns bytes. It connects when it is first used; close it with `aclose()`.

    `reply_seconds` must exceed the longest time that a blocking command is told to wait.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=connections,
        timeout=REPLY_SECONDS,
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=reply_seconds,
        socket_keepalive=True,
        health_check_interval=30,
        retry=Retry(ExponentialWithJitterBackoff(base=0.05, cap=0.5), 3),
        retry_on_error=[RedisConnectionError, RedisTimeoutError],
    )
    return Redis(connection_pool=pool)
