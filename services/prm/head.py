"""A trained PRM in this process: a token classifier on the policy's network, read at the end of each step.

Only steps whose score is not known are read. The keys and values of what was read before are kept, and trajectories are read
together, each behind its own prefix: a pass has the weights go through memory once for all of them. On a CPU, where a few
tokens cost as much as the weights take to be read, that is what a search by single steps spends its time on.

Limits: `logits` is meant for one thread. Reading behind a kept prefix is exact only for networks whose tokens attend to all
before them (no sliding window).
"""

import json
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ratchet.models.precision import serving_dtype
from ratchet.models.prm_head import HeadError, calibration_of, prm_text, tokens_at

KEPT_BYTES = 2**30
"""Keys and values of all kept prefixes together: 19,000 tokens of a 7B Qwen2, 87,000 of a 0.5B."""
SHARED_TOKENS = 64
"""A prefix that several trajectories share is read once, and kept, before them: if that saves so many tokens."""
BATCH_TOKENS = 16_384
"""Padded tokens of one pass, those of the prefixes among them."""

Tokens = tuple[int, ...]
Kept = torch.Tensor
"""Keys and values of a prefix: [2 x layers, heads, tokens, width of a head]."""


@dataclass(frozen=True)
class Question:
    """A trajectory as tokens, and where it is read."""

    tokens: Tokens
    reads: tuple[int, ...]
    """The tokens at which its unknown steps end."""
    bases: tuple[int, ...]
    """How many tokens come before each step up to the first unknown one, ascending."""


class TrainedHead:
    """A loaded PRM. `logits` is for one thread, `question` for any."""

    def __init__(self, checkpoint: Path, *, device: str | None = None, kept_bytes: int | None = None) -> None:
        """`device` None: CUDA where there is one; `kept_bytes` None: KEPT_BYTES. Raises HeadError."""
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            config = json.loads((checkpoint / "config.json").read_text())
            self.calibration = calibration_of(config)
        except (OSError, ValueError) as error:
            raise HeadError(f"{checkpoint} cannot be served as a PRM: {error}.") from error
        self._tokenizer, self._model = _load(checkpoint, self.device)
        self.parameters: int = sum(weight.numel() for weight in self._model.parameters())
        self.max_tokens: int = self._model.config.get_text_config().max_position_embeddings
        self._kept = _Prefixes(KEPT_BYTES if kept_bytes is None else kept_bytes)
        found = self.logits([self.question("1 + 1", ["print(2)"], known=0)])[0][0]
        if not torch.tensor(found).isfinite():
            raise HeadError(f"The PRM in {checkpoint} scores with {found}: its training went wrong.")

    def question(self, problem: str, steps: Sequence[str], *, known: int) -> Question:
        """What to ask of a trajectory whose first `known` steps have scores already. May be longer than `max_tokens`."""
        text, ends = prm_text(problem, steps)
        coded = self._tokenizer(text, return_offsets_mapping=True)
        token_ends = [end for _, end in coded["offset_mapping"]]
        reads = tokens_at([len(prm_text(problem, [])[0]), *ends], token_ends)
        return Question(
            tuple(coded["input_ids"][: reads[-1] + 1]),
            tuple(reads[1 + known :]),
            tuple(read + 1 for read in reads[: 1 + known]),
        )

    @torch.inference_mode()
    def logits(self, questions: Sequence[Question]) -> list[list[float]]:
        """For each question the logits of its unknown steps."""
        self._read([_Row(prefix, bases) for prefix, bases in self._worth_reading_first(questions)])
        rows = self._read([_Row(question.tokens, question.bases) for question in questions])
        return [
            [float(row[read - start]) for read in question.reads]
            for question, (start, row) in zip(questions, rows, strict=True)
        ]

    def _worth_reading_first(self, questions: Sequence[Question]) -> Iterator[tuple[Tokens, tuple[int, ...]]]:
        """Prefixes that are not kept, and that several questions share; with the bases of parts of them."""
        bases = {question.tokens[: question.bases[-1]]: question.bases for question in questions}
        counts = Counter(question.tokens[: question.bases[-1]] for question in questions)
        for prefix, count in counts.items():
            missing = len(prefix) - self._kept.longest(prefix, bases[prefix])
            if missing * (count - 1) >= SHARED_TOKENS and self._kept.limit and prefix not in self._kept:
                yield prefix, bases[prefix]

    def _read(self, rows: Sequence["_Row"]) -> list[tuple[int, torch.Tensor]]:
        """For each row the token from which on it was read, and the logits of the tokens from there on, fp32, on the CPU.

        What was read is kept.
        """
        found: dict[int, tuple[int, torch.Tensor]] = {}
        new = [len(row.tokens) - self._kept.longest(row.tokens, row.bases) for row in rows]
        # Rows of like length together: the others would only be padding.
        order = sorted(range(len(rows)), key=lambda number: new[number])
        for batch in _batches(order, [len(row.tokens) for row in rows]):
            chosen = [rows[number] for number in batch]
            # Looked up again: what an earlier pass has kept may have taken the place of a prefix.
            starts = [self._kept.longest(row.tokens, row.bases) for row in chosen]
            passed = self._pass(list(zip(chosen, starts, strict=True)))
            found |= dict(zip(batch, zip(starts, passed, strict=True), strict=True))
        return [found[number] for number in range(len(rows))]

    def _pass(self, rows: Sequence[tuple["_Row", int]]) -> list[torch.Tensor]:
        """One pass over rows, each of which is read from a token on behind what is kept of it."""
        before = max(start for _, start in rows)
        width = max(len(row.tokens) - start for row, start in rows)
        ids = torch.zeros((len(rows), width), dtype=torch.long)
        # Of a row's place in the batch: [padding, what is kept of it, what is read, padding].
        seen = torch.zeros((len(rows), before + width), dtype=torch.long)
        for number, (row, start) in enumerate(rows):
            new = row.tokens[start:]
            ids[number, : len(new)] = torch.tensor(new)
            seen[number, before - start : before + len(new)] = 1
        past = _cache([self._kept.get(row.tokens[:start]) for row, start in rows], before)
        out = self._model(
            input_ids=ids.to(self.device),
            # Without padding the plain causal mask will do, which is faster.
            attention_mask=None if bool(seen.all()) else seen.to(self.device),
            position_ids=(seen.cumsum(1) - 1).clamp(min=0)[:, before:].to(self.device),
            past_key_values=past,
            use_cache=True,
        )
        if self._kept.limit:
            read = torch.stack([part for layer in past.layers for part in (layer.keys, layer.values)])
            for number, (row, start) in enumerate(rows):
                self._kept.put(row, read[:, number, :, before - start : before - start + len(row.tokens)])
        logits = torch.as_tensor(out.logits[..., 0]).float().cpu()
        return [logits[number, : len(row.tokens) - start] for number, (row, start) in enumerate(rows)]


