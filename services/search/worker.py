"""The search worker: takes searches from the queue, grows their trees, and writes down what came of it.

Many searches run at once in one process, each a task. A search is held by a lease that this worker renews; when it is lost,
the search stops at once and nothing more is written (the fence in Postgres sees to that). A worker that is told to stop gives
its searches back with their trees, and the next one goes on where it stopped. So it does with a search whose backend stays
away, and then takes up no more until that is back (`breaker.py`): an outage says nothing of a search. A search that a worker
was lost with before it got further is run in a process of its own (`apart.py`).

It serves what its supervisor asks of it (`/livez`, `/readyz`, `/health`, `/metrics`), and nothing else.
"""

import asyncio
import contextlib
import math
import os
import random
import socket
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import TypeVar
from uuid import UUID

import structlog
import uvloop
from fastapi import FastAPI
from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncEngine
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from ratchet import __version__, background
from ratchet.clients import PolicyClient, PrmClient, SandboxClient, SandboxFailedError, ServiceError
from ratchet.contracts.base import Health
from ratchet.contracts.calibration import AnswerCalibration
from ratchet.contracts.search import EventKind, StrategyName
from ratchet.events import Event, Events, end_event
from ratchet.garbage import collect_less_often
from ratchet.settings import SearchSettings, load
from ratchet.states import SEARCH_TRANSITIONS, SearchState, is_end
from ratchet.store.calibrations import CalibrationStore
from ratchet.store.engine import make_engine, ready
from ratchet.store.errors import StoreUnavailableError
from ratchet.store.nodes import NodeRecord
from ratchet.store.search_progress import Progress
from ratchet.store.search_results import SearchOutcome
from ratchet.store.searches import Claim, LeaseLostError, SearchStore
from ratchet.telemetry import configure_logging
from ratchet.web.app import create_app
from ratchet.web.beside import serve_beside
from services.search.answering_models import models_of
from services.search.apart import run_apart
from services.search.beginning import BeginningFailedError
from services.search.breaker import DATABASE, TICK_SECONDS, Breaker
from services.search.consumer import Consumer
from services.search.interpreter import Interpreter, end_session
from services.search.right_of_way import RightOfWay
from services.search.run import grow, most_in_flight
from services.search.saved_tree import tree_of
from services.search.search import Backends, Search
from services.search.step_memory import StepMemory
from services.search.tree_journal import TreeJournal, publish
from services.search.verify import conclude

T = TypeVar("T")
log = structlog.get_logger()

CALIBRATION_SECONDS = 30.0
"""How long a worker believes what it has read of a calibration, or that there is none."""
CONNECTIONS, POOL_SECONDS = 10, 60.0
"""A worker's searches, hundreds perhaps, share a few connections to the store: one that waits its turn is no outage."""
SHORTEST_BACK_OFF, LONGEST_BACK_OFF = 1.0, 30.0
"""Seconds before a search that was given back is due again: doubled each time in a row, with jitter."""
APART_PLACES = 2
"""Searches that run in processes of their own at once: each takes the memory of a small worker."""

CLAIMS = Counter("ratchet_search_attempts", "Searches that this worker took up.")
LEASES_LOST = Counter("ratchet_search_leases_lost", "Searches that another worker took over from this one.")
GIVEN_BACK = Counter("ratchet_searches_given_back", "Searches given back, by what was away.", ["backend"])
SUSPECTS = Counter("ratchet_searches_run_apart", "Searches that were run in a process of their own.")


class _AwayError(Exception):
    """A backend is away, or cannot run anything now: no verdict on the search."""

    def __init__(self, backend: str, error: Exception) -> None:
        super().__init__(str(error))
        self.backend = backend


