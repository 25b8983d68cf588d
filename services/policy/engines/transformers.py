"""The transformers engine: a batch at a time in a thread, for machines without vLLM and for very small models.

Sequences that arrive within a few milliseconds, or while a batch runs, go into the next batch together. Prompts are
padded on the left; candidates of one prompt share its prefill; a sequence that ends leaves the batch at once. Each
sequence has its own temperature, top-p, stop strings and random numbers, so its draws do not depend on its neighbours.

Limits: no cache between batches, and a batch is not joined midway. In bf16 the logits, and with them rare draws, can
differ in the last bit between batches; in fp32 tests hold greedy output equal to unbatched generation.
"""

import asyncio
import contextlib
import queue
import secrets
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
import torch
from tokenizers.decoders import DecodeStream

from services.policy.engines.base import (
    COLDEST,
    GREEDY_BELOW,
    Completion,
    Ended,
    EngineFailedError,
    EngineStartError,
    Reading,
    Sampling,
    Tokens,
    context_length,
    end_tokens,
    offsets,
    sequence_seed,
    uniform,
)
from services.policy.engines.nucleus import draw, keep_nucleus

log = structlog.get_logger()

GATHER_SECONDS = 0.003
"""How long the first sequence of a batch waits for company: a request's own sequences arrive well within it."""


@dataclass(eq=False)
class _Sequence:
    prompt: Tokens
    sampling: Sampling
    seed: int
    loop: asyncio.AbstractEventLoop
    answer: "asyncio.Future[Completion]"
    stream: DecodeStream = field(default_factory=lambda: DecodeStream(skip_special_tokens=False))
    text: str = ""
    ids: Tokens = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    cancelled: bool = False

    def take(self, token: int, logprob: float, ends: set[int], tokenizer: Any) -> Completion | None:
        """Add one token; the completion if it is the last."""
        self.ids.append(token)
        self.logprobs.append(min(0.0, logprob))
        self.ends.append(len(self.text))
        if token in ends:
            self.text = tokenizer.decode(self.ids[:-1], skip_special_tokens=False)
            return self.completion(Ended.EOS)
        old = len(self.text)
        self.text += self.stream.step(tokenizer, token) or ""
        self.ends[-1] = len(self.text)
        hits = [
            (at, stop)
            for stop in self.sampling.stop
            if (at := self.text.find(stop, max(0, old - len(stop) + 1))) >= 0
        ]
        if hits:
            at, stop = min(hits)
            self.text = self.text[:at]
            return self.completion(Ended.STOP, stop)
        if len(self.ids) < self.sampling.max_tokens:
            return None
        # The stream holds back a character whose last bytes are missing.
        self.text = tokenizer.decode(self.ids, skip_special_tokens=False)
        return self.completion(Ended.LENGTH)

    def completion(self, ended: Ended, stopped_by: str | None = None) -> Completion:
        return Completion(self.text, tuple(self.logprobs), tuple(self.ends), ended, stopped_by)

    def settle(self, result: Completion | BaseException) -> None:
        def deliver() -> None:
            if self.answer.done():
                return
            if isinstance(result, BaseException):
                self.answer.set_exception(result)
            else:
                self.answer.set_result(result)

        # The loop may be closed already when the service is going down.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(deliver)


