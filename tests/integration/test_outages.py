"""What is away, or dies, says nothing of a search: real workers, Postgres, Redis and sandbox; the models are doubles."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import httpx
import psutil
import pytest
from fastapi import FastAPI, Request, Response
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet.clients import PolicyClient, SandboxClient, ServiceError
from ratchet.contracts.policy import Candidate, FinishReason, GenerateRequest, GenerateResponse
from ratchet.contracts.sandbox import SessionRequest
from ratchet.contracts.search import EventKind, SearchRequest, SearchResult
from ratchet.events import Event, Events
from ratchet.queue import SearchQueue, sweep
from ratchet.settings import SearchSettings
from ratchet.stack.services import service_command, service_environment
from ratchet.stack.supervisor import ChildSpec, Supervisor
from ratchet.states import SEARCH_TRANSITIONS, SearchState, is_end
from ratchet.store.engine import transaction
from ratchet.store.ids import new_id
from ratchet.store.searches import SearchStore
from services.search import worker as worker_module
from services.search.breaker import Breaker
from services.search.tree_journal import publish
from services.search.worker import LEASES_LOST, Worker, _session_name, open_worker
from tests.http_double import serving
from tests.sandbox_server import TOKEN, running_sandbox

PROBLEM = "Ann has 3 hoops and finds 4 more. How many hoops has she?"
KILLER = "This problem ends whoever asks the policy about it."
GENEROUS = 90.0


@dataclass
class Front:
    """Stands before a service and passes requests on, or says that it is away."""

    url: str = ""
    away: bool = False
    passes: int = 10**9
    """It is away after so many requests more, health apart."""
    passed: int = 0


def front(state: Front, target: str) -> FastAPI:
    app = FastAPI()
    client = httpx.AsyncClient(base_url=target, timeout=60, trust_env=False)

    @app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "DELETE"])
    async def pass_on(request: Request, path: str) -> Response:
        if path != "health":
            state.away = state.away or state.passes <= 0
            state.passes -= not state.away
            state.passed += not state.away
        if state.away:
            return Response("away", status_code=503)
        headers = {n: v for n, v in request.headers.items() if n in ("content-type", "authorization")}
        answer = await client.request(
            request.method, f"/{path}", content=await request.body(), headers=headers
        )
        return Response(answer.content, answer.status_code, media_type=answer.headers.get("content-type"))

    return app


@dataclass
class Models:
    """A double of policy and PRM. It ends the process that asks about KILLER; others wait until it has done so, if asked to."""

    killed: list[int] = field(default_factory=list)
    hold: bool = False
    """Answer nobody until somebody was killed."""
    asked: set[str] = field(default_factory=set)

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/health")
        async def health() -> dict[str, object]:
            return {"service": "models", "ready": True, "version": "0", "detail": {"model": "m@0"}}

        @app.post("/generate")
        async def generate(body: GenerateRequest, request: Request) -> GenerateResponse:
            problem = body.prefixes[0].problem
            self.asked.add(problem)
            if problem == KILLER:
                # Not before the others are in flight.
                while self.hold and len(self.asked) < 5:
                    await asyncio.sleep(0.02)
                assert request.client is not None
                self.kill(request.client.port)
            while self.hold and not self.killed:
                await asyncio.sleep(0.02)
            return GenerateResponse(
                model="m@0", candidates=[[ANSWER] for _ in body.prefixes], prompt_tokens=1
            )

        return app

    def kill(self, port: int) -> None:
        for connection in psutil.net_connections("tcp"):
            if (
                connection.laddr
                and connection.laddr.port == port
                and connection.pid not in (None, os.getpid())
            ):
                assert connection.pid is not None
                self.killed.append(connection.pid)
                os.kill(connection.pid, signal.SIGKILL)
                return


ANSWER = Candidate(
    text="print(3 + 4)",
    steps=["print(3 + 4)"],
    final=True,
    tokens=10,
    mean_logprob=-0.5,
    step_logprobs=[-0.5],
    finish_reason=FinishReason.END,
)


@pytest.fixture(scope="module")
def sandbox_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_sandbox(tmp_path_factory.mktemp("sandbox") / "log") as running:
        yield str(running.http.base_url)


@dataclass
class Site:
    """Backends with fronts, and the settings of workers that use them."""

    settings: SearchSettings
    models: Models
    policy: Front
    sandbox: Front


@pytest.fixture
def site(database_url: str, redis_url: str, sandbox_url: str, tmp_path: Path) -> Iterator[Site]:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    with serving() as serve:
        models, policy, sandbox = Models(), Front(), Front()
        target = serve(models.app())
        policy.url, sandbox.url = serve(front(policy, target)), serve(front(sandbox, sandbox_url))
        settings = SearchSettings(
            database_url=database_url,
            redis_url=redis_url,
            queue_name=f"q{new_id().hex}",
            policy_url=policy.url,
            prm_url=target,
            sandbox_url=sandbox.url,
            outage_seconds=0.3,
            service_token_file=token,
        )
        yield Site(settings, models, policy, sandbox)


async def begin(store: SearchStore, problem: str = PROBLEM, **changes: object) -> UUID:
    request = {
        "problem": problem,
        "strategy": "majority",
        # Together, so that how many calls there are depends on no chance.
        "parameters": {"rollouts": 4, "prm": "none", "early_stop": False, "batch_rollouts": True},
        **changes,
    }
    return (await store.create(SearchRequest.model_validate(request)))[0]


async def result_of(store: SearchStore, search_id: UUID) -> SearchResult:
    found = await store.result(search_id)
    assert found is not None
    return found


async def work_until_over(worker: Worker, store: SearchStore, search_id: UUID) -> SearchResult:
    """One that was given back is not due at once."""
    async with asyncio.timeout(GENEROUS):
        while not is_end(SEARCH_TRANSITIONS, (found := await result_of(store, search_id)).state):
            await worker.run_search(search_id, asyncio.Event())
            await asyncio.sleep(0.05)
    return found


async def test_an_outage_gives_a_search_back_and_no_other_is_taken_up_until_it_is_over(
    site: Site, store: SearchStore
) -> None:
    first, second = await begin(store), await begin(store)
    async with open_worker(site.settings) as worker:
        site.policy.away = True
        await asyncio.wait_for(worker.run_search(first, asyncio.Event()), GENEROUS)
        given_back = await result_of(store, first)
        assert given_back.state is SearchState.QUEUED
        assert given_back.reason is not None
        assert "policy" in given_back.reason
        assert not await store.is_suspect(first), "no attempt was counted"
        assert worker.breaker.open_for == ["policy"]

        waiting = asyncio.create_task(worker.run_search(second, asyncio.Event()))
        done, _ = await asyncio.wait({waiting}, timeout=1.5)
        assert not done
        assert (await result_of(store, second)).started_at is None, "it was not taken up"

        site.policy.away = False
        await asyncio.wait_for(waiting, GENEROUS)
        assert worker.breaker.open_for == []
        for search_id in (first, second):
            ended = await work_until_over(worker, store, search_id)
            assert (ended.answer, ended.reason) == ("7", "all rollouts done")


async def test_an_outage_at_the_end_keeps_the_tree_and_its_answer(site: Site, store: SearchStore) -> None:
    async with open_worker(site.settings) as worker:
        before = site.sandbox.passed
        whole = await work_until_over(worker, store, await begin(store))
        calls = site.sandbox.passed - before
    assert whole.answer == "7"
    search_id = await begin(store)
    async with open_worker(site.settings) as worker:
        # All but the last call: the answer is being verified then.
        site.sandbox.passes = calls - 1
        await asyncio.wait_for(worker.run_search(search_id, asyncio.Event()), GENEROUS)
        assert (await result_of(store, search_id)).state is SearchState.QUEUED
        tree = await store.load_nodes(search_id)
        assert [node.answer for node in tree if node.answer is not None] == ["7"]
        site.sandbox.passes, site.sandbox.away = 10**9, False
        ended = await work_until_over(worker, store, search_id)
    assert (ended.state, ended.answer) == (whole.state, "7")
    assert ended.usage.policy.tokens == whole.usage.policy.tokens, "nothing was written twice"
    assert ended.models == whole.models


async def test_a_lease_that_is_given_up_is_not_lost(
    site: Site, store: SearchStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be renewed in the moment in which the search ends: those who follow are told of the end all the same."""
    told = asyncio.Event()

    async def slowly(events: Events, search_id: UUID, batch: Sequence[Event]) -> None:
        ended = any(each.kind is EventKind.END for each in batch)
        if ended:
            await asyncio.sleep(0.7)
        await publish(events, search_id, batch)
        if ended:
            told.set()

    monkeypatch.setattr(worker_module, "publish", slowly)
    before = LEASES_LOST._value.get()
    search_id = await begin(store)
    # A lease is renewed every fifth of its time.
    async with open_worker(site.settings.model_copy(update={"lease_seconds": 1.0})) as worker:
        await asyncio.wait_for(worker.run_search(search_id, asyncio.Event()), GENEROUS)
    assert (await result_of(store, search_id)).answer == "7"
    assert told.is_set()
    assert LEASES_LOST._value.get() == before


