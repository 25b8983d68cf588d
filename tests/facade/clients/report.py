"""What each client's program shares: where it asks, what it asks, and how it says what came of it."""

import json
import os
import sys
from importlib.metadata import version
from typing import Any

BASE_URL = os.environ["FACADE_URL"]
KEY = os.environ["FACADE_KEY"]
PROBLEM = os.environ["FACADE_PROBLEM"]
ANSWER = os.environ["FACADE_ANSWER"]
MESSAGES: list[Any] = [{"role": "user", "content": PROBLEM}]
LONG = {
    "ratchet": {
        "strategy": "mcts",
        "parameters": {"rollouts": 64, "early_stop": False},
        "budget": {"tokens": 6000, "seconds": 60},
    }
}
"""A search that is not over when its first step is found."""


def reads_answer(content: str | None) -> None:
    """The last line of the content is the answer, as graders read it."""
    last = (content or "").splitlines()[-1:]
    assert last == [f"#### {ANSWER}"], f"the last line is {last}"


def state_of(search: str) -> str:
    """How a search stands now."""
    import httpx

    url = BASE_URL.removesuffix("/v1")
    answer = httpx.get(f"{url}/search/{search}", headers={"authorization": f"Bearer {KEY}"}, timeout=30)
    return str(answer.raise_for_status().json()["state"])


def tell(package: str, ran: list[str], **more: Any) -> None:
    """The last line: what was run with which version."""
    sys.stdout.write(json.dumps({"version": f"{package} {version(package)}", "ran": ran, **more}) + "\n")
