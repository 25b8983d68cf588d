"""The interpreter of a search on a real sandbox: its rollouts share one session, which is made once it pays."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from ratchet.clients import SandboxClient, ServiceError
from ratchet.contracts.sandbox import StepStatus
from services.search.interpreter import SESSION_PAYS_SECONDS, Interpreter
from services.search.step_memory import StepMemory
from tests.sandbox_server import TOKEN, Sandbox, sandbox

__all__ = ["sandbox"]


async def turns(count: int = 5) -> None:
    """Let everything run that can run."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncIterator[SandboxClient]:
    async with SandboxClient(str(sandbox.http.base_url), key=TOKEN) as client:
        yield client


def sessions(sandbox: Sandbox) -> int:
    """How many are open."""
    return int(sandbox.health()["detail"]["sessions"])


async def make_a_session_pay(interpreter: Interpreter) -> None:
    """Run a step that takes so long that the interpreter will not run it again."""
    [slow] = await interpreter.run([f"import time\ntime.sleep({1.5 * SESSION_PAYS_SECONDS})"])
    assert slow.status is StepStatus.OK


async def test_quick_trajectories_open_no_session_and_are_run_once(
    sandbox: Sandbox, client: SandboxClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a busy machine nothing is quick.
    monkeypatch.setattr("services.search.interpreter.SESSION_PAYS_SECONDS", 5.0)
    before = sessions(sandbox)
    steps = ["import random", "print(random.random())"]
    async with Interpreter(client, 5, StepMemory()) as interpreter:
        found = await asyncio.gather(*(interpreter.run(steps) for _ in range(3)))
        assert found[0] == found[1] == found[2]
        assert await interpreter.run(["x = 1", "print(x +)", "print(x)"]) != found[0]
        assert sessions(sandbox) == before


async def test_rollouts_that_begin_one_after_another_share_one_session(
    sandbox: Sandbox, client: SandboxClient
) -> None:
    before = sessions(sandbox)

    async def rollout(number: int) -> str:
        # Not in the same moment, so each comes with a request of its own before there is a session.
        await turns(3 * number)
        done = await interpreter.run(["x = 40", f"print(x + {number})"])
        assert [step.status for step in done] == [StepStatus.OK] * 2
        return done[-1].stdout

    async with Interpreter(client, 1, StepMemory()) as interpreter:
        await make_a_session_pay(interpreter)
        assert await asyncio.gather(*map(rollout, range(6))) == [f"{40 + n}\n" for n in range(6)]
        assert sessions(sandbox) == before + 1
        assert await rollout(9) == "49\n"
        assert sessions(sandbox) == before + 1
    assert sessions(sandbox) == before


async def test_a_session_that_was_lost_is_made_anew_once_for_all(
    sandbox: Sandbox, client: SandboxClient
) -> None:
    before = sessions(sandbox)
    async with Interpreter(client, 2, StepMemory()) as interpreter:
        await make_a_session_pay(interpreter)
        await interpreter.run(["x = 1"])
        assert interpreter._session is not None
        await client.end_session(interpreter._session)

        async def rollout(number: int) -> str:
            await turns(3 * number)
            return (await interpreter.run(["x = 1", f"print(x + {number})"]))[-1].stdout

        assert await asyncio.gather(*map(rollout, range(4))) == ["1\n", "2\n", "3\n", "4\n"]
        assert sessions(sandbox) == before + 1
    assert sessions(sandbox) == before


async def test_a_rollout_that_is_cancelled_harms_no_other_of_its_search(client: SandboxClient) -> None:
    async with Interpreter(client, 3, StepMemory()) as interpreter:
        await make_a_session_pay(interpreter)
        first = asyncio.create_task(interpreter.run(["x = 1"]))
        await turns()
        other = asyncio.create_task(interpreter.run(["print(2)"]))
        await turns()
        # It is the one that is opening the session.
        first.cancel()
        assert (await other)[0].stdout == "2\n"
        assert (await interpreter.run(["print(3)"]))[0].stdout == "3\n"


async def test_a_sandbox_that_is_away_is_an_error_for_each_rollout(free_port: int) -> None:
    async with (
        SandboxClient(f"http://127.0.0.1:{free_port}", retry_seconds=0) as away,
        Interpreter(away, 4, StepMemory()) as interpreter,
    ):
        found = await asyncio.gather(*(interpreter.run(["x = 1"]) for _ in range(3)), return_exceptions=True)
    assert [type(each) for each in found] == [ServiceError] * 3


async def test_searches_of_a_worker_run_the_same_steps_once(
    client: SandboxClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.search.interpreter.SESSION_PAYS_SECONDS", 5.0)
    memory = StepMemory()
    # Two runs of this would hardly print the same.
    steps = ["import time", "print(time.perf_counter_ns())"]
    printed: list[str] = []
    for seed in (1, 1, 2):
        async with Interpreter(client, seed, memory) as interpreter:
            printed.append((await interpreter.run(steps))[-1].stdout)
    assert printed[0] == printed[1] != printed[2]


async def test_what_a_session_has_run_is_no_other_searchs(client: SandboxClient) -> None:
    memory = StepMemory()
    async with Interpreter(client, 1, memory) as interpreter:
        await make_a_session_pay(interpreter)
        await interpreter.run(["x = 1"])
        assert interpreter._session is not None
    assert memory.recall(1, ["x = 1"]) is None
