"""What the clients of the services share: one HTTP pool each, bounded retries, and one kind of error.

A call is repeated on connection and read errors and on 429, 502, 503 and 504 (after the wait that the service asks for),
until `retry_seconds` have passed since its first failure. With `attempt_seconds` for one attempt, a call lasts at most two
attempts and the retry time. Any other answer of 400 and above is final.

Calls go by aiohttp: a search makes three for each step, and httpx was most of a worker's processor time (`make bench-search
ARGS="--parts cost"`). Streams, which are few, go by httpx.

Limit: every call may be sent twice, so it must be one that does no harm then.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import urlsplit

import aiohttp
import httpx
import structlog
from pydantic import ValidationError
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from ratchet.contracts.base import Contract, FieldError, Health, ProblemDocument
from ratchet.on_behalf import caller_header

log = structlog.get_logger()

Answer = TypeVar("Answer", bound=Contract)

RETRIED_STATUSES: Final = frozenset({429, 502, 503, 504})
UNIX_SCHEME: Final = "unix://"
LOCAL_NAMES: Final = frozenset({"127.0.0.1", "::1", "localhost"})
CONNECT_SECONDS: Final = 5.0
"""Services are near; a connection that takes longer will not come."""

_JITTERED_WAIT = wait_random_exponential(multiplier=0.25, min=0.05, max=8.0)


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


class _LastingError(ServiceError):
    """Sending the call again will not help: the address is not usable, or the answer not what the contract says."""

    @property
    def transient(self) -> bool:
        return False


class ServiceClient:
    """What all clients share. Use as an async context manager, or call `aclose`. `key` is sent with every call."""

    service = "service"
    attempt_seconds = 30.0
    """For one attempt of a call."""
    retry_seconds = 60.0
    max_connections = 128
    by_proxy = False
    """Whether the environment's proxies are used where the service is not on this host. They have no way to the services of
    this network."""

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        attempt_seconds: float | None = None,
        retry_seconds: float | None = None,
        max_connections: int | None = None,
    ) -> None:
        if attempt_seconds is not None:
            self.attempt_seconds = attempt_seconds
        if retry_seconds is not None:
            self.retry_seconds = retry_seconds
        if max_connections is not None:
            self.max_connections = max_connections
        self.url = url.rstrip("/")
        self._headers = {} if key is None else {"authorization": f"Bearer {key}"}
        self.away_since: float | None = None
        """On the monotonic clock: since when every call has failed in a way that may pass; None while calls are answered."""
        limits = httpx.Limits(
            max_connections=self.max_connections, max_keepalive_connections=32, keepalive_expiry=30
        )
        # A service may listen on a Unix socket, unix:///path: it then needs no network at all.
        path = self.url.removeprefix(UNIX_SCHEME) if self.url.startswith(UNIX_SCHEME) else None
        self._socket = path
        self._base = self.url if path is None else f"http://{self.service}"
        self._trust_environment = self.by_proxy and _hostname(url) not in LOCAL_NAMES
        self._calls: aiohttp.ClientSession | None = None
        self._http = httpx.AsyncClient(
            base_url=self._base,
            headers=self._headers,
            transport=None if path is None else httpx.AsyncHTTPTransport(uds=path, limits=limits),
            timeout=httpx.Timeout(self.attempt_seconds, connect=CONNECT_SECONDS),
            limits=limits,
            trust_env=self._trust_environment,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()
        if self._calls is not None:
            await self._calls.close()

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
        # AttributeError: httpcore's, when the service is killed at the moment at which it connects.
        except (httpx.HTTPError, AttributeError) as error:
            raise self._unreachable_error(error) from error
        health = self._parse(response, Health)
        if health.ready:
            self.away_since = None
        return health

    async def _call(
        self,
        answer: type[Answer],
        method: str,
        path: str,
        body: Contract | None = None,
        *,
        headers: dict[str, str] | None = None,
        attempt_seconds: float | None = None,
        only_given: bool = False,
    ) -> Answer:
        """Send the call until it is answered, and read the answer. Raises ServiceError.

        `only_given`: leave out what the body does not set, where that means something else than the default.
        """
        limit = attempt_seconds or self.attempt_seconds
        content = None if body is None else body.model_dump_json(exclude_unset=only_given).encode()
        sent = caller_header()
        if content is not None:
            sent["content-type"] = "application/json"

        async def attempt() -> Answer:
            try:
                async with (
                    asyncio.timeout(limit),
                    self._session().request(
                        method, self._base + path, data=content, headers={**sent, **(headers or {})}
                    ) as answered,
                ):
                    body = await answered.read()
            except aiohttp.InvalidURL as error:
                raise self._unusable_url_error(error) from error
            except (aiohttp.ClientError, TimeoutError) as error:
                self._note_away()
                raise self._unreachable_error(error, limit) from error
            if answered.status in RETRIED_STATUSES:
                self._note_away()
            else:
                self.away_since = None
            response = httpx.Response(answered.status, headers=answered.raw_headers, content=body)
            if response.is_success:
                return self._parse(response, answer)
            raise self._refusal_error(response)

        return await self._send(attempt)

    async def _send(self, attempt: Callable[[], Awaitable[Answer]]) -> Answer:
        """What an attempt gives, made again after failures that may pass. The first one needs nothing of what repeats it."""
        try:
            return await attempt()
        except ServiceError as error:
            if not error.transient:
                raise
            failed: list[ServiceError] = [error]

        async def fail_or_attempt() -> Answer:
            if failed:
                raise failed.pop()
            return await attempt()

        return await self._make_retrying()(fail_or_attempt)

    def _note_away(self) -> None:
        if self.away_since is None:
            self.away_since = time.monotonic()

    def _session(self) -> aiohttp.ClientSession:
        """The pool of connections for calls. It belongs to the event loop, so it is made with the first call."""
        if self._calls is None:
            keep: dict[str, Any] = {"limit": self.max_connections, "keepalive_timeout": 30.0}
            self._calls = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(**keep)
                if self._socket is None
                else aiohttp.UnixConnector(self._socket, **keep),
                headers=self._headers,
                # The whole of an attempt is timed by its caller.
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
                # `httpx.Response` decodes.
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=self._trust_environment,
            )
        return self._calls

    def _timeout(self, seconds: float) -> httpx.Timeout:
        return httpx.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds))

    def _make_retrying(self) -> AsyncRetrying:
        """Exponential waits with full jitter, on top of what the service asks for, for `retry_seconds`."""
        first_failure: float | None = None

        def wait(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.retry_after if isinstance(error, ServiceError) else None
            # The jitter on top keeps those who were all told the same from coming back all at once.
            return _JITTERED_WAIT(state) + (asked or 0.0)

        def stop(state: RetryCallState) -> bool:
            nonlocal first_failure
            if first_failure is None:
                first_failure = time.monotonic()
            return time.monotonic() - first_failure + state.upcoming_sleep > self.retry_seconds

        return AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, ServiceError) and error.transient),
            wait=wait,
            stop=stop,
            before_sleep=self._log_retry,
            reraise=True,
        )

    def _log_retry(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        log.info("retry", service=self.service, attempt=state.attempt_number, error=str(error))

    def _unreachable_error(self, error: Exception, limit: float = CONNECT_SECONDS) -> ServiceError:
        silent = isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ConnectionTimeoutError)
        if silent or isinstance(error, httpx.ReadTimeout | httpx.WriteTimeout):
            return ServiceError(self.service, "no answer in time", f"{self.url} was silent for {limit:g} s")
        return ServiceError(self.service, "cannot be reached", f"{self.url}: {error or type(error).__name__}")

    def _unusable_url_error(self, error: Exception) -> ServiceError:
        return _LastingError(self.service, "is not a usable address", f"{self.url}: {error}")

    def _refusal_error(self, response: httpx.Response) -> ServiceError:
        after = _seconds_to_wait(response.headers.get("retry-after"))
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

    def _parse(self, response: httpx.Response, answer: type[Answer]) -> Answer:
        try:
            # For a tree of 5,000 nodes: 16 ms, and 28 ms by orjson and a validation after it.
            return answer.model_validate_json(response.content)
        except ValidationError as error:
            raise self._unreadable_error(response.status_code, error) from error

    def _unreadable_error(self, status: int, error: Exception) -> ServiceError:
        reason = " ".join(str(error).split())[:300]
        return _LastingError(self.service, "gave an unreadable answer", reason, status=status)


def _hostname(url: str) -> str | None:
    """The host of a URL; None where it names none, which the first call says."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _seconds_to_wait(value: str | None) -> float | None:
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
