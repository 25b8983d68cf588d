"""The vLLM engine: AsyncLLM in this process, its core in a process of its own; continuous batching, prefix caching.

Each sequence is a request of its own, so batches form in the engine over everything that is waiting. With a seed each
sequence has its own random stream, which does not depend on its neighbours. The logits do, in the last bit of bf16: the
same request may rarely give another token in another batch. vLLM promises no more than that.

On CPUs draws are our own (`vllm_worker`): vLLM sorts the vocabulary for a top-p, and draws a random number for each of its
tokens, which takes longer than a model of 0.5 B parameters.

Limits: two versions of a model are two engines, each with a core process and a KV cache of its own. On CUDA the first
one takes nearly all of the GPU's memory (vLLM's gpu_memory_utilization), so a second one does not start beside it.
"""

import asyncio
import contextlib
import itertools
import math
import os
import secrets
import shutil
import sys
import threading
from collections.abc import Coroutine, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import structlog

from ratchet.models.int8 import computes_int8, int8_checkpoint
from ratchet.models.precision import serving_dtype
from services.policy.engines.base import (
    COLDEST,
    GREEDY_BELOW,
    SEED_KEY,
    SERVICE_PID,
    TEMPERATURE_KEY,
    TOP_P_KEY,
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
    room,
    sequence_seed,
)

log = structlog.get_logger()

WATCH_SECONDS = 0.5
"""Between looks at whether vLLM's core process lives."""
FEW_CORES = 4
"""Up to so many cores vLLM computes on all of them (see `use_every_core`)."""
CPU_BLOCK = 32
"""Tokens in a block of the KV cache; the smallest that vLLM's CPU attention takes."""

_T = TypeVar("_T")


