"""A decoder's step on CUDA, recorded once for each size and replayed: a launch instead of some hundreds.

A recording holds for the addresses that it has seen: who moves the cache has to `forget`. Sizes are rounded up, so that
there are few: rows that nobody has write to places that the next sequence overwrites.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

WIDTH_STEP = 256
"""Positions to which a recording's width is rounded up."""
LEAST_ROWS = 16

Step = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]
"""Tokens [B] and positions [B], both int64 on the device, and how many positions are looked at; logits [B, V]."""


@dataclass(frozen=True)
class _Inputs:
    """Where a recording reads."""

    tokens: torch.Tensor
    positions: torch.Tensor

    @classmethod
    def of(cls, rows: int) -> "_Inputs":
        return cls(*torch.zeros((2, rows), dtype=torch.long, device="cuda"))

    def fill(self, tokens: torch.Tensor, positions: torch.Tensor) -> None:
        """For fewer sequences than rows: those without one write to the first place of a row that nobody has."""
        count = len(tokens)
        self.tokens[:count].copy_(tokens)
        self.positions[:count].copy_(positions)
        self.positions[count:].zero_()


@dataclass(frozen=True)
class _Recorded:
    graph: torch.cuda.CUDAGraph
    inputs: _Inputs
    logits: torch.Tensor


class StepGraphs:
    """The recordings of one decoder. For one thread."""

    def __init__(self, step: Step, max_rows: int) -> None:
        self._step = step
        self._max_rows = max_rows
        self._recorded: dict[tuple[int, int], _Recorded] = {}
        self._pool: Any = None

    def forget(self) -> None:
        """The cache has moved."""
        self._recorded.clear()
        self._pool = None

    def replay(
        self, tokens: torch.Tensor, positions: torch.Tensor, width: int, cache_width: int
    ) -> torch.Tensor:
        """Logits [B, V] after tokens [B] at positions [B], both on the CPU. They hold until the next replay."""
        count = len(tokens)
        rows = rows_for(count, self._max_rows)
        width = min(cache_width, -(-width // WIDTH_STEP) * WIDTH_STEP)
        known = self._recorded.get((rows, width))
        inputs = _Inputs.of(rows) if known is None else known.inputs
        inputs.fill(tokens, positions)
        if known is None:
            known = self._recorded[rows, width] = self._record(inputs, width)
        known.graph.replay()
        return known.logits[:count]

    def _record(self, inputs: _Inputs, width: int) -> _Recorded:
        # What a library sets up at its first call must not be recorded. With the true tokens it writes into the cache what
        # the replay writes there.
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            self._step(inputs.tokens, inputs.positions, width)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # Other threads go on using the device: engines beside this one, and whoever reads likelihoods.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            logits = self._step(inputs.tokens, inputs.positions, width)
        self._pool = self._pool or graph.pool()
        return _Recorded(graph, inputs, logits)


def rows_for(count: int, most: int) -> int:
    """The recorded size for so many sequences: powers of two, and one and a half times these."""
    size = LEAST_ROWS
    while size < count:
        size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    return min(size, max(most, count))
