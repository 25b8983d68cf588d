"""A decoder whose cache is allocated ahead: sequences join and leave a batch at any token. A forward of Qwen2 and Llama.

Two kinds of models want it. One of a few million parameters on a CPU: transformers spends its time between the operations
there, and on growing the cache. And any on CUDA without vLLM, where a batch that nobody can join leaves the device idle, and
launching the operations one by one takes longer than they do: there a step is recorded once for each size, and replayed
(`step_graphs`).

Shapes: B sequences, P prompts, T positions, H heads, D values a head, V words, N tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from services.policy.engines.base import Tokens
from services.policy.engines.decoders import distinct_of, together
from services.policy.engines.drawing import Drawn, Rows, draw_rows
from services.policy.engines.step_graphs import StepGraphs

SMALL_PARAMETERS = 40_000_000
"""Above this a forward on a CPU spends its time in the matrices, not between them, and nothing is gained."""
KEPT_BYTES = 2**28
"""A larger cache is freed when the batch is empty; on a CPU, whose memory others want."""


@dataclass(frozen=True)
class _Limits:
    """What differs between devices."""

    join_every: int
    """Tokens between admissions to a running batch. A prefill costs about as much as one to three tokens of the whole batch, be
    it for one prompt or for ten."""
    prefill_tokens: int
    """Prompt tokens, padding too, that go through the layers at once: a bound for the memory of activations."""
    growth: int
    """Positions by which the cache grows; on CUDA all that was recorded is lost then."""


CPU = _Limits(join_every=4, prefill_tokens=8192, growth=64)
CUDA = _Limits(join_every=16, prefill_tokens=32_768, growth=512)


@dataclass(frozen=True)
class _Linear:
    """One or several linear maps of the same input, as one matrix."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    @classmethod
    def of(cls, *modules: Any) -> "_Linear":
        biases = [module.bias for module in modules if module.bias is not None]
        weight = torch.cat([module.weight for module in modules]).contiguous()
        # The model reads through it, too: nothing is there twice.
        for module, part in zip(
            modules, torch.split(weight, [len(each.weight) for each in modules]), strict=True
        ):
            module.weight.data = part
        return cls(weight, torch.cat(biases) if biases else None)

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


