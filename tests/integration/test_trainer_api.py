"""The trainer's API against a real Postgres: the registry keeps what it was told, and states move by the table."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet.contracts.serving import HeldModel, LoadModel
from ratchet.contracts.trainer import ModelKind, ModelRegistration, ModelView
from ratchet.settings import TrainerSettings
from ratchet.states import MODEL_TRANSITIONS, IllegalTransitionError, ModelState, RoundState
from ratchet.store import tables as t
from ratchet.store.engine import transaction
from ratchet.store.ids import new_id
from ratchet.store.registry import Registry
from services.trainer.app import build_app
from services.trainer.promotion import keep_serving, serve

SHA = "0123456789abcdef" * 4


@pytest.fixture(scope="module")
def registry(engine: AsyncEngine) -> Registry:
    return Registry(engine)


@pytest.fixture(scope="module")
async def api(engine: AsyncEngine, database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    app = build_app(TrainerSettings(database_url=database_url))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://trainer") as client,
    ):
        yield client


def a_model(**changes: Any) -> dict[str, Any]:
    return {
        "version": f"small@{new_id().hex}",
        "kind": "policy",
        "uri": "/models/small",
        "sha256": SHA,
    } | changes


async def test_a_registered_version_can_be_read_and_listed(api: httpx.AsyncClient) -> None:
    parent = a_model()
    child = a_model(
        version=f"org/name-{new_id().hex}", parent=parent["version"], metrics={"auc": 0.75, "on": "dev"}
    )
    for body in (parent, child):
        response = await api.post("/models", json=body)
        assert response.status_code == 201, response.text
        view = ModelView.model_validate((await api.get(response.headers["location"])).json())
        assert (view.version, view.state, view.sha256) == (body["version"], ModelState.CANDIDATE, SHA)
    assert (view.parent, view.metrics) == (parent["version"], child["metrics"])
    listed = [
        model["version"] for model in (await api.get("/models?kind=policy&state=candidate")).json()["models"]
    ]
    assert listed.index(child["version"]) < listed.index(parent["version"])
    assert (await api.get("/models?kind=prm")).json() == {"models": []}


async def test_registering_again_changes_nothing_and_other_content_is_refused(api: httpx.AsyncClient) -> None:
    body = a_model()
    assert (await api.post("/models", json=body)).status_code == 201
    assert (await api.post("/models", json=body)).status_code == 200
    for change in ({"sha256": "f" * 64}, {"kind": "prm"}, {"uri": "/elsewhere"}):
        assert (await api.post("/models", json=body | change)).status_code == 409


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"version": "no spaces here"}, "version"),
        ({"version": ""}, "version"),
        ({"kind": "oracle"}, "kind"),
        ({"sha256": "abc"}, "sha256"),
        ({"uri": "a\x00b"}, "uri"),
        ({"parent": "nobody@0"}, "parent"),
        ({"metrics": {"a": {"b": 1}}}, "metrics"),
        ({"extra": 1}, "extra"),
    ],
)
async def test_a_bad_registration_is_told_which_field(
    api: httpx.AsyncClient, change: dict[str, Any], field: str
) -> None:
    response = await api.post("/models", json=a_model(**change))
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert any(error["field"].startswith(field) for error in response.json()["errors"])


async def test_unknown_things_are_not_found(api: httpx.AsyncClient) -> None:
    for path in ("/models/nobody@0", f"/rounds/{new_id()}"):
        assert (await api.get(path)).status_code == 404
    assert (await api.get("/rounds/nonsense")).status_code == 422


async def test_the_registry_allows_exactly_the_transitions_of_the_table(registry: Registry) -> None:
    ways = {
        ModelState.CANDIDATE: [],
        ModelState.SERVING: [ModelState.SERVING],
        ModelState.RETIRED: [ModelState.SERVING, ModelState.RETIRED],
        ModelState.REJECTED: [ModelState.REJECTED],
    }
    for old, way in ways.items():
        for new in ModelState:
            version = (await registry.register(ModelRegistration.model_validate(a_model()))).model.version
            for step in way:
                await registry.set_state(version, step)
            if new in MODEL_TRANSITIONS[old]:
                moved = await registry.set_state(version, new)
                assert moved is not None
                assert moved.state is new
            else:
                with pytest.raises(IllegalTransitionError):
                    await registry.set_state(version, new)
    assert await registry.set_state("nobody@0", ModelState.SERVING) is None


async def test_one_version_of_a_kind_serves_and_the_one_before_is_retired(
    registry: Registry, engine: AsyncEngine
) -> None:
    first, second = [
        (await registry.register(ModelRegistration.model_validate(a_model(kind="prm")))).model.version
        for _ in range(2)
    ]
    await registry.set_state(first, ModelState.SERVING)
    await registry.set_state(second, ModelState.SERVING)
    serving = await registry.models(ModelKind.PRM, ModelState.SERVING)
    assert [model.version for model in serving] == [second]
    retired = await registry.get(first)
    assert retired is not None
    assert retired.state is ModelState.RETIRED
    with pytest.raises(IntegrityError, match="uq_models_serving"):
        async with transaction(engine) as connection:
            await connection.execute(
                t.models.update().where(t.models.c.version == first).values(state=ModelState.SERVING)
            )


class ServiceDouble:
    """A policy or PRM service whose second answer to a look is told late: it is as old as the question."""

    def __init__(self, model: ModelView | None) -> None:
        self.serving = model
        self.looks = 0
        self.asked, self.may_answer = asyncio.Event(), asyncio.Event()

    async def models(self) -> list[HeldModel]:
        model = self.serving
        self.looks += 1
        if self.looks == 2:
            self.asked.set()
            await self.may_answer.wait()
        return [HeldModel(version=model.version, uri=model.uri, sha256=SHA, serving=True)] if model else []

    async def load(self, version: str, body: LoadModel) -> None:
        self.loaded = version, body

    async def serve(self, version: str) -> None:
        assert self.serving is not None
        self.serving = self.serving.model_copy(update={"version": version})


async def test_a_swap_is_not_undone_by_a_look_that_began_before_it(registry: Registry) -> None:
    old, new = [
        (await registry.register(ModelRegistration.model_validate(a_model()))).model for _ in range(2)
    ]
    await registry.set_state(old.version, ModelState.SERVING)
    policy, prm = ServiceDouble(old), ServiceDouble(None)
    prm.may_answer.set()
    looking = asyncio.create_task(keep_serving(policy, prm, registry))  # type: ignore[arg-type]
    await policy.asked.wait()
    swapping = asyncio.create_task(serve(registry, policy, new.version))  # type: ignore[arg-type]
    await asyncio.wait({swapping}, timeout=0.5)
    policy.may_answer.set()
    await swapping
    await asyncio.sleep(0.5)
    looking.cancel()
    serving = await registry.models(ModelKind.POLICY, ModelState.SERVING)
    assert (
        [model.version for model in serving] == [new.version] == [policy.serving and policy.serving.version]
    )


async def test_rounds_are_listed_the_newest_first(api: httpx.AsyncClient, engine: AsyncEngine) -> None:
    ids = [new_id(), new_id()]
    async with transaction(engine) as connection:
        for number, round_id in enumerate(ids, start=1):
            await connection.execute(
                t.rounds.insert().values(
                    id=round_id, number=number, state=RoundState.CREATED, config={"seed": number}
                )
            )
    listed = (await api.get("/rounds")).json()["rounds"]
    assert [one["number"] for one in listed] == [2, 1]
    assert (await api.get(f"/rounds/{ids[0]}")).json()["config"]["seed"] == 1


async def test_the_document_says_what_a_round_measures(api: httpx.AsyncClient) -> None:
    schemas = (await api.get("/openapi.json")).json()["components"]["schemas"]
    view = schemas["RoundView"]["properties"]
    assert view["metrics"] == {"$ref": "#/components/schemas/RoundMetrics"}
    assert view["config"] == {"$ref": "#/components/schemas/RoundConfig"}
    assert set(schemas["Measured"]["properties"]) > {"accuracy", "ci95", "outcomes"}


async def test_without_a_database_callers_are_told_to_come_back(free_port: int) -> None:
    app = build_app(
        TrainerSettings(database_url=f"postgresql+asyncpg://ratchet@127.0.0.1:{free_port}/ratchet")
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://trainer") as client:
        assert (await client.get("/health")).status_code == 503
        response = await client.get("/models")
        assert (response.status_code, response.headers["retry-after"]) == (503, "2")
