"""Rounds for tests of the store: begun, claimed, and given problems and searches."""

from ratchet.contracts.rounds import RoundRequest, RoundView
from ratchet.contracts.search import SearchRequest
from ratchet.problems import Problem, problem_id
from ratchet.store.ids import new_id
from ratchet.store.rounds import RoundClaim, RoundStore

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