class SlotDecoder:
    """Row b of the cache is sequence b; prompts start at position 0. On CUDA it is made for one thread."""

    def __init__(
        self, model: Any, max_model_len: int, max_rows: int, device: str = "cpu", *, recorded: bool = True
    ) -> None:
        """`max_rows`: the most sequences at once; where steps are recorded their rows are allocated at the first.

        `recorded`: on CUDA; without it operations are launched one by one, for comparisons.
        """
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
        self._device = device
        self._limits = CPU if device == "cpu" else CUDA
        self._max_rows = max_rows
        self._graphs = StepGraphs(max_rows) if device == "cuda" and recorded else None
        cos, sin = model.model.rotary_emb(
            self._embedding, torch.arange(max_model_len, device=device).unsqueeze(0)
        )
        # The first half of the sines is negative: the halves of a head need only change places then.
        half = self._head // 2
        self._cos, self._sin = cos[0], torch.cat([-sin[0, :, :half], sin[0, :, half:]], dim=-1)
        # Layers, keys and values, B, H, T, D.
        self._cache = self._embedding.new_zeros((len(self._layers), 2, 0, self._kv_heads, 0, self._head))
        self._lengths = torch.empty(0, dtype=torch.long)
        """[B], on the CPU: what decides about sizes must not wait for the device."""

    @property
    def join_every(self) -> int:
        return self._limits.join_every

    @staticmethod
    def fits(model: Any, device: str) -> bool:
        """Whether this forward is the model's own, and pays."""
        config = model.config
        rope = getattr(config, "rope_parameters", None) or {}
        return (
            type(model).__name__ in ("Qwen2ForCausalLM", "LlamaForCausalLM")
            and (device == "cuda" or sum(weight.numel() for weight in model.parameters()) <= SMALL_PARAMETERS)
            and config.hidden_act == "silu"
            and set(getattr(config, "layer_types", None) or ["full_attention"]) == {"full_attention"}
            # The others change with the length of the sequence.
            and rope.get("rope_type", "default") in ("default", "linear", "llama3")
        )

    def add(self, prompts: Sequence[Tokens]) -> torch.Tensor:
        distinct, numbers = distinct_of(prompts)
        old, lengths = len(self._lengths), torch.tensor([len(prompt) for prompt in prompts])
        self._reserve(old + len(prompts), int(lengths.max()) + 1)
        self._lengths = torch.cat([self._lengths, lengths])
        rows_of: list[list[int]] = [[] for _ in distinct]
        for row, number in enumerate(numbers):
            rows_of[number].append(row)
        logits = self._embedding.new_empty((len(prompts), self._words.weight.shape[0]), dtype=torch.float32)
        for part in together(list(map(len, distinct)), self._limits.prefill_tokens):
            found, cache = self._prefill([distinct[number] for number in part])
            rows = self._here([row for number in part for row in rows_of[number]])
            source = self._here([at for at, number in enumerate(part) for _ in rows_of[number]])
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

        positions = torch.arange(width, device=self._device).repeat(count)
        x = self._forward(ids.flatten().to(self._device), positions, attend)
        ends = self._here([row * width + len(prompt) - 1 for row, prompt in enumerate(prompts)])
        return self._logits(x[ends]), cache

    def next(self, tokens: torch.Tensor, rows: Rows) -> Drawn:
        if self._graphs is None:
            return draw_rows(self.step(tokens), rows)
        positions, width = self._take(tokens)
        return self._graphs.replay(self._step, tokens, positions, rows, width, self._cache.shape[4])

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits after these tokens [B, V], fp32."""
        positions, width = self._take(tokens)
        return self._step(tokens.to(self._device), positions.to(self._device), width)

    def _take(self, tokens: torch.Tensor) -> tuple[torch.Tensor, int]:
        """Make room for a token of each sequence: their positions [B], and up to where is looked at."""
        positions = self._lengths
        width = int(positions.max()) + 1
        self._reserve(len(tokens), width)
        self._lengths = positions + 1
        return positions, width

    def _step(self, tokens: torch.Tensor, positions: torch.Tensor, width: int) -> torch.Tensor:
        """Logits after tokens [B] at positions [B] of the first B rows, of which `width` positions are looked at."""
        count = len(tokens)
        rows = torch.arange(count, device=self._device)
        bias = self._embedding.new_zeros((count, width))
        bias.masked_fill_(torch.arange(width, device=self._device) > positions.unsqueeze(1), -torch.inf)
        bias = bias.view(count, 1, 1, width)

        def attend(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            keys, values = self._cache[layer, 0], self._cache[layer, 1]
            keys[rows, :, positions], values[rows, :, positions] = k, v
            keys, values = keys[:count, :, :width], values[:count, :, :width]
            # Plain products: for one query a head they are up to twice as fast as the fused attention in bf16.
            q = (q * self._scale).view(count, self._kv_heads, -1, self._head)
            weights = (torch.matmul(q, keys.transpose(-1, -2)) + bias).softmax(dim=-1)
            return torch.matmul(weights, values).view(count, -1)

        return self._logits(self._forward(tokens, positions, attend))

    def keep(self, rows: Sequence[int]) -> None:
        moved = [(to, row) for to, row in enumerate(rows) if to != row]
        if moved:
            to, source = (self._here(side) for side in zip(*moved, strict=True))
            width = int(self._lengths.max())
            self._cache[:, :, to, :, :width] = self._cache[:, :, source, :, :width]
        self._lengths = self._lengths[torch.tensor(rows, dtype=torch.long)]
        if not rows and self._graphs is None and self._cache.nbytes > KEPT_BYTES:
            self._cache = self._cache.new_zeros((*self._cache.shape[:2], 0, self._kv_heads, 0, self._head))

    def _reserve(self, rows: int, width: int) -> None:
        """Room for so many rows and positions. What is new is zero: a masked position must not be NaN."""
        old_rows, old_width = self._cache.shape[2], self._cache.shape[4]
        if rows <= old_rows and width <= old_width:
            return
        if self._graphs is None:
            rows = max(old_rows, rows if rows <= old_rows else 2 ** (rows - 1).bit_length())
        else:
            rows = max(old_rows, rows, self._max_rows)
            self._graphs.forget()
        width = max(old_width, -(-width // self._limits.growth) * self._limits.growth)
        old = self._cache
        self._cache = old.new_zeros((*old.shape[:2], rows, self._kv_heads, width, self._head))
        self._cache[:, :, :old_rows, :, :old_width] = old

    def _here(self, numbers: Sequence[int]) -> torch.Tensor:
        return torch.tensor(numbers, dtype=torch.long, device=self._device)

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
