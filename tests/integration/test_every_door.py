"""The door of every service: all their routes, as the apps list them, asked by all who may and may not."""

import asyncio
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet.contracts.keys import KeyScope
from ratchet.contracts.search import Priority
from ratchet.settings import PolicySettings, PrmSettings, SandboxSettings, SearchSettings, TrainerSettings
from ratchet.solutions.step_formats import few_shot
from ratchet.stack.config import SERVICES
from ratchet.stack.ports import free_port
from ratchet.store.engine import transaction
from ratchet.store.errors import StoreUnavailableError
from ratchet.store.key_records import AuditedCall, StoredKey
from ratchet.store.keys import KeyStore
from ratchet.web.door import OPEN, secrets
from ratchet.web.door.audit import Audit
from ratchet.web.door.callers import Callers
from services.policy.app import build_app as policy_app
from services.policy.engines.transformers import TransformersEngine
from services.prm.app import build_app as prm_app
from services.sandbox.app import build_app as sandbox_app
from services.sandbox.service import required_isolation
from services.search.access import SOLVE_ROUTES
from services.search.app import build_app as search_app
from services.trainer.app import build_app as trainer_app

NANO = Path(__file__).parents[2] / "models" / "nano" / "policy"
OPERATORS_KEY = "the-operators-key-of-these-tests"
TOKEN = "the-token-of-these-tests"
REFUSALS = {401, 403, 421, 429}
OF_STORE = ("search", "trainer")


@dataclass
class Doors:
    """The apps of all services, and keys of either scope in their database."""

    apps: dict[str, FastAPI]
    solve: str = ""
    admin: str = ""

    def right(self, service: str) -> list[str]:
        """Keys that may do everything there."""
        return [OPERATORS_KEY, self.admin] if service in OF_STORE else [TOKEN]

    def client(self, service: str, key: str | None = None) -> httpx.AsyncClient:
        """A client that sends this key."""
        transport = httpx.ASGITransport(self.apps[service], raise_app_exceptions=False)
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000", headers=headers)


async def made(doors: Doors, name: str, scope: KeyScope = KeyScope.SOLVE, **limits: Any) -> str:
    """A new key."""
    async with doors.client("search", OPERATORS_KEY) as client:
        answer = await client.post("/keys", json={"name": name, "scope": scope, "limits": limits})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["key"])


