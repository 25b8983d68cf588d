"""The transformers engine: batches decoded in a thread, for machines without vLLM and for very small models.

Sequences that arrive within a few milliseconds, or while a batch runs, go into the next batch together. Where the decoder
can be joined (`slot_decoder`: CUDA, and very small models on a CPU) they join the batch that runs instead. Candidates of one
prompt share its prefill; a sequence that ends leaves the batch at once. Each sequence has its own temperature, top-p, stop
strings and random numbers, so its draws do not depend on its neighbours.

Limits: no cache between sequences that are not asked for together. In bf16 the logits, and with them rare draws, can
differ in the last bit between batches; in fp32 tests hold greedy output equal to unbatched generation.
"""

import asyncio
import contextlib
import itertools
import queue
import secrets
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import structlog
import torch

from ratchet.models.precision import serving_dtype
from services.policy.engines.base import (
    Completion,
    EngineFailedError,
    EngineStartError,
    Reading,
    Sampling,
    Tokens,
    context_length,
    end_tokens,
    offsets,
    room,
    sequence_seed,
)
from services.policy.engines.decoders import CachedDecoder, Decoder, order_without, together
from services.policy.engines.drawing import draw_rows
from services.policy.engines.sequence import ROW, Sequence, TokenTexts
from services.policy.engines.slot_decoder import SlotDecoder

log = structlog.get_logger()

