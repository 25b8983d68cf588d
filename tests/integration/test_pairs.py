"""Pairs that were made to serve, in the real database: one act, one history, and a way back."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet.contracts.serving import PRM1
from ratchet.contracts.trainer import ModelKind, ModelRegistration, ServedBy
from ratchet.states import IllegalTransitionError, ModelState
from ratchet.store import tables as t
from ratchet.store.engine import transaction
from ratchet.store.ids import new_id
from ratchet.store.pairs import PairStore, RollbackError, UnknownVersionError
from ratchet.store.registry import Registry
from ratchet.store.rounds import RoundClaim, RoundLostError, RoundStore
from tests.integration.round_claims import begin, claim_round

SHA = "0123456789abcdef" * 4
NewModel = Callable[[ModelKind], Awaitable[str]]


@pytest.fixture
async def pairs(engine: AsyncEngine) -> PairStore:
    """No pair served yet."""
    async with transaction(engine) as connection:
        await connection.execute(text("TRUNCATE serving_pairs"))
        await connection.execute(text("UPDATE models SET state = 'retired' WHERE state = 'serving'"))
    return PairStore(engine)


@pytest.fixture
def registry(engine: AsyncEngine) -> Registry:
    return Registry(engine)


@pytest.fixture
async def claim(engine: AsyncEngine) -> RoundClaim:
    """A round under way."""
    rounds = RoundStore(engine)
    await begin(rounds)
    return await claim_round(rounds)


@pytest.fixture
def new_model(registry: Registry) -> NewModel:
    async def register(kind: ModelKind) -> str:
        version = f"{kind}-{new_id().hex}"
        model = ModelRegistration(version=version, kind=kind, uri="/models/some", sha256=SHA)
        return (await registry.register(model)).model.version

    return register


async def serving(registry: Registry) -> list[str]:
    """Versions that the registry says to serve, the policy first."""
    return [each.version for kind in ModelKind for each in await registry.models(kind, ModelState.SERVING)]


async def test_a_pair_serves_as_one_and_the_one_before_is_retired_as_one(
    pairs: PairStore, registry: Registry, new_model: NewModel
) -> None:
    assert await pairs.current() is None
    old, new = [(await new_model(ModelKind.POLICY), await new_model(ModelKind.PRM)) for _ in range(2)]
    first = await pairs.serve(*old, ServedBy.PERSON)
    assert (first.policy, first.prm, first.why, first.round, first.before) == (*old, "person", None, None)
    assert await serving(registry) == [*old]
    second = await pairs.serve(*new, ServedBy.SETTINGS)
    assert (second.before, second.id > first.id) == (first.id, True)
    assert await serving(registry) == [*new]
    for version in old:
        retired = await registry.get(version)
        assert retired is not None
        assert retired.state is ModelState.RETIRED
    assert await pairs.history() == [second, first]
    assert await pairs.history(1) == [second]
    assert await pairs.current() == second


async def test_the_database_itself_allows_one_serving_version_of_a_kind(
    pairs: PairStore, new_model: NewModel, engine: AsyncEngine
) -> None:
    await pairs.serve(await new_model(ModelKind.POLICY), PRM1, ServedBy.PERSON)
    another = await new_model(ModelKind.POLICY)
    with pytest.raises(IntegrityError, match="uq_models_serving"):
        async with transaction(engine) as connection:
            await connection.execute(
                t.models.update().where(t.models.c.version == another).values(state=ModelState.SERVING)
            )


async def test_a_policy_goes_on_with_a_prm_that_was_trained_on_another_and_prm1_retires_it(
    pairs: PairStore, registry: Registry, new_model: NewModel
) -> None:
    policy, sibling, prm = (
        await new_model(ModelKind.POLICY),
        await new_model(ModelKind.POLICY),
        await new_model(ModelKind.PRM),
    )
    await pairs.serve(policy, prm, ServedBy.PERSON)
    await pairs.serve(sibling, prm, ServedBy.PERSON)
    assert await serving(registry) == [sibling, prm]
    await pairs.serve(sibling, PRM1, ServedBy.PERSON)
    assert await serving(registry) == [sibling]
    last = await pairs.last_with(policy)
    assert last is not None
    assert last.prm == prm
    assert await pairs.last_with("nobody@0") is None


async def test_serving_what_serves_adds_no_row(pairs: PairStore, new_model: NewModel) -> None:
    policy = await new_model(ModelKind.POLICY)
    first = await pairs.serve(policy, PRM1, ServedBy.SETTINGS)
    assert await pairs.serve(policy, PRM1, ServedBy.PERSON) == first
    assert await pairs.history() == [first]


@pytest.mark.parametrize("fault", ["unknown policy", "unknown prm", "wrong kind", "rejected prm"])
async def test_half_a_pair_never_serves(
    pairs: PairStore, registry: Registry, new_model: NewModel, claim: RoundClaim, fault: str
) -> None:
    now = await pairs.serve(
        await new_model(ModelKind.POLICY), await new_model(ModelKind.PRM), ServedBy.PERSON
    )
    policy, prm = await new_model(ModelKind.POLICY), await new_model(ModelKind.PRM)
    error: type[Exception] = UnknownVersionError
    match fault:
        case "unknown policy":
            policy = "nobody@0"
        case "unknown prm":
            prm = "nobody@0"
        case "wrong kind":
            prm = await new_model(ModelKind.POLICY)
        case "rejected prm":
            await registry.reject(claim, prm)
            error = IllegalTransitionError
    with pytest.raises(error):
        await pairs.serve(policy, prm, ServedBy.PERSON)
    assert await serving(registry) == [now.policy, now.prm]
    assert await pairs.history() == [now]


async def test_rollback_restores_the_pair_and_a_second_one_goes_further_back(
    pairs: PairStore, registry: Registry, new_model: NewModel
) -> None:
    policies = [await new_model(ModelKind.POLICY) for _ in range(3)]
    prm = await new_model(ModelKind.PRM)
    first = await pairs.serve(policies[0], PRM1, ServedBy.SETTINGS)
    second = await pairs.serve(policies[1], prm, ServedBy.PERSON)
    third = await pairs.serve(policies[2], PRM1, ServedBy.PERSON)

    assert await pairs.previous(third.id) == second
    back = await pairs.rollback(third.id)
    assert (back.policy, back.prm, back.why, back.before) == (policies[1], prm, "rollback", first.id)
    assert await serving(registry) == [policies[1], prm]

    assert await pairs.rollback(third.id) == back, "the same request, sent again"
    further = await pairs.rollback(back.id)
    assert (further.policy, further.prm, further.before) == (policies[0], PRM1, None)
    assert await serving(registry) == [policies[0]]
    for leaving, reason in ((further.id, "No pair served before"), (second.id, f"Pair {further.id} serves")):
        with pytest.raises(RollbackError, match=reason):
            await pairs.rollback(leaving)
    assert [each.id for each in await pairs.history()] == [
        further.id, back.id, third.id, second.id, first.id
    ]  # fmt: skip


async def test_where_no_pair_serves_there_is_no_way_back(pairs: PairStore) -> None:
    with pytest.raises(RollbackError, match="No pair serves yet"):
        await pairs.rollback(1)


async def test_a_round_promotes_under_its_lease_and_only_once(
    pairs: PairStore, registry: Registry, new_model: NewModel, claim: RoundClaim, engine: AsyncEngine
) -> None:
    await pairs.serve(await new_model(ModelKind.POLICY), PRM1, ServedBy.SETTINGS)
    policy, prm = await new_model(ModelKind.POLICY), await new_model(ModelKind.PRM)
    promoted = await pairs.serve(policy, prm, ServedBy.ROUND, claim)
    assert (promoted.why, promoted.round) == ("round", str(claim.id))
    # A trainer that died takes the stage up again, after a person has gone back.
    back = await pairs.rollback(promoted.id)
    assert await pairs.serve(policy, prm, ServedBy.ROUND, claim) == back
    await RoundStore(engine).release(claim)
    with pytest.raises(RoundLostError):
        await pairs.serve(await new_model(ModelKind.POLICY), prm, ServedBy.ROUND, claim)
    with pytest.raises(RoundLostError):
        await registry.reject(claim, prm)
    assert await pairs.current() == back


async def test_only_a_candidate_is_rejected(
    pairs: PairStore, registry: Registry, new_model: NewModel, claim: RoundClaim
) -> None:
    candidate, retired, served = [await new_model(ModelKind.POLICY) for _ in range(3)]
    for version in (retired, served):
        await pairs.serve(version, PRM1, ServedBy.PERSON)
    for version, state in (
        (candidate, ModelState.REJECTED),
        (retired, ModelState.RETIRED),
        (served, ModelState.SERVING),
    ):
        await registry.reject(claim, version)
        found = await registry.get(version)
        assert found is not None
        assert found.state is state


async def test_pairs_from_many_at_once_stay_one_history(
    pairs: PairStore, registry: Registry, new_model: NewModel
) -> None:
    wanted = [(await new_model(ModelKind.POLICY), await new_model(ModelKind.PRM)) for _ in range(8)]
    made = await asyncio.gather(*(pairs.serve(*each, ServedBy.PERSON) for each in wanted))
    history = await pairs.history()
    assert sorted(each.id for each in made) == [each.id for each in reversed(history)]
    assert [each.before for each in history] == [*(each.id for each in history[1:]), None]
    assert await serving(registry) == [history[0].policy, history[0].prm]
