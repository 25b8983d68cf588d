"""Keys of a running stack, by the command line and over HTTP."""

import stat

import httpx

from tests.models import REMEMBERED
from tests.running_stack import Running, ratchet

PROBLEM = {"problem": REMEMBERED[0].problem, "wait": 60}


async def test_the_header_in_the_data_folder_opens_the_stack_and_nothing_else_does(stack: Running) -> None:
    folder = stack.data / "secrets"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}
    name, _, value = (folder / "admin_header").read_text().strip().partition(": ")
    urls = stack.urls
    async with httpx.AsyncClient(trust_env=False) as http:
        for url in (urls.search, urls.trainer, urls.policy, urls.prm, urls.sandbox):
            assert (await http.get(f"{url}/metrics")).status_code == 401
            assert (await http.get(f"{url}/health")).status_code == 200
        for url in (urls.search, urls.trainer):
            assert (await http.get(f"{url}/metrics", headers={name: value})).status_code == 200


async def test_a_key_is_made_used_listed_and_revoked(stack: Running) -> None:
    data = f"--data={stack.data}"
    made = await ratchet("keys", "create", "ada", "--max-priority=normal", "--concurrent-searches=2", data)
    assert made.code == 0, made.stderr
    key = made.stdout.strip()
    again = await ratchet("keys", "create", "ada", data)
    assert again.code != 0
    assert "There is a key ada" in again.stderr

    async with httpx.AsyncClient(base_url=stack.urls.search, trust_env=False, timeout=90) as http:
        http.headers["authorization"] = f"Bearer {key}"
        solved = await http.post("/search", json=PROBLEM)
        assert solved.status_code == 200, solved.text
        assert (await http.get(f"/search/{solved.json()['id']}/tree")).status_code == 200
        assert [each["id"] for each in (await http.get("/searches")).json()["searches"]] == [
            solved.json()["id"]
        ]
        assert (await http.get("/keys")).status_code == 403
    # For a service at a URL the key comes from the environment; without one the message says so.
    at_url = ("solve", REMEMBERED[0].problem, "--json", f"--url={stack.urls.search}")
    assert (await ratchet(*at_url, RATCHET_KEY=key)).json["state"] == solved.json()["state"]
    refused = await ratchet(*at_url)
    assert refused.code == 3
    assert "RATCHET_KEY" in refused.stderr

    listed = await ratchet("keys", "list", data)
    assert "2 searches at once, priority up to normal" in listed.stdout
    assert key not in listed.stdout
    assert (await ratchet("keys", "revoke", "ada", data)).code == 0
    assert (await ratchet("keys", "revoke", "nobody", data)).code != 0
    assert "Send a key that is in force" in (await ratchet(*at_url, RATCHET_KEY=key)).stderr
    told = await ratchet("keys", "audit", "--key=ada", data)
    assert "POST /search" in told.stdout
    of_operator = await ratchet("keys", "audit", "--key=operator", data)
    assert "DELETE /keys/ada" in of_operator.stdout


async def test_a_limit_that_is_none_is_named(stack: Running) -> None:
    done = await ratchet("keys", "create", "bob", "--tokens-per-day=0", f"--data={stack.data}")
    assert done.code == 2
    assert "tokens_per_day" in done.stderr
    done = await ratchet("keys", "create", "Bob Builder", f"--data={stack.data}")
    assert done.code == 2
    assert "name" in done.stderr
