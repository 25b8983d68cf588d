"""Questions of one moment are one request; and the rollouts of a search share one session of a real sandbox."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest
from sandbox_server import Sandbox, sandbox

from ratchet.batching import Together
from ratchet.clients import SandboxClient, ServiceError
from ratchet.contracts.sandbox import StepStatus
from services.search.interpreter import SESSION_PAYS_SECONDS, Interpreter

__all__ = ["sandbox"]


@dataclass
class Service:
    """Doubles numbers, when it is let; remembers what it was asked, and which requests were given up."""

    asked: list[list[int]] = field(default_factory=list)
    given_up: int = 0
    answers: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, questions: Sequence[int]) -> list[int]:
        self.asked.append(list(questions))
        try:
            await self.answers.wait()
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        if 13 in questions:
            raise ValueError("thirteen")
        return [2 * question for question in questions]


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def together(service: Service) -> Together[int, int]:
    return Together(service.send)


async def turns(count: int = 5) -> None:
    """Let everything run that can run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_questions_of_one_moment_are_one_request_answered_in_order(
    service: Service, together: Together[int, int]
) -> None:
    service.answers.set()
    assert await asyncio.gather(*(together.ask(n) for n in (5, 1, 4, 1))) == [10, 2, 8, 2]
    assert service.asked == [[5, 1, 4, 1]]
    assert await together.ask(7) == 14
    assert service.asked[1:] == [[7]]


async def test_those_that_one_answer_wakes_ask_together_again(
    service: Service, together: Together[int, int]
) -> None:
    service.answers.set()

    async def rollout(n: int) -> int:
        for _ in range(3):
            n = await together.ask(n)
        return n

    assert await asyncio.gather(*map(rollout, (1, 2, 3))) == [8, 16, 24]
    assert service.asked == [[1, 2, 3], [2, 4, 6], [4, 8, 12]]


async def test_a_question_asked_while_another_is_under_way_does_not_wait_for_it(
    service: Service, together: Together[int, int]
) -> None:
    first = asyncio.create_task(together.ask(1))
    await turns()
    second = asyncio.create_task(together.ask(2))
    await turns()
    assert service.asked == [[1], [2]]
    service.answers.set()
    assert await asyncio.gather(first, second) == [2, 4]


async def test_an_error_reaches_all_that_asked_together_and_nobody_else(
    service: Service, together: Together[int, int]
) -> None:
    service.answers.set()
    found = await asyncio.gather(*(together.ask(n) for n in (1, 13, 3)), return_exceptions=True)
    assert [str(each) for each in found] == ["thirteen"] * 3
    assert await together.ask(4) == 8


async def test_one_that_is_cancelled_harms_no_other(service: Service, together: Together[int, int]) -> None:
    tasks = [asyncio.create_task(together.ask(n)) for n in (1, 2, 3)]
    await turns()
    tasks[1].cancel()
    await turns()
    service.answers.set()
    await asyncio.wait(tasks)
    assert (tasks[0].result(), tasks[1].cancelled(), tasks[2].result()) == (2, True, 6)
    assert service.given_up == 0


async def test_one_that_is_cancelled_at_once_is_not_asked_for(
    service: Service, together: Together[int, int]
) -> None:
    service.answers.set()
    tasks = [asyncio.create_task(together.ask(n)) for n in (1, 2)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.wait(tasks)
    assert tasks[0].cancelled()
    assert tasks[1].result() == 4
    assert sum(map(len, service.asked)) <= 2


async def test_when_all_are_cancelled_the_request_is_given_up(
    service: Service, together: Together[int, int]
) -> None:
    tasks = [asyncio.create_task(together.ask(n)) for n in (1, 2, 3)]
    other = asyncio.create_task(_later(together))
    await turns()
    for task in tasks:
        task.cancel()
    await turns()
    assert service.given_up == 1
    service.answers.set()
    assert await other == 18
    assert service.asked == [[1, 2, 3], [9]]


async def _later(together: Together[int, int]) -> int:
    await turns(2)
    return await together.ask(9)


# --- the interpreter -------------------------------------------------------------------------------------------------


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncIterator[SandboxClient]:
    async with SandboxClient(str(sandbox.http.base_url)) as client:
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
    async with Interpreter(client, seed=5) as interpreter:
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

    async with Interpreter(client, seed=1) as interpreter:
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
    async with Interpreter(client, seed=2) as interpreter:
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
    async with Interpreter(client, seed=3) as interpreter:
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
        Interpreter(away, seed=4) as interpreter,
    ):
        found = await asyncio.gather(*(interpreter.run(["x = 1"]) for _ in range(3)), return_exceptions=True)
    assert [type(each) for each in found] == [ServiceError] * 3
