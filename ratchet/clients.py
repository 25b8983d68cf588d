"""Typed clients of the services, one class each: what can be asked, and how long it may take.

Every call to policy, PRM and sandbox is pure, and a search is created under an idempotency key, so each may be sent again;
`ratchet.service_client` does it.
"""

import asyncio
import math
import random
import time
import uuid
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Final, Literal
from urllib.parse import quote, urlencode

import httpx
import orjson
import structlog
from pydantic import ValidationError

from ratchet.contracts.branching import BranchRequest
from ratchet.contracts.calibration import AnswerCalibration, CalibrationList, CalibrationRequest
from ratchet.contracts.journal import JournalPage
from ratchet.contracts.keys import AuditPage, CreatedKey, KeyList, KeyRequest, KeyView
from ratchet.contracts.policy import (
    GenerateRequest,
    GenerateResponse,
    LikelihoodRequest,
    LikelihoodResponse,
)
from ratchet.contracts.prm import ScoreRequest, ScoreResponse
from ratchet.contracts.replay import Replay
from ratchet.contracts.rounds import (
    Overrule,
    Quarantined,
    QuarantineList,
    RoundConfig,
    RoundList,
    RoundRequest,
    RoundRetry,
    RoundView,
)
from ratchet.contracts.sandbox import (
    GradeRequest,
    GradeResponse,
    RunCodeRequest,
    RunCodeResponse,
    RunStepsBatchRequest,
    RunStepsBatchResponse,
    RunStepsRequest,
    RunStepsResponse,
    Session,
    SessionBatchRequest,
    SessionBatchResponse,
    SessionRequest,
)
from ratchet.contracts.search import (
    EventKind,
    Proof,
    SearchEvent,
    SearchRequest,
    SearchResult,
    TreeView,
)
from ratchet.contracts.search_list import SearchFilter, SearchPage
from ratchet.contracts.serving import HeldModel, HeldModels, LoadModel, ServeModel
from ratchet.contracts.strategies import StrategyChoice, StrategyChoices
from ratchet.contracts.trainer import Lineage, ModelList, ModelView, PairList, Rollback, ServingPair
from ratchet.event_lines import event_lines
from ratchet.service_client import UNIX_SCHEME, ServiceClient, ServiceError

__all__ = [
    "UNIX_SCHEME",
    "ModelServiceClient",
    "PolicyClient",
    "PrmClient",
    "SandboxClient",
    "SandboxFailedError",
    "SearchClient",
    "ServiceError",
    "TrainerClient",
]

log = structlog.get_logger()

VERSIONS_SECONDS: Final = 60.0
"""How long the sandbox's versions are believed before it is asked again."""
QUEUED_SECONDS: Final = 1800.0
"""For what waits its turn in a model service. On a slow engine with many searches that takes minutes, and a request that is
given up and sent again has cost its tokens and stands at the end. What is gone is noticed sooner: its connections break."""
RELOAD_SECONDS: Final = 180.0
"""Retrying for so long outlasts a reload of the policy's engine, which takes up to two minutes. The PRM reads likelihoods
from the policy, so it waits as long."""
EVENT_SILENCE_SECONDS: Final = 60.0
"""An event stream is kept alive by comments every 15 s; after four missed ones the reader connects anew."""
WORKING_STREAM_SECONDS: Final = 10.0
"""An event stream that was open for this long did work, even if nothing happened in the search."""


class SandboxFailedError(Exception):
    """The sandbox could not run a program, which says nothing of the program."""


class ModelServiceClient(ServiceClient):
    """What policy and PRM have in common: they hold versions of models. Every method raises ServiceError."""

    attempt_seconds = QUEUED_SECONDS
    retry_seconds = RELOAD_SECONDS

    async def models(self) -> list[HeldModel]:
        """The versions that the service holds, the serving one first."""
        return (await self._call(HeldModels, "GET", "/models")).models

    async def load(self, version: str, request: LoadModel) -> HeldModel:
        """Hold a version beside the others; returns when it can be asked."""
        return await self._call(HeldModel, "PUT", _model_path(version), request)

    async def serve(self, version: str) -> HeldModel:
        """Answer with this version where a request names none. No request is dropped."""
        return await self._call(HeldModel, "POST", "/serving", ServeModel(version=version))

    async def unload(self, version: str) -> HeldModels:
        """Let go of a version that does not serve, once its requests have ended."""
        return await self._call(HeldModels, "DELETE", _model_path(version))


class PolicyClient(ModelServiceClient):
    """The policy: candidate steps and likelihoods."""

    service = "policy"

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        """Candidates after each prefix. Raises ServiceError."""
        return await self._call(GenerateResponse, "POST", "/generate", request)

    async def likelihood(self, request: LikelihoodRequest) -> LikelihoodResponse:
        """Log-probabilities of given steps. Raises ServiceError."""
        return await self._call(LikelihoodResponse, "POST", "/likelihood", request)