class VllmEngine:
    """One model on vLLM, on CUDA where there is a GPU, otherwise on the CPU."""

    name = "vllm"

    def __init__(
        self,
        checkpoint: Path,
        model_version: str,
        *,
        max_model_len: int = 4096,
        max_num_seqs: int = 64,
        kv_cache_gb: float = 2.0,
        dtype: Literal["bfloat16", "float32"] | None = None,
        int8_cache: Path | None = None,
    ) -> None:
        """`kv_cache_gb` counts on the CPU only, rounded up to whole GiB (vLLM's unit); `dtype` None: see `serving_dtype`.

        With `int8_cache`, the folder of cached models, a CPU that multiplies bytes serves the weights as such.
        """
        self.checkpoint = checkpoint
        self.model_version = model_version
        self.max_model_len = context_length(checkpoint, max_model_len)
        self._longest = max_model_len
        self.max_num_seqs = max_num_seqs
        self.kv_cache_gb = kv_cache_gb
        self.dtype = dtype
        self.int8_cache = int8_cache
        self.device = "unknown"
        self._llm: Any = None
        self._tokenizer: Any = None
        self._stopping = False
        self._numbers = itertools.count()
        self._ends: list[int] = []

    def beside(self, checkpoint: Path, model_version: str) -> "VllmEngine":
        return VllmEngine(
            checkpoint,
            model_version,
            max_model_len=self._longest,
            max_num_seqs=self.max_num_seqs,
            kv_cache_gb=self.kv_cache_gb,
            dtype=self.dtype,
            int8_cache=self.int8_cache,
        )

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        loaded: asyncio.Future[Any] = loop.create_future()

        def deliver(result: Any, error: BaseException | None) -> None:
            if loaded.done():
                return
            if error is None:
                loaded.set_result(result)
            else:
                loaded.set_exception(error)

        def load() -> None:
            try:
                result, error = self._load(), None
            except BaseException as raised:  # noqa: BLE001 - carried over to the waiting task
                result, error = None, raised
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(deliver, result, error)

        # A daemon thread: a service that is told to go while it loads does not wait for the end of the loading.
        threading.Thread(target=load, name="vllm-load", daemon=True).start()
        try:
            self._llm = await loaded
        except Exception as error:
            raise EngineStartError(
                f"vLLM cannot start with {self.checkpoint}: {_first_line(error)} (RATCHET_ENGINE=transformers does "
                "without vLLM.)"
            ) from error
        if self._stopping:
            self._llm.shutdown()

    def _load(self) -> Any:
        # Before vLLM is imported: it reads these once, and its core process inherits them.
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(max(1, math.ceil(self.kv_cache_gb))))
        use_every_core()
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        if not any(shutil.which(name) for name in (os.environ.get("CXX"), "g++", "clang++") if name):
            # Some of vLLM's small functions are compiled by torch, eager mode or not, and die without a compiler.
            os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")
        # The core must start clean: a fork of a process that has threads and CUDA may hang.
        os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
        os.environ[SERVICE_PID] = str(os.getpid())

        from transformers import AutoTokenizer
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.platforms import current_platform
        from vllm.v1.engine.async_llm import AsyncLLM

        self.device = current_platform.device_type
        on_cpu = current_platform.is_cpu()
        self._tokenizer = AutoTokenizer.from_pretrained(self.checkpoint, local_files_only=True)
        self._ends = sorted(end_tokens(self.checkpoint, self._tokenizer))
        worker = "services.policy.engines.vllm_worker"
        int8 = self._int8() if on_cpu else None
        arguments = AsyncEngineArgs(
            model=str(int8 or self.checkpoint),
            # Bytes are multiplied by numbers that come as bf16.
            dtype="bfloat16" if int8 else self.dtype or dtype_here(self.checkpoint, self.device),
            max_model_len=self.max_model_len,
            max_num_seqs=self.max_num_seqs,
            enable_prefix_caching=True,
            # Only whole blocks are cached, and a step has about 40 tokens: vLLM's 128 on CPUs would cache few of them.
            block_size=CPU_BLOCK if on_cpu else None,
            # Compilation takes a minute at the start and gains nothing on two cores; a GPU wants its graphs.
            enforce_eager=on_cpu,
            logprobs_mode="raw_logprobs",
            disable_log_stats=True,
            enable_log_requests=False,
            generation_config="vllm",
            logits_processors=[f"{worker}:OwnSampling"] if on_cpu else None,
            worker_extension_cls=f"{worker}.Lifeline",
        )
        return AsyncLLM.from_engine_args(arguments)

    def _int8(self) -> Path | None:
        """The folder of the 8-bit weights, where they are to be served and this CPU multiplies such."""
        if self.int8_cache is None:
            return None
        if not computes_int8():
            log.warning(
                "served as stored: this CPU does not multiply bytes and bf16", model=self.model_version
            )
            return None
        return int8_checkpoint(self.checkpoint, self.int8_cache)

    async def stop(self) -> None:
        self._stopping = True
        if self._llm is not None:
            await asyncio.to_thread(self._llm.shutdown)

    async def died(self) -> str:
        # vLLM's monitor thread only sets a flag.
        while self._llm is None or not self._llm.errored:  # noqa: ASYNC110
            await asyncio.sleep(WATCH_SECONDS)
        return "vLLM's core process ended"

    def encode(self, prompts: list[str]) -> list[Tokens]:
        ids: list[Tokens] = self._tokenizer(prompts)["input_ids"]
        return ids

    async def generate(self, prompts: list[Tokens], sampling: Sampling) -> list[list[Completion]]:
        if self.device == "cpu" and sampling.n > 1:
            # Candidates that start together would each compute the prompt: what one of them writes into the prefix
            # cache the others find there a step later. On a GPU that step costs more than it saves.
            primer = replace(sampling, n=1, max_tokens=1, temperature=0.0)
            await self._all(
                self._sequence(prompt, primer, number, 0) for number, prompt in enumerate(prompts)
            )
        done = await self._all(
            self._sequence(prompt, sampling, number, candidate)
            for number, prompt in enumerate(prompts)
            for candidate in range(sampling.n)
        )
        return [done[start : start + sampling.n] for start in range(0, len(done), sampling.n)]

    async def _all(self, work: Iterable[Coroutine[None, None, _T]]) -> list[_T]:
        """Do all of it at once, each with an engine request of its own. Raises EngineFailedError."""
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(each) for each in work]
        except ExceptionGroup as errors:
            if errors.subgroup(EngineDeadError):
                raise EngineFailedError("vLLM's core process ended") from errors
            raise errors.exceptions[0] from errors
        return [task.result() for task in tasks]

    async def _sequence(self, prompt: Tokens, sampling: Sampling, number: int, candidate: int) -> Completion:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        greedy = sampling.temperature < GREEDY_BELOW
        seed = None if sampling.seed is None else sequence_seed(sampling.seed, number, candidate)
        temperature = 0.0 if greedy else max(COLDEST, sampling.temperature)
        own: dict[str, Any] = {}
        if self.device == "cpu" and not greedy:
            # To vLLM they are greedy: `vllm_worker` draws, and makes the token that it has drawn the most likely one.
            own = {
                TEMPERATURE_KEY: temperature,
                TOP_P_KEY: sampling.top_p,
                SEED_KEY: secrets.randbits(63) if seed is None else seed,
            }
        output = await self._last_output(
            prompt,
            SamplingParams(
                temperature=0.0 if own else temperature,
                top_p=1.0 if own or greedy else sampling.top_p,
                seed=None if own or greedy else seed,
                stop=list(sampling.stop),
                stop_token_ids=self._ends,
                max_tokens=room(sampling, prompt, self.max_model_len),
                logprobs=0,
                # The trained format's markers are special tokens, and must be seen to stop at them.
                skip_special_tokens=False,
                output_kind=RequestOutputKind.FINAL_ONLY,
                extra_args=own or None,
            ),
        )
        if not output.outputs:
            raise EngineFailedError("vLLM gave no output")
        return _completion(output.outputs[0])

    async def _last_output(self, prompt: Tokens, params: Any) -> Any:
        """What vLLM's engine says at the end of one request (a RequestOutput). Raises EngineFailedError."""
        from vllm import TokensPrompt

        last = None
        request = f"r{next(self._numbers)}"
        async for output in self._llm.generate(TokensPrompt(prompt_token_ids=prompt), params, request):
            last = output
        if last is None:
            raise EngineFailedError("vLLM gave no output")
        return last

    async def read(self, texts: list[str]) -> list[Reading]:
        coded = await asyncio.to_thread(offsets, self._tokenizer, texts, self.max_model_len - 1)
        logprobs = await self._all(self._logprobs(tokens) for tokens, _ in coded)
        return [Reading(tokens, ends, row) for (tokens, ends), row in zip(coded, logprobs, strict=True)]

    async def _logprobs(self, tokens: Tokens) -> tuple[float, ...]:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        # vLLM does not answer for a prompt alone: it generates one token, which is thrown away.
        params = SamplingParams(
            temperature=0.0, max_tokens=1, prompt_logprobs=0, output_kind=RequestOutputKind.FINAL_ONLY
        )
        output = await self._last_output(tokens, params)
        if output.prompt_logprobs is None:
            raise EngineFailedError("vLLM gave no log-probabilities")
        return tuple(
            min(0.0, places[token].logprob) if places else 0.0
            for token, places in zip(tokens, output.prompt_logprobs, strict=True)
        )