@dataclass(frozen=True, slots=True)
class Worker:
    """What every search of this process shares."""

    settings: SearchSettings
    name: str
    store: SearchStore
    calibrations: CalibrationStore
    events: Events
    backends: Backends
    breaker: Breaker
    alone: bool = False
    """This process is there for one search."""
    memory: StepMemory = field(default_factory=StepMemory)
    right_of_way: RightOfWay = field(default_factory=RightOfWay)
    _apart: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(APART_PLACES))
    _calibrations: dict[tuple[str, str], tuple[float, AnswerCalibration | None]] = field(default_factory=dict)
    """By policy and PRM: when it was read, and what."""

    async def run_search(self, search_id: UUID, cancelled: asyncio.Event) -> None:
        """Work on one search until it is over, given back or another's; does nothing when it is not to be had."""
        await self.breaker.closed()
        try:
            if not self.alone and await self.store.is_suspect(search_id):
                if self._apart.locked():
                    # The sweeper brings it again: one that waited here would take a place from others.
                    return
                async with self._apart:
                    SUSPECTS.inc()
                    log.info("run in a process of its own", search=str(search_id))
                    await run_apart(search_id)
                return
            claim = await self.store.claim(
                search_id, self.name, self.settings.lease_seconds, self.settings.max_attempts
            )
            if claim is None:
                await self._announce_end(search_id)
                return
        except StoreUnavailableError as error:
            log.warning("search not taken up", search=str(search_id), error=str(error))
            self.breaker.open(DATABASE)
            return
        CLAIMS.inc()
        with structlog.contextvars.bound_contextvars(search=str(search_id), attempt=claim.attempt):
            try:
                await self._work(claim, cancelled)
            except* LeaseLostError:
                LEASES_LOST.inc()
                log.warning("lease lost; another worker has this search")

    async def _with_strategy(self, claim: Claim) -> Claim:
        """The claim, with the strategy that stands for `auto`; it is written down, so that the next worker has the same."""
        if claim.request.strategy is not StrategyName.AUTO:
            return claim
        models = await models_of(claim.request, self.backends)
        chosen = await _once_store_is_back(lambda: self.store.choose_strategy(claim, models))
        return replace(claim, request=claim.request.model_copy(update={"strategy": chosen}))

    async def _work(self, claim: Claim, cancelled: asyncio.Event) -> None:
        """Hold the lease and work. Raises an ExceptionGroup with LeaseLostError."""
        began = self.breaker.clock()
        letting_go = asyncio.Event()
        async with asyncio.TaskGroup() as beside:
            renewing = beside.create_task(self._renew(claim, cancelled, letting_go))
            try:
                claim = await self._with_strategy(claim)
                search = await self._load(claim, cancelled)
                journal = TreeJournal(
                    claim,
                    search,
                    self.store,
                    self.events,
                    lambda: claim.usage.wall_seconds + self.breaker.clock() - began,
                )
            except asyncio.CancelledError:
                with contextlib.suppress(StoreUnavailableError):
                    await self.store.release(claim)
                raise
            flushing = beside.create_task(journal.keep_flushing())
            deadline = began + claim.request.budget.seconds - claim.usage.wall_seconds
            await self._work_or_give_back(claim, search, journal, deadline, letting_go)
            renewing.cancel()
            flushing.cancel()

    async def _work_or_give_back(
        self,
        claim: Claim,
        search: Search,
        journal: TreeJournal,
        deadline: float,
        letting_go: asyncio.Event,
    ) -> None:
        """Sets `letting_go` when it begins to give up the lease."""
        if claim.cancel_requested:
            search.stop.set()
        journal.note([search.tree.root])
        await self._tell_state(claim.id, SearchState.RUNNING, None)
        try:
            state, outcome = await self._grow_and_conclude(claim, search, journal, deadline)
            letting_go.set()
            await _once_store_is_back(lambda: journal.finish(state, outcome))
        except asyncio.CancelledError:
            with contextlib.suppress(StoreUnavailableError, LeaseLostError):
                await journal.flush()
                await self.store.release(claim, search.usage)
            raise
        except _AwayError as away:
            letting_go.set()
            await self._give_back(claim, search, journal, away)
        else:
            log.info(
                "search over", state=state.value, reason=outcome.reason, tokens=search.usage.policy.tokens
            )
            await publish(self.events, claim.id, [end_event()])

    async def _give_back(self, claim: Claim, search: Search, journal: TreeJournal, away: _AwayError) -> None:
        """Queue the search again, with its tree and the seconds that were worked."""
        self.breaker.open(away.backend)
        GIVEN_BACK.labels(away.backend).inc()
        pause = min(LONGEST_BACK_OFF, SHORTEST_BACK_OFF * 2.0 ** min(claim.given_back, 16))
        pause *= random.uniform(0.75, 1.25)  # noqa: S311 - jitter
        reason = f"waits for {away.backend}: {away}"
        log.warning("search given back", backend=away.backend, error=str(away), seconds=round(pause, 1))
        await _once_store_is_back(journal.flush)
        search.usage.wall_seconds = journal.worked_seconds()
        await _once_store_is_back(
            lambda: self.store.release(claim, search.usage, after_seconds=pause, away=reason)
        )
        await self._tell_state(claim.id, SearchState.QUEUED, reason)

    async def _load(self, claim: Claim, cancelled: asyncio.Event) -> Search:
        """The search as the workers before this one have left it."""
        records: list[NodeRecord] = []
        progress: Progress | None = None
        if claim.fence > 1:
            await end_session(self.backends.sandbox, _session_name(claim.id, claim.fence - 1))
            records = await _once_store_is_back(lambda: self.store.load_nodes(claim.id))
            progress = await _once_store_is_back(lambda: self.store.load_progress(claim.id))
        reference = (
            await _once_store_is_back(lambda: self.store.reference_answer(claim))
            if claim.has_reference
            else None
        )
        return Search(
            request=claim.request,
            reference=reference,
            # Where nobody knows what was in flight, each worker before this one lost at most as much as it could have.
            tree=tree_of(records, progress, lost=(claim.fence - 1) * most_in_flight(claim.request)),
            progress=progress,
            interpreter=Interpreter(
                self.backends.sandbox, claim.request.seed, self.memory, _session_name(claim.id, claim.fence)
            ),
            usage=claim.usage.model_copy(deep=True),
            models=dict(claim.models),
            stop=cancelled,
            right_of_way=self.right_of_way,
            find_calibration=self.find_calibration,
            beginning=claim.beginning,
        )

    async def _grow_and_conclude(
        self, claim: Claim, search: Search, journal: TreeJournal, deadline: float
    ) -> tuple[SearchState, SearchOutcome]:
        """Grow until an end, then verify. A backend that refuses ends the search with what it has.

        Raises _AwayError where a backend stays away.
        """
        try:
            async with search.interpreter:
                with self.right_of_way.under_way(claim.request.priority):
                    reason = await grow(search, self.backends, journal, deadline, self.breaker.clock)
        except BeginningFailedError as error:
            return SearchState.FAILED, SearchOutcome(
                usage=search.usage, models=search.models, reason=str(error)
            )
        except (ServiceError, SandboxFailedError) as error:
            _raise_if_away(error, claim)
            log.warning("a backend refused", error=str(error))
            reason = f"stopped early: {error}"
            if not search.tree.terminals():
                return SearchState.FAILED, SearchOutcome(
                    usage=search.usage, models=search.models, reason=reason
                )
        try:
            return await conclude(search, self.backends.sandbox, str(claim.id), claim.created_at, reason)
        except (ServiceError, SandboxFailedError) as error:
            # A sandbox that answers, and cannot run this program however often it is asked, is asked until the budget ends.
            if isinstance(error, ServiceError) or self.breaker.clock() < deadline:
                _raise_if_away(error, claim)
            return SearchState.FAILED, SearchOutcome(
                usage=search.usage, models=search.models, reason=f"the answer could not be verified: {error}"
            )

    async def find_calibration(self, policy: str, prm: str) -> AnswerCalibration | None:
        """The calibration of a pair, as it was at most CALIBRATION_SECONDS ago; waits for a store that is away."""
        looked_up, found = self._calibrations.get((policy, prm), (-math.inf, None))
        if time.monotonic() - looked_up > CALIBRATION_SECONDS:
            found = await _once_store_is_back(lambda: self.calibrations.get(policy, prm))
            self._calibrations[policy, prm] = time.monotonic(), found
        return found

    async def _renew(self, claim: Claim, cancelled: asyncio.Event, letting_go: asyncio.Event) -> None:
        """Renew the lease until it is given up. Raises LeaseLostError."""
        while True:
            await asyncio.sleep(self.settings.lease_seconds / 5)
            try:
                if await self.store.renew(claim, self.settings.lease_seconds):
                    cancelled.set()
            except StoreUnavailableError as error:
                # While the store is away nobody can claim the search either; once it is back, the fence decides.
                log.warning("lease not renewed", error=str(error))
                self.breaker.open(DATABASE)
            except LeaseLostError:
                # Given up in this moment, or lost: what gives it up finds out.
                if not letting_go.is_set():
                    raise
                return

    async def _announce_end(self, search_id: UUID) -> None:
        with contextlib.suppress(StoreUnavailableError):
            state = await self.store.state(search_id)
            if state is not None and is_end(SEARCH_TRANSITIONS, state):
                await publish(self.events, search_id, [end_event()])

    async def _tell_state(self, search_id: UUID, state: SearchState, reason: str | None) -> None:
        await publish(
            self.events, search_id, [Event(EventKind.STATE, {"state": state.value, "reason": reason})]
        )


