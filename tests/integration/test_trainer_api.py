"""The trainer's API against a real Postgres: the registry keeps what it was told, and states move by the table."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet.contracts.serving import PRM1, HeldModel, LoadModel
from ratchet.contracts.trainer import ModelKind, ModelRegistration, ModelView, ServedBy
from ratchet.settings import TrainerSettings
from ratchet.states import ModelState, RoundState
from ratchet.store import tables as t
from ratchet.store.engine import transaction
from ratchet.store.ids import new_id
from ratchet.store.pairs import PairStore
from ratchet.store.registry import Registry
from ratchet.store.rounds import RoundStore
from services.trainer.app import build_app, health
from services.trainer.holding import Serving
from services.trainer.promotion import (
    keep_serving,
    prm_beside,
    reconcile_policy,
    reconcile_prm,
    roll_back,
    serve,
)

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


@pytest.mark.parametrize("split", ["train", "development", "held_out"])
@pytest.mark.parametrize("spec", ["/dev/zero", "/etc/passwd", "../problems.jsonl"])
async def test_a_round_that_names_a_file_of_the_machine_is_told_the_field(
    api: httpx.AsyncClient, split: str, spec: str
) -> None:
    body = {"run": "files", "config": {split: {"spec": spec, "count": 1}}}
    refused = await api.post("/rounds", json=body)
    assert refused.status_code == 422, refused.text
    assert [error["field"] for error in refused.json()["errors"]] == [f"config.{split}.spec"]
    again = await api.post(f"/rounds/{new_id()}/retry", json={"config": body["config"]})
    assert again.status_code == 422, again.text
    assert (await api.get("/rounds?run=files")).json() == {"rounds": []}


class ServiceDouble:
    """A policy or PRM service whose second answer to a look may be told late: it is as old as the question."""

    def __init__(self, started_with: str) -> None:
        self.configured: str | None = started_with
        self.serving = started_with
        self.looks = 0
        self.asked, self.may_answer = asyncio.Event(), asyncio.Event()
        self.may_answer.set()

    async def models(self) -> list[HeldModel]:
        version, configured = self.serving, self.serving == self.configured
        self.looks += 1
        if self.looks == 2:
            self.asked.set()
            await self.may_answer.wait()
        sha256 = None if version == PRM1 else SHA
        uri = "/models/small"
        return [HeldModel(version=version, uri=uri, sha256=sha256, serving=True, configured=configured)]

    async def load(self, version: str, body: LoadModel) -> None:
        self.loaded = version, body

    async def serve(self, version: str) -> None:
        self.serving = version


@pytest.fixture
def register(registry: Registry) -> Callable[..., Awaitable[str]]:
    async def register(**fields: Any) -> str:
        return (await registry.register(ModelRegistration.model_validate(a_model(**fields)))).model.version

    return register


def serving_of(registry: Registry, engine: AsyncEngine, policy: ServiceDouble, prm: ServiceDouble) -> Serving:
    services = {ModelKind.POLICY: policy, ModelKind.PRM: prm}
    return Serving(registry, PairStore(engine), RoundStore(engine), services)  # type: ignore[arg-type]


async def test_a_swap_is_not_undone_by_a_look_that_began_before_it(
    registry: Registry, engine: AsyncEngine, register: Callable[..., Awaitable[str]]
) -> None:
    old, new, trained = await register(), await register(), await register(kind="prm")
    policy, prm = ServiceDouble(old), ServiceDouble(PRM1)
    policy.may_answer.clear()
    serving = serving_of(registry, engine, policy, prm)
    await serving.pairs.serve(old, PRM1, ServedBy.PERSON)
    looking = asyncio.create_task(keep_serving(serving))
    await policy.asked.wait()
    swapping = asyncio.create_task(serve(serving, new, trained, ServedBy.PERSON))
    await asyncio.wait({swapping}, timeout=0.5)
    policy.may_answer.set()
    await swapping
    await asyncio.sleep(0.5)
    looking.cancel()
    now = await serving.pairs.current()
    assert now is not None
    assert (now.policy, now.prm) == (policy.serving, prm.serving) == (new, trained)


async def test_the_pair_serves_when_policy_and_prm_have_both_come_to_it(
    registry: Registry, engine: AsyncEngine, register: Callable[..., Awaitable[str]]
) -> None:
    base, trained = await register(), await register(kind="prm")
    policy, prm = ServiceDouble(base), ServiceDouble(PRM1)
    prm.may_answer.clear()
    serving = serving_of(registry, engine, policy, prm)
    await serving.pairs.serve(base, trained, ServedBy.PERSON)
    following = asyncio.create_task(keep_serving(serving))
    await prm.asked.wait()
    assert not (await health(engine, serving)).detail["pair_serves"]
    prm.may_answer.set()
    await asyncio.wait_for(serving.settled.wait(), 10)
    following.cancel()
    assert (policy.serving, prm.serving) == (base, trained)
    assert (await health(engine, serving)).detail == {"database": "ok", "pair_serves": True}


async def test_a_service_that_is_behind_or_was_restarted_follows_the_pair(
    registry: Registry, engine: AsyncEngine, register: Callable[..., Awaitable[str]]
) -> None:
    base = await register()
    second, third = await register(parent=base), await register(parent=base)
    trained = await register(kind="prm", parent=second)
    policy, prm = ServiceDouble(base), ServiceDouble(PRM1)
    serving = serving_of(registry, engine, policy, prm)
    await serve(serving, second, trained, ServedBy.PERSON)
    # A trainer that dies now has told no service. What serves is a sibling of the pair's policy, which no settings name.
    promoted = await serving.pairs.serve(third, trained, ServedBy.PERSON)
    for behind in (second, base):
        policy.serving, prm.serving = behind, PRM1
        await reconcile_policy(serving)
        await reconcile_prm(serving)
        assert (policy.serving, prm.serving) == (third, trained)
        assert policy.loaded[0] == third
        assert await serving.pairs.current() == promoted


async def test_settings_that_name_another_model_begin_a_new_pair_from_which_one_can_go_back(
    registry: Registry, engine: AsyncEngine, register: Callable[..., Awaitable[str]]
) -> None:
    base = await register()
    trained, prm_of_it = await register(parent=base), await register(kind="prm")
    policy, prm = ServiceDouble(base), ServiceDouble(PRM1)
    serving = serving_of(registry, engine, policy, prm)
    await serve(serving, trained, prm_of_it, ServedBy.PERSON)
    another = f"medium@{new_id().hex}"
    policy.serving, policy.configured = another, None
    await reconcile_policy(serving)
    assert policy.serving == trained, "what was chosen for want of a name takes nobody's place"
    policy.configured = policy.serving = another
    await reconcile_policy(serving)
    await reconcile_prm(serving)
    now = await serving.pairs.current()
    assert now is not None
    assert (now.policy, now.prm, now.why) == (another, PRM1, ServedBy.SETTINGS)
    assert (policy.serving, prm.serving) == (another, PRM1)
    back = await roll_back(serving, now.id)
    assert (back.policy, back.prm) == (policy.serving, prm.serving) == (trained, prm_of_it)
    await reconcile_policy(serving)
    assert await serving.pairs.current() == back


async def test_a_policy_that_never_served_gets_only_a_prm_that_was_trained_on_it(
    registry: Registry, engine: AsyncEngine, register: Callable[..., Awaitable[str]]
) -> None:
    base = await register()
    policy, sibling = await register(parent=base), await register(parent=base)
    own, other = await register(kind="prm", parent=sibling), await register(kind="prm", parent=base)
    serving = serving_of(registry, engine, ServiceDouble(base), ServiceDouble(PRM1))
    await serving.pairs.serve(policy, other, ServedBy.PERSON)
    assert await prm_beside(serving, sibling) == PRM1
    await serving.pairs.serve(policy, own, ServedBy.PERSON)
    assert await prm_beside(serving, sibling) == own
    await serving.pairs.serve(sibling, PRM1, ServedBy.PERSON)
    assert await prm_beside(serving, policy) == own, "with which it last served"


async def test_pairs_are_listed_and_there_is_no_going_back_from_the_first(
    api: httpx.AsyncClient, engine: AsyncEngine, register: Callable[..., Awaitable[str]]
) -> None:
    pair = await PairStore(engine).serve(await register(), PRM1, ServedBy.PERSON)
    listed = (await api.get("/pairs", params={"limit": 1})).json()["pairs"]
    assert listed == [pair.model_dump(mode="json")]
    for body, status in (({"pair": 0}, 422), ({}, 422), ({"pair": pair.id + 1}, 409)):
        response = await api.post("/pairs/rollback", json=body)
        assert (response.status_code, response.headers["content-type"]) == (
            status,
            "application/problem+json",
        )
    async with transaction(engine) as connection:
        await connection.execute(t.serving_pairs.update().values(before=None))
    response = await api.post("/pairs/rollback", json={"pair": pair.id})
    assert (response.status_code, response.json()["detail"]) == (
        409,
        f"No pair served before pair {pair.id}.",
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
