"""What steps did when they ran: one memory for all searches of a worker, as evaluation asks a problem in many ways.

Kept are results of runs from nothing, by the seed of the interpreter and all steps up to this one. Such a run sees its own
code, the seed and a fresh jail, and nothing else; the limits are the same for all. So a search gets no result that it would not
have got by running the same text itself, and what a step does can reach nobody else: a key holds every character that took
part. Not kept is what says something of the moment: a run that met a limit, was killed or printed more than is kept, and all
that ran in a session, whose branches share a process namespace.

Limits: the memory is of one process and does not outlive it. A sandbox that gets other library versions while the worker runs
is not noticed; an answer is re-executed before it counts. How fast a result comes tells that these very steps ran before.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence

from ratchet.contracts.sandbox import RunStepsResponse, StepResult, StepStatus

MOST_STEPS = 50_000
"""Some 40 MB with short outputs."""
MOST_CHARS = 32 * 2**20
"""Of all outputs together."""

_REPEATABLE = {StepStatus.OK, StepStatus.ERROR, StepStatus.NOT_RUN}


class StepMemory:
    """The least recently used results go first."""

    def __init__(self, most_steps: int = MOST_STEPS, most_chars: int = MOST_CHARS) -> None:
        self._most_steps, self._most_chars = most_steps, most_chars
        self._results: OrderedDict[bytes, StepResult] = OrderedDict()
        self._chars = 0

    def recall(self, seed: int, steps: Sequence[str]) -> list[StepResult] | None:
        """What each of these steps did after those before it; None unless all of it is known."""
        found: list[StepResult] = []
        for key in _keys(seed, steps):
            result = self._results.get(key)
            if result is None:
                return None
            self._results.move_to_end(key)
            found.append(result)
            if result.status is not StepStatus.OK:
                # After a step that fails nothing runs.
                return found + [StepResult(status=StepStatus.NOT_RUN)] * (len(steps) - len(found))
        return found

    def keep(self, seed: int, steps: Sequence[str], run: RunStepsResponse) -> None:
        """Keep what the steps did in a run from nothing, if running them again would give the same."""
        measured = run.measured
        ended_by_force = measured.limit is not None or measured.signal is not None
        cut = measured.stdout_truncated or measured.stderr_truncated
        if ended_by_force or cut or any(result.status not in _REPEATABLE for result in run.steps):
            return
        for key, result in zip(_keys(seed, steps), run.steps, strict=False):
            if result.status is StepStatus.NOT_RUN:
                break
            self._put(key, result)
        while len(self._results) > self._most_steps or self._chars > self._most_chars:
            _, oldest = self._results.popitem(last=False)
            self._chars -= _size(oldest)

    def _put(self, key: bytes, result: StepResult) -> None:
        before = self._results.pop(key, None)
        self._chars += _size(result) - (0 if before is None else _size(before))
        self._results[key] = result


def _keys(seed: int, steps: Sequence[str]) -> Iterator[bytes]:
    """A digest for each step, of the seed and of all steps up to it."""
    key = hashlib.sha256(str(seed).encode()).digest()
    for step in steps:
        # The key before is always 32 bytes, so that no two ways to cut a text into steps give one key.
        key = hashlib.sha256(key + step.encode()).digest()
        yield key


def _size(result: StepResult) -> int:
    return len(result.stdout) + len(result.stderr)