def _raise_if_away(error: ServiceError | SandboxFailedError, claim: Claim) -> None:
    """Raise _AwayError where the error says nothing of the search."""
    if isinstance(error, SandboxFailedError):
        raise _AwayError("sandbox", error) from error
    # The trainer has a service that was restarted load the versions of its round again.
    pinned = claim.of_round and error.status == HTTPStatus.NOT_FOUND
    if error.transient or pinned:
        raise _AwayError(error.service, error) from error


def _session_name(search_id: UUID, fence: int) -> str:
    """The sandbox session of the worker with this fence: the one after it can end it."""
    return f"{search_id.hex}-{fence}"


async def _once_store_is_back(ask: Callable[[], Awaitable[T]]) -> T:
    """Read or write; wait for a store that is away for as long as it takes. While it is, nobody else can have the search."""
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(StoreUnavailableError),
        wait=wait_random_exponential(multiplier=0.5, max=5.0),
        reraise=True,
    ):
        with attempt:
            return await ask()
    raise AssertionError("tenacity raises what the last attempt raised")


@contextlib.asynccontextmanager
async def open_worker(settings: SearchSettings, *, alone: bool = False) -> AsyncIterator[Worker]:
    """A worker with its connections. Calls to a backend that is away are tried for RATCHET_OUTAGE_SECONDS."""
    engine: AsyncEngine = make_engine(settings.database_url, CONNECTIONS, POOL_SECONDS)
    events = Events(settings.redis_url)
    name = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
    patience = settings.outage_seconds
    try:
        async with (
            PolicyClient(settings.policy_url, key=settings.service_token, retry_seconds=patience) as policy,
            PrmClient(settings.prm_url, key=settings.service_token, retry_seconds=patience) as prm,
            SandboxClient(
                settings.sandbox_url, key=settings.service_token, retry_seconds=patience
            ) as sandbox,
        ):
            backends = Backends(policy, prm, sandbox)
            clients = {client.service: client for client in (policy, prm, sandbox)}
            breaker = Breaker(clients, lambda: ready(engine))
            async with background.running(background.repeat("breaker", breaker.look, TICK_SECONDS)):
                yield Worker(
                    settings,
                    name,
                    SearchStore(engine),
                    CalibrationStore(engine),
                    events,
                    backends,
                    breaker,
                    alone,
                )
    finally:
        await events.aclose()
        await engine.dispose()