async def test_time_in_which_nobody_works_is_none_of_the_budget(
    site: Site, store: SearchStore, engine: AsyncEngine
) -> None:
    search_id = await begin(store, budget={"seconds": 60.0})
    lost = await store.claim(search_id, "lost", 0.01, 5)
    assert lost is not None
    async with transaction(engine) as connection:
        hour_ago = text("UPDATE searches SET started_at = now() - interval '1 hour' WHERE id = :id")
        await connection.execute(hour_ago, {"id": search_id})
    async with open_worker(site.settings, alone=True) as worker:
        ended = await work_until_over(worker, store, search_id)
    assert ended.reason == "all rollouts done"
    assert 0 < ended.usage.wall_seconds < 60


async def test_the_clock_stands_while_a_backend_that_is_asked_is_away() -> None:
    async def there() -> None:
        pass

    async with PolicyClient("http://127.0.0.1:9", retry_seconds=0) as policy:
        breaker = Breaker({"policy": policy}, there)
        before = breaker.clock()
        await asyncio.sleep(0.02)
        assert breaker.clock() > before
        with pytest.raises(ServiceError):
            await policy.models()
        stands = breaker.clock()
        await asyncio.sleep(0.02)
        assert breaker.clock() == pytest.approx(stands, abs=1e-6)


