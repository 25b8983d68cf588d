"""Batches for fine-tuning: rows of several examples each, in which what they have in common is read once.

Programs of one problem share its prompt, and all prompts of a chat model share their instructions. A row is a trie of tokens
(`token_trie`): each token sees its own example alone, and is at the position that it has there.

Rows are as long as the longest example of their optimizer step, at least 256, and longer where all begin alike. Measured with
0.9 M parameters on one CPU core, steps of 1024 tokens, examples of about 95: rows of 192 to 256 gave 9.2k tokens/s in fp32,
one row of 1024 gave 5.2k (attention over what is masked), one example a row 7.5k (padding).

Limits: the attention must be one that takes a boolean mask (sdpa); a state-space model would mix the examples.
"""

import random
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from services.trainer.training.token_trie import TokenTrie, ancestor_mask

LEAST_ROW = 256
COMMON_SHARE = 8
"""A row is so many times as long as the beginning that all examples share, which then costs an eighth of it at most."""


@dataclass(frozen=True, slots=True)
class Example:
    """Tokens of a prompt and its completion. The first `prompt` of them (one at least) carry no loss, the others `weight` each.

    Those of one problem have the same number `problem`.
    """

    ids: list[int]
    prompt: int
    weight: float = 1.0
    problem: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def loss_weight(self) -> float:
        """Of all its tokens together."""
        return self.weight * (len(self.ids) - self.prompt)


Row = list[Example]


@dataclass(frozen=True, slots=True)
class Batch:
    """One forward pass over R rows of T tokens, and its N targets: tokens that are to follow on a place of a row."""

    ids: Tensor
    """int64 [R, T]"""
    positions: Tensor
    """int64 [R, T]"""
    mask: Tensor
    """bool [R, 1, T, T]: whom each token attends to."""
    kept: Tensor
    """int64 [K]: the columns that have targets. Logits, the largest tensor of a large vocabulary, are taken there alone."""
    targets: Tensor
    """int64 [4, N]: row, number in `kept`, token that follows, number of the problem."""
    weights: Tensor
    """fp32 [N]"""

    def to(self, device: torch.device) -> "Batch":
        parts = (self.ids, self.positions, self.mask, self.kept, self.targets, self.weights)
        return Batch(*(each.to(device) for each in parts))


def by_problem(examples: Sequence[Example]) -> list[list[Example]]:
    """The examples of each problem, problems in the order in which they come first."""
    found: dict[int, list[Example]] = {}
    for each in examples:
        found.setdefault(each.problem, []).append(each)
    return list(found.values())


def optimizer_steps(lengths: Sequence[int], *, batch_tokens: int, epochs: int, seed: int) -> list[list[int]]:
    """Indices of the problems of every step, epoch by epoch, each once an epoch and in a new order.

    `lengths` are the tokens of each problem's examples, those that are shared counted with every example. Steps are alike in
    size, as a small last one would move the weights as far as the others: each epoch has the fewest steps that hold
    `batch_tokens` on average, and one step may exceed that by less than a problem.
    """
    total = sum(lengths)
    count = -(-total // batch_tokens)
    steps: list[list[int]] = []
    for epoch in range(epochs):
        order = list(range(len(lengths)))
        random.Random(f"{seed}/{epoch}").shuffle(order)  # noqa: S311
        epoch_steps: list[list[int]] = [[] for _ in range(count)]
        before = 0
        for index in order:
            epoch_steps[before * count // total].append(index)
            before += lengths[index]
        steps += [step for step in epoch_steps if step]
    return steps


def forward_passes(examples: Sequence[Example], micro_tokens: int) -> list[list[Row]]:
    """The rows of each forward pass of one step: at most `micro_tokens` with padding, or a single row.

    Rows are filled best fit, the longest first, problem by problem; rows of like length go together.
    """
    common = _common_beginning(examples)
    room = max(*map(len, examples), min(micro_tokens, max(LEAST_ROW, COMMON_SHARE * common)))
    parts = [part for group in by_problem(examples) for part in _parts(group, room)]
    # An upper bound of each row's length: `common` is counted once, and what else two problems share twice.
    sizes: list[int] = []
    rows: list[Row] = []
    free: list[tuple[int, int]] = []
    for size, part in sorted(parts, key=lambda each: each[0], reverse=True):
        more = size - common
        at = bisect_left(free, (more, -1))
        if at < len(free):
            space, row = free.pop(at)
            rows[row] += part
            sizes[row] += more
        else:
            space, row = room - common, len(rows)
            rows.append(list(part))
            sizes.append(size)
        insort(free, (space - more, row))
    order = sorted(range(len(rows)), key=lambda row: -sizes[row])
    passes: list[list[Row]] = []
    while order:
        count = max(1, micro_tokens // sizes[order[0]])
        passes.append([rows[row] for row in order[:count]])
        order = order[count:]
    return passes


def _common_beginning(examples: Sequence[Example]) -> int:
    """With how many tokens all of them begin alike."""
    # What the first and the last in order share is shared by all between them.
    first, last = min(each.ids for each in examples), max(each.ids for each in examples)
    pairs = enumerate(zip(first, last, strict=False))
    return next((place for place, (one, other) in pairs if one != other), len(first))


def _parts(group: Sequence[Example], room: int) -> list[tuple[int, Row]]:
    """The examples in parts that fit into `room` tokens, and how many each takes."""
    parts: list[tuple[int, Row]] = []
    trie = TokenTrie()
    for each in group:
        if not parts or len(trie) + trie.missing(each.ids) > room:
            trie = TokenTrie()
            parts.append((0, []))
        trie.add(each.ids)
        parts[-1][1].append(each)
        parts[-1] = len(trie), parts[-1][1]
    return parts


def collate(rows: Sequence[Row]) -> Batch:
    """Tensors of a forward pass."""
    tries = [TokenTrie() for _ in rows]
    found: list[tuple[int, int, int, int]] = []
    weights: list[float] = []
    for number, (row, trie) in enumerate(zip(rows, tries, strict=True)):
        for example in row:
            places = trie.add(example.ids)
            for at in range(example.prompt, len(example)):
                found.append((number, places[at - 1], example.ids[at], example.problem))
                weights.append(example.weight)
    width = max(map(len, tries))
    ids, positions = np.zeros((2, len(rows), width), dtype=np.int64)
    for number, trie in enumerate(tries):
        ids[number, : len(trie)] = trie.tokens
        positions[number, : len(trie)] = trie.positions
    mask = np.stack([ancestor_mask(trie.parents, width) for trie in tries])
    targets = np.array(found, dtype=np.int64).reshape(-1, 4).T
    kept, targets[1] = np.unique(targets[1], return_inverse=True)
    return Batch(
        torch.from_numpy(ids),
        torch.from_numpy(positions),
        torch.from_numpy(mask).unsqueeze(1),
        torch.from_numpy(kept),
        torch.from_numpy(targets),
        torch.tensor(weights, dtype=torch.float32),
    )
