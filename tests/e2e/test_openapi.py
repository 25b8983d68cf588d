"""The OpenAPI documents of the five running services: complete, and true under generated requests and under good ones."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import httpx
import pytest
import schemathesis

from ratchet.contracts.serving import PRM1
from ratchet.stack.config import SERVICES
from tests.models import REMEMBERED
from tests.running_stack import Running
from tests.served_app import generated_requests

GoodRequests = Callable[[httpx.AsyncClient, Running], Awaitable[Mapping[str, httpx.Response]]]
COMPLETION = {
    "model": "ratchet-fast",
    "messages": [{"role": "user", "content": REMEMBERED[0].problem}],
    "seed": 1,
}
STEPS = {"steps": ["x = 6 * 7", "print(x)"]}
COMPARED = {
    side: {"file": {"name": side, "problems": [{"id": "0" * 16, "right": right}]}}
    for side, right in (("first", 0), ("second", 1))
}
NANO = {"uri": str(Path(__file__).parents[2] / "models" / "nano" / "policy")}


async def of_search(http: httpx.AsyncClient, stack: Running) -> dict[str, httpx.Response]:
    solved = await http.post("/search", json={"problem": REMEMBERED[0].problem, "wait": 60})
    path = f"/search/{solved.json()['id']}"
    return {
        "POST /search": solved,
        "GET /searches": await http.get("/searches"),
        "GET /search/{search_id}": await http.get(path),
        "GET /search/{search_id}/events": await http.get(f"{path}/events"),
        "GET /search/{search_id}/tree": await http.get(f"{path}/tree"),
        "GET /search/{search_id}/journal": await http.get(f"{path}/journal"),
        "GET /search/{search_id}/replay": await http.get(f"{path}/replay"),
        "GET /search/{search_id}/proof": await http.get(f"{path}/proof"),
        "POST /search/{search_id}/branch": await http.post(
            f"{path}/branch", json={"node": "root", "seed": 2}
        ),
        "POST /search/{search_id}/extend": await http.post(f"{path}/extend", json={"tokens": 5000}),
        "DELETE /search/{search_id}": await http.delete(path),
        "POST /v1/chat/completions": await http.post("/v1/chat/completions", json=COMPLETION),
        "GET /v1/models": await http.get("/v1/models"),
        "GET /v1/models/{model}": await http.get("/v1/models/ratchet"),
        "POST /keys": await http.post("/keys", json={"name": "good"}),
        "GET /keys": await http.get("/keys"),
        "DELETE /keys/{name}": await http.delete("/keys/good"),
        "GET /audit": await http.get("/audit"),
        "GET /": await http.get("/"),
        "GET /page/{path}": await http.get("/page/app.js"),
        **await steering(http, stack, "through"),
    }


async def of_sandbox(http: httpx.AsyncClient, stack: Running) -> dict[str, httpx.Response]:
    opened = await http.post("/sessions", json={"seed": 1})
    path = f"/sessions/{opened.json()['id']}"
    return {
        "POST /run_code": await http.post("/run_code", json={"code": "print(6 * 7)"}),
        "POST /run_code/batch": await http.post(
            "/run_code/batch", json={"programs": [{"code": "print(6 * 7)"}]}
        ),
        "POST /run_steps": await http.post("/run_steps", json=STEPS),
        "POST /run_steps/batch": await http.post("/run_steps/batch", json={"runs": [STEPS]}),
        "POST /grade": await http.post("/grade", json={"candidate": "42.0", "reference": "42"}),
        "POST /sessions": opened,
        "GET /sessions/{session}": await http.get(path),
        "POST /sessions/{session}/nodes/{parent}/run": await http.post(
            f"{path}/nodes/root/run", json={"code": "x = 1"}
        ),
        "POST /sessions/{session}/batch": await http.post(f"{path}/batch", json={"chains": [STEPS]}),
        "DELETE /sessions/{session}": await http.delete(path),
    }


async def held_models(http: httpx.AsyncClient, serve_again: str) -> dict[str, httpx.Response]:
    """Hold a version, serve another one, and let the first one go."""
    return {
        "GET /models": await http.get("/models"),
        "PUT /models/{version}": await http.put("/models/good", json=NANO),
        "POST /serving": await http.post("/serving", json={"version": serve_again}),
        "DELETE /models/{version}": await http.delete("/models/good"),
    }


async def serving(http: httpx.AsyncClient) -> str:
    held = (await http.get("/models")).json()["models"]
    return str(next(each["version"] for each in held if each["serving"]))


async def of_policy(http: httpx.AsyncClient, stack: Running) -> dict[str, httpx.Response]:
    prefix = {"problem": REMEMBERED[0].problem, "steps": []}
    read = {"problem": REMEMBERED[0].problem, "steps": ["x = 1"]}
    return {
        "POST /generate": await http.post("/generate", json={"prefixes": [prefix], "max_tokens": 3}),
        "POST /likelihood": await http.post("/likelihood", json={"trajectories": [read]}),
        **await held_models(http, await serving(http)),
    }


async def of_prm(http: httpx.AsyncClient, stack: Running) -> dict[str, httpx.Response]:
    # The policy's checkpoint is none of a PRM, and no round has trained one here: what can be held is what is held.
    asked = {"problem": REMEMBERED[0].problem, "steps": [["x = 1"]]}
    return {
        "POST /score": await http.post("/score", json=asked),
        "GET /models": await http.get("/models"),
        "POST /serving": await http.post("/serving", json={"version": PRM1}),
    }


async def steering(http: httpx.AsyncClient, stack: Running, run: str) -> dict[str, httpx.Response]:
    """What the trainer answers, asked for itself or through the search API."""
    model = {"version": "good", "kind": "policy", "sha256": "0" * 64, **NANO}
    await http.post(f"{stack.urls.trainer}/models", json=model)
    # Another one serves, so that there is something to go back from.
    held = (await http.put(f"{stack.urls.policy}/models/another", json=NANO)).json()
    another = model | {"version": "another", "sha256": held["sha256"]}
    await http.post(f"{stack.urls.trainer}/models", json=another)
    promoted = await http.post("/models/another/serve")
    config = {"train": {"spec": "nano:train", "count": 1}}
    begun = await http.post(f"{stack.urls.trainer}/rounds", json={"run": run, "config": config})
    path = f"/rounds/{begun.json()['id']}"
    answers = {
        "GET /models": await http.get("/models"),
        "GET /models/{version}": await http.get("/models/good"),
        "GET /models/{version}/lineage": await http.get("/models/good/lineage"),
        "POST /models/{version}/serve": promoted,
        "POST /pairs/rollback": await http.post("/pairs/rollback", json={"pair": promoted.json()["id"]}),
        "GET /pairs": await http.get("/pairs"),
        "GET /calibrations": await http.get("/calibrations"),
        "GET /strategies": await http.get("/strategies"),
        "POST /evaluations/compare": await http.post("/evaluations/compare", json=COMPARED),
        "GET /rounds": await http.get("/rounds"),
        "GET /rounds/{round_id}": await http.get(path),
        "GET /rounds/{round_id}/quarantine": await http.get(f"{path}/quarantine"),
        "GET /runs/{run}/quarantine": await http.get(f"/runs/{run}/quarantine"),
        "POST /rounds/{round_id}/pause": await http.post(f"{path}/pause"),
        "POST /rounds/{round_id}/resume": await http.post(f"{path}/resume"),
        "POST /rounds/{round_id}/cancel": await http.post(f"{path}/cancel"),
    }
    await all_rounds_over(http)
    answers["POST /rounds/{round_id}/retry"] = await http.post(f"{path}/retry")
    await all_rounds_over(http)
    return answers


async def of_trainer(http: httpx.AsyncClient, stack: Running) -> dict[str, httpx.Response]:
    # Of a policy that nobody has: no search takes it.
    best = {"policy": "good", "prm": PRM1, "strategy": "mcts", "accuracy": 0.5, "n": 10, "tokens": [300]}
    choice = {**best, "compared": ["mcts"], "source": "nano:development"}
    answers = await steering(http, stack, "good")
    model = {"version": "good", "kind": "policy", "sha256": "0" * 64, **NANO}
    config = {"train": {"spec": "nano:train", "count": 1}}
    answers |= {
        "POST /models": await http.post("/models", json=model),
        "POST /rounds": await http.post("/rounds", json={"run": "good", "config": config}),
        "PUT /strategies": await http.put("/strategies", json=choice),
    }
    return answers


async def all_rounds_over(http: httpx.AsyncClient) -> None:
    """Cancel them, and wait until they are over: the tests after this one share the services."""
    async with asyncio.timeout(60):
        while under_way := [
            each["id"]
            for each in (await http.get("/rounds", params={"limit": 1000})).json()["rounds"]
            if each["state"] not in ("promoted", "rejected", "failed")
        ]:
            for each in under_way:
                await http.post(f"/rounds/{each}/cancel")
            await asyncio.sleep(0.2)


def key_of(stack: Running, service: str) -> str:
    """What the service asks for."""
    return stack.urls.key if service in ("search", "trainer") else stack.urls.token


async def all_searches_over(http: httpx.AsyncClient) -> None:
    """Cancel them, and wait until they are over: they would take the processors from the tests after this one."""
    async with asyncio.timeout(60):
        while under_way := [
            each["id"]
            for state in ("queued", "running")
            for each in (await http.get("/searches", params={"state": state})).json()["searches"]
        ]:
            await asyncio.gather(*(http.delete(f"/search/{each}") for each in under_way))
            await asyncio.sleep(0.2)


ALL_OVER = {"trainer": all_rounds_over, "search": all_searches_over}
GOOD: dict[str, GoodRequests] = {
    "search": of_search,
    "sandbox": of_sandbox,
    "policy": of_policy,
    "prm": of_prm,
    "trainer": of_trainer,
}
PROBES = {"GET /health", "GET /livez", "GET /readyz", "GET /metrics"}
NEVER_SERVED = {
    ("search", "POST /search/{search_id}/retry"),
    ("prm", "PUT /models/{version}"),
    ("prm", "DELETE /models/{version}"),
    ("trainer", "POST /calibrations"),
    ("trainer", "POST /runs/{run}/quarantine/{problem}/overrule"),
    ("search", "POST /runs/{run}/quarantine/{problem}/overrule"),
}
"""Only a round makes a PRM; its tests hold the first two. A calibration takes thirty searches and would change the state of
those of other tests: `tests/integration/test_calibrations.py` has it. Only what a round has set aside can be
overruled: `tests/integration/test_quarantine_ledger.py`. Only a failed search can be taken up again:
`tests/integration/test_every_door.py`."""


@pytest.mark.parametrize("service", SERVICES)
async def test_every_operation_serves_a_good_request_as_its_document_says(
    stack: Running, service: str
) -> None:
    url = getattr(stack.urls, service)
    schema = await asyncio.to_thread(schemathesis.openapi.from_url, f"{url}/openapi.json")
    found = [each.ok() for each in schema.get_all_operations()]  # type: ignore[union-attr]
    operations = {f"{each.method.upper()} {each.path}" for each in found}
    async with httpx.AsyncClient(base_url=url, auth=stack.keys, timeout=90, trust_env=False) as http:
        try:
            answers = await GOOD[service](http, stack)
        finally:
            if service == "trainer":
                await all_rounds_over(http)
    unasked = {operation for operation in operations if operation not in answers}
    assert unasked - PROBES == {name for at, name in NEVER_SERVED if at == service}
    for operation, answer in answers.items():
        assert answer.is_success, f"{operation}: {answer.status_code} {answer.text[:500]}"
        method, path = operation.split()
        if not path.endswith("/events"):  # a stream of events is no JSON document
            schema[path][method].validate_response(answer)


@pytest.mark.parametrize("service", SERVICES)
async def test_no_generated_request_finds_a_server_error_or_an_undocumented_answer(
    stack: Running, service: str
) -> None:
    url = getattr(stack.urls, service)
    known = {"search_id": (await stack.solve(REMEMBERED[0].problem)).id} if service == "search" else {}
    try:
        answered = await asyncio.to_thread(generated_requests, url, known, key_of(stack, service))
    finally:
        if (all_over := ALL_OVER.get(service)) is not None:
            async with httpx.AsyncClient(base_url=url, auth=stack.keys, timeout=90, trust_env=False) as http:
                await all_over(http)
    for probe in PROBES:
        assert answered.pop(probe) == {200}
    assert answered
    for operation, statuses in answered.items():
        if operation.startswith(("POST", "PUT")):
            assert 422 in statuses, f"{operation} was never asked badly"
    assert (await stack.http.get(f"{url}/health")).status_code == 200


@pytest.mark.parametrize("service", SERVICES)
async def test_every_operation_has_a_summary_and_every_body_an_example(stack: Running, service: str) -> None:
    document = (await stack.http.get(f"{getattr(stack.urls, service)}/openapi.json")).json()
    schemas = document["components"]["schemas"]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], (method, path)
            assert operation["description"], (method, path)
            body = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if body is None:
                continue
            name = body["schema"].get("$ref", "").rpartition("/")[2]
            fields = schemas.get(name, {}).get("properties", {}).values()
            examples = [body.get("example"), body.get("examples"), *(f.get("examples") for f in fields)]
            assert any(examples), f"{method} {path} has no example"
