"""Decoders: a batch of sequences and their KV cache, one token at a time. Two of them, behind one protocol.

`CachedDecoder` is transformers' own forward with its dynamic cache: any model, any device, but a batch is not joined
midway. `SmallDecoder` is for models of a few million parameters on a CPU, where transformers spends its time between
the operations and on growing the cache: a hand-written forward of Qwen2 and Llama over a cache that is allocated ahead,
which sequences join and leave at any token.

Shapes: B sequences, P prompts, T positions, H heads, D values a head, V words.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.nn import functional

from services.policy.engines.base import Tokens

SMALL_PARAMETERS = 40_000_000
"""Above this a forward spends its time in the matrices, not between them, and nothing is gained."""
PREFILL_TOKENS = 8192
"""Prompt tokens, padding too, that go through the layers at once: a bound for the memory of activations."""
GROWTH = 64
"""Positions by which the cache grows."""
KEPT_BYTES = 2**28
"""A larger cache is freed when the batch is empty."""


class Decoder(Protocol):
    """Sequences are rows of a batch, in the order in which they were added."""

    joins: bool
    """Whether sequences may be added to a batch that is under way."""

    @abstractmethod
    def add(self, prompts: Sequence[Tokens]) -> torch.Tensor:
        """Append sequences; logits of their first tokens [B, V], fp32. Equal prompts are computed once."""

    @abstractmethod
    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """Take the next token of every sequence [B]; logits of the tokens after them [B, V], fp32."""

    @abstractmethod
    def keep(self, rows: Sequence[int]) -> None:
        """Keep these sequences alone, in this order; see `order_without`."""


def order_without(gone: Sequence[int], count: int) -> list[int]:
    """An order of those of `count` rows that stay: the last ones move into the gaps, so that few have to be copied."""
    left = count - len(gone)
    away = set(gone)
    last = (row for row in range(left, count) if row not in away)
    return [next(last) if row in away else row for row in range(left)]


def _distinct(prompts: Sequence[Tokens]) -> tuple[list[tuple[int, ...]], list[int]]:
    """The different prompts, and for each prompt its number among them."""
    keys = [tuple(prompt) for prompt in prompts]
    distinct = list(dict.fromkeys(keys))
    number_of = {prompt: number for number, prompt in enumerate(distinct)}
    return distinct, [number_of[key] for key in keys]


class CachedDecoder:
    """transformers' forward; prompts are padded on the left."""

    joins = False

    def __init__(self, model: Any, device: str) -> None:
        self._model = model
        self._device = device
        self._cache: Any = None
        self._mask = torch.empty(0)
        self._position = torch.empty(0)

    def add(self, prompts: Sequence[Tokens]) -> torch.Tensor:
        distinct, numbers = _distinct(prompts)
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

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
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


@dataclass(frozen=True)
class _Linear:
    """One or several linear maps of the same input, as one matrix."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    @classmethod
    def of(cls, *modules: Any) -> "_Linear":
        biases = [module.bias for module in modules if module.bias is not None]
        return cls(
            torch.cat([module.weight for module in modules]).contiguous(),
            torch.cat(biases) if biases else None,
        )

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.weight, self.bias)


@dataclass(frozen=True)
class _Layer:
    """One layer's weights; the two `before_` are those of its norms."""

    before_attention: torch.Tensor
    attention_in: _Linear
    """Queries, keys and values."""
    attention_out: _Linear
    before_mlp: torch.Tensor
    mlp_in: _Linear
    """Gate and values."""
    mlp_out: _Linear