class TransformersEngine:
    """One causal language model in this process. Shapes below: B sequences, V words, T positions."""

    name = "transformers"

    def __init__(
        self,
        checkpoint: Path,
        model_version: str,
        *,
        max_model_len: int = 4096,
        max_num_seqs: int = 64,
        dtype: torch.dtype | None = None,
        device: str | None = None,
    ) -> None:
        """`dtype` None: bf16, or fp32 for a checkpoint in fp32. `device` None: CUDA where there is one."""
        self.checkpoint = checkpoint
        self.model_version = model_version
        self.max_model_len = max_model_len
        self.max_num_seqs = max_num_seqs
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._dtype = dtype
        self._inbox: queue.SimpleQueue[_Sequence | None] = queue.SimpleQueue()
        self._dead: asyncio.Future[str] | None = None
        self._thread: threading.Thread | None = None
        self._closing = False
        self._model: Any = None
        self._tokenizer: Any = None
        self._ends: set[int] = set()

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._dead = loop.create_future()
        await asyncio.to_thread(self._load)
        self._thread = threading.Thread(
            target=self._work, args=(loop,), name="transformers-engine", daemon=True
        )
        self._thread.start()

    async def stop(self) -> None:
        self._closing = True
        self._inbox.put(None)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, 10.0)

    async def died(self) -> str:
        assert self._dead is not None
        return await asyncio.shield(self._dead)

    def encode(self, prompts: list[str]) -> list[Tokens]:
        ids: list[Tokens] = self._tokenizer(prompts)["input_ids"]
        return ids

    async def generate(self, prompts: list[Tokens], sampling: Sampling) -> list[list[Completion]]:
        if self._closing or self._dead is None or self._dead.done():
            raise EngineFailedError("the engine is stopped")
        loop = asyncio.get_running_loop()
        seed = secrets.randbits(63) if sampling.seed is None else sampling.seed
        sequences = [
            _Sequence(
                prompt,
                sampling,
                sequence_seed(seed, number, candidate),
                loop,
                loop.create_future(),
            )
            for number, prompt in enumerate(prompts)
            for candidate in range(sampling.n)
        ]
        for sequence in sequences:
            self._inbox.put(sequence)
        try:
            done = await asyncio.gather(*(sequence.answer for sequence in sequences))
        finally:
            for sequence in sequences:
                sequence.cancelled = True
        return [done[start : start + sampling.n] for start in range(0, len(done), sampling.n)]

    async def read(self, texts: list[str]) -> list[Reading]:
        if self._closing:
            raise EngineFailedError("the engine is stopped")
        coded = await asyncio.to_thread(offsets, self._tokenizer, texts, self.max_model_len)
        # A forward pass keeps no state, so it may run beside the decoding thread.
        logprobs = [await asyncio.to_thread(self._logprobs, tokens) for tokens, _ in coded]
        return [Reading(tokens, ends, row) for (tokens, ends), row in zip(coded, logprobs, strict=True)]

    def _logprobs(self, tokens: Tokens) -> tuple[float, ...]:
        if not tokens:
            return ()
        with torch.inference_mode():
            ids = torch.tensor([tokens], device=self.device)
            logits = self._model(input_ids=ids, use_cache=False).logits[0, :-1].float()
            found = logits.log_softmax(dim=-1).gather(1, ids[0, 1:].unsqueeze(1)).squeeze(1)
        return (0.0, *(min(0.0, value) for value in found.tolist()))

    def _load(self) -> None:
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

        try:
            config = AutoConfig.from_pretrained(self.checkpoint, local_files_only=True)
            dtype = self._dtype or (torch.float32 if config.dtype == torch.float32 else torch.bfloat16)
            tokenizer = AutoTokenizer.from_pretrained(self.checkpoint, local_files_only=True)
            model: Any = AutoModelForCausalLM.from_pretrained(
                self.checkpoint, dtype=dtype, local_files_only=True, use_safetensors=True
            )
            self._model = model.to(self.device).eval()
        except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
            first = str(error).strip().splitlines()
            raise EngineStartError(
                f"The model in {self.checkpoint} cannot be loaded: {first[0] if first else type(error).__name__}"
            ) from error
        if getattr(tokenizer, "backend_tokenizer", None) is None:
            raise EngineStartError(
                f"The tokenizer in {self.checkpoint} has no tokenizer.json; save one there."
            )
        self._tokenizer = tokenizer
        self._ends = end_tokens(self.checkpoint, tokenizer)
        self.max_model_len = context_length(self.checkpoint, self.max_model_len)

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        reason = "stopped"
        waiting: list[_Sequence] = []
        try:
            while not self._closing:
                self._gather(waiting)
                batch, waiting = waiting[: self.max_num_seqs], waiting[self.max_num_seqs :]
                batch = [sequence for sequence in batch if not sequence.cancelled]
                if batch and not self._closing:
                    self._run(batch)
        except BaseException as error:
            reason = f"{type(error).__name__}: {error}"
            log.error("engine thread ended", exc_info=error)
        finally:
            self._closing = True
            for sequence in [*waiting, *self._drain()]:
                sequence.settle(EngineFailedError(reason))
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._announce, reason)

    def _announce(self, reason: str) -> None:
        if self._dead is not None and not self._dead.done():
            self._dead.set_result(reason)

    def _drain(self) -> Iterable[_Sequence]:
        while True:
            try:
                sequence = self._inbox.get_nowait()
            except queue.Empty:
                return
            if sequence is not None:
                yield sequence

    def _gather(self, waiting: list[_Sequence]) -> None:
        """Wait for a first sequence, then a moment for others."""
        if not waiting:
            first = self._inbox.get()
            if first is None:
                return
            waiting.append(first)
            time.sleep(GATHER_SECONDS)
        waiting.extend(self._drain())

    def _run(self, batch: list[_Sequence]) -> None:
        try:
            with torch.inference_mode():
                self._decode(batch)
        except (RuntimeError, ValueError, IndexError) as error:
            # Running out of memory, for instance: this batch fails, the next may do.
            log.error("batch failed", sequences=len(batch), exc_info=error)
            for sequence in batch:
                sequence.settle(EngineFailedError(f"the batch failed: {type(error).__name__}"))

    def _decode(self, batch: list[_Sequence]) -> None:
        prompts = list(dict.fromkeys(tuple(sequence.prompt) for sequence in batch))
        width = max(len(prompt) for prompt in prompts)
        ids = torch.zeros((len(prompts), width), dtype=torch.long)
        mask = torch.zeros((len(prompts), width), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        ids, mask = ids.to(self.device), mask.to(self.device)
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        out = self._model(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True, logits_to_keep=1
        )
        cache = out.past_key_values
        place = {prompt: row for row, prompt in enumerate(prompts)}
        rows = torch.tensor([place[tuple(sequence.prompt)] for sequence in batch], device=self.device)
        logits = out.logits[:, -1].float()[rows]
        mask, position = mask[rows], positions[rows, -1:]
        cache.batch_select_indices(rows)

        live = list(batch)
        while True:
            chosen, logprobs = self._draw(logits, live)
            kept = []
            for row, (sequence, token, logprob) in enumerate(
                zip(live, chosen.tolist(), logprobs.tolist(), strict=True)
            ):
                done = sequence.take(token, logprob, self._ends, self._tokenizer.backend_tokenizer)
                if done is not None:
                    sequence.settle(done)
                elif not sequence.cancelled:
                    kept.append(row)
            if not kept or self._closing:
                for row in kept:
                    live[row].settle(EngineFailedError("the engine is stopping"))
                return
            if len(kept) < len(live):
                index = torch.tensor(kept, device=self.device)
                cache.batch_select_indices(index)
                live = [live[row] for row in kept]
                chosen, mask, position = chosen[kept], mask[index], position[index]
            mask = torch.cat([mask, mask.new_ones((len(live), 1))], dim=1)
            position = position + 1
            out = self._model(
                input_ids=chosen.to(self.device).unsqueeze(1),
                attention_mask=mask,
                position_ids=position,
                past_key_values=cache,
                use_cache=True,
            )
            logits = out.logits[:, -1].float()

    def _draw(self, logits: torch.Tensor, live: list[_Sequence]) -> tuple[torch.Tensor, torch.Tensor]:
        """Next tokens and their log-probabilities under the untempered model, [B] each, on the CPU."""
        logprobs = logits.log_softmax(dim=-1)
        chosen = logits.argmax(dim=-1)
        warm = [row for row, sequence in enumerate(live) if sequence.sampling.temperature >= GREEDY_BELOW]
        if warm:
            temperature = torch.tensor([max(COLDEST, live[row].sampling.temperature) for row in warm])
            top_p = torch.tensor([live[row].sampling.top_p for row in warm])
            tempered = logits[warm] / temperature.to(self.device).unsqueeze(1)
            uniforms = torch.tensor(
                [uniform(live[row].seed, len(live[row].ids)) for row in warm], dtype=torch.float64
            )
            chosen[warm] = draw(keep_nucleus(tempered, top_p.to(self.device)), uniforms)
        return chosen.cpu(), logprobs.gather(1, chosen.unsqueeze(1)).squeeze(1).cpu()
