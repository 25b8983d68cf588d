"""What a search makes of the steps that a policy writes, in a real sandbox."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ratchet.clients import SandboxClient
from ratchet.contracts.policy import Candidate, FinishReason
from ratchet.contracts.sandbox import StepStatus
from ratchet.contracts.search import SearchRequest
from services.search.interpreter import Interpreter
from services.search.rollouts import execute_steps
from services.search.search import Search
from services.search.step_memory import StepMemory
from services.search.strategies import Tree
from tests.sandbox_server import TOKEN, running_sandbox


@pytest.fixture(scope="module")
async def sandbox(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SandboxClient]:
    log: Path = tmp_path_factory.mktemp("sandbox") / "log"
    with running_sandbox(log) as running:
        async with SandboxClient(str(running.http.base_url), key=TOKEN) as client:
            yield client


async def outcomes(sandbox: SandboxClient, *steps: str) -> list[tuple[StepStatus, str | None]]:
    candidate = Candidate(
        text="\n".join(steps),
        steps=list(steps),
        final=True,
        tokens=9,
        mean_logprob=-0.1,
        step_logprobs=[-0.1] * len(steps),
        finish_reason=FinishReason.END,
    )
    async with Interpreter(sandbox, 0, StepMemory()) as interpreter:
        search = Search(SearchRequest(problem="1 + 1"), None, Tree(), interpreter)
        return [
            (step.status, step.answer)
            for step in await execute_steps(search, ["x = 1"], candidate, list(steps))
        ]


async def test_steps_run_up_to_the_one_that_prints(sandbox: SandboxClient) -> None:
    found = await outcomes(sandbox, "y = x + 1", "print(y)", "print(3)")
    assert found == [(StepStatus.OK, None), (StepStatus.OK, "2")]


@pytest.mark.parametrize("broken", ["print(1\x00)", "print('\ud800')", "#" * 99_996])
async def test_a_step_that_is_no_text_fails_and_does_not_end_the_search(
    sandbox: SandboxClient, broken: str
) -> None:
    assert await outcomes(sandbox, "y = x", broken, "print(y)") == [
        (StepStatus.OK, None),
        (StepStatus.ERROR, None),
    ]
    assert await outcomes(sandbox, broken) == [(StepStatus.ERROR, None)]
