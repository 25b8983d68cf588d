"""Requests a minute, by key: a token bucket each, in this process's memory."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID


@dataclass
class _Bucket:
    left: float
    at: float


class Rates:
    """How many requests each key has left. A key may send a minute's worth at once, and then as many as come back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[UUID, _Bucket] = {}

    def seconds_to_wait(self, key_id: UUID, per_minute: int) -> float:
        """Count a request: 0, or how long to wait where the minute's requests are used (then it does not count)."""
        now = self._clock()
        bucket = self._buckets.setdefault(key_id, _Bucket(float(per_minute), now))
        each = 60.0 / per_minute
        bucket.left = min(float(per_minute), bucket.left + (now - bucket.at) / each)
        bucket.at = now
        if bucket.left < 1.0:
            return (1.0 - bucket.left) * each
        bucket.left -= 1.0
        return 0.0
