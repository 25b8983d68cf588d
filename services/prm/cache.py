"""What is known of steps that were scored before. A step's key is made of version, problem, the steps before it, and itself.

The entries that were used least recently are forgotten first.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence


class StepCache:
    """A bounded map from a trajectory's prefixes to one number for the last step of each.

    For PRM1 it is the step's mean log-probability, for a trained PRM its score; the version tells them apart.
    """

    def __init__(self, entries: int) -> None:
        self._entries = entries
        self._known: OrderedDict[bytes, float] = OrderedDict()

    def get(self, version: str, problem: str, steps: Sequence[str]) -> list[float | None]:
        """For each step its number, or None."""
        found: list[float | None] = []
        for key in _keys(version, problem, steps):
            value = self._known.get(key)
            if value is not None:
                self._known.move_to_end(key)
            found.append(value)
        return found

    def put(self, version: str, problem: str, steps: Sequence[str], values: Sequence[float]) -> None:
        """Remember the number of each step."""
        for key, value in zip(_keys(version, problem, steps), values, strict=True):
            self._known[key] = value
            self._known.move_to_end(key)
        while len(self._known) > self._entries:
            self._known.popitem(last=False)


def _keys(version: str, problem: str, steps: Sequence[str]) -> list[bytes]:
    # A rolling hash: the key of each prefix goes into the key of the next.
    key = hashlib.sha256(f"{version}\0{problem}".encode()).digest()
    keys: list[bytes] = []
    for step in steps:
        key = hashlib.sha256(key + step.encode()).digest()
        keys.append(key)
    return keys