def build_app(settings: SearchSettings, consumer: Consumer, breaker: Breaker) -> FastAPI:
    """What the worker says of itself. It is not ready while it waits for something that is away."""

    @contextlib.asynccontextmanager
    async def nothing(_: FastAPI) -> AsyncIterator[None]:
        yield

    def health() -> Health:
        waits_for = breaker.open_for
        detail: dict[str, str | int | float | bool | list[str] | None] = {
            "searches": len(consumer.running),
            "waits_for": waits_for,
        }
        return Health(service="search-worker", ready=not waits_for, version=__version__, detail=detail)

    return create_app(
        service="search-worker",
        summary="The state of a process that works on searches.",
        settings=settings,
        lifespan=nothing,
        health=health,
    )


async def main(settings: SearchSettings) -> None:
    """Run the worker until SIGTERM or SIGINT."""
    async with open_worker(settings) as worker:
        consumer = Consumer(settings, worker.run_search)
        app = build_app(settings, consumer, worker.breaker)
        async with background.running(background.restart("http", lambda: serve_beside(app, settings))):
            log.info("worker ready", name=worker.name, concurrency=settings.concurrency)
            await consumer.run()


if __name__ == "__main__":
    _settings = load(SearchSettings)
    configure_logging(_settings)
    collect_less_often()
    uvloop.run(main(_settings))
