"""Typed clients of the services: one shared HTTP pool each, bounded retries, one kind of error.

Every call to policy, PRM and sandbox is pure, and a search is created under an idempotency key, so each may
be sent again. A call is repeated on connection and read errors and on 429, 502, 503 and 504 (after the wait
that the service asks for), until `retry_seconds` have passed since its first failure. With `attempt_seconds`
for one attempt, a call lasts at most two attempts and the retry time. Any other answer of 400 and above is
final.
"""

import asyncio
import math
import random
import time
import uuid
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from types import TracebackType
from typing import Final, Literal, Self, TypeVar
from urllib.parse import quote, urlsplit

import httpx
import orjson
import structlog
from pydantic import ValidationError
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from ratchet.contracts.base import Contract, FieldError, Health, ProblemDocument
from ratchet.contracts.policy import (
    GenerateRequest,
    GenerateResponse,
    LikelihoodRequest,
    LikelihoodResponse,
)
from ratchet.contracts.prm import ScoreRequest, ScoreResponse
from ratchet.contracts.rounds import (
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
from ratchet.contracts.search import EventKind, Proof, SearchEvent, SearchRequest, SearchResult, TreeView
from ratchet.contracts.serving import HeldModel, HeldModels, LoadModel, ServeModel
from ratchet.contracts.trainer import Lineage, ModelList, ModelView

log = structlog.get_logger()

_R = TypeVar("_R", bound=Contract)

RETRIED_STATUSES: Final = frozenset({429, 502, 503, 504})
VERSIONS_SECONDS: Final = 60.0
UNIX_SCHEME: Final = "unix://"
CONNECT_SECONDS: Final = 5.0
QUEUED_SECONDS: Final = 1800.0
"""For what waits its turn in a model service. On a slow engine with many searches that takes minutes, and a request that is
given up and sent again has cost its tokens and stands at the end. What is gone is noticed sooner: its connections break."""
"""Services are near; a connection that takes longer will not come."""
EVENT_SILENCE_SECONDS: Final = 60.0
"""An event stream is kept alive by comments every 15 s; after four missed ones the reader connects anew."""

_LASTING_SECONDS: Final = 10.0
"""An event stream that was open for this long did work, even if nothing happened in the search."""

_WAIT = wait_random_exponential(multiplier=0.25, min=0.05, max=8.0)


class ServiceError(Exception):
    """A service did not do what it was asked to: it refused, failed, or could not be reached."""

    def __init__(
        self,
        service: str,
        title: str,
        detail: str | None = None,
        *,
        status: int | None = None,
        errors: tuple[FieldError, ...] = (),
        retry_after: float | None = None,
    ) -> None:
        self.service: Final = service
        self.title: Final = title
        self.detail: Final = detail
        self.status: Final = status
        """HTTP status; None when there was no answer."""
        self.errors: Final = errors
        self.retry_after: Final = retry_after
        """Seconds to wait before the next attempt, where the service said so."""
        code = f" ({status})" if status else ""
        super().__init__(f"{service}: {title}{code}{f': {detail}' if detail else ''}")

    @property
    def transient(self) -> bool:
        """Whether the same call may succeed later."""
        return self.status is None or self.status in RETRIED_STATUSES

    @property
    def refused(self) -> bool:
        """Whether the fault is the caller's."""
        return self.status is not None and 400 <= self.status < 500 and not self.transient


class _UnreadableAnswerError(ServiceError):
    """An answer that is not what the contract says: sending the call again will not help."""

    @property
    def transient(self) -> bool:
        return False


class ServiceClient:
    """What all clients share. Use as an async context manager, or call `aclose`."""

    service = "service"

    def __init__(
        self,
        url: str,
        *,
        attempt_seconds: float,
        retry_seconds: float,
        max_connections: int = 128,
        trust_environment: bool = False,
    ) -> None:
        self.url = url.rstrip("/")
        limits = httpx.Limits(
            max_connections=max_connections, max_keepalive_connections=32, keepalive_expiry=30
        )
        # A service may listen on a Unix socket, unix:///path: it then needs no network at all.
        path = self.url.removeprefix(UNIX_SCHEME) if self.url.startswith(UNIX_SCHEME) else None
        self._attempt_seconds = attempt_seconds
        self._retry_seconds = retry_seconds
        self._http = httpx.AsyncClient(
            base_url=self.url if path is None else f"http://{self.service}",
            transport=None if path is None else httpx.AsyncHTTPTransport(uds=path, limits=limits),
            timeout=httpx.Timeout(attempt_seconds, connect=CONNECT_SECONDS),
            limits=limits,
            # A proxy of the user's environment has no way to the services on this host or network.
            trust_env=trust_environment,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def health(self) -> Health:
        """State of the service now. Not ready is an answer; ServiceError if there is none. Never retried."""
        try:
            response = await self._http.get("/health", timeout=CONNECT_SECONDS)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        return self._parsed(response, Health)

    async def _call(
        self,
        answer: type[_R],
        method: str,
        path: str,
        body: Contract | None = None,
        *,
        headers: dict[str, str] | None = None,
        attempt_seconds: float | None = None,
    ) -> _R:
        limit = attempt_seconds or self._attempt_seconds
        content = None if body is None else body.model_dump_json().encode()
        sent = {"content-type": "application/json"} if content is not None else {}

        async def attempt() -> _R:
            try:
                async with asyncio.timeout(limit):
                    response = await self._http.request(
                        method,
                        path,
                        content=content,
                        headers={**sent, **(headers or {})},
                        timeout=self._timeout(limit),
                    )
            except httpx.InvalidURL as error:
                raise self._unusable_url(error) from error
            except (httpx.HTTPError, TimeoutError) as error:
                raise self._unreachable(error, limit) from error
            if response.is_success:
                return self._parsed(response, answer)
            raise self._refusal(response)

        return await self._retrying()(attempt)

    def _timeout(self, seconds: float) -> httpx.Timeout:
        return httpx.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds))

    def _retrying(self) -> AsyncRetrying:
        """Exponential waits with full jitter, on top of what the service asks for, for `retry_seconds`."""
        first_failure: float | None = None

        def wait(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.retry_after if isinstance(error, ServiceError) else None
            # The jitter on top keeps those who were all told the same from coming back all at once.
            return _WAIT(state) + (asked or 0.0)

        def stop(state: RetryCallState) -> bool:
            nonlocal first_failure
            if first_failure is None:
                first_failure = time.monotonic()
            return time.monotonic() - first_failure + state.upcoming_sleep > self._retry_seconds

        return AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, ServiceError) and error.transient),
            wait=wait,
            stop=stop,
            before_sleep=self._note,
            reraise=True,
        )

    def _note(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        log.info("retry", service=self.service, attempt=state.attempt_number, error=str(error))

    def _unreachable(self, error: Exception, limit: float = CONNECT_SECONDS) -> ServiceError:
        if isinstance(error, TimeoutError | httpx.ReadTimeout | httpx.WriteTimeout):
            return ServiceError(self.service, "no answer in time", f"{self.url} was silent for {limit:g} s")
        return ServiceError(self.service, "cannot be reached", f"{self.url}: {error or type(error).__name__}")

    def _unusable_url(self, error: Exception) -> ServiceError:
        return _UnreadableAnswerError(self.service, "is not a usable address", f"{self.url}: {error}")

    def _refusal(self, response: httpx.Response) -> ServiceError:
        after = _retry_after(response.headers.get("retry-after"))
        try:
            document = ProblemDocument.model_validate_json(response.content)
        except ValidationError:
            text = response.text.strip()[:300]
            title = response.reason_phrase or "refused"
            return ServiceError(
                self.service, title, text or None, status=response.status_code, retry_after=after
            )
        return ServiceError(
            self.service,
            document.title,
            document.detail,
            status=response.status_code,
            errors=tuple(document.errors),
            retry_after=after,
        )

    def _parsed(self, response: httpx.Response, answer: type[_R]) -> _R:
        try:
            # For a tree of 5,000 nodes: 16 ms, and 28 ms by orjson and a validation after it.
            return answer.model_validate_json(response.content)
        except ValidationError as error:
            raise self._unreadable(response.status_code, error) from error

    def _unreadable(self, status: int, error: Exception) -> ServiceError:
        reason = " ".join(str(error).split())[:300]
        return _UnreadableAnswerError(self.service, "gave an unreadable answer", reason, status=status)


class ModelServiceClient(ServiceClient):
    """What policy and PRM have in common: they hold versions of models. Every method raises ServiceError."""

    async def models(self) -> list[HeldModel]:
        """The versions that the service holds, the serving one first."""
        return (await self._call(HeldModels, "GET", "/models")).models

    async def load(self, version: str, request: LoadModel) -> HeldModel:
        """Hold a version beside the others; returns when it can be asked."""
        return await self._call(HeldModel, "PUT", _model(version), request)

    async def serve(self, version: str) -> HeldModel:
        """Answer with this version where a request names none. No request is dropped."""
        return await self._call(HeldModel, "POST", "/serving", ServeModel(version=version))

    async def unload(self, version: str) -> HeldModels:
        """Let go of a version that does not serve, once its requests have ended."""
        return await self._call(HeldModels, "DELETE", _model(version))


class PolicyClient(ModelServiceClient):
    """`retry_seconds` outlasts a reload of the engine, which takes up to two minutes."""

    service = "policy"

    def __init__(
        self,
        url: str,
        *,
        attempt_seconds: float = QUEUED_SECONDS,
        retry_seconds: float = 180.0,
        max_connections: int = 128,
    ) -> None:
        super().__init__(
            url, attempt_seconds=attempt_seconds, retry_seconds=retry_seconds, max_connections=max_connections
        )

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        """Candidates after each prefix. Raises ServiceError."""
        return await self._call(GenerateResponse, "POST", "/generate", request)

    async def likelihood(self, request: LikelihoodRequest) -> LikelihoodResponse:
        """Log-probabilities of given steps. Raises ServiceError."""
        return await self._call(LikelihoodResponse, "POST", "/likelihood", request)


class PrmClient(ModelServiceClient):
    """The PRM reads likelihoods from the policy, so it waits as long."""

    service = "prm"

    def __init__(
        self,
        url: str,
        *,
        attempt_seconds: float = QUEUED_SECONDS,
        retry_seconds: float = 180.0,
        max_connections: int = 128,
    ) -> None:
        super().__init__(
            url, attempt_seconds=attempt_seconds, retry_seconds=retry_seconds, max_connections=max_connections
        )

    async def score(self, request: ScoreRequest) -> ScoreResponse:
        """A score in [0, 1] for every step of every trajectory. Raises ServiceError."""
        return await self._call(ScoreResponse, "POST", "/score", request)


class SandboxClient(ServiceClient):
    """One attempt may wait in the queue (60 s) and then run (120 s at most)."""

    service = "sandbox"

    def __init__(
        self,
        url: str,
        *,
        attempt_seconds: float = 200.0,
        retry_seconds: float = 120.0,
        max_connections: int = 128,
    ) -> None:
        super().__init__(
            url, attempt_seconds=attempt_seconds, retry_seconds=retry_seconds, max_connections=max_connections
        )
        self._versions: tuple[float, dict[str, str]] = -math.inf, {}

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
        return await self._call(SessionBatchResponse, "POST", f"{_session(session)}/batch", request)

    async def end_session(self, session: str) -> None:
        """End a session; one that has ended already is no error. Raises ServiceError."""
        try:
            await self._call(Session, "DELETE", _session(session))
        except ServiceError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise

    async def grade(self, request: GradeRequest) -> GradeResponse:
        """Compare two answers as mathematics. Raises ServiceError."""
        return await self._call(GradeResponse, "POST", "/grade", request)


class SearchClient(ServiceClient):
    """The search API. Honours the environment's proxies, unless the service is on this host."""

    service = "search"

    def __init__(
        self,
        url: str,
        *,
        attempt_seconds: float = 30.0,
        retry_seconds: float = 60.0,
        max_connections: int = 64,
    ) -> None:
        local = urlsplit(url).hostname in {"127.0.0.1", "::1", "localhost"}
        super().__init__(
            url,
            attempt_seconds=attempt_seconds,
            retry_seconds=retry_seconds,
            max_connections=max_connections,
            trust_environment=not local,
        )

    async def create(self, request: SearchRequest, *, idempotency_key: str | None = None) -> SearchResult:
        """Begin a search, once: whatever is sent again carries the same key. Raises ServiceError."""
        return await self._call(
            SearchResult,
            "POST",
            "/search",
            request,
            headers={"idempotency-key": idempotency_key or uuid.uuid4().hex},
            attempt_seconds=self._attempt_seconds + request.wait,
        )

    async def get(self, search: str) -> SearchResult:
        """The search as it is now. Raises ServiceError (404 if unknown)."""
        return await self._call(SearchResult, "GET", _path(search))

    async def tree(self, search: str) -> TreeView:
        """All nodes, parents before children. Raises ServiceError."""
        return await self._call(TreeView, "GET", f"{_path(search)}/tree")

    async def proof(self, search: str) -> Proof:
        """The proof bundle of a search that has an answer. Raises ServiceError."""
        return await self._call(Proof, "GET", f"{_path(search)}/proof")

    async def cancel(self, search: str) -> SearchResult:
        """End a search with the best answer so far. Raises ServiceError."""
        return await self._call(SearchResult, "DELETE", _path(search))

    async def events(self, search: str, *, last_event_id: str | None = None) -> AsyncIterator[SearchEvent]:
        """Events in order, the last one ends the search; a lost connection is taken up where it broke.

        Raises ServiceError when the service refuses, or stays away for longer than `retry_seconds`.
        """
        last = last_event_id
        progress = time.monotonic()
        while True:
            response: httpx.Response = await self._retrying()(self._open_events, search, last)
            opened = time.monotonic()
            if response.status_code == HTTPStatus.NO_CONTENT:
                # The event after which we asked was the last one.
                await response.aclose()
                return
            try:
                async for event in self._events_of(response):
                    progress = time.monotonic()
                    last = event.id
                    yield event
                    if event.kind is EventKind.END:
                        return
                broken = ServiceError(self.service, "ended the event stream early")
            except httpx.HTTPError as error:
                broken = self._unreachable(error, EVENT_SILENCE_SECONDS)
            finally:
                await response.aclose()
            now = time.monotonic()
            if now - opened > _LASTING_SECONDS:
                progress = now
            if now - progress > self._retry_seconds:
                raise broken
            await asyncio.sleep(random.uniform(0.1, 1.0))  # noqa: S311 - jitter

    async def _open_events(self, search: str, last: str | None) -> httpx.Response:
        headers = {"accept": "text/event-stream", "cache-control": "no-store"}
        if last is not None:
            headers["last-event-id"] = last
        timeout = self._timeout(EVENT_SILENCE_SECONDS)
        request = self._http.build_request("GET", f"{_path(search)}/events", headers=headers, timeout=timeout)
        try:
            response = await self._http.send(request, stream=True)
            if response.is_success:
                return response
            await response.aread()
        except httpx.HTTPError as error:
            raise self._unreachable(error, EVENT_SILENCE_SECONDS) from error
        raise self._refusal(response)

    async def _events_of(self, response: httpx.Response) -> AsyncIterator[SearchEvent]:
        """Server-sent events as WHATWG defines them, of the kinds that we know."""
        event_id, kind, data = "", "", list[str]()
        async for line in response.aiter_lines():
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
                    raise self._unreadable(response.status_code, error) from error
            kind, data = "", []


class TrainerClient(ServiceClient):
    """Rounds and the model registry. Every method raises ServiceError."""

    service = "trainer"

    def __init__(self, url: str, *, attempt_seconds: float = 60.0, retry_seconds: float = 60.0) -> None:
        super().__init__(url, attempt_seconds=attempt_seconds, retry_seconds=retry_seconds, max_connections=8)

    async def create_round(self, request: RoundRequest) -> RoundView:
        """Begin the next round of a run."""
        return await self._call(RoundView, "POST", "/rounds", request)

    async def rounds(self, run: str | None = None) -> list[RoundView]:
        """Rounds, the newest first."""
        query = f"?run={quote(run)}" if run is not None else ""
        return (await self._call(RoundList, "GET", f"/rounds{query}")).rounds

    async def round(self, round_id: str) -> RoundView:
        """One round as it stands."""
        return await self._call(RoundView, "GET", f"/rounds/{quote(round_id, safe='')}")

    async def quarantine(self, round_id: str) -> QuarantineList:
        """Problems that the round has set aside."""
        return await self._call(QuarantineList, "GET", f"/rounds/{quote(round_id, safe='')}/quarantine")

    async def ask(self, round_id: str, what: Literal["pause", "resume", "cancel"]) -> RoundView:
        """Pause, resume or cancel a round."""
        return await self._call(RoundView, "POST", f"/rounds/{quote(round_id, safe='')}/{what}")

    async def retry_round(self, round_id: str, config: RoundConfig | None = None) -> RoundView:
        """Have a failed round taken up again, where it failed."""
        return await self._call(
            RoundView, "POST", f"/rounds/{quote(round_id, safe='')}/retry", RoundRetry(config=config)
        )

    async def models(self) -> list[ModelView]:
        """All versions in the registry, the newest first."""
        return (await self._call(ModelList, "GET", "/models?limit=1000")).models

    async def model(self, version: str) -> ModelView:
        """One version."""
        return await self._call(ModelView, "GET", _model(version))

    async def lineage(self, version: str) -> Lineage:
        """The version, its ancestors, and the data of each."""
        return await self._call(Lineage, "GET", f"{_model(version)}/lineage")

    async def serve(self, version: str) -> ModelView:
        """Promote or roll back to a version."""
        return await self._call(ModelView, "POST", f"{_model(version)}/serve")


def _model(version: str) -> str:
    return f"/models/{quote(version, safe='/@+')}"


def _session(session: str) -> str:
    return f"/sessions/{quote(session, safe='')}"


def _path(search: str) -> str:
    return f"/search/{quote(search, safe='')}"


def _retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header (RFC 9110: seconds or a date) asks for."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
