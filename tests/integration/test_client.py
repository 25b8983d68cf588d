"""The Python client over real HTTP. The service is a double that answers by the problem's text (search_double.py)."""

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

import ratchet
from ratchet.client import AnswerFound, Ended, ServiceError, StateChanged, StepFound
from ratchet.contracts.search import Proof
from ratchet.states import SearchState
from tests.http_double import serving
from tests.integration.search_double import Searches, search_double
from tests.integration.test_cli_verify import ONE, OTHER, bundle

SECONDS = 30


@pytest.fixture
def double() -> Iterator[tuple[str, Searches]]:
    app, searches = search_double()
    with serving() as serve:
        yield serve(app), searches


@pytest.fixture
async def client(double: tuple[str, Searches]) -> AsyncIterator[ratchet.AsyncClient]:
    async with ratchet.AsyncClient(double[0], retry_seconds=1) as client:
        yield client


async def test_solve_gives_the_result_when_the_search_is_over(
    client: ratchet.AsyncClient, double: tuple[str, Searches]
) -> None:
    result = await client.solve("say 42", seed=3, budget={"tokens": 99}, strategy="beam")
    assert (result.answer, result.state) == ("42", SearchState.SOLVED_VERIFIED)
    [asked] = double[1].requests
    assert (asked.problem, asked.seed, asked.budget.tokens, asked.strategy) == ("say 42", 3, 99, "beam")
    assert double[1].cancelled == []


async def test_stream_tells_what_happens_and_then_the_end(client: ratchet.AsyncClient) -> None:
    told = [event async for event in client.stream("say 42")]
    assert [type(event) for event in told] == [StateChanged, StepFound, StepFound, Ended]
    assert isinstance(told[-1], Ended)
    assert told[-1].result.answer == "42"
    assert not [event for event in told if isinstance(event, AnswerFound)]


async def test_whoever_breaks_off_cancels(client: ratchet.AsyncClient, double: tuple[str, Searches]) -> None:
    async with aclosing(client.stream("endless")) as told:
        async for event in told:
            if isinstance(event, StepFound):
                break
    assert double[1].cancelled == [0]
    solving = asyncio.create_task(client.solve("endless"))
    await until(lambda: len(double[1].requests) == 2)
    solving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await solving
    assert double[1].cancelled == [0, 1]


async def test_a_branch_says_what_was_given_and_nothing_else(
    client: ratchet.AsyncClient, double: tuple[str, Searches]
) -> None:
    solved = await client.solve("say 42")
    new = await client.branch(solved.id, "n2", edit="print(7)", parameters={"width": 3}, budget={"tokens": 9})
    assert double[1].branches == [
        {"node": "n2", "edit": {"text": "print(7)"}, "parameters": {"width": 3}, "budget": {"tokens": 9}}
    ]
    assert new.parent is not None
    assert (new.parent.search, new.parent.node) == (solved.id, "n2")
    page = await client.searches(2, state="solved_verified")
    assert [each.parent for each in page.searches] == [None]
    with pytest.raises(ValueError, match="node"):
        await client.branch(solved.id, "")


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not holds():
            await asyncio.sleep(0.02)


async def test_wrong_options_are_named_before_anything_is_asked(
    client: ratchet.AsyncClient, double: tuple[str, Searches]
) -> None:
    with pytest.raises(ValueError, match="seed"):
        await client.solve("say 1", seed=-1)
    assert double[1].requests == []


async def test_a_service_that_is_not_there_is_an_error() -> None:
    async with ratchet.AsyncClient("http://127.0.0.1:9", retry_seconds=0.1) as client:
        with pytest.raises(ServiceError, match="cannot be reached"):
            await client.solve("say 1")


def test_without_a_stack_and_an_address_the_fix_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ratchet up"):
        ratchet.Client(data=tmp_path)


def test_the_same_without_asyncio(double: tuple[str, Searches], tmp_path: Path) -> None:
    with ratchet.Client(double[0]) as client:
        assert client.solve("say 42").answer == "42"
        *_, last = client.stream("guess 7")
        assert isinstance(last, Ended)
        for event in client.stream("endless"):
            if isinstance(event, StepFound):
                break
        assert double[1].cancelled, "the generator is closed as soon as nobody holds it"
        report = client.batch(["say 1", "guess 2"], tmp_path / "out.jsonl")
        assert (report.solved, report.asked) == (1, 2)
        assert client.get(last.result.id).answer == "7"
    client.close()


def test_it_is_shared_by_threads(double: tuple[str, Searches]) -> None:
    found: list[str | None] = []
    with ratchet.Client(double[0]) as client:
        asking = [
            threading.Thread(target=lambda n=n: found.append(client.solve(f"say {n}").answer))
            for n in range(8)
        ]
        for each in asking:
            each.start()
        for each in asking:
            each.join(SECONDS)
    assert sorted(map(str, found)) == [str(n) for n in range(8)]


INTERRUPTED = """
import signal, sys, ratchet
# Whoever runs tests in the background has SIGINT ignored, here too.
signal.signal(signal.SIGINT, signal.default_int_handler)
with ratchet.Client(sys.argv[1]) as client:
    print("asked", flush=True)
    client.solve("endless")
"""


def test_ctrl_c_in_a_call_cancels_its_search(double: tuple[str, Searches]) -> None:
    program = [sys.executable, "-c", INTERRUPTED, double[0]]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + SECONDS
        while not double[1].requests:
            assert time.monotonic() < deadline, "it has asked nothing"
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        try:
            _, said = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
    assert b"KeyboardInterrupt" in said
    assert double[1].cancelled == [0]


async def test_a_batch_reads_a_file_and_goes_on_where_it_stopped(
    client: ratchet.AsyncClient, double: tuple[str, Searches], tmp_path: Path
) -> None:
    file, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    file.write_text("".join(json.dumps({"problem": f"say {n}", "id": n}) + "\n" for n in range(5)))
    assert (await client.batch(file, out, concurrency=2)).solved == 5
    assert (await client.batch(str(file), str(out))).asked == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert {each["id"]: each["result"]["answer"] for each in lines} == {n: str(n) for n in range(5)}
    assert len(double[1].requests) == 5


async def test_a_proof_is_checked_here(client: ratchet.AsyncClient) -> None:
    honest = await client.verify(Proof.model_validate(bundle(ONE, OTHER)))
    assert honest.holds, [check for check in honest.checks if not check.holds]
    forged = Proof.model_validate(bundle(ONE, OTHER) | {"answer": "43"})
    assert not (await client.verify(forged)).holds


def test_import_ratchet_is_light() -> None:
    heavy = "httpx", "pydantic", "aiohttp", "asyncio"
    program = f"import sys, ratchet; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
