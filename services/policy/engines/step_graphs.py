"""A decoder's step on CUDA and the draw after it, recorded once for each size and replayed: a launch instead of some hundreds.

A recording holds for the addresses that it has seen: who moves the cache has to `forget`. Sizes are rounded up, so that
there are few: rows that nobody has write to places that the next sequence overwrites.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from services.policy.engines.drawing import Drawn, Rows, draw_rows, logprobs_of, numbers_of
from services.policy.engines.nucleus import draw_at_once

WIDTH_STEP = 256
"""Positions to which a recording's width is rounded up."""
LEAST_ROWS = 16

Step = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]
"""Tokens [B] and positions [B], both int64 on the device, and how many positions are looked at; logits [B, V]."""


@dataclass(frozen=True)
class _Inputs:
    """Where a recording reads."""

    places: torch.Tensor
    """int64 [2, B]: tokens and positions."""
    sampling: torch.Tensor
    """fp64 [3, B]: temperature, top-p, random number."""

    @classmethod
    def of(cls, rows: int) -> "_Inputs":
        return cls(
            torch.zeros((2, rows), dtype=torch.long, device="cuda"),
            torch.zeros((3, rows), dtype=torch.float64, device="cuda"),
        )

    def fill(self, tokens: torch.Tensor, positions: torch.Tensor, rows: Rows) -> None:
        """For fewer sequences than rows: those without one write to the first place of a row that nobody has."""
        places = torch.zeros(self.places.shape, dtype=torch.long)
        places[0, : len(tokens)], places[1, : len(tokens)] = tokens, positions
        self.places.copy_(places)
        sampling = torch.zeros(self.sampling.shape, dtype=torch.float64)
        sampling[0, : len(rows)] = torch.from_numpy(rows["temperature"].copy())
        sampling[1, : len(rows)] = torch.from_numpy(rows["top_p"].copy())
        sampling[2, : len(rows)] = numbers_of(rows)
        self.sampling.copy_(sampling)


@dataclass(frozen=True)
class _Recorded:
    graph: torch.cuda.CUDAGraph
    inputs: _Inputs
    logits: torch.Tensor
    drawn: torch.Tensor
    """fp64 [3, B]: the token, its log-probability, and 1 where it was drawn."""


class StepGraphs:
    """The recordings of one decoder. For one thread.

    Does not keep the decoder's step: the two would keep each other, and the device's memory with them.
    """

    def __init__(self, max_rows: int) -> None:
        self._max_rows = max_rows
        self._recorded: dict[tuple[int, int], _Recorded] = {}
        self._pool: Any = None

    def forget(self) -> None:
        """The cache has moved."""
        self._recorded.clear()
        self._pool = None

    def replay(
        self,
        step: Step,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        rows: Rows,
        width: int,
        cache_width: int,
    ) -> Drawn:
        """What is drawn after tokens [B] at positions [B], both on the CPU. `step` is the same every time."""
        count = len(tokens)
        size = rows_for(count, self._max_rows), min(cache_width, -(-width // WIDTH_STEP) * WIDTH_STEP)
        known = self._recorded.get(size)
        inputs = _Inputs.of(size[0]) if known is None else known.inputs
        inputs.fill(tokens, positions, rows)
        if known is None:
            known = self._recorded[size] = _record(step, inputs, size[1], self._pool)
            self._pool = self._pool or known.graph.pool()
        known.graph.replay()
        found = known.drawn[:, :count].cpu()
        chosen, logprobs = found[0].long(), found[1].float()
        left = torch.nonzero(found[2] == 0).flatten()
        if len(left):
            chosen[left], logprobs[left] = draw_rows(known.logits[left.to("cuda")], rows[left.numpy()])
        return chosen, logprobs


def _record(step: Step, inputs: _Inputs, width: int, pool: Any) -> _Recorded:
    # What a library sets up at its first call must not be recorded. With the true tokens it writes into the cache what
    # the replay writes there.
    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        _step_and_draw(step, inputs, width)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    # Other threads go on using the device: engines beside this one, and whoever reads likelihoods.
    with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
        logits, drawn = _step_and_draw(step, inputs, width)
    return _Recorded(graph, inputs, logits, drawn)


def _step_and_draw(step: Step, inputs: _Inputs, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    tokens, positions = inputs.places.unbind()
    logits = step(tokens, positions, width)
    temperature, top_p, numbers = inputs.sampling.unbind()
    drawn, known = draw_at_once(logits, top_p.float(), numbers, temperature.float())
    found = logprobs_of(logits, drawn)
    return logits, torch.stack([drawn.double(), found.double(), known.double()])


def rows_for(count: int, most: int) -> int:
    """The recorded size for so many sequences: powers of two, and one and a half times these."""
    size = LEAST_ROWS
    while size < count:
        size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    return min(size, max(most, count))