def _completion(output: Any) -> Completion:
    """A CompletionOutput of vLLM as ours. Raises EngineFailedError when it ended for no reason that we know."""
    if output.finish_reason == "length":
        ended = Ended.LENGTH
    elif isinstance(output.stop_reason, str):
        ended = Ended.STOP
    elif output.finish_reason == "stop":
        ended = Ended.EOS
    else:
        raise EngineFailedError(f"vLLM ended a sequence for the reason {output.finish_reason!r}")
    drawn = [places[token] for token, places in zip(output.token_ids, output.logprobs or [], strict=True)]
    ends = itertools.accumulate(len(place.decoded_token or "") for place in drawn)
    return Completion(
        output.text,
        tuple(min(0.0, place.logprob) for place in drawn),
        tuple(ends),
        ended,
        output.stop_reason if ended is Ended.STOP else None,
    )


def use_every_core() -> None:
    """Let vLLM compute on every core of a small machine.

    Left to itself it keeps one free for its other processes, which on two cores is half of the speed (measured:
    59 and 100 tokens/s), and it asks for Intel's OpenMP, which its requirements install, to be preloaded.
    """
    if not hasattr(os, "sched_getaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) <= FEW_CORES:
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", ",".join(map(str, cores)))
        # Threads that spin while they wait take the core from the sandbox and the other services.
        os.environ.setdefault("KMP_BLOCKTIME", "1")
    library = Path(sys.prefix) / "lib" / "libiomp5.so"
    if library.is_file() and "LD_PRELOAD" not in os.environ:
        os.environ["LD_PRELOAD"] = str(library)


def dtype_here(checkpoint: Path, device: str) -> Literal["bfloat16", "float32"]:
    """The numbers in which a checkpoint is served on this machine."""
    from transformers import AutoConfig

    stored = AutoConfig.from_pretrained(checkpoint, local_files_only=True).dtype
    return "float32" if serving_dtype(checkpoint, stored, device).itemsize == 4 else "bfloat16"


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