Attend = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class SmallDecoder:
    """Qwen2 and Llama with full attention, on the CPU. Row b of the cache is sequence b; prompts start at position 0."""

    joins = True

    def __init__(self, model: Any, max_model_len: int) -> None:
        config = model.config
        attention = model.model.layers[0].self_attn
        self._head = int(attention.head_dim)
        self._heads = int(config.num_attention_heads)
        self._kv_heads = int(config.num_key_value_heads)
        self._scale = float(attention.scaling)
        self._epsilon = float(config.rms_norm_eps)
        self._embedding: torch.Tensor = model.model.embed_tokens.weight
        self._layers = [
            _Layer(
                layer.input_layernorm.weight,
                _Linear.of(layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj),
                _Linear.of(layer.self_attn.o_proj),
                layer.post_attention_layernorm.weight,
                _Linear.of(layer.mlp.gate_proj, layer.mlp.up_proj),
                _Linear.of(layer.mlp.down_proj),
            )
            for layer in model.model.layers
        ]
        self._last_norm: torch.Tensor = model.model.norm.weight
        self._words = _Linear.of(model.lm_head)
        cos, sin = model.model.rotary_emb(self._embedding, torch.arange(max_model_len).unsqueeze(0))
        # The first half of the sines is negative: the halves of a head need only change places then.
        half = self._head // 2
        self._cos, self._sin = cos[0], torch.cat([-sin[0, :, :half], sin[0, :, half:]], dim=-1)
        # Layers, keys and values, B, H, T, D.
        self._cache = self._embedding.new_zeros((len(self._layers), 2, 0, self._kv_heads, 0, self._head))
        self._lengths = torch.empty(0, dtype=torch.long)

    @staticmethod
    def fits(model: Any, device: str) -> bool:
        """Whether this forward is the model's own, and pays."""
        config = model.config
        rope = getattr(config, "rope_parameters", None) or {}
        return (
            device == "cpu"
            and type(model).__name__ in ("Qwen2ForCausalLM", "LlamaForCausalLM")
            and sum(weight.numel() for weight in model.parameters()) <= SMALL_PARAMETERS
            and config.hidden_act == "silu"
            and set(getattr(config, "layer_types", None) or ["full_attention"]) == {"full_attention"}
            # The others change with the length of the sequence.
            and rope.get("rope_type", "default") in ("default", "linear", "llama3")
        )

    def add(self, prompts: Sequence[Tokens]) -> torch.Tensor:
        distinct, numbers = _distinct(prompts)
        old, lengths = len(self._lengths), torch.tensor([len(prompt) for prompt in prompts])
        self._reserve(old + len(prompts), int(lengths.max()) + 1)
        self._lengths = torch.cat([self._lengths, lengths])
        rows_of: list[list[int]] = [[] for _ in distinct]
        for row, number in enumerate(numbers):
            rows_of[number].append(row)
        logits = self._embedding.new_empty((len(prompts), self._words.weight.shape[0]), dtype=torch.float32)
        for part in _parts(distinct):
            found, cache = self._prefill([distinct[number] for number in part])
            rows = torch.tensor([row for number in part for row in rows_of[number]])
            source = torch.tensor([at for at, number in enumerate(part) for _ in rows_of[number]])
            self._cache[:, :, old + rows, :, : cache.shape[4]] = cache[:, :, source]
            logits[rows] = found[source]
        return logits

    def _prefill(self, prompts: list[tuple[int, ...]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits after each prompt [P, V], fp32, and the cache [layers, 2, P, H, T, D]; prompts are padded on the right."""
        count, width = len(prompts), max(map(len, prompts))
        ids = torch.zeros((count, width), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = torch.tensor(prompt)
        cache = self._cache.new_empty((len(self._layers), 2, count, self._kv_heads, width, self._head))

        def attend(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            q, k, v = (each.view(count, width, -1, self._head).transpose(1, 2) for each in (q, k, v))
            cache[layer, 0], cache[layer, 1] = k, v
            # What is padded comes after every token that counts.
            done = functional.scaled_dot_product_attention(
                q, k, v, is_causal=True, scale=self._scale, enable_gqa=True
            )
            return done.transpose(1, 2).reshape(count * width, -1)

        x = self._forward(ids.flatten(), torch.arange(width).repeat(count), attend)
        ends = torch.tensor([row * width + len(prompt) - 1 for row, prompt in enumerate(prompts)])
        return self._logits(x[ends]), cache

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        count, positions = len(tokens), self._lengths
        width = int(positions.max()) + 1
        self._reserve(count, width)
        rows = torch.arange(count)
        bias = self._embedding.new_zeros((count, width))
        bias.masked_fill_(torch.arange(width) > positions.unsqueeze(1), -torch.inf)
        bias = bias.view(count, 1, 1, width)

        def attend(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            keys, values = self._cache[layer, 0], self._cache[layer, 1]
            keys[rows, :, positions], values[rows, :, positions] = k, v
            keys, values = keys[:count, :, :width], values[:count, :, :width]
            # Plain products: for one query a head they are up to twice as fast as the fused attention in bf16.
            q = (q * self._scale).view(count, self._kv_heads, -1, self._head)
            weights = (torch.matmul(q, keys.transpose(-1, -2)) + bias).softmax(dim=-1)
            return torch.matmul(weights, values).view(count, -1)

        x = self._forward(tokens, positions, attend)
        self._lengths = positions + 1
        return self._logits(x)

    def keep(self, rows: Sequence[int]) -> None:
        moved = [(to, row) for to, row in enumerate(rows) if to != row]
        if moved:
            to, source = (torch.tensor(side) for side in zip(*moved, strict=True))
            width = int(self._lengths.max())
            self._cache[:, :, to, :, :width] = self._cache[:, :, source, :, :width]
        self._lengths = self._lengths[torch.tensor(rows, dtype=torch.long)]
        if not rows and self._cache.nbytes > KEPT_BYTES:
            self._cache = self._cache.new_zeros((*self._cache.shape[:2], 0, self._kv_heads, 0, self._head))

    def _reserve(self, rows: int, width: int) -> None:
        """Room for so many rows and positions. What is new is zero: a masked position must not be NaN."""
        old_rows, old_width = self._cache.shape[2], self._cache.shape[4]
        if rows <= old_rows and width <= old_width:
            return
        rows = max(old_rows, rows if rows <= old_rows else 2 ** (rows - 1).bit_length())
        width = max(old_width, -(-width // GROWTH) * GROWTH)
        old = self._cache
        self._cache = old.new_zeros((*old.shape[:2], rows, self._kv_heads, width, self._head))
        self._cache[:, :, :old_rows, :, :old_width] = old

    def _forward(self, tokens: torch.Tensor, positions: torch.Tensor, attend: Attend) -> torch.Tensor:
        """The last layer's output for tokens at positions, each [N]: [N, hidden]."""
        x = self._embedding[tokens]
        cos, sin = self._cos[positions].unsqueeze(1), self._sin[positions].unsqueeze(1)
        half, turned = self._head // 2, self._heads + self._kv_heads
        for number, layer in enumerate(self._layers):
            heads = layer.attention_in(self._norm(x, layer.before_attention)).view(
                len(tokens), -1, self._head
            )
            qk = heads[:, :turned]
            qk = qk * cos + torch.cat([qk[..., half:], qk[..., :half]], dim=-1) * sin
            x = x + layer.attention_out(
                attend(number, qk[:, : self._heads], qk[:, self._heads :], heads[:, turned:])
            )
            gate, value = layer.mlp_in(self._norm(x, layer.before_mlp)).chunk(2, dim=-1)
            x = x + layer.mlp_out(functional.silu(gate) * value)
        return x

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        return self._words(self._norm(x, self._last_norm)).float()

    def _norm(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return functional.rms_norm(x, weight.shape, weight, self._epsilon)


def _parts(prompts: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Numbers of prompts that go through the layers together: of like length, padded to PREFILL_TOKENS at most."""
    part: list[int] = []
    for number in sorted(range(len(prompts)), key=lambda number: len(prompts[number])):
        if part and (len(part) + 1) * len(prompts[number]) > PREFILL_TOKENS:
            yield part
            part = []
        part.append(number)
    yield part
