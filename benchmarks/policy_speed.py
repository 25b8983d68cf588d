"""Tokens a second of the policy service's transformers engine with a nano model, beside transformers' own `generate`.

A random model of nano's shape writes 60 tokens after prompts of 40 at temperature 1, never ending early. These ways are
measured in turn, for several rounds; the figures are medians, and `spread` has the lowest and the highest round:

- `baseline`: `generate` of transformers with its dynamic cache
- `engine_…`: our engine called directly, on batches of different prompts, and of 8 candidates a prompt
- `http_…`: the service as a process of its own, with 64 clients that ask for one candidate at a time, or 8 that ask for 8

`python -m benchmarks.policy_speed [--rounds N]`; the last line is JSON.

Limits: the clients run on the same cores and cost some of them. What else runs on the machine shows, in the baseline too.
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import structlog
import torch

from ratchet.clients import PolicyClient, ServiceError
from ratchet.contracts.policy import GenerateRequest, Prefix
from ratchet.stack.ports import free_port
from services.policy.engines.base import Sampling
from services.policy.engines.transformers import TransformersEngine

ROOT = Path(__file__).parents[1]
WORDS, PROMPT, NEW = 768, 40, 60
BATCH, WIDE = 64, 256
REQUESTS = 6
"""That each client sends in one round."""


def make_model(folder: Path, dtype: torch.dtype) -> None:
    """A random Qwen2 of nano's shape with a tokenizer of one token a letter. No token ends a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: at for at, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([f"w{number:03}" for number in range(WORDS - len(letters))])
    fast: Any = PreTrainedTokenizerFast
    fast(tokenizer_object=tokenizer).save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=WORDS,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    config.ratchet_step_format = "markers"
    model: Any = Qwen2ForCausalLM
    model(config).to(dtype=dtype).save_pretrained(folder)


def prompts(count: int) -> list[list[int]]:
    """So many different prompts, as token ids."""
    return [[(7 * number + 13 * at) % WORDS for at in range(PROMPT)] for number in range(count)]


async def baseline(model: Any) -> float:
    """transformers' generate on one batch: tokens a second."""
    ids = torch.tensor(prompts(BATCH))

    def generate() -> None:
        with torch.inference_mode():
            model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=True,
                temperature=1.0,
                top_k=0,
                max_new_tokens=NEW,
                pad_token_id=0,
            )

    began = time.perf_counter()
    await asyncio.to_thread(generate)
    return BATCH * NEW / (time.perf_counter() - began)


async def direct(engine: TransformersEngine, sequences: int, n: int) -> float:
    """One batch through the engine: tokens a second."""
    began = time.perf_counter()
    done = await engine.generate(prompts(sequences // n), Sampling(n=n, temperature=1.0, max_tokens=NEW))
    return sum(one.tokens for row in done for one in row) / (time.perf_counter() - began)


async def over_http(client: PolicyClient, clients: int, n: int) -> float:
    """Clients that ask one request after the other: tokens a second."""

    async def ask(number: int) -> int:
        tokens = 0
        for turn in range(REQUESTS):
            problem = f"{number:02} and {turn:02} are how much together ?".ljust(PROMPT - 1, ".")
            answer = await client.generate(
                GenerateRequest(
                    prefixes=[Prefix(problem=problem)],
                    n=n,
                    temperature=1.0,
                    top_p=1.0,
                    max_tokens=NEW,
                    until="end",
                )
            )
            tokens += sum(one.tokens for one in answer.candidates[0])
        return tokens

    began = time.perf_counter()
    tokens = await asyncio.gather(*map(ask, range(clients)))
    return sum(tokens) / (time.perf_counter() - began)


async def measure(rounds: int) -> dict[str, Any]:
    """All figures, the ways in turn in every round; the first round warms up and does not count."""
    from transformers import AutoModelForCausalLM

    with tempfile.TemporaryDirectory() as temporary:
        folders = {"bf16": Path(temporary, "bf16"), "fp32": Path(temporary, "fp32")}
        make_model(folders["bf16"], torch.bfloat16)
        make_model(folders["fp32"], torch.float32)
        plain: Any = AutoModelForCausalLM.from_pretrained(folders["fp32"], dtype=torch.float32)
        plain.eval()
        async with (
            started_engine(folders["bf16"]) as bf16,
            started_engine(folders["fp32"]) as fp32,
            served(folders["bf16"], temporary) as client,
        ):
            ways: dict[str, Callable[[], Awaitable[float]]] = {
                "baseline": lambda: baseline(plain),
                "engine_fp32": lambda: direct(fp32, BATCH, 1),
                "engine_bf16": lambda: direct(bf16, BATCH, 1),
                "engine_bf16_n8": lambda: direct(bf16, BATCH, 8),
                "engine_bf16_256_n8": lambda: direct(bf16, WIDE, 8),
                "http_64_clients_n1": lambda: over_http(client, BATCH, 1),
                "http_8_clients_n8": lambda: over_http(client, BATCH // 8, 8),
            }
            found = await speeds_in_turn(ways, rounds)
    return {
        "benchmark": "policy_speed",
        "tokens_per_second": {name: round(statistics.median(speeds)) for name, speeds in found.items()},
        "spread": {name: [round(min(speeds)), round(max(speeds))] for name, speeds in found.items()},
        "rounds": rounds,
        "torch_threads": torch.get_num_threads(),
        "cores": len(os.sched_getaffinity(0)),
    }


async def speeds_in_turn(
    ways: Mapping[str, Callable[[], Awaitable[float]]], rounds: int
) -> dict[str, list[float]]:
    """Tokens a second of each way in each round; all ways in turn, the warm-up round left out."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            speed = await way()
            if turn:
                found[name].append(speed)
                print(f"round {turn}: {name} {speed:.0f} tokens/s", flush=True)
    return found


@contextlib.asynccontextmanager
async def started_engine(folder: Path) -> AsyncIterator[TransformersEngine]:
    """The engine in this process."""
    engine = TransformersEngine(folder, folder.name, max_num_seqs=WIDE, device="cpu")
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


@contextlib.asynccontextmanager
async def served(folder: Path, cache: str) -> AsyncIterator[PolicyClient]:
    """A client of the policy service, which runs as a process of its own and is ready."""
    port = free_port()
    settings = {
        "RATCHET_MODEL": str(folder),
        "RATCHET_ENGINE": "transformers",
        "RATCHET_PORT": str(port),
        "RATCHET_CACHE_DIR": cache,
        "RATCHET_MAX_NUM_SEQS": str(WIDE),
    }
    service = subprocess.Popen(  # noqa: ASYNC220 - nothing else waits here
        [sys.executable, "-m", "services.policy"],
        cwd=ROOT,
        env=os.environ | settings,
        stderr=subprocess.DEVNULL,
    )
    try:
        async with PolicyClient(f"http://127.0.0.1:{port}") as client:
            await wait_until_ready(client, service)
            yield client
    finally:
        service.kill()
        service.wait()


async def wait_until_ready(client: PolicyClient, service: "subprocess.Popen[bytes]") -> None:
    """Return when the service is ready; ends the program when it did not start."""
    while True:
        if service.poll() is not None:
            sys.exit("the policy service did not start; run `python -m services.policy` to see why")
        try:
            if (await client.health()).ready:
                return
        except ServiceError:
            pass
        await asyncio.sleep(0.2)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    print(json.dumps(asyncio.run(measure(rounds))))


if __name__ == "__main__":
    main()