SWITCH_SECONDS = 0.001
READ_TOGETHER = 4096
"""Tokens that one pass reads on CUDA, padding too: their logits take 5 GB with a vocabulary of 152k."""
GATHER_SECONDS = 0.003
"""How long the first sequence of a batch waits for company: a request's own sequences arrive well within it."""


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
        """`dtype` None: see `serving_dtype`; `device` None: CUDA where there is one."""
        self.checkpoint = checkpoint
        self.model_version = model_version
        self.max_model_len = max_model_len
        self._longest = max_model_len
        self.max_num_seqs = max_num_seqs
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._dtype = dtype
        self._inbox: queue.SimpleQueue[Sequence | None] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._dead: asyncio.Future[str] | None = None
        self._thread: threading.Thread | None = None
        self._closing = False
        self._model: Any = None
        self._decoder: Decoder | None = None
        self._tokenizer: Any = None
        self._ends: set[int] = set()
        self._threads = torch.get_num_threads()

    def beside(self, checkpoint: Path, model_version: str) -> "TransformersEngine":
        return TransformersEngine(
            checkpoint,
            model_version,
            max_model_len=self._longest,
            max_num_seqs=self.max_num_seqs,
            dtype=self._dtype,
            device=self.device,
        )

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._dead = self._loop.create_future()
        await asyncio.to_thread(self._load)
        self._thread = threading.Thread(target=self._work, name="transformers-engine", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        self._closing = True
        self._inbox.put(None)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, 10.0)
        # The memory must not wait for the last reference to this engine.
        self._model = self._decoder = None
        if self.device == "cuda":
            torch.cuda.empty_cache()

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
            Sequence(
                prompt,
                replace(sampling, max_tokens=room(sampling, prompt, self.max_model_len)),
                sequence_seed(seed, number, candidate),
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
        logprobs = await asyncio.to_thread(self._logprobs, [tokens for tokens, _ in coded])
        return [Reading(tokens, ends, row) for (tokens, ends), row in zip(coded, logprobs, strict=True)]

    def _logprobs(self, texts: list[Tokens]) -> list[tuple[float, ...]]:
        """Of each token after those before it; the first one of a text has 0."""
        torch.set_num_threads(self._threads)
        found: list[tuple[float, ...]] = [()] * len(texts)
        # On a CPU padding costs what it saves.
        most = READ_TOGETHER if self.device == "cuda" else 0
        for part in together([len(tokens) for tokens in texts], most):
            model = self._model
            if model is None:
                raise EngineFailedError("the engine is stopped")
            # What is padded comes after every token that counts.
            ids = torch.zeros((len(part), len(texts[part[-1]])), dtype=torch.long)
            for row, number in enumerate(part):
                ids[row, : len(texts[number])] = torch.tensor(texts[number], dtype=torch.long)
            ids = ids.to(self.device)
            with torch.inference_mode():
                logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
                read = logits.gather(2, ids[:, 1:].unsqueeze(2)).squeeze(2) - logits.logsumexp(dim=-1)
                rows = read.clamp(max=0.0).tolist()
            for row, number in zip(rows, part, strict=True):
                found[number] = (0.0, *row[: len(texts[number]) - 1]) if texts[number] else ()
        return found

    def _load(self) -> None:
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

        try:
            config = AutoConfig.from_pretrained(self.checkpoint, local_files_only=True)
            dtype = self._dtype or serving_dtype(self.checkpoint, config.dtype, self.device)
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
        self._texts = TokenTexts(tokenizer.backend_tokenizer)
        self._ends = end_tokens(self.checkpoint, tokenizer)
        self.max_model_len = context_length(self.checkpoint, self.max_model_len)
        if SlotDecoder.fits(self._model, self.device):
            # A second thread would wait for the first, and for the other processes of the machine, at every operation.
            self._threads = 1
            with torch.inference_mode():
                self._decoder = SlotDecoder(self._model, self.max_model_len, self.max_num_seqs, self.device)
        else:
            self._decoder = CachedDecoder(self._model, self.device)

    def _work(self) -> None:
        # The requests' thread would keep the interpreter for 5 ms whenever this one comes back from the device.
        sys.setswitchinterval(SWITCH_SECONDS)
        reason = "stopped"
        waiting: list[Sequence] = []
        # The count belongs to this thread; engines beside this one keep theirs.
        torch.set_num_threads(self._threads)
        try:
            while not self._closing:
                self._gather(waiting)
                self._run(waiting)
        except BaseException as error:
            reason = f"{type(error).__name__}: {error}"
            log.error("engine thread ended", exc_info=error)
        finally:
            self._closing = True
            self._settle((sequence, EngineFailedError(reason)) for sequence in [*waiting, *self._drain()])
            assert self._loop is not None
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._announce, reason)

    def _settle(self, results: "Iterable[tuple[Sequence, Completion | BaseException]]") -> None:
        """Deliver answers in the loop's thread, all of them with one wake-up."""
        answers = list(results)

        def deliver() -> None:
            for sequence, result in answers:
                if sequence.answer.done():
                    continue
                if isinstance(result, BaseException):
                    sequence.answer.set_exception(result)
                else:
                    sequence.answer.set_result(result)

        assert self._loop is not None
        if answers:
            # The loop may be closed already when the service is going down.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(deliver)

    def _announce(self, reason: str) -> None:
        if self._dead is not None and not self._dead.done():
            self._dead.set_result(reason)

    def _drain(self) -> Iterable[Sequence]:
        while True:
            try:
                sequence = self._inbox.get_nowait()
            except queue.Empty:
                return
            if sequence is not None:
                yield sequence

    def _gather(self, waiting: list[Sequence]) -> None:
        """Wait for a first sequence, then a moment for others."""
        if not waiting:
            first = self._inbox.get()
            if first is None:
                return
            waiting.append(first)
            time.sleep(GATHER_SECONDS)
        waiting.extend(self._drain())

    def _run(self, waiting: list[Sequence]) -> None:
        """Decode until the batch is empty. It begins with what `waiting` holds; what comes later joins where it can."""
        live: list[Sequence] = []
        try:
            with torch.inference_mode():
                self._decode(live, waiting)
        except BaseException as error:
            failure = EngineFailedError(f"the batch failed: {type(error).__name__}")
            self._settle((sequence, failure) for sequence in live)
            if not isinstance(error, RuntimeError | ValueError | IndexError):
                raise
            # Running out of the device's memory, for instance: this batch fails, the next may do.
            log.error("batch failed", sequences=len(live), exc_info=error)
            if self._decoder is not None:
                self._decoder.keep([])

    def _decode(self, live: list[Sequence], waiting: list[Sequence]) -> None:
        """One token of every sequence a turn. `live`, `rows`, `chosen` and the decoder have the same order."""
        decoder = self._decoder
        assert decoder is not None
        rows = np.empty(0, ROW)
        chosen = torch.empty(0, dtype=torch.long)
        for turn in itertools.count():
            if self._closing:
                break
            joinable = decoder.join_every is not None and turn % decoder.join_every == 0
            if joinable or not live:
                waiting.extend(self._drain())
            fresh = self._admit(waiting, len(live)) if joinable or not live else []
            if not live and not fresh:
                return
            drawn = [decoder.next(chosen, rows)] if live else []
            if fresh:
                live.extend(fresh)
                new = np.array([sequence.row() for sequence in fresh], ROW)
                rows = np.concatenate([rows, new])
                drawn.append(draw_rows(decoder.add([sequence.prompt for sequence in fresh]), new))
            chosen, logprobs = (torch.cat(parts) for parts in zip(*drawn, strict=True))
            rows["drawn"] += np.uint64(1)
            gone = self._take(live, chosen, logprobs)
            if gone:
                kept = order_without(gone, len(live))
                decoder.keep(kept)
                live[:] = [live[row] for row in kept]
                chosen, rows = chosen[kept], rows[kept]
        self._settle((sequence, EngineFailedError("the engine is stopping")) for sequence in live)

    def _admit(self, waiting: list[Sequence], live: int) -> list[Sequence]:
        """Take from `waiting` what is still wanted and has room in the batch."""
        wanted = [sequence for sequence in waiting if not sequence.cancelled]
        room = self.max_num_seqs - live
        waiting[:] = wanted[room:]
        return wanted[:room]

    def _take(self, live: list[Sequence], chosen: torch.Tensor, logprobs: torch.Tensor) -> list[int]:
        """Give each sequence its token, and settle those that end; the rows that are gone, in order."""
        texts, ends = self._texts, self._ends
        done: list[tuple[Sequence, Completion | BaseException]] = []
        gone = []
        drawn = zip(live, chosen.tolist(), logprobs.tolist(), strict=True)
        for row, (sequence, token, logprob) in enumerate(drawn):
            completion = sequence.take(token, logprob, ends, texts)
            if completion is not None:
                done.append((sequence, completion))
            if completion is not None or sequence.cancelled:
                gone.append(row)
        self._settle(done)
        return gone
