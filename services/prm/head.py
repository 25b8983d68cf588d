"""A trained PRM in this process: a token classifier on the policy's network, read at the end of each step.

Only steps whose score is not known are read. The keys and values of the prefix before them are kept, so that a pass reads
only what is new; candidates of one prefix share it. Where prefixes are too short for that to pay, whole texts are padded
into one batch.

Limits: `logits` is meant for one thread. Each kept prefix is a pass of its own. Reading after a kept prefix is exact only
for networks whose tokens attend to all before them (no sliding window).
"""

import json
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ratchet.models.precision import serving_dtype
from ratchet.models.prm_head import HeadError, calibration_of, prm_text, tokens_at

LONG_TOKENS = {"cpu": 16, "cuda": 256}
"""Prefixes of so many tokens or more are kept. On a CPU that takes half the time for 16 problems of 14 tokens with four
candidates each, and an eighth for 440 tokens. On GPUs many short passes cost more than one batch; that figure is an
estimate."""
KEPT_TOKENS = 16_384
"""Tokens of all kept prefixes together: 0.9 GB for a 7B Qwen2, 16 MB for nano."""
BATCH_TOKENS = 16_384
"""Padded tokens of one pass."""

Tokens = tuple[int, ...]
KeysAndValues = list[tuple[torch.Tensor, torch.Tensor]]


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

    def __init__(
        self, checkpoint: Path, *, device: str | None = None, long_tokens: int | None = None
    ) -> None:
        """`device` None: CUDA where there is one; `long_tokens` None: LONG_TOKENS. Raises HeadError."""
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._long_tokens = (
            LONG_TOKENS[torch.device(self.device).type] if long_tokens is None else long_tokens
        )
        try:
            config = json.loads((checkpoint / "config.json").read_text())
            self.calibration = calibration_of(config)
        except (OSError, ValueError) as error:
            raise HeadError(f"{checkpoint} cannot be served as a PRM: {error}.") from error
        self._tokenizer, self._model = _load(checkpoint, self.device)
        self.max_tokens: int = self._model.config.get_text_config().max_position_embeddings
        self._kept: OrderedDict[Tokens, KeysAndValues] = OrderedDict()
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
        found: dict[int, list[float]] = {}
        by_base: dict[Tokens, list[int]] = defaultdict(list)
        short: list[int] = []
        for number, question in enumerate(questions):
            base = question.bases[-1]
            if base >= self._long_tokens:
                by_base[question.tokens[:base]].append(number)
            else:
                short.append(number)
        short.sort(key=lambda number: len(questions[number].tokens))
        for batch in _batches(short, [len(question.tokens) for question in questions]):
            rows = self._read([questions[number].tokens for number in batch])
            for number, row in zip(batch, rows, strict=True):
                found[number] = [float(row[read]) for read in questions[number].reads]
        for base_tokens, numbers in by_base.items():
            start = len(base_tokens)
            kept = self._prefix(base_tokens, questions[numbers[0]].bases)
            for batch in _batches(numbers, [len(question.tokens) for question in questions]):
                rows = self._read([questions[number].tokens[start:] for number in batch], kept)
                for number, row in zip(batch, rows, strict=True):
                    found[number] = [float(row[read - start]) for read in questions[number].reads]
        return [found[number] for number in range(len(questions))]

    def _prefix(self, tokens: Tokens, bases: Sequence[int]) -> KeysAndValues:
        """Keys and values of a prefix, from those of the longest part of it that is kept."""
        known = self._kept.get(tokens)
        if known is None:
            start = next((base for base in reversed(bases) if tokens[:base] in self._kept), 0)
            cache = _cache(self._kept[tokens[:start]], 1) if start else _cache([], 1)
            self._model(
                input_ids=torch.tensor([tokens[start:]], device=self.device),
                past_key_values=cache,
                use_cache=True,
            )
            known = [(layer.keys, layer.values) for layer in cache.layers]
            self._kept[tokens] = known
        self._kept.move_to_end(tokens)
        while len(self._kept) > 1 and sum(map(len, self._kept)) > KEPT_TOKENS:
            self._kept.popitem(last=False)
        return known

    def _read(self, rows: Sequence[Tokens], kept: KeysAndValues | None = None) -> torch.Tensor:
        """Logits [rows, longest row] in fp32, on the CPU. Padding comes after the text, where nothing attends to it."""
        width = max(map(len, rows))
        ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=self.device)
        past = None if kept is None else _cache(kept, len(rows))
        logits = self._model(input_ids=ids, past_key_values=past, use_cache=kept is not None).logits
        return torch.as_tensor(logits[..., 0]).float().cpu()


def _cache(kept: KeysAndValues, rows: int) -> Any:
    """A cache of its own for a pass that adds to it; the kept tensors are not written to."""
    from transformers import DynamicCache

    cache = DynamicCache()
    for number, (keys, values) in enumerate(kept):
        cache.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), number)
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
