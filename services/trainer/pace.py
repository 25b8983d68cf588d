"""How long a stage will take, at the rate at which it went so far. Pure: it is told the time.

Limit: the rate of this attempt over all that it did; what comes may be slower.
"""

LEAST_SECONDS = 2.0
"""Of work before a rate says anything."""


class Pace:
    """Looks at how much is done, and says how long the rest will take."""

    def __init__(self) -> None:
        self._total = 0
        self._began: tuple[int, float] | None = None

    def seconds_left(self, done: int, total: int, now: float) -> float | None:
        """At this time, `done` of `total`; None where it cannot be said yet.

        Another total, or fewer done than before, is other work: its rate is taken anew. What an earlier attempt did counts for
        nothing.
        """
        if total <= 0:
            return None
        if self._began is None or total != self._total or done < self._began[0]:
            self._total, self._began = total, (done, now)
        at_first, since = self._began
        if done == at_first or now - since < LEAST_SECONDS:
            return None
        return round((total - done) * (now - since) / (done - at_first), 1)
