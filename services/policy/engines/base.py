"""What the policy service asks of an engine: sampled continuations of prompts, with their log-probabilities."""

import hashlib
import json
from abc import abstractmethod
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Tokens = list[int]


class Ended(StrEnum):
    """What ended a completion."""

    EOS = "eos"
    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True)
class Sampling:
    """How to continue each prompt. `temperature` 0 is greedy; `seed` None is not repeatable."""

    n: int = 1
    temperature: float = 0.8
    top_p: float = 1.0
    max_tokens: int = 256
    seed: int | None = None
    stop: tuple[str, ...] = ()


def room(sampling: Sampling, prompt: Tokens, max_model_len: int) -> int:
    """Tokens that a completion of this prompt may have."""
    return min(sampling.max_tokens, max_model_len - len(prompt))


@dataclass(frozen=True)
class Completion:
    """One continuation. `text` ends before the stop string; the tokens are all that were generated, the ending too.

    `logprobs` are under the model as it is (temperature 1, nothing cut), in nats; `ends` says where in the generated
    text each token ends (characters; past the end of `text` for what the stop string has cut off).
    """

    text: str
    logprobs: tuple[float, ...]
    ends: tuple[int, ...]
    ended: Ended
    stopped_by: str | None = None

    @property
    def tokens(self) -> int:
        """Generated tokens."""
        return len(self.logprobs)

    @property
    def mean_logprob(self) -> float:
        """Mean over all generated tokens, nats."""
        return min(0.0, sum(self.logprobs) / max(1, len(self.logprobs)))


@dataclass(frozen=True)
class Reading:
    """A text as the model reads it: its tokens, where each ends in the text, and how likely each was, in nats.

    The first token follows nothing; its log-probability is 0.
    """

    tokens: Tokens
    ends: tuple[int, ...]
    logprobs: tuple[float, ...]


class EngineFailedError(Exception):
    """The engine is gone; only a new one helps."""


class TextTooLongError(Exception):
    """A text has more tokens than the model reads."""

    def __init__(self, number: int, tokens: int, limit: int) -> None:
        super().__init__(f"text {number} has {tokens} tokens; this model reads at most {limit}")
        self.number = number
        self.tokens = tokens
        self.limit = limit


class EngineStartError(Exception):
    """The engine cannot be started with this checkpoint or on this machine; the message says why."""


class Engine(Protocol):
    """A loaded model. `generate` may be called many times at once; cancelling it stops its sequences."""

    name: str
    checkpoint: Path
    model_version: str
    max_model_len: int
    device: str

    @abstractmethod
    def beside(self, checkpoint: Path, model_version: str) -> "Engine":
        """An engine of the same kind and settings for another checkpoint, not yet started."""

    @abstractmethod
    async def start(self) -> None:
        """Load the model. Raises EngineStartError."""

    @abstractmethod
    async def stop(self) -> None:
        """Free everything; sequences under way are dropped. Safe before and during `start`."""

    @abstractmethod
    def encode(self, prompts: list[str]) -> list[Tokens]:
        """Token ids of each prompt. Blocks, for about a millisecond each."""

    @abstractmethod
    async def generate(self, prompts: list[Tokens], sampling: Sampling) -> list[list[Completion]]:
        """`sampling.n` completions per prompt, each of `max_tokens` or of as many as `max_model_len` leaves the prompt.

        Each prompt must be shorter than `max_model_len`. Raises EngineFailedError when the engine died.
        """

    @abstractmethod
    async def read(self, texts: list[str]) -> list[Reading]:
        """How likely each token of the texts is after those before it. Each text must fit `max_model_len`.

        Raises EngineFailedError when the engine died, TextTooLongError when a text does not fit.
        """

    @abstractmethod
    async def died(self) -> str:
        """Returns only when the engine is dead: the reason."""


GREEDY_BELOW = 1e-5
"""A lower temperature is greedy, as in vLLM."""
COLDEST = 0.01
"""Other temperatures are raised to this, as in vLLM: logits divided by less overflow."""

# How the vLLM engine speaks to its worker: two extra arguments of a sequence, one environment variable.
TOP_P_KEY = "ratchet_top_p"
SEED_KEY = "ratchet_seed"
TEMPERATURE_KEY = "ratchet_temperature"
SERVICE_PID = "RATCHET_POLICY_SERVICE_PID"


def sequence_seed(seed: int, prompt: int, candidate: int) -> int:
    """A seed of its own for each sequence of a request (63 bits), the same on every machine."""
    digest = hashlib.blake2b(f"{seed}/{prompt}/{candidate}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def offsets(tokenizer: Any, texts: list[str], limit: int) -> list[tuple[Tokens, tuple[int, ...]]]:
    """Tokens of each text, and where each token ends in it (characters). Raises TextTooLongError."""
    coded = tokenizer(texts, return_offsets_mapping=True)
    for number, ids in enumerate(coded["input_ids"]):
        if len(ids) > limit:
            raise TextTooLongError(number, len(ids), limit)
    return [
        (ids, tuple(end for _, end in spans))
        for ids, spans in zip(coded["input_ids"], coded["offset_mapping"], strict=True)
    ]


def end_tokens(checkpoint: Path, tokenizer: Any) -> set[int]:
    """Ids that end a text: the tokenizer's, and those that the checkpoint's own configuration names."""
    found = {tokenizer.eos_token_id}
    for name in ("config.json", "generation_config.json"):
        file = checkpoint / name
        if file.is_file():
            value = json.loads(file.read_text()).get("eos_token_id")
            found |= set(value) if isinstance(value, list) else {value}
    return {token for token in found if isinstance(token, int)}


def context_length(checkpoint: Path, wanted: int) -> int:
    """The longest sequence that both the checkpoint and the setting allow."""
    own = json.loads((checkpoint / "config.json").read_text()).get("max_position_embeddings")
    return min(wanted, own) if isinstance(own, int) and own > 0 else wanted


def uniforms(seeds: npt.NDArray[np.uint64], positions: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """The random numbers in [0, 1) that decide sequences' tokens at `positions` (0 is the first generated one), [B] each.

    A number depends on seed and position alone: it does not matter how often, or beside whom, an engine computes a
    position. This is SplitMix64 (Steele, Lea and Flood, 2014) read at a given place; seeds are digests, so that streams do
    not overlap.
    """
    state = seeds + (positions + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    drawn: npt.NDArray[np.float64] = (state >> np.uint64(11)) * 2.0**-53
    return drawn