class PrmClient(ModelServiceClient):
    """The PRM: scores of steps."""

    service = "prm"

    async def score(self, request: ScoreRequest) -> ScoreResponse:
        """A score in [0, 1] for every step of every trajectory. Raises ServiceError."""
        return await self._call(ScoreResponse, "POST", "/score", request)


class SandboxClient(ServiceClient):
    """The sandbox: runs programs and compares answers. One attempt may wait in the queue (60 s) and then run (120 s)."""

    service = "sandbox"
    attempt_seconds = 200.0
    retry_seconds = 120.0
    _versions: tuple[float, dict[str, str]] = (-math.inf, {})

    async def versions(self) -> dict[str, str]:
        """Of Python and the libraries on which programs run there; empty where it does not say."""
        asked, versions = self._versions
        if time.monotonic() - asked > VERSIONS_SECONDS:
            try:
                detail = (await self.health()).detail
            except ServiceError as error:
                log.warning("the sandbox does not say its versions", error=str(error))
                return versions
            versions = {name: str(detail[name]) for name in ("python", "numpy", "sympy") if name in detail}
            self._versions = time.monotonic(), versions
        return versions

    async def run_code(self, request: RunCodeRequest) -> RunCodeResponse:
        """Run a program from nothing in a fresh jail. Raises ServiceError."""
        return await self._call(RunCodeResponse, "POST", "/run_code", request)

    async def run_steps(self, request: RunStepsRequest) -> RunStepsResponse:
        """Run steps in order in one fresh interpreter. Raises ServiceError."""
        return await self._call(RunStepsResponse, "POST", "/run_steps", request)

    async def run_steps_batch(self, request: RunStepsBatchRequest) -> RunStepsBatchResponse:
        """Run solutions, each in one fresh interpreter. Raises ServiceError."""
        return await self._call(RunStepsBatchResponse, "POST", "/run_steps/batch", request)

    async def create_session(self, request: SessionRequest) -> Session:
        """Begin a session. One whose answer was lost ends by itself. Raises ServiceError."""
        return await self._call(Session, "POST", "/sessions", request)

    async def run_batch(self, session: str, request: SessionBatchRequest) -> SessionBatchResponse:
        """Run chains of steps; sent again, it finds what ran already. Raises ServiceError (404 if it has ended)."""
        return await self._call(SessionBatchResponse, "POST", f"{_session_path(session)}/batch", request)

    async def end_session(self, session: str) -> None:
        """End a session; one that has ended already is no error. Raises ServiceError."""
        try:
            await self._call(Session, "DELETE", _session_path(session))
        except ServiceError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise

    async def grade(self, request: GradeRequest) -> GradeResponse:
        """Compare two answers as mathematics. Raises ServiceError."""
        return await self._call(GradeResponse, "POST", "/grade", request)


