"""Searches through the whole system: what a caller asks, sees, and can check afterwards."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ratchet.contracts.search import EventKind, SearchResult, StrategyName, VerificationLevel
from ratchet.states import SEARCH_TRANSITIONS, SearchState, is_end
from tests.models import ENDLESS, HOPELESS, REMEMBERED
from tests.running_stack import Running, ratchet

CUPS, PENS, EGGS, NUTS, KEYS, FIGS = REMEMBERED
LONG = {
    # No natural end within the test: the temperature keeps the tree growing.
    "parameters": {"rollouts": 4096, "early_stop": False, "temperature": 1.3, "top_p": 1.0},
    "strategy": "majority",
    "budget": {"tokens": 10_000_000, "seconds": 300, "nodes": 1_000_000},
}


async def events(stack: Running, search_id: str, after: str | None = None) -> AsyncIterator[dict[str, Any]]:
    """The events of a search until the service ends the stream."""
    headers = {"Last-Event-ID": after} if after else {}
    async with stack.http.stream("GET", f"/search/{search_id}/events", headers=headers) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        event: dict[str, Any] = {}
        async for line in response.aiter_lines():
            name, _, value = line.partition(": ")
            if name in ("id", "event", "data"):
                event[name] = json.loads(value) if name == "data" else value
            elif not line and event:
                yield event
                event = {}


async def test_a_problem_is_solved_and_verified_by_agreement(stack: Running) -> None:
    # As many draws as make a win of the wrong program (14 of 100) all but impossible: four were not enough once.
    draws = {"rollouts": 32, "early_stop": False}
    result = await stack.solve(CUPS.problem, seed=1, parameters=draws)
    assert (result.state, result.answer) == (SearchState.SOLVED_VERIFIED, CUPS.answer)
    assert result.verification is not None
    assert result.verification.level is VerificationLevel.AGREEMENT
    assert result.verification.independent_programs >= 2
    assert result.verification.grounded
    assert result.verification.votes <= result.verification.total_votes
    assert result.steps[-1].stdout.strip() == CUPS.answer
    assert tuple(step.text for step in result.steps) in [steps for _, steps in CUPS.solutions]
    assert all(step.prm_score is not None and 0 <= step.prm_score <= 1 for step in result.steps)
    usage = result.usage
    assert min(usage.policy.calls, usage.prm.calls, usage.sandbox.calls) > 0
    assert usage.policy.tokens > 0
    assert usage.policy.seconds > 0
    assert (usage.nodes, usage.rollouts) >= (2, 2)
    assert result.models["policy"].startswith("memorised@")
    assert result.models["prm"].endswith(result.models["policy"])


async def test_a_right_reference_verifies_and_a_wrong_one_does_not(stack: Running) -> None:
    right = await stack.solve(PENS.problem, reference_answer=PENS.answer)
    assert (right.state, right.answer) == (SearchState.SOLVED_VERIFIED, PENS.answer)
    assert right.verification is not None
    assert right.verification.level is VerificationLevel.REFERENCE
    wrong = await stack.solve(PENS.problem, reference_answer="1000001", parameters={"rollouts": 6})
    assert wrong.state is SearchState.ANSWERED_UNVERIFIED
    assert wrong.answer is not None
    assert wrong.verification is not None
    assert wrong.verification.level is not VerificationLevel.REFERENCE


async def test_only_the_verifier_knows_the_reference_answer(stack: Running) -> None:
    secret = 'left("rue secret")'
    numbers = ("4700000000000000000000/100000000000000000000", "918273645546372819")
    stack.heard.clear()
    for reference in (*numbers, secret):
        result = await stack.solve(PENS.problem, reference_answer=reference, parameters={"rollouts": 4})
        assert result.verification is not None
        is_right = result.verification.level is VerificationLevel.REFERENCE
        assert is_right == (reference == numbers[0]), "the verifier did use it"
        shown = [
            (await stack.http.get(f"/search/{result.id}{part}")).text
            for part in ("", "/tree", "/tree?format=dot", "/proof", "/events")
        ]
        logs = [log.read_text(errors="replace") for log in (stack.data / "logs").glob("*.log")]
        assert len(logs) >= 8
        for text in (*shown, *logs):
            assert reference not in text
            assert json.dumps(reference)[1:-1] not in text
    told = {service: [heard for heard in stack.heard if heard.service == service] for service in
            ("policy", "prm", "sandbox")}  # fmt: skip
    assert all(told.values()), "each of them was asked"
    assert any(PENS.problem in heard.body for heard in told["policy"]), "the recorders do hear bodies"
    leaks = [
        (heard.service, heard.path)
        for heard in stack.heard
        for reference in (*numbers, secret)
        if json.dumps(reference)[1:-1] in heard.body
    ]
    # What is no number goes to the grader, which parses it in a jail of its own; no program runs there.
    assert set(leaks) <= {("sandbox", "/grade")}


async def test_events_come_in_order_and_a_reader_who_reconnects_misses_and_repeats_nothing(
    stack: Running,
) -> None:
    search_id = await stack.begin(EGGS.problem, parameters={"rollouts": 12, "early_stop": False})
    first = [event async for event in events(stack, search_id)]
    kinds = [event["event"] for event in first]
    ids = [tuple(map(int, event["id"].split("-"))) for event in first]
    assert ids == sorted(set(ids))
    assert kinds[-1] == EventKind.END
    assert kinds.count(EventKind.END) == 1
    assert {EventKind.STATE, EventKind.NODE, EventKind.ANSWER} <= set(kinds)
    result = SearchResult.model_validate(first[-1]["data"])
    assert result == await stack.result(search_id)
    for cut in (0, len(first) // 2, len(first) - 2):
        rest = [event async for event in events(stack, search_id, first[cut]["id"])]
        assert rest == first[cut + 1 :]


async def test_a_reader_cut_off_in_mid_search_goes_on_where_it_was(stack: Running) -> None:
    search_id = await stack.begin(NUTS.problem, parameters={"rollouts": 40, "early_stop": False})
    seen: list[dict[str, Any]] = []
    while not seen or seen[-1]["event"] != EventKind.END:
        stream = events(stack, search_id, seen[-1]["id"] if seen else None)
        async for event in stream:
            seen.append(event)
            if len(seen) % 5 == 0:
                break
        await stream.aclose()  # type: ignore[attr-defined]
    assert seen == [event async for event in events(stack, search_id)]


async def test_the_tree_is_consistent(stack: Running) -> None:
    result = await stack.solve(
        KEYS.problem, parameters={"rollouts": 24, "early_stop": False, "temperature": 1.2, "top_p": 1.0}
    )
    nodes = await stack.nodes(result.id)
    assert len(nodes) == result.usage.nodes + 1
    root, seen = nodes[0], dict[str, dict[str, Any]]()
    assert root["parent"] is None
    for node in nodes:
        assert node["id"] not in seen
        assert node is root or node["parent"] in seen, "parents come first"
        seen[node["id"]] = node
    assert root["visits"] == result.usage.rollouts
    assert any(node["state"] == "failed" for node in nodes), "this model fails sometimes"
    for node in nodes:
        children = [child for child in nodes if child["parent"] == node["id"]]
        ended = node["visits"] - sum(child["visits"] for child in children)
        assert ended >= 0
        assert -1 <= node["q"] <= 1
        if node["state"] == "failed":
            assert not children
            assert node["visits"] == 0
            assert node["status"] != "ok"
        if node["state"] == "terminal":
            assert node["answer"] == node["stdout"].strip().splitlines()[-1].strip()
    dot = (await stack.http.get(f"/search/{result.id}/tree", params={"format": "dot"})).text
    assert dot.startswith("digraph search {")
    assert all(f'"{node["id"]}"' in dot for node in nodes)
    assert dot.count(" -> ") >= len(nodes) - 1


async def test_a_proof_holds_offline_and_a_forged_one_does_not(stack: Running, tmp_path: Path) -> None:
    result = await stack.solve(CUPS.problem, seed=2)
    proof = (await stack.http.get(f"/search/{result.id}/proof")).json()
    bundle = tmp_path / "proof.json"
    bundle.write_text(json.dumps(proof))
    honest = await ratchet("verify", str(bundle), "--json")
    assert honest.code == 0, honest.stdout + honest.stderr
    assert (honest.json["holds"], honest.json["answer"]) == (True, result.answer)
    bundle.write_text(json.dumps(proof).replace("4 * 12", "4 * 13"))
    forged = await ratchet("verify", str(bundle), "--json")
    assert forged.code == 1
    assert forged.json["holds"] is False


async def test_a_cancelled_search_keeps_its_best_answer(stack: Running) -> None:
    search_id = await stack.begin(FIGS.problem, **LONG)
    async for event in events(stack, search_id):
        if event["event"] == EventKind.ANSWER:
            break
    cancelled = await stack.http.delete(f"/search/{search_id}")
    assert cancelled.status_code in (200, 202)
    result = await stack.until(search_id, lambda found: is_end(SEARCH_TRANSITIONS, found.state), 30)
    assert result.state is SearchState.CANCELLED
    assert result.answer is not None
    assert result.verification is not None
    again = await stack.http.delete(f"/search/{search_id}")
    assert (again.status_code, again.json()["state"]) == (200, "cancelled")


async def test_a_retry_with_its_key_is_the_same_search(stack: Running) -> None:
    async def post(problem: str) -> Any:
        return await stack.http.post(
            "/search", json={"problem": problem, "wait": 60}, headers={"Idempotency-Key": "e2e-key"}
        )

    first, second = await asyncio.gather(post(CUPS.problem), post(CUPS.problem))
    assert first.json()["id"] == second.json()["id"]
    assert (await post(PENS.problem)).status_code == 409


async def test_the_same_seed_gives_the_same_search(stack: Running) -> None:
    asked = {"parameters": {"rollouts": 8, "in_flight": 1, "temperature": 1.2}, "seed": 11}
    first, second = await asyncio.gather(*(stack.solve(EGGS.problem, **asked) for _ in range(2)))
    assert (first.answer, first.program, first.usage.nodes) == (
        second.answer,
        second.program,
        second.usage.nodes,
    )
    kept = ("id", "parent", "text", "stdout", "visits", "answer", "state")
    trees = [[[node[name] for name in kept] for node in await stack.nodes(one.id)] for one in (first, second)]
    assert trees[0] == trees[1]


async def test_many_searches_at_once_all_end(stack: Running) -> None:
    problems = [REMEMBERED[number % len(REMEMBERED)] for number in range(16)]
    results = await asyncio.gather(
        *(stack.solve(known.problem, seed=number) for number, known in enumerate(problems))
    )
    answered = {SearchState.SOLVED_VERIFIED, SearchState.ANSWERED_UNVERIFIED}
    assert {result.state for result in results} <= answered
    # Some seeds draw the wrong program more often than the right ones; it agrees with itself then, and is verified.
    right = [result.answer == known.answer for result, known in zip(results, problems, strict=True)]
    verified = [result.state is SearchState.SOLVED_VERIFIED for result in results]
    assert sum(right) >= 12
    assert sum(known and agreed for known, agreed in zip(right, verified, strict=True)) >= 10


@pytest.mark.parametrize("strategy", list(StrategyName))
async def test_every_strategy_answers(stack: Running, strategy: StrategyName) -> None:
    result = await stack.solve(CUPS.problem, strategy=strategy, require="execution", seed=4)
    assert result.state is SearchState.SOLVED_VERIFIED
    # Few draws: the wrong program may win.
    assert result.answer in (CUPS.answer, str(4 * 12))
    if strategy is StrategyName.GREEDY:
        assert result.usage.rollouts == 1


async def test_steps_that_the_gate_leaves_stay_in_the_tree(stack: Running) -> None:
    # Asked that no score may fall, the gate leaves many steps.
    parameters = {"gate": 1.0, "redraws": 1, "rollouts": 12, "early_stop": False, "temperature": 1.3}
    result = await stack.solve(CUPS.problem, parameters=parameters, seed=1)
    nodes = await stack.nodes(result.id)
    left = [node for node in nodes if node["state"] == "abandoned"]
    assert left
    assert all(node["prm_score"] is not None and node["tokens"] > 0 for node in left)
    assert all(node["visits"] == 0 for node in left)
    assert not {node["parent"] for node in nodes} & {node["id"] for node in left}
    assert result.usage.rollouts == 12
    assert sum(node["tokens"] for node in nodes) <= result.usage.policy.tokens
    asked = [heard for heard in stack.heard if heard.path == "/generate" and CUPS.problem in heard.body]
    assert any(json.loads(heard.body)["until"] == "step" for heard in asked)


async def test_with_prm1_no_step_is_gated_unless_that_is_asked_for(stack: Running) -> None:
    before = len(stack.heard)
    result = await stack.solve(PENS.problem, parameters={"rollouts": 4}, seed=5)
    asked = [heard for heard in stack.heard[before:] if heard.path == "/generate"]
    assert {json.loads(heard.body)["until"] for heard in asked} == {"end"}
    assert not [node for node in await stack.nodes(result.id) if node["state"] == "abandoned"]


async def test_a_step_that_never_ends_is_cut_off_once_and_not_built_on(stack: Running) -> None:
    parameters = {"rollouts": 3, "in_flight": 1, "temperature": 0.0}
    result = await stack.solve(ENDLESS.problem, parameters=parameters)
    assert (result.state, result.answer) == (SearchState.BUDGET_EXHAUSTED, None)
    assert result.reason
    [_, endless] = await stack.nodes(result.id)
    assert (endless["state"], endless["status"], endless["visits"]) == ("failed", "limit", 0)
    assert result.usage.policy.calls == 9, "three rollouts, each with two retries"
    assert result.usage.sandbox.seconds < 20, "its ten seconds are spent once"


async def test_a_hopeless_problem_ends_without_an_answer_and_says_why(stack: Running) -> None:
    result = await stack.solve(HOPELESS.problem, parameters={"rollouts": 8})
    assert (result.state, result.answer, result.verification) == (SearchState.BUDGET_EXHAUSTED, None, None)
    assert result.reason
    assert "tried" in result.reason or "rollouts" in result.reason
    proof = await stack.http.get(f"/search/{result.id}/proof")
    assert proof.status_code == 404
    errors = "".join(node["stderr"] for node in await stack.nodes(result.id))
    assert "NameError" in errors or "ZeroDivisionError" in errors


@pytest.mark.parametrize("budget", [{"tokens": 400}, {"seconds": 2.0}, {"nodes": 6}])
async def test_a_budget_ends_a_search(stack: Running, budget: dict[str, float]) -> None:
    [(name, most)] = budget.items()
    result = await stack.solve(NUTS.problem, **{**LONG, "budget": {**LONG["budget"], **budget}})  # type: ignore[dict-item]
    assert is_end(SEARCH_TRANSITIONS, result.state)
    assert f"budget of {most:g} {name} used up" in (result.reason or "")
    spent = {"tokens": result.usage.policy.tokens, "nodes": result.usage.nodes}
    # At most what was in flight when the budget ended: by the first guess of their length four trajectories fit into the
    # tokens, and each may be as long as all of them.
    assert spent.get(name, 0) <= {"tokens": 4 * 400, "nodes": 406, "seconds": 0}[name]


async def test_solve_prints_the_result_of_the_running_stack(stack: Running, tmp_path: Path) -> None:
    proof = tmp_path / "proof.json"
    done = await ratchet("solve", CUPS.problem, "--json", "--data", str(stack.data), "--proof", str(proof))
    assert done.code == 0, done.stderr
    result = SearchResult.model_validate(done.json)
    assert result == await stack.result(result.id)
    assert result.answer is not None
    assert json.loads(proof.read_text())["search"] == result.id
    hopeless = await ratchet(
        "solve", HOPELESS.problem, "--json", "--rollouts", "2", "--data", str(stack.data)
    )
    assert (hopeless.code, hopeless.json["answer"]) == (1, None)


async def test_an_evaluation_goes_on_where_it_was(stack: Running, tmp_path: Path) -> None:
    problems = tmp_path / "four.jsonl"
    lines = [{"problem": known.problem, "answer": known.answer} for known in (CUPS, PENS, EGGS)]
    lines.append({"problem": HOPELESS.problem, "answer": "1"})
    problems.write_text("".join(json.dumps(line) + "\n" for line in lines))
    results = tmp_path / "results.jsonl"
    asked = ["eval", str(problems), "--data", str(stack.data), "--output", str(results), "--tokens", "800"]
    begun = await ratchet(*asked, "--limit", "2")
    assert (begun.code, begun.json["n"]) == (0, 2), begun.stderr
    kept = results.read_text()
    done = await ratchet(*asked)
    assert done.code == 0, done.stderr
    assert results.read_text().startswith(kept), "what was done is not done again"
    assert (done.json["n"], len(results.read_text().splitlines())) == (4, 4)
    assert done.json["accuracy"] in (0.5, 0.75)
    assert done.json["model"].startswith("memorised@")
    assert {
        "ci95",
        "solved_by_level",
        "tokens_per_problem",
        "seconds_per_problem",
        "seed",
    } <= done.json.keys()
