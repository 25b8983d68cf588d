"""The PRM service over real HTTP. The policy behind it is a double that computes nothing: it says so in its version, counts
what it is asked, and finds each step as likely as its length says. The e2e tests have a real one."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, HTTPException

from ratchet.clients import PolicyClient
from ratchet.contracts.base import Health
from ratchet.contracts.policy import LikelihoodRequest, LikelihoodResponse, Prefix
from ratchet.settings import PrmSettings, Settings
from ratchet.web.app import create_app, invalid
from services.prm.app import build_app
from services.prm.batcher import LikelihoodBatcher
from services.prm.likelihood import step_scores
from tests.http_double import serving
from tests.served_app import served

DOUBLE = "double@0"
LONGEST = 500
"""Characters of a step that the double reads."""


@contextlib.asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    yield


@dataclass
class PolicyDouble:
    """Records what the PRM asks."""

    asked: list[LikelihoodRequest] = field(default_factory=list)
    refuses: bool = False

    def app(self) -> FastAPI:
        app = create_app(
            service="policy",
            summary="A double.",
            settings=Settings(),
            lifespan=lifespan,
            health=lambda: Health(service="policy", ready=True, version="0", detail={"model": DOUBLE}),
        )

        @app.post("/likelihood")
        def likelihood(request: LikelihoodRequest) -> LikelihoodResponse:
            self.asked.append(request)
            if self.refuses:
                raise HTTPException(422, "no")
            for number, one in enumerate(request.trajectories):
                if any(len(step) > LONGEST for step in one.steps):
                    raise invalid(f"trajectories.{number}", "it is too long")
            return LikelihoodResponse(
                model=DOUBLE,
                step_logprobs=[[logprob(step) for step in one.steps] for one in request.trajectories],
            )

        return app


def logprob(step: str) -> float:
    return -0.01 * len(step)


@pytest.fixture(scope="module")
def policy() -> PolicyDouble:
    return PolicyDouble()


@pytest.fixture(scope="module")
def base_url(policy: PolicyDouble) -> Iterator[str]:
    with serving() as serve:
        prm_settings = PrmSettings(policy_url=serve(policy.app()), cache_entries=40)
        with served(build_app(prm_settings), prm_settings) as url:
            yield url


@pytest.fixture
async def prm(base_url: str, policy: PolicyDouble) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=base_url, timeout=20) as client:
        async with asyncio.timeout(20):
            while (await client.get("/health")).status_code != 200:
                await asyncio.sleep(0.05)
        policy.asked.clear()
        yield client


async def scores(prm: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    response = await prm.post("/score", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def test_scores_have_the_shape_of_the_steps_and_lie_between_0_and_1(prm: httpx.AsyncClient) -> None:
    steps = [["a = 1", "b = a + 1", "print(b)"], [], ["print(2)"]]
    answer = await scores(prm, problem="shape", steps=steps)
    assert answer["model"] == f"prm1-likelihood@{DOUBLE}"
    assert [len(row) for row in answer["scores"]] == [3, 0, 1]
    assert all(0 <= score <= 1 for row in answer["scores"] for score in row)
    assert answer["scores"] == [step_scores([logprob(step) for step in row]) for row in steps]


async def test_what_was_scored_before_is_not_asked_again(
    prm: httpx.AsyncClient, policy: PolicyDouble
) -> None:
    body = {"problem": "cache", "steps": [["x = 1", "print(x)"]]}
    first, second = await scores(prm, **body), await scores(prm, **body)
    prefix = await scores(prm, problem="cache", steps=[["x = 1"]])
    assert (first["cached"], second["cached"], prefix["cached"]) == (0, 2, 1)
    assert first["scores"] == second["scores"]
    assert prefix["scores"][0] == first["scores"][0][:1]
    assert len(policy.asked) == 1
    # The same step in another place is another question.
    assert (await scores(prm, problem="cache 2", steps=[["x = 1"]]))["cached"] == 0
    assert (await scores(prm, problem="cache", steps=[["print(x)"]]))["cached"] == 0
    assert len(policy.asked) == 3


async def test_the_cache_forgets_what_was_used_least_recently(
    prm: httpx.AsyncClient, policy: PolicyDouble
) -> None:
    await scores(prm, problem="old", steps=[["x = 0"]])
    await scores(prm, problem="many", steps=[[f"y = {number}"] for number in range(40)])
    policy.asked.clear()
    assert (await scores(prm, problem="old", steps=[["x = 0"]]))["cached"] == 0
    assert len(policy.asked) == 1


async def test_the_trajectories_of_a_request_go_to_the_policy_together(
    prm: httpx.AsyncClient, policy: PolicyDouble
) -> None:
    await scores(prm, problem="one batch", steps=[[f"z = {number}"] for number in range(12)])
    assert [len(request.trajectories) for request in policy.asked] == [12]


async def test_questions_of_different_callers_go_to_the_policy_together(policy: PolicyDouble) -> None:
    policy.asked.clear()
    with serving() as serve:
        async with PolicyClient(serve(policy.app())) as client:
            batcher = LikelihoodBatcher(client)
            steps = ["a", "bb", "ccc", "a"]
            answers = await asyncio.gather(*(batcher.ask(Prefix(problem="p", steps=[one])) for one in steps))
    assert [answer.step_logprobs for answer in answers] == [[logprob(step)] for step in steps]
    assert len(policy.asked) == 1


async def test_a_large_request_is_cut_into_batches(prm: httpx.AsyncClient, policy: PolicyDouble) -> None:
    await scores(prm, problem="large", steps=[[f"w = {number}"] for number in range(150)])
    assert sorted(len(request.trajectories) for request in policy.asked) == [22, 64, 64]


async def test_given_logprobs_are_used_and_the_policy_is_left_alone(
    prm: httpx.AsyncClient, policy: PolicyDouble
) -> None:
    given = await scores(prm, problem="given", steps=[["a", "b"]], logprobs=[[-0.5, -0.1]])
    assert given["scores"] == [step_scores([-0.5, -0.1])]
    assert not policy.asked
    # Where one is missing the whole trajectory is asked for, so that all scores have one source.
    partly = await scores(prm, problem="given", steps=[["a", "b"]], logprobs=[[-0.5, None]])
    assert partly["scores"] == [step_scores([logprob("a"), logprob("b")])]
    assert len(policy.asked) == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"steps": [["a"]]}, "problem"),
        ({"problem": "p", "steps": []}, "steps"),
        ({"problem": "p", "steps": ["a"]}, "steps.0"),
        ({"problem": "p", "steps": [["a", 1]]}, "steps.0.1"),
        ({"problem": "p", "steps": [["a"]], "logprobs": [[]]}, ""),
        ({"problem": "p", "steps": [["a"]], "logprobs": [[0.0], [0.0]]}, ""),
        ({"problem": "p", "steps": [["a"]], "reference_answer": "1"}, "reference_answer"),
    ],
)
async def test_a_wrong_shape_is_refused_by_name(
    prm: httpx.AsyncClient, policy: PolicyDouble, body: dict[str, Any], field: str
) -> None:
    response = await prm.post("/score", json=body)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert field in [error["field"] for error in response.json()["errors"]] or "logprobs" in response.text
    assert not policy.asked


async def test_what_the_policy_refuses_is_the_callers_fault(
    prm: httpx.AsyncClient, policy: PolicyDouble
) -> None:
    policy.refuses = True
    try:
        response = await prm.post("/score", json={"problem": "refused", "steps": [["a"]]})
    finally:
        policy.refuses = False
    assert response.status_code == 422
    assert "policy" in response.json()["detail"]
    assert (await prm.post("/score", json={"problem": "refused", "steps": [["a"]]})).status_code == 200


async def test_what_is_too_long_for_the_policy_is_named_and_does_not_harm_what_others_ask(
    prm: httpx.AsyncClient,
) -> None:
    long, short = ["#" * (LONGEST + 1)], ["print(1)"]
    refused, *answered = await asyncio.gather(
        prm.post("/score", json={"problem": "long", "steps": [short, long]}),
        *(prm.post("/score", json={"problem": f"short {number}", "steps": [short]}) for number in range(9)),
    )
    assert refused.status_code == 422
    assert [error["field"] for error in refused.json()["errors"]] == ["steps.1"]
    assert [response.status_code for response in answered] == [200] * 9


async def test_without_a_policy_callers_are_told_to_come_back(free_port: int) -> None:
    prm_settings = PrmSettings(policy_url=f"http://127.0.0.1:{free_port}")
    with served(build_app(prm_settings), prm_settings) as url:
        async with httpx.AsyncClient(base_url=url) as client:
            assert (await client.get("/health")).status_code == 503
            response = await client.post("/score", json={"problem": "p", "steps": [["a"]]})
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert int(response.headers["retry-after"]) > 0