class SearchClient(ServiceClient):
    """The search API. Honours the environment's proxies, unless the service is on this host."""

    service = "search"
    max_connections = 64
    by_proxy = True

    async def create(self, request: SearchRequest, *, idempotency_key: str | None = None) -> SearchResult:
        """Begin a search, once: whatever is sent again carries the same key. Raises ServiceError."""
        return await self._call(
            SearchResult,
            "POST",
            "/search",
            request,
            headers={"idempotency-key": idempotency_key or uuid.uuid4().hex},
            attempt_seconds=self.attempt_seconds + request.wait,
        )

    async def get(self, search: str) -> SearchResult:
        """The search as it is now. Raises ServiceError (404 if unknown)."""
        return await self._call(SearchResult, "GET", _search_path(search))

    async def tree(self, search: str) -> TreeView:
        """All nodes, parents before children, page after page. Raises ServiceError."""
        path = f"{_search_path(search)}/tree"
        page = await self._call(TreeView, "GET", path)
        nodes = page.nodes
        while page.next is not None:
            page = await self._call(TreeView, "GET", f"{path}?cursor={quote(page.next)}")
            nodes += page.nodes
        return TreeView(search=page.search, nodes=nodes)

    async def replay(self, search: str) -> Replay:
        """A search that is over, run again from its journal. Raises ServiceError (404 if unknown or without a journal)."""
        return await self._call(Replay, "GET", f"{_search_path(search)}/replay")

    async def journal(self, search: str, after: int = -1, limit: int = 500) -> JournalPage:
        """Tasks that come after the one of order `after`. Raises ServiceError."""
        return await self._call(
            JournalPage, "GET", f"{_search_path(search)}/journal?after={after}&limit={limit}"
        )

    async def proof(self, search: str) -> Proof:
        """The proof bundle of a search that has an answer. Raises ServiceError."""
        return await self._call(Proof, "GET", f"{_search_path(search)}/proof")

    async def cancel(self, search: str) -> SearchResult:
        """End a search with the best answer so far. Raises ServiceError."""
        return await self._call(SearchResult, "DELETE", _search_path(search))

    async def create_key(self, request: KeyRequest) -> CreatedKey:
        """Make an API key. Raises ServiceError (409: the name is taken, or an earlier attempt took it)."""
        return await self._call(CreatedKey, "POST", "/keys", request)

    async def keys(self) -> list[KeyView]:
        """All API keys, the newest first. Raises ServiceError."""
        return (await self._call(KeyList, "GET", "/keys")).keys

    async def revoke_key(self, name: str) -> KeyView:
        """Refuse an API key from now on. Raises ServiceError (404 if unknown)."""
        return await self._call(KeyView, "DELETE", f"/keys/{quote(name, safe='')}")

    async def audit(self, limit: int = 100, key: str | None = None) -> AuditPage:
        """Who changed what, the newest first. Raises ServiceError."""
        only = "" if key is None else f"&key={quote(key, safe='')}"
        return await self._call(AuditPage, "GET", f"/audit?limit={limit}{only}")

    async def retry(self, search: str) -> SearchResult:
        """Have a failed search taken up again, with its tree. Raises ServiceError (409 if it is over and has not failed)."""
        return await self._call(SearchResult, "POST", f"{_search_path(search)}/retry")

    async def branch(
        self, search: str, request: BranchRequest, *, idempotency_key: str | None = None
    ) -> SearchResult:
        """Begin a search that goes on from a node of this one. Raises ServiceError (404, 409, 422)."""
        return await self._call(
            SearchResult,
            "POST",
            f"{_search_path(search)}/branch",
            request,
            headers={"idempotency-key": idempotency_key or uuid.uuid4().hex},
            only_given=True,
        )

    async def recent(
        self, limit: int = 50, narrowed: SearchFilter | None = None, cursor: str | None = None
    ) -> SearchPage:
        """The newest searches; `cursor` is the `next` of the page before. Raises ServiceError."""
        asked = {"limit": limit, "cursor": cursor, **(narrowed or SearchFilter()).model_dump(mode="json")}
        query = urlencode({name: value for name, value in asked.items() if value is not None})
        return await self._call(SearchPage, "GET", f"/searches?{query}")

    async def events(self, search: str, *, last_event_id: str | None = None) -> AsyncIterator[SearchEvent]:
        """Events in order, the last one ends the search; a lost connection is taken up where it broke.

        Raises ServiceError when the service refuses, or stays away for longer than `retry_seconds`.
        """
        last = last_event_id
        progress = time.monotonic()
        while True:
            response: httpx.Response = await self._make_retrying()(self._open_events, search, last)
            opened = time.monotonic()
            if response.status_code == HTTPStatus.NO_CONTENT:
                # The event after which we asked was the last one.
                await response.aclose()
                return
            try:
                async for event in self._read_events(response):
                    progress = time.monotonic()
                    last = event.id
                    yield event
                    if event.kind is EventKind.END:
                        return
                broken = ServiceError(self.service, "ended the event stream early")
            except httpx.HTTPError as error:
                broken = self._unreachable_error(error, EVENT_SILENCE_SECONDS)
            finally:
                await response.aclose()
            now = time.monotonic()
            if now - opened > WORKING_STREAM_SECONDS:
                progress = now
            if now - progress > self.retry_seconds:
                raise broken
            await asyncio.sleep(random.uniform(0.1, 1.0))  # noqa: S311 - jitter

    async def _open_events(self, search: str, last: str | None) -> httpx.Response:
        headers = {"accept": "text/event-stream", "cache-control": "no-store"}
        if last is not None:
            headers["last-event-id"] = last
        timeout = self._timeout(EVENT_SILENCE_SECONDS)
        request = self._http.build_request(
            "GET", f"{_search_path(search)}/events", headers=headers, timeout=timeout
        )
        try:
            response = await self._http.send(request, stream=True)
            if response.is_success:
                return response
            await response.aread()
        except httpx.HTTPError as error:
            raise self._unreachable_error(error, EVENT_SILENCE_SECONDS) from error
        raise self._refusal_error(response)

    async def _read_events(self, response: httpx.Response) -> AsyncIterator[SearchEvent]:
        """Server-sent events as WHATWG defines them, of the kinds that we know."""
        event_id, kind, data = "", "", list[str]()
        async for line in event_lines(response):
            if line:
                name, _, value = line.partition(":")
                value = value.removeprefix(" ")
                match name:
                    case "id":
                        event_id = value
                    case "event":
                        kind = value
                    case "data":
                        data.append(value)
                continue
            if data and kind in set(EventKind):
                try:
                    yield SearchEvent(id=event_id, kind=EventKind(kind), data=orjson.loads("\n".join(data)))
                except (orjson.JSONDecodeError, ValidationError) as error:
                    raise self._unreadable_error(response.status_code, error) from error
            kind, data = "", []