async def test_the_session_of_a_lost_worker_is_ended_by_the_next(site: Site, store: SearchStore) -> None:
    search_id = await begin(store)
    lost = await store.claim(search_id, "lost", 0.01, 5)
    assert lost is not None
    name = _session_name(search_id, lost.fence)
    async with (
        SandboxClient(site.sandbox.url, key=TOKEN) as sandbox,
        httpx.AsyncClient(base_url=site.sandbox.url, headers={"Authorization": f"Bearer {TOKEN}"}) as raw,
    ):
        for _ in range(2):
            # Begun again under its name it is a new one, and not a second one.
            assert (await sandbox.create_session(SessionRequest(id=name))).id == name
        assert (await raw.get(f"/sessions/{name}")).status_code == 200
        async with open_worker(site.settings, alone=True) as worker:
            await work_until_over(worker, store, search_id)
        assert (await raw.get(f"/sessions/{name}")).status_code == 404


async def test_attempts_count_only_while_the_journal_does_not_grow(site: Site, store: SearchStore) -> None:
    search_id = await begin(store)
    for _ in range(2):
        assert await store.claim(search_id, "lost", 0.01, 3) is not None
        await asyncio.sleep(0.02)
    assert await store.is_suspect(search_id)
    # The session of the lost worker is ended, and the first steps run.
    site.sandbox.passes = 2
    async with open_worker(site.settings, alone=True) as worker:
        # It gets further, and is given back.
        await asyncio.wait_for(worker.run_search(search_id, asyncio.Event()), GENEROUS)
    assert len(await store.load_nodes(search_id)) > 1
    assert not await store.is_suspect(search_id)


@contextlib.asynccontextmanager
async def supervised_worker(site: Site, folder: Path) -> AsyncIterator[Supervisor]:
    names = (
        "database_url",
        "redis_url",
        "queue_name",
        "policy_url",
        "prm_url",
        "sandbox_url",
        "service_token_file",
    )
    settings = {f"RATCHET_{name.upper()}": str(getattr(site.settings, name)) for name in names}
    spec = ChildSpec(
        name="worker",
        argv=service_command("search.worker"),
        log=folder / "worker.log",
        env={
            **service_environment(),
            "PYTHONPATH": os.pathsep.join(sys.path),
            "RATCHET_LEASE_SECONDS": "1.5",
            "RATCHET_MAX_ATTEMPTS": "2",
            **settings,
        },
    )
    supervisor = Supervisor([spec], mark=str(folder))
    try:
        await supervisor.start()
        yield supervisor
    finally:
        await supervisor.stop()


async def test_a_search_that_kills_its_worker_costs_no_other_search_anything(
    site: Site, store: SearchStore, tmp_path: Path
) -> None:
    site.models.hold = True
    # The models are asked directly: a front would hide who asks.
    settings = site.settings.model_copy(update={"policy_url": site.settings.prm_url})
    site.settings = settings
    killer = await begin(store, KILLER)
    innocent = [await begin(store, f"{PROBLEM} ({number})") for number in range(4)]
    queue = SearchQueue(settings.redis_url, settings.queue_name)
    async with supervised_worker(site, tmp_path) as supervisor:
        deadline = time.monotonic() + 2 * GENEROUS
        ended: dict[UUID, SearchResult] = {}
        while len(ended) < 5:
            assert time.monotonic() < deadline, (ended.keys(), (tmp_path / "worker.log").read_text()[-5000:])
            await sweep(store, queue, queued_seconds=0)
            await asyncio.sleep(0.2)
            for search_id in (killer, *innocent):
                found = await result_of(store, search_id)
                if is_end(SEARCH_TRANSITIONS, found.state):
                    ended[search_id] = found
        (status,) = supervisor.status()
    await queue.aclose()
    assert ended[killer].state is SearchState.FAILED
    assert "lost before it got any further" in (ended[killer].reason or "")
    assert [ended[each].answer for each in innocent] == ["7"] * 4
    # The first one took the worker along, the others a process of their own.
    assert len(site.models.killed) == 2
    assert status.restarts == 1
