"""The door's parts: names and origins, keys, rates, bodies, and what binds where."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI, Request

from ratchet.contracts.base import Health
from ratchet.contracts.keys import KeyLimits
from ratchet.contracts.search import Priority
from ratchet.settings import SandboxSettings, SearchSettings, Settings
from ratchet.web.app import bind, create_app
from ratchet.web.bodies import BodyLimit
from ratchet.web.door import secrets
from ratchet.web.door.origins import allowed_hosts, is_loopback, is_own_host, is_own_origin
from ratchet.web.door.rates import Rates

HOSTS = allowed_hosts("10.1.2.3", ("Math.Example.org",))


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "localhost:8000", "LOCALHOST", "127.0.0.1:1", "[::1]:8000", "search", "policy:8000"),
        *("10.1.2.3", "math.example.org:443"),
    ],
)
def test_a_service_goes_by_loopbacks_names_its_own_and_those_of_the_settings(host: str) -> None:
    assert is_own_host({b"host": host.encode()}, HOSTS)


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evil.example:8000"),
        *(
            "",
            "localhost@evil.example",
            "evil.example@localhost",
            "localhost/x",
            "local host",
            "localhost:x@evil.example",
            "[",
            "[::1",
            "10.1.2.4",
            "search.evil.example",
        ),
        "0.0.0.0",
    ],
)
def test_a_service_goes_by_no_other_name(host: str) -> None:
    assert not is_own_host({b"host": host.encode()}, HOSTS)
    assert not is_own_host({}, HOSTS)


@pytest.mark.parametrize(
    ("headers", "own"),
    [
        ({}, True),
        ({"origin": "http://127.0.0.1:8000"}, True),
        ({"origin": "https://127.0.0.1:8000"}, True),  # behind a proxy that ends TLS
        ({"origin": "http://127.0.0.1:3000"}, False),
        ({"origin": "http://localhost:8000"}, False),
        ({"origin": "http://evil.example"}, False),
        ({"origin": "null"}, False),
        ({"origin": ""}, False),
        ({"sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "none"}, True),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "same-site"}, False),
        ({"sec-fetch-site": "cross-site", "origin": "http://127.0.0.1:8000"}, False),
    ],
)
def test_pages_of_other_sites_are_told_from_our_own(headers: dict[str, str], own: bool) -> None:
    sent = {name.encode(): value.encode() for name, value in headers.items()}
    assert is_own_origin({b"host": b"127.0.0.1:8000", **sent}) is own


def test_a_key_says_its_id_and_matches_its_digest_alone() -> None:
    key_id = uuid4()
    key, other = secrets.new_key(key_id), secrets.new_key(key_id)
    assert key != other
    assert secrets.key_id_of(key) == secrets.key_id_of(other) == key_id
    assert secrets.matches(key, secrets.digest(key))
    assert not secrets.matches(other, secrets.digest(key))


@pytest.mark.parametrize("text", ["", "rk_", "rk_0_x", "Bearer", "rk_" + "0" * 32 + "_short", "\udcff" * 80])
def test_what_is_no_key_has_no_id_and_matches_nothing(text: str) -> None:
    assert secrets.key_id_of(text) is None
    assert not secrets.matches(text, secrets.digest(secrets.new_key(uuid4())))


def test_a_key_may_send_a_minutes_requests_at_once_and_then_as_many_as_come_back() -> None:
    now = 0.0
    rates = Rates(lambda: now)
    key, other = uuid4(), uuid4()
    assert [rates.seconds_to_wait(key, 3) for _ in range(3)] == [0, 0, 0]
    assert rates.seconds_to_wait(key, 3) == pytest.approx(20)
    assert rates.seconds_to_wait(other, 3) == 0
    now = 15.0
    assert rates.seconds_to_wait(key, 3) == pytest.approx(5)
    now = 20.0
    assert rates.seconds_to_wait(key, 3) == 0
    now = 1e6
    assert [rates.seconds_to_wait(key, 3) > 0 for _ in range(4)] == [False, False, False, True]


def test_a_priority_is_allowed_up_to_the_highest_of_the_key() -> None:
    limits = KeyLimits(max_priority=Priority.NORMAL)
    assert [limits.allows(priority) for priority in Priority] == [True, True, False]


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False),
     ("::", False), ("10.0.0.1", False), ("search", False), ("", False)],
)  # fmt: skip
def test_loopback_is_what_no_other_machine_reaches(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("settings", "variable"),
    [
        (SandboxSettings(host="0.0.0.0"), "RATCHET_SERVICE_TOKEN_FILE"),
        (SearchSettings(host="0.0.0.0"), "RATCHET_ADMIN_KEY_FILE"),
        (Settings(host="10.0.0.1"), "RATCHET_SERVICE_TOKEN_FILE"),
    ],
)
def test_a_service_without_a_key_binds_nothing_but_loopback(settings: Settings, variable: str) -> None:
    with pytest.raises(SystemExit) as refused:
        bind(settings)
    assert variable in str(refused.value)
    assert settings.host in str(refused.value)


def app_with(settings: Settings) -> FastAPI:
    """An app with one route that reads its body, and one that does not."""

    @asynccontextmanager
    async def nothing(_: FastAPI) -> AsyncIterator[None]:
        yield

    app = create_app(
        service="policy",
        summary="A test's.",
        settings=settings,
        lifespan=nothing,
        health=lambda: Health(service="policy", ready=True, version="0"),
    )

    @app.post("/length")
    async def length(request: Request) -> int:
        return len(await request.body())

    @app.post("/parsed")
    async def parsed(body: dict[str, int]) -> int:
        return len(body)

    return app


def client_of(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")


async def pieces(count: int, size: int, pause: float = 0.0) -> AsyncIterator[bytes]:
    """A body whose length is not announced."""
    for _ in range(count):
        await asyncio.sleep(pause)
        yield b" " * size


@pytest.mark.parametrize("path", ["/length", "/parsed"])
async def test_a_body_that_is_too_large_is_refused_announced_or_not(path: str) -> None:
    async with client_of(app_with(Settings(max_body_bytes=2048))) as client:
        as_json = {"content-type": "application/json"}
        for content in (b" " * 2049, pieces(3, 1024)):
            answer = await client.post(path, content=content, headers=as_json)
            assert answer.status_code == 413
            assert answer.headers["content-type"] == "application/problem+json"
            assert "exceeds 2048 bytes" in answer.json()["detail"]
        assert (await client.post("/length", content=pieces(2, 1024))).json() == 2048


async def test_a_body_that_takes_too_long_is_refused() -> None:
    app = app_with(Settings())
    # Outside of the app's own, whose time is longer.
    app.add_middleware(BodyLimit, limit=2048, seconds=0.2)
    async with client_of(app) as client:
        for path in ("/length", "/parsed"):
            answer = await client.post(path, content=pieces(1, 1, pause=2.0))
            assert answer.status_code == 408
            assert answer.json()["detail"] == "The body took longer than 0.2 s."


async def test_an_unhandled_error_is_counted_and_answered_as_a_problem() -> None:
    app = app_with(Settings())

    @app.get("/broken")
    async def broken() -> int:
        raise RuntimeError("for the test")

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        answer = await client.get("/broken")
        assert answer.status_code == 500
        assert answer.headers["content-type"] == "application/problem+json"
        counted = (await client.get("/metrics")).text
    assert 'ratchet_http_requests_total{route="/broken",service="policy",status="500"} 1.0' in counted


async def test_the_document_is_open_says_that_keys_are_asked_for_and_no_page_loads_scripts(
    tmp_path: Path,
) -> None:
    token = tmp_path / "token"
    token.write_text("t" * 40)
    async with client_of(app_with(Settings(service_token_file=token))) as client:
        document = (await client.get("/openapi.json")).json()
        assert document["security"] == [{"key": []}]
        assert document["paths"]["/health"]["get"]["security"] == []
        assert "security" not in document["paths"]["/metrics"]["get"]
        authorized = {"authorization": f"Bearer {'t' * 40}"}
        for page in ("/docs", "/redoc", "/docs/oauth2-redirect"):
            assert (await client.get(page)).status_code == 401
            assert (await client.get(page, headers=authorized)).status_code == 404


@pytest.mark.parametrize("held", ["", "short\n"])
def test_a_file_without_a_secret_is_refused(tmp_path: Path, held: str) -> None:
    file = tmp_path / "token"
    file.write_text(held)
    with pytest.raises(ValueError, match="no secret"):
        Settings(service_token_file=file)
    with pytest.raises(ValueError, match="no secret"):
        SearchSettings(admin_key_file=file)
