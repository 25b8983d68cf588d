"""The policy service: its engines against transformers itself, its HTTP app under a real server."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import torch
import uvicorn
from transformers import AutoModelForCausalLM, AutoTokenizer

from ratchet.contracts.policy import Prefix
from ratchet.settings import PolicySettings
from ratchet.solutions.step_formats import few_shot
from services.policy.app import build_app
from services.policy.engines.base import Completion, Ended, EngineFailedError, Sampling, sequence_seed
from services.policy.engines.transformers import TransformersEngine
from tests.drawn_tokens import nucleus_of
from tests.models import CORPUS, END, make_checkpoint

ROOT = Path(__file__).parents[2]
PROMPTS = [CORPUS[0][:30], CORPUS[1], CORPUS[2][:55], "x", CORPUS[1][:17]]
GREEDY = Sampling(temperature=0.0, max_tokens=24)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def reference(tiny_checkpoint: Path) -> tuple[Any, Any]:
    """The same checkpoint, straight from transformers."""
    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(tiny_checkpoint)


@pytest.fixture(scope="session")
async def engine(tiny_checkpoint: Path) -> AsyncIterator[TransformersEngine]:
    made = TransformersEngine(tiny_checkpoint, "tiny@1", max_num_seqs=16, dtype=torch.float32, device="cpu")
    await made.start()
    yield made
    await made.stop()


@contextlib.asynccontextmanager
async def serving(engine: Any, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """The app under uvicorn on a real socket."""
    app = build_app(
        PolicySettings(**settings), engine, few_shot(), on_failure=lambda message: pytest.fail(message)
    )
    server = uvicorn.Server(
        uvicorn.Config(
            app, log_config=None, lifespan="on", timeout_graceful_shutdown=2, timeout_keep_alive=75
        )
    )
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        running = asyncio.create_task(server.serve(sockets=[sock]))
        try:
            async with httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{sock.getsockname()[1]}", timeout=60
            ) as client:
                for _ in range(600):
                    with contextlib.suppress(httpx.TransportError):
                        if (await client.get("/health")).status_code == 200:
                            break
                    await asyncio.sleep(0.05)
                yield client
        finally:
            server.should_exit = True
            await running


@pytest.fixture(scope="session")
async def client(tiny_checkpoint: Path) -> AsyncIterator[httpx.AsyncClient]:
    made = TransformersEngine(tiny_checkpoint, "tiny@1", max_num_seqs=16, dtype=torch.float32, device="cpu")
    async with serving(made) as opened:
        yield opened


def greedy_by_transformers(reference: tuple[Any, Any], prompt: list[int], tokens: int) -> list[int]:
    model, _ = reference
    out = model.generate(torch.tensor([prompt]), max_new_tokens=tokens, do_sample=False)
    tokens_out: list[int] = out[0, len(prompt) :].tolist()
    return tokens_out


def written(completions: list[list[Completion]]) -> list[tuple[str, int]]:
    """What was drawn; log-probabilities may differ in the last bit from batch to batch."""
    return [(one.text, one.tokens) for row in completions for one in row]


def agree(vllm: list[list[Completion]], transformers: list[list[Completion]]) -> bool:
    """Whether both wrote the same. vLLM leaves out a last token that ends in the middle of a character."""
    return all(
        tokens == count and text.startswith(short) and len(text) - len(short) <= 3
        for (short, tokens), (text, count) in zip(written(vllm), written(transformers), strict=True)
    )


async def test_batched_greedy_output_equals_unbatched_generation(
    engine: TransformersEngine, reference: tuple[Any, Any]
) -> None:
    prompts = engine.encode(PROMPTS)
    assert len({len(prompt) for prompt in prompts}) > 3, "the batch needs padding"
    # One call with all prompts, and at the same time each alone: they share batches.
    together, *alone = await asyncio.gather(
        engine.generate(prompts, GREEDY), *(engine.generate([prompt], GREEDY) for prompt in prompts)
    )
    for prompt, one, (other,) in zip(prompts, together, alone, strict=True):
        expected = greedy_by_transformers(reference, prompt, 24)
        text = reference[1].decode([token for token in expected if token != 0])
        assert one[0].text == other[0].text == text
        assert one[0].tokens == len(expected)
        assert one[0].ended is (Ended.EOS if expected[-1] == 0 else Ended.LENGTH)


async def test_mean_logprob_is_that_of_a_direct_forward_pass(
    engine: TransformersEngine, reference: tuple[Any, Any]
) -> None:
    model, _ = reference
    for prompt, (one,) in zip(
        engine.encode(PROMPTS), await engine.generate(engine.encode(PROMPTS), GREEDY), strict=True
    ):
        tokens = greedy_by_transformers(reference, prompt, 24)
        with torch.inference_mode():
            logprobs = model(torch.tensor([prompt + tokens])).logits[0].log_softmax(-1)
        direct = [logprobs[len(prompt) - 1 + at, token].item() for at, token in enumerate(tokens)]
        assert one.mean_logprob == pytest.approx(sum(direct) / len(direct), abs=1e-4)


async def test_a_seed_repeats_its_draws_whatever_else_is_in_the_batch(engine: TransformersEngine) -> None:
    prompts = engine.encode(PROMPTS[:2])
    seeded = Sampling(n=3, temperature=1.0, top_p=0.9, max_tokens=16, seed=5)
    alone = await engine.generate(prompts, seeded)
    again, other, _ = await asyncio.gather(
        engine.generate(prompts, seeded),
        engine.generate(prompts, Sampling(n=3, temperature=1.0, top_p=0.9, max_tokens=16, seed=6)),
        engine.generate(engine.encode(PROMPTS[2:]), GREEDY),
    )
    assert written(alone) == written(again)
    assert written(alone) != written(other)
    assert len({one.text for one in alone[0]}) == 3, "candidates of one prompt differ"
    assert sequence_seed(5, 0, 1) != sequence_seed(5, 1, 0)


async def test_stop_strings_cut_the_text_where_they_begin(engine: TransformersEngine) -> None:
    prompts = engine.encode(PROMPTS[:1])
    [[whole]] = await engine.generate(prompts, GREEDY)
    stop = whole.text[5:8]
    [[cut]] = await engine.generate(prompts, Sampling(temperature=0.0, max_tokens=24, stop=("never", stop)))
    assert cut.ended is Ended.STOP
    assert cut.stopped_by == stop
    assert cut.text == whole.text[: whole.text.find(stop)]
    assert cut.tokens < whole.tokens


async def test_draws_follow_the_tempered_nucleus(
    engine: TransformersEngine, reference: tuple[Any, Any]
) -> None:
    [prompt] = engine.encode(PROMPTS[:1])
    with torch.inference_mode():
        logits = reference[0](torch.tensor([prompt])).logits[0, -1] / 0.7
    expected = nucleus_of(logits[None], torch.tensor([0.8])).softmax(-1)[0]
    draws = 1500
    done = await engine.generate(
        [prompt], Sampling(n=draws, temperature=0.7, top_p=0.8, max_tokens=1, seed=1)
    )
    counts: dict[str, int] = {}
    for one in done[0]:
        counts[one.text] = counts.get(one.text, 0) + 1
    allowed: dict[str, float] = {}
    for token in torch.nonzero(expected).flatten().tolist():
        text = "" if token == 0 else reference[1].decode([token])
        allowed[text] = allowed.get(text, 0.0) + expected[token].item()
    assert set(counts) <= set(allowed)
    for text, probability in allowed.items():
        spread = (probability * (1 - probability) / draws) ** 0.5
        assert abs(counts.get(text, 0) / draws - probability) < 5 * spread + 1e-3


async def test_cancelled_sequences_leave_the_batch(engine: TransformersEngine) -> None:
    long = Sampling(temperature=1.0, max_tokens=1800, seed=1, n=16)
    task = asyncio.create_task(engine.generate(engine.encode(["x"]), long))
    await asyncio.sleep(0.3)
    task.cancel()
    began = time.perf_counter()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await engine.generate(engine.encode(["x"]), Sampling(temperature=0.0, max_tokens=2))
    assert time.perf_counter() - began < 3, "the next request waited for a batch that nobody wants"


async def test_a_stopped_engine_refuses_instead_of_hanging(tiny_checkpoint: Path) -> None:
    made = TransformersEngine(tiny_checkpoint, "tiny@1", dtype=torch.float32, device="cpu")
    await made.start()
    work = asyncio.create_task(made.generate(made.encode(["x"]), Sampling(n=4, max_tokens=2000, seed=1)))
    await asyncio.sleep(0.2)
    await made.stop()
    with pytest.raises(EngineFailedError):
        await work
    assert await asyncio.wait_for(made.died(), 5)
    with pytest.raises(EngineFailedError):
        await made.generate([[1]], GREEDY)


# --- HTTP ------------------------------------------------------------------------------------------------------------

BODY: dict[str, Any] = {
    "prefixes": [{"problem": "What is 2 + 3?", "steps": ["# Step 1: a\nx = 2"]}],
    "max_tokens": 12,
    "seed": 1,
}


async def test_generate_answers_one_list_per_prefix(client: httpx.AsyncClient) -> None:
    health = (await client.get("/health")).json()
    assert health["detail"]["model"] == "tiny@1"
    assert health["detail"]["engine"] == "transformers"
    answer = await client.post("/generate", json=BODY | {"prefixes": BODY["prefixes"] * 2, "n": 3})
    assert answer.status_code == 200, answer.text
    got = answer.json()
    assert got["model"] == "tiny@1"
    assert [len(row) for row in got["candidates"]] == [3, 3]
    for one in (one for row in got["candidates"] for one in row):
        assert one["tokens"] <= 12
        assert one["mean_logprob"] < 0
        assert len(one["steps"]) <= 1
        assert one["finish_reason"] in ("step", "end", "length")


async def generated(client: httpx.AsyncClient) -> float:
    """Tokens that the engine has drawn."""
    lines = (await client.get("/metrics")).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("ratchet_policy_tokens_total{"))


async def test_shared_draws_are_those_that_were_not_shared_and_are_drawn_once(
    client: httpx.AsyncClient,
) -> None:
    body = BODY | {"prefixes": BODY["prefixes"] * 3, "seeds": [7, 8, 7], "until": "end"}

    async def ask(**changes: Any) -> tuple[list[str], float]:
        before = await generated(client)
        answer = await client.post("/generate", json=body | changes)
        assert answer.status_code == 200, answer.text
        rows = answer.json()["candidates"]
        return [one["text"] for row in rows for one in row], await generated(client) - before

    alone, drawn = await ask()
    assert alone[0] == alone[2] != alone[1]
    shared, once = await ask(shared=True)
    assert (shared, once < drawn) == (alone, True), "the first and the third are one"
    assert await ask(shared=True) == (alone, 0)
    assert await ask() == (alone, drawn), "who does not share draws"
    others, more = await ask(shared=True, seeds=[9, 8, 10])
    assert others[1] == alone[1]
    assert 0 < more < drawn


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"max_tokens": 5000}, "max_tokens"),
        ({"prefixes": [*BODY["prefixes"], {"problem": "word " * 3000}]}, "prefixes.1"),
        ({"prefixes": BODY["prefixes"] * 100, "n": 11}, "n"),
        ({"prefixes": []}, "prefixes"),
        ({"prefixes": [{"problem": " "}]}, "prefixes.0.problem"),
        ({"stop": ["x", ""]}, "stop.1"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"beams": 4}, "beams"),
        ({"shared": True}, "body"),
    ],
)
async def test_a_bad_request_is_refused_and_its_field_named(
    client: httpx.AsyncClient, change: dict[str, Any], field: str
) -> None:
    answer = await client.post("/generate", json=BODY | change)
    assert answer.status_code == 422
    assert field in [error["field"] for error in answer.json()["errors"]]
    assert (await client.get("/health")).status_code == 200


async def test_a_completion_ends_where_the_model_reads_no_further(
    client: httpx.AsyncClient, engine: TransformersEngine
) -> None:
    def left_beside(words: int) -> int:
        [prompt] = engine.encode([few_shot().render(Prefix(problem="word " * words))])
        return engine.max_model_len - len(prompt)

    words = bisect_left(range(3000), 0, key=lambda words: -left_beside(words)) - 1
    left = left_beside(words)
    assert left < 40
    prefixes = [{"problem": "word " * words}, {"problem": "What is 2 + 3?"}]
    body = {"prefixes": prefixes, "max_tokens": 60, "temperature": 0, "until": "end"}
    answer = await client.post("/generate", json=body)
    assert answer.status_code == 200, answer.text
    [[full], [free]] = answer.json()["candidates"]
    assert full["tokens"] <= left
    assert full["tokens"] == left or full["finish_reason"] != "length"
    assert left < free["tokens"] <= 60


async def test_work_ends_when_the_caller_goes_away(
    tiny_checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = TransformersEngine(tiny_checkpoint, "tiny@1", dtype=torch.float32, device="cpu")
    ended = asyncio.Event()
    plain = made.generate

    async def watched(*arguments: Any) -> Any:
        try:
            return await plain(*arguments)
        except asyncio.CancelledError:
            ended.set()
            raise

    made.generate = watched  # type: ignore[assignment, method-assign]
    async with serving(made) as client:
        long = BODY | {"n": 16, "max_tokens": 1200, "until": "end", "temperature": 2}
        began = time.perf_counter()
        with pytest.raises(httpx.ReadTimeout):
            await client.post("/generate", json=long, timeout=0.5)
        await asyncio.wait_for(ended.wait(), 3)
        assert (await client.post("/generate", json=BODY)).status_code == 200
        assert time.perf_counter() - began < 10
    assert not [record for record in caplog.records if record.exc_info], "a caller who leaves is no error"


# --- the process -----------------------------------------------------------------------------------------------------


def service_environment(model: str | Path, cache: Path, **settings: str) -> dict[str, str]:
    own = {"RATCHET_MODEL": str(model), "RATCHET_CACHE_DIR": str(cache), "RATCHET_LOG_JSON": "true"}
    return os.environ | own | {"HF_ENDPOINT": "http://127.0.0.1:9", "PYTHONPATH": str(ROOT)} | settings


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("nonsense", "There is no model 'nonsense'"),
        ("{empty}", "no config.json"),
        ("no/where", "hub cannot be reached"),
    ],
)
def test_a_model_that_is_not_there_ends_the_process_with_a_message(
    tmp_path: Path, model: str, said: str
) -> None:
    (tmp_path / "empty").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "services.policy"],
        env=service_environment(
            model.format(empty=tmp_path / "empty"), tmp_path / "cache", HF_HOME=str(tmp_path)
        ),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode not in (0, None)
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def wait_ready(port: int, process: subprocess.Popen[str], seconds: float = 150) -> dict[str, Any]:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert process.poll() is None, process.communicate()[1][-3000:]
        with contextlib.suppress(httpx.TransportError):
            answer = httpx.get(f"http://127.0.0.1:{port}/health", timeout=5)
            if answer.status_code == 200:
                health: dict[str, Any] = answer.json()
                return health
        time.sleep(0.2)
    raise AssertionError("the service did not become ready")


@contextlib.contextmanager
def service_process(port: int, environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[str]]:
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.policy"],
            env=environment | {"RATCHET_PORT": str(port)},
            stderr=stderr,
            text=True,
            cwd=log.parent,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def test_the_process_serves_and_ends_in_order_on_sigterm(
    tiny_checkpoint: Path, tmp_path: Path, free_port: int
) -> None:
    environment = service_environment(tiny_checkpoint, tmp_path / "cache", RATCHET_ENGINE="transformers")
    with service_process(free_port, environment, tmp_path / "log") as process:
        health = wait_ready(free_port, process)
        assert health["detail"]["model"].startswith("tiny@")
        answer = httpx.post(f"http://127.0.0.1:{free_port}/generate", json=BODY, timeout=30)
        assert answer.status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) in (0, -signal.SIGTERM)


def test_a_broken_weights_file_ends_the_process_with_a_message(tiny_checkpoint: Path, tmp_path: Path) -> None:
    import shutil

    broken = Path(shutil.copytree(tiny_checkpoint, tmp_path / "broken"))
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    done = subprocess.run(
        [sys.executable, "-m", "services.policy"],
        env=service_environment(broken, tmp_path / "cache"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode not in (0, None)
    assert "damaged" in done.stderr
    assert "Traceback" not in done.stderr


# --- vLLM ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_vllm_agrees_with_transformers(
    tiny_checkpoint: Path, engine: TransformersEngine, reference: tuple[Any, Any]
) -> None:
    pytest.importorskip("vllm")
    from services.policy.engines.vllm import VllmEngine

    made = VllmEngine(
        tiny_checkpoint, "tiny@1", max_model_len=1024, max_num_seqs=16, kv_cache_gb=1, dtype="float32"
    )
    await made.start()
    try:
        prompts = made.encode(PROMPTS)
        mine, theirs = await made.generate(prompts, GREEDY), await engine.generate(prompts, GREEDY)
        for (one,), (other,) in zip(mine, theirs, strict=True):
            assert one.text.rstrip("\ufffd") == other.text.rstrip("\ufffd")
            assert (one.tokens, one.ended) == (other.tokens, other.ended)
            assert one.mean_logprob == pytest.approx(other.mean_logprob, abs=1e-3)

        stop = mine[0][0].text[5:8]
        [[cut]] = await made.generate(prompts[:1], Sampling(temperature=0.0, max_tokens=24, stop=(stop,)))
        assert (cut.ended, cut.stopped_by) == (Ended.STOP, stop)
        assert cut.text == mine[0][0].text[: mine[0][0].text.find(stop)]

        seeded = Sampling(n=4, temperature=1.0, top_p=0.8, max_tokens=12, seed=3)
        drawn = await made.generate(prompts, seeded)
        assert written(drawn) == written(await made.generate(prompts[:3], seeded)) + written(drawn)[12:]
        # Both engines draw by the same numbers, so in fp32 they write the same.
        assert agree(drawn, await engine.generate(prompts, seeded))
        # More prompt tokens at once than the engine takes in one step: prompts are computed in pieces.
        long = [[7 + number] + prompts[1] * 24 for number in range(16)]
        assert sum(map(len, long)) > 2 * 4096
        once = Sampling(n=2, temperature=1.0, top_p=0.9, max_tokens=3, seed=3)
        assert agree(await made.generate(long, once), await engine.generate(long, once))

        # Top-p on the CPU is our own: no draw leaves the nucleus.
        with torch.inference_mode():
            logits = reference[0](torch.tensor([prompts[0]])).logits[0, -1]
        nucleus = torch.isfinite(nucleus_of(logits[None], torch.tensor([0.5])))[0]
        allowed = {reference[1].decode([token]) for token in torch.nonzero(nucleus).flatten().tolist()}
        drawn = await made.generate(
            prompts[:1], Sampling(n=200, temperature=1.0, top_p=0.5, max_tokens=1, seed=4)
        )
        assert len(allowed) < len(nucleus) / 2
        assert {one.text for one in drawn[0]} <= allowed | {"", END}

        task = asyncio.create_task(made.generate(prompts[:1], Sampling(n=8, max_tokens=900, seed=1)))
        await asyncio.sleep(0.5)
        assert made._llm.output_processor.has_unfinished_requests()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.5)
        assert not made._llm.output_processor.has_unfinished_requests()

        [core] = [
            child for child in psutil.Process().children(recursive=True) if "EngineCore" in child.name()
        ]
        waiting = asyncio.create_task(made.generate(prompts[:1], Sampling(n=2, max_tokens=900, seed=1)))
        await asyncio.sleep(0.3)
        core.kill()
        assert "ended" in await asyncio.wait_for(made.died(), 20)
        with pytest.raises(EngineFailedError):
            await asyncio.wait_for(waiting, 20)
    finally:
        await made.stop()


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_vllm_with_8_bit_weights_writes_nearly_the_same(
    tiny_checkpoint: Path, engine: TransformersEngine, tmp_path: Path
) -> None:
    pytest.importorskip("vllm")
    from ratchet.models.int8 import computes_int8
    from services.policy.engines.vllm import VllmEngine

    if not computes_int8():
        pytest.skip("this CPU does not multiply bytes")
    made = VllmEngine(
        tiny_checkpoint, "tiny@1", max_model_len=1024, max_num_seqs=16, kv_cache_gb=1, int8_cache=tmp_path
    )
    await made.start()
    try:
        assert made.checkpoint == tiny_checkpoint, "the version is that of the stored weights"
        assert any((tmp_path / "int8").iterdir())
        mine, theirs = await made.read(PROMPTS), await engine.read(PROMPTS)
        for one, other in zip(mine, theirs, strict=True):
            assert one.tokens == other.tokens
            assert one.logprobs == pytest.approx(other.logprobs, abs=0.1)
            assert one.logprobs != other.logprobs
    finally:
        await made.stop()
