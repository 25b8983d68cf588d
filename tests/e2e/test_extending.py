"""A search that is over goes on with a larger budget, through all services; and a batch whose problems share their tokens."""

import json
from pathlib import Path
from typing import Any

import ratchet
from ratchet.client import BatchProgress, SolveOptions
from ratchet.contracts.search import MAX_ROLLOUTS, SearchResult
from ratchet.states import SearchState
from tests.models import HOPELESS, REMEMBERED
from tests.running_stack import Running

SMALL: dict[str, Any] = {
    "budget": {"tokens": 120},
    # One at a time: several under way at once may together spend more than is left.
    "parameters": {"rollouts": 4, "early_stop": False, "temperature": 1.3, "top_p": 1.0, "in_flight": 1},
}


async def test_an_extended_search_goes_on_with_its_tree_and_is_concluded_anew(stack: Running) -> None:
    before = await stack.solve(REMEMBERED[3].problem, seed=3, **SMALL)
    nodes = await stack.nodes(before.id)
    async with ratchet.AsyncClient(stack.urls.search, key=stack.urls.key) as client:
        after = await client.extend(before.id, tokens=600)
        assert await client.extend(before.id, tokens=600) == after, "asked again, it changes nothing"
        assert after.asked is not None
        assert (after.asked.budget.tokens, after.asked.parameters.rollouts) == (600, 20)
        assert after.asked.budget.seconds == 3000, "what was not named has grown as much"
        assert (after.id, after.created_at, after.models) == (before.id, before.created_at, before.models)
        assert after.ended_at is not None
        assert before.ended_at is not None
        assert after.ended_at > before.ended_at
        assert before.usage.policy.tokens < after.usage.policy.tokens <= 600
        assert before.usage.rollouts < after.usage.rollouts
        grown = await client.tree(before.id)
        assert {each["id"] for each in nodes} < {each.id for each in grown.nodes}
        if after.answer is not None:
            assert (await client.verify(after)).holds
    replayed = (await stack.http.get(f"/search/{before.id}/replay")).json()
    assert (replayed["same_tasks"], replayed["same_tree"]) == (True, True)


async def test_a_pooled_batch_gives_what_is_left_to_what_is_unsolved(stack: Running, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    told: list[BatchProgress] = []
    options: SolveOptions = {"budget": {"tokens": 400}, "require": "execution"}
    problems = [REMEMBERED[0].problem, REMEMBERED[1].problem, HOPELESS.problem]
    async with ratchet.AsyncClient(stack.urls.search, key=stack.urls.key) as client:
        report = await client.batch(problems, out, pool=True, on_progress=told.append, **options)
        lines = {each["line"]: each["result"] for each in map(json.loads, out.read_text().splitlines())}
        assert len(lines) == len(out.read_text().splitlines()) == 3
        results = [SearchResult.model_validate(lines[number]) for number in (1, 2, 3)]
        assert [each.state for each in results[:2]] == [SearchState.SOLVED_VERIFIED] * 2
        assert all(
            each.asked is not None and each.asked.parameters.rollouts == MAX_ROLLOUTS for each in results
        )
        last = results[2]
        assert last.asked is not None
        assert (last.state, last.answer) == (SearchState.BUDGET_EXHAUSTED, None)
        left = 3 * 400 - sum(each.usage.policy.tokens for each in results[:2])
        assert 400 < last.asked.budget.tokens <= left
        assert report.tokens == sum(each.usage.policy.tokens for each in results) <= 3 * 400 + 100
        assert told[-1].done == 3
        assert (await client.batch(problems, out, pool=True, **options)).asked == 0