class TrainerClient(ServiceClient):
    """Rounds and the model registry. Every method raises ServiceError."""

    service = "trainer"
    attempt_seconds = 60.0
    max_connections = 8

    async def create_round(self, request: RoundRequest) -> RoundView:
        """Begin the next round of a run."""
        return await self._call(RoundView, "POST", "/rounds", request)

    async def rounds(self, run: str | None = None) -> list[RoundView]:
        """Rounds, the newest first."""
        query = f"?run={quote(run)}" if run is not None else ""
        return (await self._call(RoundList, "GET", f"/rounds{query}")).rounds

    async def round(self, round_id: str) -> RoundView:
        """One round as it stands."""
        return await self._call(RoundView, "GET", _round_path(round_id))

    async def quarantine(self, round_id: str) -> QuarantineList:
        """Problems that the round has set aside."""
        return await self._call(QuarantineList, "GET", f"{_round_path(round_id)}/quarantine")

    async def quarantine_of_run(self, run: str) -> QuarantineList:
        """Problems that the run has set aside."""
        return await self._call(QuarantineList, "GET", f"{_run_path(run)}/quarantine")

    async def overrule(self, run: str, problem: str, reason: str | None = None) -> Quarantined:
        """Have the run train again on a problem that it has set aside."""
        path = f"{_run_path(run)}/quarantine/{quote(problem, safe='')}/overrule"
        return await self._call(Quarantined, "POST", path, Overrule(reason=reason))

    async def ask(self, round_id: str, what: Literal["pause", "resume", "cancel"]) -> RoundView:
        """Pause, resume or cancel a round."""
        return await self._call(RoundView, "POST", f"{_round_path(round_id)}/{what}")

    async def retry_round(self, round_id: str, config: RoundConfig | None = None) -> RoundView:
        """Have a failed round taken up again, where it failed."""
        return await self._call(
            RoundView, "POST", f"{_round_path(round_id)}/retry", RoundRetry(config=config)
        )

    async def calibrate(self, request: CalibrationRequest) -> AnswerCalibration:
        """Fit the probability of answers to searches that are over."""
        return await self._call(AnswerCalibration, "POST", "/calibrations", request)

    async def calibrations(self) -> list[AnswerCalibration]:
        """How probable answers are, by policy and PRM; the packaged ones last."""
        return (await self._call(CalibrationList, "GET", "/calibrations")).calibrations

    async def keep_strategy(self, choice: StrategyChoice) -> StrategyChoice:
        """Have searches with the strategy `auto` take this one for its policy and PRM."""
        return await self._call(StrategyChoice, "PUT", "/strategies", choice)

    async def strategies(self) -> list[StrategyChoice]:
        """Which strategy measured best, by policy and PRM, the newest first."""
        return (await self._call(StrategyChoices, "GET", "/strategies")).choices

    async def models(self) -> list[ModelView]:
        """All versions in the registry, the newest first."""
        return (await self._call(ModelList, "GET", "/models?limit=1000")).models

    async def model(self, version: str) -> ModelView:
        """One version."""
        return await self._call(ModelView, "GET", _model_path(version))

    async def lineage(self, version: str) -> Lineage:
        """The version, its ancestors, and the data of each."""
        return await self._call(Lineage, "GET", f"{_model_path(version)}/lineage")

    async def serve(self, version: str) -> ServingPair:
        """Promote a version; gives the pair in which it serves."""
        return await self._call(ServingPair, "POST", f"{_model_path(version)}/serve")

    async def pairs(self, limit: int = 100) -> list[ServingPair]:
        """Pairs that were made to serve, the newest first: that one serves."""
        return (await self._call(PairList, "GET", f"/pairs?limit={limit}")).pairs

    async def roll_back(self, pair: int) -> ServingPair:
        """Leave the pair that serves for the one before it. Raises ServiceError (409 if there is none, or another serves)."""
        return await self._call(ServingPair, "POST", "/pairs/rollback", Rollback(pair=pair))


def _model_path(version: str) -> str:
    return f"/models/{quote(version, safe='/@+')}"


def _round_path(round_id: str) -> str:
    return f"/rounds/{quote(round_id, safe='')}"


def _run_path(run: str) -> str:
    return f"/runs/{quote(run, safe='')}"


def _session_path(session: str) -> str:
    return f"/sessions/{quote(session, safe='')}"


def _search_path(search: str) -> str:
    return f"/search/{quote(search, safe='')}"
