"""Bad input to the running system, and models that are not there: a clear answer, no traceback, the service alive."""

import asyncio
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.models import CORPUS, HOPELESS
from tests.running_stack import ROOT, Running, ratchet

FULL_DISK = """
import sys
from pathlib import Path
from ratchet.models.checkpoint import ModelSourceError
from ratchet.models.sources import resolve

try:
    resolve("small", Path(sys.argv[1]), hub="http://127.0.0.1:9")
except ModelSourceError as error:
    sys.exit(f"ratchet: {error}")
"""


@pytest.fixture(autouse=True)
async def alive(stack: Running) -> Any:
    """Whatever was asked, the service answers afterwards, and nothing of it was an error of its own."""
    log = stack.data / "logs" / "search.log"
    before = log.stat().st_size
    yield
    assert (await stack.http.get("/health")).status_code == 200
    with log.open() as opened:
        opened.seek(before)
        assert "Traceback" not in opened.read()


def is_problem(response: Any, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert document["status"] == status
    assert document["title"]
    return document


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"problem": ""}, "problem"),
        ({"problem": " \n\t "}, "problem"),
        ({"problem": "x" * 2**20}, "problem"),
        ({"problem": "\x00\x01"}, "problem"),
        ({"problem": 7}, "problem"),
        ({"problem": "1+1?", "strategy": "luck"}, "strategy"),
        ({"problem": "1+1?", "budget": {"tokens": -1}}, "budget.tokens"),
        ({"problem": "1+1?", "budget": {"seconds": -0.5}}, "budget.seconds"),
        ({"problem": "1+1?", "bugdet": {}}, "bugdet"),
        ({"problem": "1+1?", "parameters": {"rollout": 3}}, "parameters.rollout"),
    ],
)
async def test_a_bad_field_is_named(stack: Running, body: dict[str, Any], field: str) -> None:
    document = is_problem(await stack.http.post("/search", json=body), 422)
    assert [error["field"] for error in document["errors"]] == [field]
    assert field in document["detail"]


@pytest.mark.parametrize(
    "body", [b"\xff\xfe\x00", b'{"problem": "\xff"}', b"problem=1+1", b"", b"[" * 100_000]
)
async def test_a_body_that_is_no_json_is_refused(stack: Running, body: bytes) -> None:
    response = await stack.http.post("/search", content=body, headers={"Content-Type": "application/json"})
    assert 400 <= response.status_code < 500
    is_problem(response, response.status_code)


async def test_a_body_beyond_the_limit_is_refused(stack: Running) -> None:
    is_problem(await stack.http.post("/search", json={"problem": "x" * 5 * 2**20}), 413)


@pytest.mark.parametrize("part", ["", "/events", "/tree", "/proof"])
async def test_unknown_and_malformed_ids_are_problems(stack: Running, part: str) -> None:
    is_problem(await stack.http.get(f"/search/{uuid.uuid4()}{part}"), 404)
    document = is_problem(await stack.http.get(f"/search/not-an-id{part}"), 422)
    assert [error["field"] for error in document["errors"]] == ["search_id"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["up", "--model", "/no/such", "--engine", "transformers"], "There is no model '/no/such'"),
        (["solve", "1+1?", "--model", "nonsense"], "There is no model 'nonsense'"),
    ],
)
async def test_a_model_that_is_not_there_ends_the_command_with_a_message(
    stack: Running, tmp_path: Path, arguments: list[str], words: str
) -> None:
    done = await ratchet(*arguments, cwd=tmp_path, RATCHET_DATA=str(tmp_path / "data"))
    assert done.code not in (0, -9)
    assert words in done.stderr
    assert "ratchet: " in done.stderr
    assert done.stderr.count(words) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
async def test_a_full_disk_for_weights_is_said_with_what_is_needed(stack: Running, tmp_path: Path) -> None:
    """In a mount namespace of its own, so that the disk is gone with the process."""
    command = 'mount -t tmpfs -o size=1m none "$1" && exec "$2" -c "$3" "$1"'
    done = await asyncio.to_thread(
        subprocess.run,
        ["unshare", "-m", "sh", "-c", command, "sh", str(tmp_path), sys.executable, FULL_DISK],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mounts here: {done.stderr.strip()}")
    assert done.returncode == 1
    assert "Not enough disk space for the model small" in done.stderr
    assert "RATCHET_CACHE_DIR" in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_problem_in_any_script_is_no_bad_input(stack: Running) -> None:
    result = await stack.solve(f"{CORPUS[2]} 🙂 ∑ \u202e", budget={"tokens": 64}, parameters={"rollouts": 1})
    assert result.state != "failed", result.reason
    assert result.problem.startswith("Each problem")
    assert HOPELESS.problem not in result.problem
