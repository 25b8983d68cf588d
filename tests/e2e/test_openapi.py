"""The OpenAPI documents of the five running services: complete, and true under generated requests."""

import asyncio

import pytest
from running_stack import Running
from served_app import generated_requests

from models import REMEMBERED
from ratchet.stack.local import SERVICES


@pytest.mark.parametrize("service", SERVICES)
async def test_no_generated_request_finds_a_server_error_or_an_undocumented_answer(
    stack: Running, service: str
) -> None:
    known = {"search_id": (await stack.solve(REMEMBERED[0].problem)).id} if service == "search" else {}
    answered = await asyncio.to_thread(generated_requests, getattr(stack.urls, service), known)
    assert answered.pop("GET /health") == {200}
    assert answered.pop("GET /metrics") == {200}
    assert answered
    for operation, statuses in answered.items():
        if operation != "PUT /models/{version}":  # no generated address has a checkpoint
            assert statuses & {200, 201, 202, 204, 404}, f"{operation} was never served: {statuses}"
        if operation.startswith(("POST", "PUT")):
            assert 422 in statuses, f"{operation} was never asked badly"
    assert (await stack.http.get(f"{getattr(stack.urls, service)}/health")).status_code == 200


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
