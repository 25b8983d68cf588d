"""Many programs run from nothing in a real sandbox that has little room: slow ones cost time, and fail nothing."""

from pathlib import Path

import pytest

from ratchet.clients import SandboxClient, SandboxFailedError
from ratchet.contracts.sandbox import (
    RunStatus,
    RunStepsBatchRequest,
    RunStepsBatchResponse,
    RunStepsRequest,
    RunStepsResponse,
)
from ratchet.solutions.clean_runs import clean_answer, clean_run, run_from_nothing
from tests.sandbox_server import TOKEN, running_sandbox


async def test_what_waits_for_too_long_is_asked_for_again_as_long_as_some_of_it_gets_done(
    tmp_path: Path,
) -> None:
    programs = [["import time", f"time.sleep(0.4)\nprint({n})"] for n in range(10)]
    # So many attempts as find no more room than for two programs are not enough by their number.
    with running_sandbox(tmp_path / "log", workers="1", queue_timeout="0.5") as sandbox:
        async with SandboxClient(str(sandbox.http.base_url), key=TOKEN) as client:
            answers = await run_from_nothing([clean_run(each) for each in programs], client, clean_answer)
    assert answers == [str(n) for n in range(10)]


class Refusing(SandboxClient):
    """A client of a real sandbox that says of some programs that they could not be run: no jail can be brought to it."""

    def __init__(self, url: str, refused: str) -> None:
        super().__init__(url, key=TOKEN)
        self._refused = refused

    async def run_steps_batch(self, request: RunStepsBatchRequest) -> RunStepsBatchResponse:
        found = await super().run_steps_batch(request)
        results = [
            self._refuse(each) if self._refused in "".join(asked.steps) else each
            for asked, each in zip(request.runs, found.results, strict=True)
        ]
        return found.model_copy(update={"results": results})

    def _refuse(self, each: RunStepsResponse) -> RunStepsResponse:
        return each.model_copy(update={"status": RunStatus.SANDBOX_ERROR, "message": "no room", "steps": []})


class Broken(Refusing):
    """It runs single programs no more either."""

    async def run_steps(self, request: RunStepsRequest) -> RunStepsResponse:
        return self._refuse(await super().run_steps(request))


async def test_a_program_that_the_sandbox_cannot_run_gives_nothing_while_it_runs_others(
    tmp_path: Path,
) -> None:
    runs = [clean_run(["print(1)"]), clean_run(["print('spoilt')"]), clean_run([]), clean_run(["print(3)"])]
    with running_sandbox(tmp_path / "log", workers="1") as sandbox:
        async with Refusing(str(sandbox.http.base_url), "spoilt") as client:
            assert await run_from_nothing(runs, client, clean_answer) == ["1", None, None, "3"]
            assert await run_from_nothing(runs[1:3], client, clean_answer) == [None, None]


async def test_a_sandbox_that_runs_nothing_is_an_error(tmp_path: Path) -> None:
    with running_sandbox(tmp_path / "log", workers="1") as sandbox:
        async with Broken(str(sandbox.http.base_url), "print") as client:
            with pytest.raises(SandboxFailedError, match="no room"):
                await run_from_nothing([clean_run(["print(1)"])], client, clean_answer)
