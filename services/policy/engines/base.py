"""What the policy service asks of an engine: sampled continuations of prompts, with their log-probabilities."""

import hashlib
import json
from abc import abstractmethod
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

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


@dataclass(frozen=True)
class Completion:
    """One continuation. `text` ends before the stop string; `tokens` counts all that were generated, the ending too.

    `mean_logprob` is over these tokens, under the model as it is (temperature 1, nothing cut), in nats.
    """

    text: str
    tokens: int
    mean_logprob: float
    ended: Ended
    stopped_by: str | None = None


class EngineFailedError(Exception):
    """The engine is gone; only a new process helps."""


class EngineStartError(Exception):
    """The engine cannot be started with this checkpoint or on this machine; the message says why."""


class Engine(Protocol):
    """A loaded model. `generate` may be called many times at once; cancelling it stops its sequences."""

    name: str
    model_version: str
    max_model_len: int
    device: str

    @abstractmethod
    async def start(self) -> None:
        """Load the model. Raises EngineStartError."""

    @abstractmethod
    async def stop(self) -> None:
        """Free everything; sequences under way are dropped. Safe before and during `start`."""

    @abstractmethod
    def encode(self, prompts: list[str]) -> list[Tokens]:
        """Token ids of prompts (blocking, a millisecond or so each)."""

    @abstractmethod
    async def generate(self, prompts: list[Tokens], sampling: Sampling) -> list[list[Completion]]:
        """`sampling.n` completions per prompt. Prompt plus `max_tokens` must fit `max_model_len`.

        Raises EngineFailedError when the engine died.
        """

    @abstractmethod
    async def died(self) -> str:
        """Returns only when the engine is dead: the reason."""


# Below this, dividing logits by the temperature overflows; vLLM draws the same lines.
GREEDY_BELOW = 1e-5
COLDEST = 0.01


def sequence_seed(seed: int, prompt: int, candidate: int) -> int:
    """A seed of its own for each sequence of a request (63 bits), the same on every machine."""
    digest = hashlib.blake2b(f"{seed}/{prompt}/{candidate}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


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
