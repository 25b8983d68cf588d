"""Searches of the running system are run again from their journals, and come out the same."""

import asyncio
import json

import pytest

from ratchet.contracts.replay import Replay
from ratchet.contracts.search import StrategyName
from tests.models import ENDLESS, REMEMBERED
from tests.running_stack import Running, ratchet

CUPS, PENS, EGGS, NUTS, KEYS, FIGS = REMEMBERED


async def replayed(stack: Running, search_id: str) -> Replay:
    response = await stack.http.get(f"/search/{search_id}/replay")
    assert response.status_code == 200, response.text
    return Replay.model_validate(response.json())


@pytest.mark.parametrize("strategy", StrategyName)
async def test_a_search_asks_for_the_same_tasks_again(stack: Running, strategy: StrategyName) -> None:
    result = await stack.solve(
        NUTS.problem,
        seed=3,
        strategy=strategy,
        parameters={"rollouts": 24, "early_stop": False, "temperature": 1.3, "top_p": 1.0, "in_flight": 4},
        budget={"tokens": 4000},
    )
    found = await replayed(stack, result.id)
    assert found.holds, found
    assert found.answer == result.answer
    assert found.workers == 1
    # What ended is what the search has counted; of what was in flight at its end there is no record.
    assert sum(task.end is not None for task in found.tasks) == result.usage.rollouts
    made = [node for task in found.tasks for node in task.made]
    assert len(made) == len(set(made)) == result.usage.nodes


async def test_a_search_goes_on_from_a_step_that_a_person_wrote(stack: Running) -> None:
    # To the end of the budget: those that end first are the short ones, and from an end nothing goes on.
    whole = {"rollouts": 24, "early_stop": False, "temperature": 1.3, "top_p": 1.0}
    solved = await stack.solve(NUTS.problem, seed=3, parameters=whole, budget={"tokens": 1500})
    nodes = (await stack.http.get(f"/search/{solved.id}/tree")).json()["nodes"]
    first = next(
        each for each in nodes if each["parent"] == "root" and each["state"] in ("open", "exhausted")
    )
    edit = {"text": f"# Mine.\n{first['text']}"}
    body = {"node": first["id"], "edit": edit, "budget": {"tokens": 600}}
    begun = await stack.http.post(f"/search/{solved.id}/branch", json=body)
    assert begun.status_code == 202, begun.text
    async with asyncio.timeout(120):
        while (result := await stack.result(begun.json()["id"])).ended_at is None:
            await asyncio.sleep(0.2)
    assert result.parent is not None
    assert (result.parent.search, result.parent.node) == (solved.id, first["id"])
    tree = (await stack.http.get(f"/search/{result.id}/tree")).json()["nodes"]
    [given] = [each for each in tree if each["parent"] == "root"]
    assert (given["text"], given["tokens"]) == (edit["text"], 0)
    assert result.verification is None or result.verification.independent_programs <= 1
    journal = (await stack.http.get(f"/search/{result.id}/journal")).json()["tasks"]
    assert journal
    assert all(task["why"]["words"] for task in journal)
    made = [node for task in journal for node in task["made"]]
    assert sorted([*made, "root", given["id"]]) == sorted(each["id"] for each in tree)
    assert (await replayed(stack, result.id)).holds


async def test_the_command_shows_growth_and_verdict_and_fails_for_what_cannot_be_replayed(
    stack: Running,
) -> None:
    result = await stack.solve(CUPS.problem, seed=1)
    data = ["--data", str(stack.data)]
    shown = await ratchet("replay", result.id, *data)
    assert shown.code == 0, shown.stderr
    # Not by number: the search may end before its first task does.
    assert "trajectory from root" in shown.stdout
    assert "mcts asks for the same" in shown.stdout
    assert "the tree has the same nodes, visits and values" in shown.stdout
    assert f"the vote gives the same answer: {result.answer}" in shown.stdout
    as_json = await ratchet("replay", result.id, *data, "--json")
    assert (as_json.code, json.loads(as_json.stdout)["same_tasks"]) == (0, True)
    for wrong, words in (("nonsense", "UUID"), (result.id[:-4] + "0000", "There is no search")):
        refused = await ratchet("replay", wrong, *data)
        assert (refused.code, refused.stdout) == (2, "")
        assert words.lower() in refused.stderr.lower()

    under_way = await stack.begin(
        ENDLESS.problem,
        strategy="majority",
        parameters={"rollouts": 4096, "early_stop": False, "temperature": 1.3},
    )
    early = await ratchet("replay", under_way, *data)
    await stack.http.delete(f"/search/{under_way}")
    assert early.code == 2
    assert "once it is over" in " ".join(early.stderr.split())
