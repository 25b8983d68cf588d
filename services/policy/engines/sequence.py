"""A sequence that the transformers engine writes: its tokens, and its text as far as anybody has to look at it.

Most tokens cannot end a sequence, so their text is written later, several at a time. Which ones can is known from the
last characters of the stop strings.
"""

import asyncio
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from services.policy.engines.base import COLDEST, GREEDY_BELOW, Completion, Ended, Sampling, Tokens

ROW = np.dtype([("seed", "u8"), ("drawn", "u8"), ("temperature", "f4"), ("top_p", "f4")])
"""What a draw must know of each sequence of the batch; `drawn` counts its tokens."""


class TokenTexts(dict[int, str | None]):
    """The text of each token; None where it depends on the tokens beside it (a part of a character)."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        # Other decoders strip or join spaces according to the neighbours.
        self._alone = type(tokenizer.decoder).__name__ == "ByteLevel"

    def __missing__(self, token: int) -> str | None:
        piece = self.tokenizer.decode([token], skip_special_tokens=False)
        self[token] = piece if self._alone and "\ufffd" not in piece else None
        return self[token]


@dataclass(eq=False)
class Sequence:
    """One continuation under way. `ends` says where each token ends in `text`, as far as that is written."""

    prompt: Tokens
    sampling: Sampling
    seed: int
    answer: "asyncio.Future[Completion]"
    ids: Tokens = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    text: str = ""
    stream: DecodeStream | None = None
    cancelled: bool = False

    @cached_property
    def stop_endings(self) -> frozenset[str]:
        """The last characters of the stop strings: only a token that has one of them can complete one."""
        return frozenset(stop[-1] for stop in self.sampling.stop)

    def take(self, token: int, logprob: float, ends: set[int], texts: TokenTexts) -> Completion | None:
        """Add one token; the completion if it is the last. The text is written only when it has to be looked at."""
        self.ids.append(token)
        self.logprobs.append(logprob)
        last = len(self.ids) >= self.sampling.max_tokens
        if token in ends:
            self._write(texts, len(self.ids) - 1)
            self.ends.append(len(self.text))
            return self._whole(self.ids[:-1], Ended.EOS, texts)
        piece = texts[token]
        # A stream may hold back what comes after a broken character, too: then every token is looked at.
        if not last and self.stream is None and piece is not None and self.stop_endings.isdisjoint(piece):
            return None
        self._write(texts, len(self.ids) - 1)
        old = len(self.text)
        self._write(texts, len(self.ids))
        hits = [
            (at, stop)
            for stop in self.sampling.stop
            if (at := self.text.find(stop, max(0, old - len(stop) + 1))) >= 0
        ]
        if hits:
            at, stop = min(hits)
            self.text = self.text[:at]
            return self._completion(Ended.STOP, stop)
        return self._whole(self.ids, Ended.LENGTH, texts) if last else None

    def _write(self, texts: TokenTexts, count: int) -> None:
        """Bring the text up to so many tokens. The stream holds back a character whose last bytes are missing."""
        for token in self.ids[len(self.ends) : count]:
            piece = texts[token]
            if self.stream is None and piece is None:
                self.stream = DecodeStream(skip_special_tokens=False)
            if self.stream is not None:
                piece = self.stream.step(texts.tokenizer, token)
            self.text += piece or ""
            self.ends.append(len(self.text))

    def _whole(self, ids: Tokens, ended: Ended, texts: TokenTexts) -> Completion:
        if self.stream is not None:
            # With what the stream has held back.
            self.text = texts.tokenizer.decode(ids, skip_special_tokens=False)
        return self._completion(ended)

    def _completion(self, ended: Ended, stopped_by: str | None = None) -> Completion:
        return Completion(self.text, tuple(self.logprobs), tuple(self.ends), ended, stopped_by)

    def row(self) -> tuple[int, int, float, float]:
        """As ROW has it; temperature 0 is greedy."""
        temperature = self.sampling.temperature
        return (
            self.seed,
            0,
            0.0 if temperature < GREEDY_BELOW else max(COLDEST, temperature),
            self.sampling.top_p,
        )
