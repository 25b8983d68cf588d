"""Strategies compared through the whole system, and the strategy `auto`, which takes what was kept of that."""

import json
from pathlib import Path

import httpx

from tests.models import REMEMBERED
from tests.running_stack import Running, ratchet

CUPS, PENS = REMEMBERED[:2]


async def test_auto_is_mcts_until_something_was_measured_and_that_from_then_on(
    stack: Running, tmp_path: Path
) -> None:
    before = await stack.solve(CUPS.problem, strategy="auto", require="execution", seed=4)
    assert before.strategy == "mcts"

    problems = tmp_path / "two.jsonl"
    problems.write_text(
        "".join(json.dumps({"problem": each.problem, "answer": each.answer}) + "\n" for each in (CUPS, PENS))
    )
    asked = ["eval", str(problems), "--data", str(stack.data), "--compare", "majority", "--tokens", "300,500"]
    done = await ratchet(*asked, "--seeds", "3,4", "--keep", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert [(arm["tokens"], arm["n"], arm["seeds"]) for arm in done.json["arms"]] == [
        (300, 2, 2),
        (500, 2, 2),
    ]
    assert all(arm["coverage"] >= arm["accuracy"] > 0 for arm in done.json["arms"])
    assert all(arm["trajectories_per_search"] > 1 for arm in done.json["arms"])
    kept = done.json["kept"]
    assert (kept["policy"], kept["prm"]) == (before.models["policy"], before.models["prm"])
    assert (kept["strategy"], kept["n"], kept["tokens"]) == ("majority", 2, [300, 500])
    async with httpx.AsyncClient(base_url=stack.urls.trainer, auth=stack.keys, trust_env=False) as trainer:
        assert (await trainer.get("/strategies")).json() == {"choices": [kept]}

    after = await stack.solve(CUPS.problem, strategy="auto", require="execution", seed=4)
    assert after.strategy == "majority"
    # Models that are asked for count, whatever serves.
    pinned = {"policy": before.models["policy"], "prm": "prm1-likelihood"}
    again = await stack.solve(CUPS.problem, strategy="auto", require="execution", seed=4, models=pinned)
    assert again.strategy == "majority"
