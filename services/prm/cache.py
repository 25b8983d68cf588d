"""What the policy said of a step before, by (policy version, problem, steps before it, step): the oldest use goes first."""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence


class LikelihoodCache:
    """A bounded map from a trajectory's prefixes to the mean log-probability of the last step of each."""

    def __init__(self, entries: int) -> None:
        self._entries = entries
        self._known: OrderedDict[bytes, float] = OrderedDict()

    def get(self, model: str, problem: str, steps: Sequence[str]) -> list[float | None]:
        """For each step what is known of it."""
        found: list[float | None] = []
        for key in _keys(model, problem, steps):
            value = self._known.get(key)
            if value is not None:
                self._known.move_to_end(key)
            found.append(value)
        return found

    def put(self, model: str, problem: str, steps: Sequence[str], logprobs: Sequence[float]) -> None:
        """Remember the mean log-probability of each step."""
        for key, value in zip(_keys(model, problem, steps), logprobs, strict=True):
            self._known[key] = value
            self._known.move_to_end(key)
        while len(self._known) > self._entries:
            self._known.popitem(last=False)


def _keys(model: str, problem: str, steps: Sequence[str]) -> list[bytes]:
    # A rolling hash: the key of each prefix goes into the key of the next.
    key = hashlib.sha256(f"{model}\0{problem}".encode()).digest()
    keys: list[bytes] = []
    for step in steps:
        key = hashlib.sha256(key + step.encode()).digest()
        keys.append(key)
    return keys
