"""A search tree as one sequence: what its paths have in common is read once.

Paths from the root become a trie of tokens. Each token attends to its ancestors in the trie and has the position that it
has on its path, so its hidden state is that of the path read alone (a test holds it equal), while the problem and the
steps that candidates share cost nothing again. Shapes: T tokens of a packed tree, B trees of a batch.

Limits: the attention mask is boolean and of T x T, and needs an attention implementation that takes one (sdpa).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(eq=False)
class TokenTrie:
    """Tokens in the order in which they came, each with the place of the token before it (-1: none)."""

    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    _next: dict[tuple[int, int], int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.tokens)

    def missing(self, path: Sequence[int]) -> int:
        """How many tokens `path` would add."""
        at = -1
        for position, token in enumerate(path):
            place = self._next.get((at, token))
            if place is None:
                return len(path) - position
            at = place
        return 0

    def add(self, path: Iterable[int]) -> list[int]:
        """The place of each token of `path`."""
        at = -1
        places: list[int] = []
        for position, token in enumerate(path):
            key = (at, token)
            place = self._next.get(key)
            if place is None:
                place = self._next[key] = len(self.tokens)
                self.tokens.append(token)
                self.parents.append(at)
                self.positions.append(position)
            places.append(place)
            at = place
        return places


def ancestor_mask(parents: Sequence[int], width: int) -> Array:
    """Whom each token attends to, bool [width, width]; padding attends to itself, lest its softmax be empty."""
    mask = np.eye(width, dtype=bool)
    for place, parent in enumerate(parents):
        if parent >= 0:
            mask[place, : parent + 1] = mask[parent, : parent + 1]
    return mask
