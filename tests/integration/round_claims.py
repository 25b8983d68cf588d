"""Rounds for tests of the store: begun, claimed, and given problems and searches."""

import contextlib
from collections.abc import AsyncIterator

from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet.clients import PolicyClient, PrmClient, SandboxClient
from ratchet.contracts.rounds import RoundProgress, RoundRequest, RoundView
from ratchet.contracts.search import SearchRequest
from ratchet.problems import Problem, problem_id
from ratchet.queue import SearchQueue
from ratchet.settings import TrainerSettings
from ratchet.store.calibrations import CalibrationStore
from ratchet.store.ids import new_id
from ratchet.store.pairs import PairStore
from ratchet.store.registry import Registry
from ratchet.store.round_searches import RoundSearchStore
from ratchet.store.rounds import RoundClaim, RoundStore
from services.trainer.holding import Serving
from services.trainer.stages.context import Context

NOWHERE = "http://127.0.0.1:9"
LEASE = 30.0
ATTEMPTS = 5


def a_run() -> str:
    return f"run-{new_id().hex}"


async def begin(store: RoundStore, run: str | None = None) -> RoundView:
    return await store.create(RoundRequest(run=run or a_run()))


async def claim_round(store: RoundStore, owner: str = "t1", lease: float = LEASE) -> RoundClaim:
    claim = await store.claim(owner, lease, ATTEMPTS)
    assert claim is not None
    return claim


async def read(store: RoundStore, claim: RoundClaim) -> RoundView:
    view = await store.get(claim.id)
    assert view is not None
    return view


def problems(*texts: str) -> list[Problem]:
    return [
        Problem(problem_id(text, "42"), text, "42", f"file:{n}", "packs", n)
        for n, text in enumerate(texts, 1)
    ]


def requests(texts: list[str], reference: str | None = "42") -> dict[int, SearchRequest]:
    return {
        place: SearchRequest(problem=text, reference_answer=reference, seed=place)
        for place, text in enumerate(texts)
    }


@contextlib.asynccontextmanager
async def stage_context(
    engine: AsyncEngine, claim: RoundClaim, redis_url: str = "redis://127.0.0.1:9/0"
) -> AsyncIterator[Context]:
    """What a stage works with, over a real store. No service answers, and nothing is to be told."""

    async def report(progress: RoundProgress) -> None:
        raise AssertionError("nothing is to be told")

    queue = SearchQueue(redis_url, "nobody")
    async with PolicyClient(NOWHERE) as policy, PrmClient(NOWHERE) as prm, SandboxClient(NOWHERE) as sandbox:
        yield Context(
            settings=TrainerSettings(),
            claim=claim,
            serving=Serving(Registry(engine), PairStore(engine), RoundStore(engine), {}),
            searches=RoundSearchStore(engine),
            calibrations=CalibrationStore(engine),
            queue=queue,
            policy=policy,
            prm=prm,
            sandbox=sandbox,
            report=report,
        )
