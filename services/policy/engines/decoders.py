"""Decoders: a batch of sequences and their KV cache, one token at a time. Two of them, behind one protocol.

`CachedDecoder` is transformers' own forward with its dynamic cache: any model, any device, but a batch is not joined
midway. `SlotDecoder` (slot_decoder.py) has a cache that is allocated ahead, which sequences join and leave at any token.

Shapes: B sequences, V words.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch

from services.policy.engines.base import Tokens
from services.policy.engines.drawing import Drawn, Rows, draw_rows


class Decoder(Protocol):
    """Sequences are rows of a batch, in the order in which they were added."""

    @property
    def join_every(self) -> int | None:
        """Sequences may be added to a batch that is under way, and it pays to do so after this many tokens; None: no."""

    @abstractmethod
    def add(self, prompts: Sequence[Tokens]) -> torch.Tensor:
        """Append sequences; logits of their first tokens [B, V], fp32. Equal prompts are computed once."""

    @abstractmethod
    def next(self, tokens: torch.Tensor, rows: Rows) -> Drawn:
        """Take the next token of every sequence [B], and draw those after them by `rows`."""

    @abstractmethod
    def keep(self, rows: Sequence[int]) -> None:
        """Keep these sequences alone, in this order; see `order_without`."""


def order_without(gone: Sequence[int], count: int) -> list[int]:
    """An order of those of `count` rows that stay: the last ones move into the gaps, so that few have to be copied."""
    left = count - len(gone)
    away = set(gone)
    last = (row for row in range(left, count) if row not in away)
    return [next(last) if row in away else row for row in range(left)]


def distinct_of(prompts: Sequence[Tokens]) -> tuple[list[tuple[int, ...]], list[int]]:
    """The different prompts, and for each prompt its number among them."""
    keys = [tuple(prompt) for prompt in prompts]
    distinct = list(dict.fromkeys(keys))
    number_of = {prompt: number for number, prompt in enumerate(distinct)}
    return distinct, [number_of[key] for key in keys]


def together(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Numbers of texts that go through the layers together: of like length, the longest last, padded to `most` tokens."""
    part: list[int] = []
    for number in sorted(range(len(lengths)), key=lengths.__getitem__):
        if part and (len(part) + 1) * lengths[number] > most:
            yield part
            part = []
        part.append(number)
    if part:
        yield part


class CachedDecoder:
    """transformers' forward; prompts are padded on the left."""

    join_every: int | None = None

    def __init__(self, model: Any, device: str) -> None:
        self._model = model
        self._device = device
        self._cache: Any = None
        self._mask = torch.empty(0)
        self._position = torch.empty(0)

    def add(self, prompts: Sequence[Tokens]) -> torch.Tensor:
        distinct, numbers = distinct_of(prompts)
        width = max(map(len, distinct))
        ids = torch.zeros((len(distinct), width), dtype=torch.long)
        mask = torch.zeros((len(distinct), width), dtype=torch.long)
        for row, prompt in enumerate(distinct):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        ids, mask = ids.to(self._device), mask.to(self._device)
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        out = self._model(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True, logits_to_keep=1
        )
        rows = torch.tensor(numbers, device=self._device)
        self._cache = out.past_key_values
        self._cache.batch_select_indices(rows)
        self._mask, self._position = mask[rows], positions[rows, -1:]
        logits: torch.Tensor = out.logits[:, -1].float()[rows]
        return logits

    def next(self, tokens: torch.Tensor, rows: Rows) -> Drawn:
        return draw_rows(self.step(tokens), rows)

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits after these tokens [B, V], fp32."""
        self._mask = torch.cat([self._mask, self._mask.new_ones((len(tokens), 1))], dim=1)
        self._position = self._position + 1
        out = self._model(
            input_ids=tokens.to(self._device).unsqueeze(1),
            attention_mask=self._mask,
            position_ids=self._position,
            past_key_values=self._cache,
            use_cache=True,
        )
        logits: torch.Tensor = out.logits[:, -1].float()
        return logits

    def keep(self, rows: Sequence[int]) -> None:
        if not rows:
            self._cache = None
            return
        index = torch.tensor(rows, device=self._device)
        self._cache.batch_select_indices(index)
        self._mask, self._position = self._mask[index], self._position[index]