@pytest.fixture(scope="module")
async def doors(
    engine: AsyncEngine, database_url: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Doors:
    folder = tmp_path_factory.mktemp("doors")
    (folder / "key").write_text(OPERATORS_KEY)
    (folder / "token").write_text(TOKEN)
    of_store: dict[str, Any] = {
        "database_url": database_url, "redis_url": redis_url, "admin_key_file": folder / "key",
        "service_token_file": folder / "token", "queue_name": "doors",
    }  # fmt: skip
    sandbox = SandboxSettings(service_token_file=folder / "token")
    apps = {
        # No trainer is there: what is passed on to it is as closed as all else, and then not answered.
        "search": search_app(SearchSettings(**of_store, trainer_url=f"http://127.0.0.1:{free_port()}")),
        "trainer": trainer_app(TrainerSettings(**of_store, rounds_dir=folder / "rounds")),
        "policy": policy_app(
            PolicySettings(service_token_file=folder / "token"),
            TransformersEngine(NANO, "nano@0", max_model_len=256, max_num_seqs=4),
            few_shot(),
        ),
        "prm": prm_app(PrmSettings(service_token_file=folder / "token")),
        "sandbox": sandbox_app(sandbox, required_isolation(sandbox)),
    }
    assert apps.keys() == set(SERVICES)
    doors = Doors(apps)
    doors.solve = await made(doors, "solver")
    doors.admin = await made(doors, "boss", KeyScope.ADMIN)
    return doors


def routes(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Method and path of all that the app has, whatever it is."""
    for route in app.router.routes:
        for method in sorted(route.methods):  # type: ignore[attr-defined]  # a mount would have none, and end the test
            yield method, route.path_format  # type: ignore[attr-defined]


def filled(path: str) -> str:
    """The path with ids of nothing in it."""
    return re.sub(r"\{[^}]+\}", lambda _: str(uuid4()), path)


def is_problem(answer: httpx.Response, status: int) -> bool:
    return (
        answer.status_code == status
        and answer.headers["content-type"] == "application/problem+json"
        and answer.json()["status"] == status
    )


@pytest.mark.parametrize("service", SERVICES)
async def test_every_route_is_closed_to_all_but_those_who_may(doors: Doors, service: str) -> None:
    found = list(routes(doors.apps[service]))
    assert len(found) > 6
    assert not [route for route in found if route[1].startswith("/docs")]
    for method, path in found:
        route, at = f"{method} {path}", filled(path)
        no_body = method == "HEAD"

        async def ask(key: str | None, at: str = at, method: str = method, **headers: str) -> httpx.Response:
            async with doors.client(service, key) as client:
                return await client.request(method, at, headers=headers)

        for key in (None, "", "wrong", secrets.new_key(uuid4()), f"{TOKEN}x", OPERATORS_KEY[:-1]):
            answer = await ask(key)
            if route in OPEN:
                assert answer.status_code not in REFUSALS, route
            else:
                assert is_problem(answer, 401), (route, key, answer.text)
                assert answer.headers["www-authenticate"].startswith("Bearer")
        # The other kind of service has another secret.
        other = TOKEN if service in OF_STORE else OPERATORS_KEY
        assert (await ask(other)).status_code == 401 or route in OPEN, route

        answer = await ask(doors.solve)
        if service in OF_STORE and route not in OPEN:
            if service == "search" and route in SOLVE_ROUTES:
                assert answer.status_code not in {401, 403, 421}, route
            else:
                assert is_problem(answer, 403), route
        for key in doors.right(service):
            answer = await ask(key)
            assert answer.status_code not in REFUSALS, (route, answer.text)
            for headers in (
                {"origin": "http://evil.example"},
                {"origin": "null"},
                {"sec-fetch-site": "cross-site"},
            ):
                refused = await ask(key, **headers)
                assert refused.status_code == 403, (route, headers)
                assert no_body or is_problem(refused, 403)
            for host in ("evil.example", "127.0.0.1.evil.example:8000", ""):
                refused = await ask(key, host=host)
                assert refused.status_code == 421, (route, host)
                assert no_body or is_problem(refused, 421)


async def test_a_link_of_another_site_leads_to_the_page_and_to_nothing_else(doors: Doors) -> None:
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    async with doors.client("search", OPERATORS_KEY) as client:
        shown = await client.get("/", headers=link)
        assert (shown.status_code, shown.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert is_problem(await client.get("/searches", headers=link), 403)
        for other in ({"sec-fetch-dest": "iframe"}, {"sec-fetch-mode": "no-cors"}, {"origin": "null"}):
            assert is_problem(await client.get("/", headers=link | other), 403)
        assert is_problem(await client.get("/", headers=link | {"host": "evil.example"}), 421)


def test_what_is_open_and_what_a_solver_may_ask_for_is_there(doors: Doors) -> None:
    of_search = {f"{method} {path}" for method, path in routes(doors.apps["search"])}
    assert of_search >= OPEN
    assert of_search >= SOLVE_ROUTES


async def begun(doors: Doors, key: str, **changes: Any) -> httpx.Response:
    """A search that no worker takes up."""
    async with doors.client("search", key) as client:
        return await client.post("/search", json={"problem": "What is 1 + 1?", **changes})


async def test_a_solver_sees_what_it_began_and_nothing_else(doors: Doors) -> None:
    other = await made(doors, "another-solver")
    mine = await begun(doors, doors.solve)
    assert mine.status_code == 202
    of_operator = await begun(doors, OPERATORS_KEY)
    for part in ("", "/tree", "/proof", "/replay", "/events"):
        path = f"/search/{mine.json()['id']}{part}"
        async with doors.client("search", other) as client:
            refused = await client.get(path)
            assert is_problem(refused, 404), part
            assert is_problem(await client.get(f"/search/{of_operator.json()['id']}{part}"), 404)
            # An id that is none is the route's to refuse.
            assert is_problem(await client.get(f"/search/none{part}"), 422)
    async with doors.client("search", other) as client:
        assert is_problem(await client.delete(f"/search/{mine.json()['id']}"), 404)
    for key in (doors.solve, doors.admin, OPERATORS_KEY):
        async with doors.client("search", key) as client:
            for part in ("", "/tree"):
                assert (await client.get(f"/search/{mine.json()['id']}{part}")).status_code == 200
        async with doors.client("search", key) as client:
            listed = {each["id"] for each in (await client.get("/searches")).json()["searches"]}
        assert mine.json()["id"] in listed
        assert (of_operator.json()["id"] in listed) is (key != doors.solve)
    async with doors.client("search", other) as client:
        assert (await client.get("/searches")).json()["searches"] == []
    async with doors.client("search", doors.solve) as client:
        assert (await client.delete(f"/search/{mine.json()['id']}")).json()["state"] == "cancelled"


async def test_an_idempotency_key_is_the_callers_own(doors: Doors) -> None:
    other = await made(doors, "idempotent")
    ids = []
    for key in (doors.solve, other, OPERATORS_KEY, doors.solve):
        async with doors.client("search", key) as client:
            answer = await client.post(
                "/search", json={"problem": "What is 2 + 2?"}, headers={"idempotency-key": "the-same"}
            )
            ids.append(answer.json()["id"])
    assert len(set(ids)) == 3
    assert ids[0] == ids[3]


async def test_a_key_may_send_so_many_requests_a_minute(doors: Doors) -> None:
    key = await made(doors, "hasty", requests_per_minute=3)
    async with doors.client("search", key) as client:
        answers = [await client.get(f"/search/{uuid4()}") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [404, 404, 404, 429]
    assert is_problem(answers[3], 429)
    assert 1 <= int(answers[3].headers["retry-after"]) <= 20


async def test_a_key_may_have_so_many_searches_under_way(doors: Doors) -> None:
    key = await made(doors, "two-at-once", concurrent_searches=2)
    answers = await asyncio.gather(*(begun(doors, key, seed=seed) for seed in range(5)))
    taken = [answer for answer in answers if answer.status_code == 202]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert (len(taken), len(refused)) == (2, 3)
    assert is_problem(refused[0], 429)
    assert int(refused[0].headers["retry-after"]) > 0
    async with doors.client("search", key) as client:
        await client.delete(f"/search/{taken[0].json()['id']}")
    assert (await begun(doors, key, seed=9)).status_code == 202


async def test_a_retry_of_a_search_under_way_is_no_second_one(doors: Doors) -> None:
    key = await made(doors, "retrying", concurrent_searches=1)
    ids = []
    async with doors.client("search", key) as client:
        for idempotency_key in ("one", "one", "two"):
            sent = {"idempotency-key": idempotency_key}
            answer = await client.post("/search", json={"problem": "What is 3 + 3?"}, headers=sent)
            ids.append(answer.json().get("id"))
    assert ids[0] == ids[1] is not None
    assert answer.status_code == 429


@pytest.mark.parametrize(
    ("state", "way", "body"),
    [("failed", "retry", None), ("budget_exhausted", "extend", {"tokens": 9000})],
)
async def test_a_search_is_taken_up_again_within_the_limits_of_its_key(
    doors: Doors, engine: AsyncEngine, state: str, way: str, body: dict[str, int] | None
) -> None:
    key = await made(doors, f"ended-{way}", concurrent_searches=1)
    ended = (await begun(doors, key)).json()["id"]
    async with transaction(engine) as connection:
        await connection.execute(
            text("UPDATE searches SET state = :state, ended_at = clock_timestamp() WHERE id = :id"),
            {"state": state, "id": ended},
        )
    other = (await begun(doors, key, seed=1)).json()["id"]
    async with doors.client("search", key) as client:
        assert is_problem(await client.post(f"/search/{ended}/{way}", json=body), 429)
        assert (await client.delete(f"/search/{other}")).status_code == 200
        # While it is under way, asking again changes nothing.
        for _ in range(2):
            assert (await client.post(f"/search/{ended}/{way}", json=body)).status_code == 202


async def test_a_key_has_so_many_tokens_a_day(doors: Doors, engine: AsyncEngine) -> None:
    key = await made(doors, "thrifty", tokens_per_day=100)
    search = (await begun(doors, key)).json()["id"]

    async def use(tokens: int, ago: str) -> None:
        async with transaction(engine) as connection:
            await connection.execute(
                text(
                    "UPDATE searches SET usage = jsonb_build_object('policy', jsonb_build_object('tokens', CAST(:n AS int))),"
                    f" created_at = clock_timestamp() - INTERVAL '{ago}' WHERE id = :id"
                ),
                {"n": tokens, "id": search},
            )

    await use(99, "0 hours")
    assert (await begun(doors, key, seed=1)).status_code == 202
    await use(100, "0 hours")
    refused = await begun(doors, key, seed=2)
    assert is_problem(refused, 429)
    assert 0 < int(refused.headers["retry-after"]) <= 86_400
    await use(100, "25 hours")
    assert (await begun(doors, key, seed=3)).status_code == 202


async def test_what_a_search_generates_on_a_later_day_is_of_that_day(
    doors: Doors, engine: AsyncEngine
) -> None:
    key = await made(doors, "lasting", tokens_per_day=100)
    search = (await begun(doors, key)).json()["id"]

    async def change(values: str) -> None:
        async with transaction(engine) as connection:
            await connection.execute(text(f"UPDATE searches SET {values} WHERE id = :id"), {"id": search})

    def tokens(count: int) -> str:
        return f"""usage = '{{"policy": {{"tokens": {count}}}}}'"""

    over = "state = 'budget_exhausted', ended_at = clock_timestamp()"
    async with doors.client("search", key) as client:
        await change(f"created_at = clock_timestamp() - INTERVAL '25 hours', {tokens(500)}, {over}")
        assert (await client.post(f"/search/{search}/extend", json={"tokens": 9000})).status_code == 202
        # And once more on the same day.
        await change(f"{tokens(550)}, {over}")
        assert (await client.post(f"/search/{search}/extend", json={"tokens": 9500})).status_code == 202
    await change(tokens(599))
    assert (await begun(doors, key, seed=1)).status_code == 202
    await change(tokens(600))
    assert is_problem(await begun(doors, key, seed=2), 429)


async def test_a_key_may_ask_for_no_higher_priority_than_its_own(doors: Doors) -> None:
    key = await made(doors, "patient", max_priority=Priority.NORMAL)
    refused = await begun(doors, key, priority="high")
    assert is_problem(refused, 403)
    assert [error["field"] for error in refused.json()["errors"]] == ["priority"]
    for priority in ("low", "normal"):
        assert (await begun(doors, key, priority=priority)).status_code == 202


async def test_keys_are_made_shown_once_listed_and_revoked(doors: Doors, engine: AsyncEngine) -> None:
    limits = {"requests_per_minute": 100, "max_priority": "low"}
    async with doors.client("search", OPERATORS_KEY) as client:
        answer = await client.post("/keys", json={"name": "new", "scope": "admin", "limits": limits})
        assert answer.status_code == 201
        key = answer.json()["key"]
        assert is_problem(await client.post("/keys", json={"name": "new"}), 409)
        for name in ("operator", "service", "anybody", "Upper", "", "a" * 64, "a\n"):
            assert is_problem(await client.post("/keys", json={"name": name}), 422), name
        listed = next(each for each in (await client.get("/keys")).json()["keys"] if each["name"] == "new")
        assert listed["limits"]["requests_per_minute"] == 100
        assert "key" not in listed
    async with transaction(engine) as connection:
        kept = str((await connection.execute(text("SELECT * FROM api_keys"))).all())
    assert key not in kept
    assert key.rpartition("_")[2] not in kept

    async with doors.client("search", key) as client:
        assert (await client.get("/searches")).status_code == 200
    async with doors.client("trainer", key) as client:
        assert (await client.get("/pairs")).status_code == 200
    async with doors.client("search", OPERATORS_KEY) as client:
        assert (await client.delete("/keys/new")).json()["revoked_at"] is not None
        assert (await client.delete("/keys/new")).status_code == 200
        assert is_problem(await client.delete("/keys/unknown"), 404)
    async with doors.client("search", key) as client:
        assert is_problem(await client.get("/searches"), 401)
    # The trainer is told by nobody: it reads the keys again.
    async with doors.client("trainer", key) as client, asyncio.timeout(20):
        while (answer := await client.get("/pairs")).status_code == 200:
            await asyncio.sleep(0.2)
        assert is_problem(answer, 401)
    async with doors.client("search", OPERATORS_KEY) as client:
        assert (await client.post("/keys", json={"name": "new"})).status_code == 201


async def test_keys_right_and_wrong_cost_no_query_each(doors: Doors, engine: AsyncEngine) -> None:
    reads = 0

    class Counting(KeyStore):
        async def in_force(self) -> list[StoredKey]:
            nonlocal reads
            reads += 1
            return await super().in_force()

    known = Callers(OPERATORS_KEY, "operator", Counting(engine))
    asked = [known.find(key) for key in [doors.solve, secrets.new_key(uuid4()), "wrong", None] * 100]
    found = await asyncio.gather(*asked)
    assert {caller.name for caller in found if caller is not None} == {"solver"}
    assert sum(caller is not None for caller in found) == 100
    # One for all of them; on a slow machine one more for what may be new.
    assert reads <= 3


async def test_what_changes_something_is_audited_with_its_outcome(doors: Doors) -> None:
    async with doors.apps["search"].router.lifespan_context(doors.apps["search"]):
        key = await made(doors, "watched")
        search = (await begun(doors, key)).json()["id"]
        async with doors.client("search", key) as client:
            await client.get(f"/search/{search}")
            await client.delete(f"/search/{search}")
            await client.post("/keys", json={"name": "mine"})
            await client.post("/search", json={})
        async with doors.client("search") as client:
            await client.post("/keys", json={"name": "nobodys"})
        async with doors.client("search", OPERATORS_KEY) as client, asyncio.timeout(20):
            while len(entries := (await client.get("/audit?key=watched")).json()["entries"]) < 4:
                await asyncio.sleep(0.1)
            everything = (await client.get("/audit?limit=2")).json()
            assert len(everything["entries"]) == 2
            following = (await client.get(f"/audit?limit=2&before={everything['next']}")).json()
            assert not {e["id"] for e in everything["entries"]} & {e["id"] for e in following["entries"]}
    calls = {(e["method"], e["route"], e["target"], e["status"]) for e in entries}
    assert calls == {
        ("POST", "/search", "/search", 202),
        ("DELETE", "/search/{search_id}", f"/search/{search}", 200),
        ("POST", "/keys", "/keys", 403),
        ("POST", "/search", "/search", 422),
    }
    assert {e["service"] for e in entries} == {"search"}


async def test_without_a_key_in_its_settings_a_service_is_open_to_this_machine_and_still_not_to_pages(
    database_url: str, redis_url: str
) -> None:
    app = search_app(SearchSettings(database_url=database_url, redis_url=redis_url, queue_name="doors"))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        assert (await client.get("/searches")).status_code == 200
        assert (await client.get("/searches", headers={"host": "evil.example"})).status_code == 421
        assert (await client.get("/searches", headers={"origin": "http://evil.example"})).status_code == 403
        # A key that is sent has to be right.
        wrong = {"authorization": f"Bearer {secrets.new_key(uuid4())}"}
        assert (await client.get("/searches", headers=wrong)).status_code == 401


async def test_an_audit_outlasts_a_store_that_is_away_and_is_written_once(engine: AsyncEngine) -> None:
    class Flaky(KeyStore):
        away = True

        async def write_audit(self, calls: Sequence[AuditedCall]) -> None:
            if self.away:
                raise StoreUnavailableError("for the test")
            # Twice: as after an answer that was lost.
            await super().write_audit(calls)
            await super().write_audit(calls)

    store = Flaky(engine)
    audit = Audit(store)
    for number in range(3):
        audit.note(AuditedCall("outage", None, "search", "POST", "/search", f"/{number}", 202))
    with pytest.raises(StoreUnavailableError):
        await audit.flush()
    audit.note(AuditedCall("outage", None, "search", "POST", "/search", "/3", 202))
    store.away = False
    async with audit.writing():
        pass
    entries = (await store.audit(100, key="outage")).entries
    assert sorted(entry.target for entry in entries) == ["/0", "/1", "/2", "/3"]


async def test_while_the_database_is_away_stored_keys_are_put_off_and_not_refused(
    tmp_path: Path, free_port: int, redis_url: str
) -> None:
    (tmp_path / "key").write_text(OPERATORS_KEY)
    nowhere = f"postgresql+asyncpg://nobody@127.0.0.1:{free_port}/nothing"
    app = search_app(
        SearchSettings(database_url=nowhere, redis_url=redis_url, admin_key_file=tmp_path / "key")
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:

        async def ask(path: str, key: str) -> httpx.Response:
            return await client.get(path, headers={"authorization": f"Bearer {key}"})

        answer = await ask("/metrics", secrets.new_key(uuid4()))
        assert is_problem(answer, 503)
        assert int(answer.headers["retry-after"]) > 0
        assert (await ask("/metrics", OPERATORS_KEY)).status_code == 200
        assert is_problem(await ask("/metrics", "wrong"), 401)
