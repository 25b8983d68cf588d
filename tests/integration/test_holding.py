"""Which versions the services hold for the trainer: what nobody needs goes, whatever happened when it was to go."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from http import HTTPStatus
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet.clients import PolicyClient, PrmClient, ServiceError
from ratchet.contracts.round_metrics import RoundMetrics, StartModels
from ratchet.contracts.serving import PRM1, LoadModel
from ratchet.contracts.trainer import ModelKind, ModelRegistration, ServedBy
from ratchet.models.checkpoint import local_checkpoint
from ratchet.settings import Settings
from ratchet.states import RoundState
from ratchet.store.ids import new_id
from ratchet.store.pairs import PairStore, UnknownVersionError
from ratchet.store.registry import Registry
from ratchet.store.rounds import RoundStore
from ratchet.web.app import ProblemError
from ratchet.web.held_versions import HeldVersion
from services.trainer.holding import Serving, hold, keep_unloading, let_go
from services.trainer.pairs import Pair
from tests.held_numbers import Numbers, checkpoint, numbers_app
from tests.integration.round_claims import begin, claim_round
from tests.served_app import served

Make = Callable[..., Awaitable[str]]
POLICY = ModelKind.POLICY


class Reluctant(Numbers):
    """Refuses to unload for as long as it is told to, and can lose a version just after it was found full."""

    refusing = False
    goes_when_full: str | None = None

    async def load(self, name: str, body: LoadModel) -> HeldVersion[float]:
        try:
            return await super().load(name, body)
        except ProblemError:
            if self.goes_when_full in self.names():
                await super().unload(self.goes_when_full)
            raise

    async def unload(self, name: str) -> None:
        if self.refusing and name in self.names():
            raise ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, "Not now.")
        await super().unload(name)


@pytest.fixture
def policy(tmp_path: Path) -> Reluctant:
    """What the policy service holds: three versions at most."""
    return Reluctant(tmp_path / "cache", limit=3)


@pytest.fixture
def urls(policy: Reluctant, tmp_path: Path) -> Iterator[dict[ModelKind, str]]:
    prm = Numbers(tmp_path / "cache")
    with served(numbers_app(policy), Settings()) as one, served(numbers_app(prm), Settings()) as other:
        yield {POLICY: one, ModelKind.PRM: other}


@pytest.fixture
async def serving(engine: AsyncEngine, urls: dict[ModelKind, str]) -> AsyncIterator[Serving]:
    async with (
        PolicyClient(urls[POLICY], retry_seconds=0) as policy,
        PrmClient(urls[ModelKind.PRM], retry_seconds=0) as prm,
    ):
        services = {POLICY: policy, ModelKind.PRM: prm}
        yield Serving(Registry(engine), PairStore(engine), RoundStore(engine), services)


@pytest.fixture
def make(serving: Serving, tmp_path: Path) -> Make:
    """Registers a new policy; its version."""

    async def make(parent: str | None = None) -> str:
        version = f"number@{new_id().hex}"
        uri = checkpoint(tmp_path / version.partition("@")[2], 1.0)
        sha256 = local_checkpoint(Path(uri), tmp_path / "cache").sha256
        registered = ModelRegistration(version=version, kind=POLICY, uri=uri, sha256=sha256, parent=parent)
        return (await serving.registry.register(registered)).model.version

    return make


@contextlib.asynccontextmanager
async def unloading(serving: Serving) -> AsyncIterator[None]:
    task = asyncio.create_task(keep_unloading(serving))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def comes_true(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.02)


async def test_a_version_that_could_not_be_unloaded_is_unloaded_later(
    serving: Serving, policy: Reluctant, make: Make
) -> None:
    base = await make()
    old, new = await make(base), await make(base)
    for version in (old, new):
        await hold(serving, POLICY, version)
    await serving.pairs.serve(new, PRM1, ServedBy.PERSON)
    policy.refusing = True
    let_go(serving, [Pair(old, PRM1), Pair(new, PRM1), Pair("gone@0", PRM1)])
    async with unloading(serving):
        await comes_true(lambda: serving.leaving[POLICY] == {old})
        assert old in policy.names()
        policy.refusing = False
        await comes_true(lambda: not serving.leaving[POLICY])
    assert policy.names() == ["zero", new], "what serves is needed"


@pytest.mark.parametrize("goes_meanwhile", [False, True])
async def test_what_nobody_needs_makes_room_where_a_service_is_full(
    serving: Serving, policy: Reluctant, make: Make, goes_meanwhile: bool
) -> None:
    """Also where `keep_unloading`, the trainer's other task, has it go while room is looked for."""
    base = await make()
    left_over, serves, next_one = await make(base), await make(base), await make(base)
    await serving.pairs.serve(serves, PRM1, ServedBy.PERSON)
    for version in (left_over, serves):
        await hold(serving, POLICY, version)
    policy.goes_when_full = left_over if goes_meanwhile else None
    await hold(serving, POLICY, next_one)
    assert policy.names() == ["zero", serves, next_one]


async def test_what_a_person_or_a_round_holds_makes_no_room(
    serving: Serving, policy: Reluctant, make: Make, tmp_path: Path
) -> None:
    base = await make()
    trained, wanted = await make(base), await make(base)
    await serving.pairs.serve(base, PRM1, ServedBy.PERSON)
    await serving.services[POLICY].load("mine@0", LoadModel(uri=checkpoint(tmp_path / "mine", 2.0)))
    await hold(serving, POLICY, trained)
    await begin(serving.rounds)
    claim = await claim_round(serving.rounds)
    models = StartModels(base=base, base_uri="/b", policy=trained, policy_uri="/t", prm=PRM1)
    claim = await serving.rounds.advance(claim, RoundState.SEARCHING, RoundMetrics(models=models))
    with pytest.raises(ServiceError, match="RATCHET_MAX_MODELS"):
        await hold(serving, POLICY, wanted)
    assert sorted(policy.names()) == sorted(["zero", "mine@0", trained])

    await serving.rounds.advance(claim, RoundState.FAILED, RoundMetrics(), "over")
    await hold(serving, POLICY, wanted)
    assert sorted(policy.names()) == sorted(["zero", "mine@0", wanted]), "the round is over"


async def test_prm1_is_always_held_and_an_unknown_version_cannot_be(serving: Serving) -> None:
    assert await hold(serving, ModelKind.PRM, PRM1) is None
    with pytest.raises(UnknownVersionError):
        await hold(serving, POLICY, "nobody@0")