@dataclass(frozen=True, slots=True)
class _Row:
    """What is read in a pass: tokens, and after how many of them prefixes end that may be kept."""

    tokens: Tokens
    bases: tuple[int, ...]


class _Prefixes:
    """Keys and values of what was read; what was used longest ago goes first."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        """Bytes."""
        self._kept: OrderedDict[Tokens, Kept] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[Tokens]:
        """The one used last comes last."""
        return iter(self._kept)

    def longest(self, tokens: Tokens, bases: Sequence[int]) -> int:
        """How many of the tokens the longest kept part of them has that ends at one of the bases; 0: none is kept."""
        return next(
            (base for base in reversed(bases) if base < len(tokens) and tokens[:base] in self._kept), 0
        )

    def get(self, tokens: Tokens) -> Kept | None:
        """What is kept of a prefix; None of an empty one."""
        if not tokens:
            return None
        self._kept.move_to_end(tokens)
        return self._kept[tokens]

    def put(self, row: _Row, read: Kept) -> None:
        """Keep a whole row, from whose end a next step may be read, and its prefix, behind which others may be."""
        for end in (row.bases[-1], len(row.tokens)):
            tokens = row.tokens[:end]
            if tokens and tokens not in self._kept:
                self._kept[tokens] = read[:, :, :end].clone()
                self._bytes += self._kept[tokens].nbytes
        while self._bytes > self.limit and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes


def _cache(rows: Sequence[Kept | None], tokens: int) -> Any:
    """A cache that a pass may add to: what is kept of each row, behind padding up to so many tokens."""
    from transformers import DynamicCache

    cache = DynamicCache()
    known = next((kept for kept in rows if kept is not None), None)
    if known is not None:
        parts, heads, _, size = known.shape
        padded = known.new_zeros((parts, len(rows), heads, tokens, size))
        for number, kept in enumerate(rows):
            if kept is not None:
                padded[:, number, :, tokens - kept.shape[2] :] = kept
        for layer in range(parts // 2):
            cache.update(padded[2 * layer], padded[2 * layer + 1], layer)
    return cache


def _batches(numbers: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
    """Cut so that each batch, padded to its longest, has at most BATCH_TOKENS; one that is longer is a batch alone."""
    batches: list[list[int]] = []
    longest = 0
    for number in numbers:
        longest = max(longest, lengths[number])
        if not batches or longest * (len(batches[-1]) + 1) > BATCH_TOKENS:
            batches.append([])
            longest = lengths[number]
        batches[-1].append(number)
    return batches


def _load(checkpoint: Path, device: str) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoModelForTokenClassification, AutoTokenizer

    try:
        config = AutoConfig.from_pretrained(checkpoint, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
        model, report = AutoModelForTokenClassification.from_pretrained(
            checkpoint,
            dtype=serving_dtype(checkpoint, config.dtype, device),
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        first = str(error).strip().splitlines()
        raise HeadError(
            f"The model in {checkpoint} cannot be loaded: {first[0] if first else type(error).__name__}"
        ) from error
    if missing := sorted(report["missing_keys"]):
        # transformers would give them random values and say so in a warning.
        raise HeadError(f"{checkpoint} is not a whole PRM: {', '.join(missing[:3])} missing in its weights.")
    if model.num_labels != 1:
        raise HeadError(f"{checkpoint} has {model.num_labels} labels a token; a PRM has one.")
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise HeadError(f"The tokenizer in {checkpoint} has no tokenizer.json; save one there.")
    return tokenizer, model.to(device).eval()
