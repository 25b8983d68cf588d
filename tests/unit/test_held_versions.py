"""Holding versions, whatever answers for them: here nothing is loaded but a number of a tiny checkpoint."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import httpx
import pytest

from ratchet.contracts.serving import LoadModel
from ratchet.web.app import ProblemError
from tests.held_numbers import Numbers, checkpoint, numbers_app


@pytest.fixture
def versions(tmp_path: Path) -> Numbers:
    return Numbers(tmp_path / "cache", limit=3)


@pytest.fixture
def one(tmp_path: Path) -> LoadModel:
    return LoadModel(uri=checkpoint(tmp_path / "one", 1.0))


@pytest.fixture
def two(tmp_path: Path) -> LoadModel:
    return LoadModel(uri=checkpoint(tmp_path / "two", 2.0))


@pytest.fixture
async def http(versions: Numbers) -> AsyncIterator[httpx.AsyncClient]:
    """The four routes in an app."""
    app = numbers_app(versions)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        yield client


async def refusal(work: Awaitable[object]) -> ProblemError:
    with pytest.raises(ProblemError) as caught:
        await work
    return caught.value


async def test_the_four_routes_load_serve_list_and_let_go(
    http: httpx.AsyncClient, versions: Numbers, one: LoadModel
) -> None:
    loaded = await http.put("/models/runs/r1@0", json={"uri": one.uri})
    assert loaded.status_code == 200, loaded.text
    assert (loaded.json()["version"], loaded.json()["serving"]) == ("runs/r1@0", False)
    served = await http.post("/serving", json={"version": "runs/r1@0"})
    assert served.json() == loaded.json() | {"serving": True}
    listed = (await http.get("/models")).json()["models"]
    assert [model["version"] for model in listed] == ["runs/r1@0", "zero"]
    assert (await http.delete("/models/runs/r1@0")).status_code == 409
    await http.post("/serving", json={"version": "zero"})
    left = await http.delete("/models/runs/r1@0")
    assert [model["version"] for model in left.json()["models"]] == ["zero"]
    assert versions.freed == [1.0]


async def test_until_the_first_version_can_be_asked_everything_but_a_look_is_to_be_asked_again(
    http: httpx.AsyncClient, versions: Numbers, one: LoadModel
) -> None:
    versions.ready = False
    answers = [
        await http.put("/models/r1", json={"uri": one.uri}),
        await http.post("/serving", json={"version": "zero"}),
    ]
    assert [(answer.status_code, "retry-after" in answer.headers) for answer in answers] == [(503, True)] * 2
    for name in (None, "zero"):
        with pytest.raises(ProblemError) as caught, versions.using(name):
            pass
        assert caught.value.status == 503
    assert (await http.get("/models")).status_code == 200


async def test_a_field_that_is_wrong_is_named(
    http: httpx.AsyncClient, versions: Numbers, one: LoadModel, two: LoadModel, tmp_path: Path
) -> None:
    await versions.load("r1", one)
    negative = checkpoint(tmp_path / "negative", -1.0)
    answers = [
        (await http.put("/models/zero", json={"uri": one.uri}), 409, "version"),
        (await http.put("/models/r1", json={"uri": two.uri}), 409, "version"),
        (await http.put("/models/r2", json={"uri": two.uri, "sha256": "0" * 64}), 422, "sha256"),
        (await http.put("/models/r2", json={"uri": str(tmp_path / "nowhere")}), 422, "uri"),
        (await http.put("/models/r2", json={"uri": negative}), 422, "uri"),
        (await http.post("/serving", json={"version": "r2"}), 404, "version"),
        (await http.delete("/models/r2"), 404, "version"),
        (await http.delete("/models/zero"), 409, "version"),
    ]
    for answer, status, field in answers:
        assert answer.status_code == status, answer.text
        assert [error["field"] for error in answer.json()["errors"]] == [field], answer.text
    with pytest.raises(ProblemError) as caught, versions.using("r2"):
        pass
    assert (caught.value.status, [error.field for error in caught.value.errors]) == (404, ["model"])


async def test_loads_of_one_name_at_once_open_it_once(versions: Numbers, one: LoadModel) -> None:
    both = await asyncio.gather(versions.load("r1", one), versions.load("r1", one))
    assert both[0] is both[1]
    known = LoadModel(uri="gone since", sha256=both[0].sha256)
    assert await versions.load("r1", known) is both[0], "the digest says that there is nothing to look for"


async def test_a_version_that_leaves_keeps_its_place_until_its_last_request_has_ended(
    versions: Numbers, one: LoadModel, two: LoadModel
) -> None:
    await versions.load("r1", one)
    await versions.load("r2", two)
    assert "RATCHET_MAX_MODELS" in str(await refusal(versions.load("r3", one)))
    with versions.using("r2") as version:
        leaving = asyncio.create_task(versions.unload("r2"))
        await asyncio.sleep(0)
        full = await refusal(versions.load("r3", one))
        assert (full.status, full.headers) == (503, {"Retry-After": "1"})
        assert (version.model, versions.freed) == (2.0, [])
        assert versions.names() == ["zero", "r1"]
    await leaving
    assert versions.freed == [2.0]
    assert (await versions.load("r3", one)).model == 1.0


async def test_a_version_let_go_while_it_is_loaded_again_is_opened_anew(
    versions: Numbers, one: LoadModel
) -> None:
    first = await versions.load("r1", one)
    again = asyncio.create_task(versions.load("r1", one))
    await asyncio.sleep(0)
    await versions.unload("r1")
    second = await again
    assert second is not first
    assert versions.names() == ["zero", "r1"]
    with versions.using("r1") as version:
        assert version is second


async def test_at_the_end_all_versions_are_freed_those_that_leave_too(
    versions: Numbers, one: LoadModel, two: LoadModel
) -> None:
    await versions.load("r1", one)
    await versions.load("r2", two)
    with versions.using("r2"):
        leaving = asyncio.create_task(versions.unload("r2"))
        await asyncio.sleep(0)
        await versions.close()
        assert sorted(versions.freed) == [0.0, 1.0, 2.0]
    await leaving
    assert not versions.ready
