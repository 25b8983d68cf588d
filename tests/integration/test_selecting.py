"""The stage that selects, on searches in a real Postgres and with a real jail: what becomes training data, and what not."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet.clients import PolicyClient, PrmClient, SandboxClient
from ratchet.contracts.round_metrics import DatasetCard, RoundMetrics, StartModels
from ratchet.contracts.rounds import RoundConfig, RoundProgress
from ratchet.contracts.sandbox import RunStepsBatchRequest, RunStepsBatchResponse
from ratchet.contracts.search import Usage
from ratchet.contracts.serving import PRM1
from ratchet.problems import Problem, problem_id
from ratchet.queue import SearchQueue
from ratchet.settings import TrainerSettings
from ratchet.states import NodeState, RoundState, SearchState
from ratchet.store import tables as t
from ratchet.store.calibrations import CalibrationStore
from ratchet.store.engine import transaction
from ratchet.store.nodes import NodeRecord
from ratchet.store.pairs import PairStore
from ratchet.store.registry import Registry
from ratchet.store.round_searches import RoundSearchStore
from ratchet.store.rounds import RoundStore
from ratchet.store.search_results import SearchOutcome
from ratchet.store.searches import SearchStore
from services.trainer.holding import Serving
from services.trainer.selection import Dropped
from services.trainer.stages.context import Context, RoundFailedError
from services.trainer.stages.select import select
from tests.integration.round_claims import a_run, begin, claim_round, requests
from tests.sandbox_server import TOKEN, Sandbox, sandbox

__all__ = ["sandbox"]

PROBLEMS = 16
"""In a round: six of them are kept apart."""


def problem(number: int) -> Problem:
    """Rolls of a baker: 6 * (20 + number) - 17."""
    text = f"A baker bakes {20 + number} trays of 6 rolls and sells 17 of them. How many rolls are left?"
    answer = str(6 * (20 + number) - 17)
    return Problem(problem_id(text, answer), text, answer, f"file:{number}", "packs", 1)


def computed(number: int, way: int = 0) -> list[str]:
    """Programs that compute the answer, no two in the same way."""
    ways = [
        [f"rolls = {20 + number} * 6", "print(rolls - 17)"],
        [f"left = 0\nfor _ in range({20 + number}):\n    left += 6", "left -= 17\nprint(left)"],
        [f"print(sum([6] * {20 + number}) - 17)"],
    ]
    return ways[way]


def misread(number: int, way: int = 0) -> list[str]:
    """Programs that all sell no roll, and compute that."""
    ways = [
        [f"rolls = {20 + number} * 6", "print(rolls)"],
        [f"print(sum([6] * {20 + number}))"],
        [f"left = 0\nfor _ in range({20 + number}):\n    left += 6", "print(left)"],
    ]
    return ways[way]


def answer_to(number: int) -> str:
    return str(6 * (20 + number) - 17)


class Counting(SandboxClient):
    """The client, which counts what it asks for."""

    requests = 0

    async def run_steps_batch(self, request: RunStepsBatchRequest) -> RunStepsBatchResponse:
        self.requests += 1
        return await super().run_steps_batch(request)


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncIterator[Counting]:
    async with Counting(str(sandbox.http.base_url), key=TOKEN) as client:
        yield client


@pytest.fixture(autouse=True)
async def _no_round_is_left(engine: AsyncEngine) -> AsyncIterator[None]:
    yield
    async with transaction(engine) as connection:
        await connection.execute(t.rounds.update().values(state=RoundState.FAILED))


Programs = Sequence[tuple[Sequence[str], str]]
"""Programs with the answer that each gave in its search."""


def a_tree(programs: Programs, right: str, prm: float) -> list[NodeRecord]:
    """Each was drawn from the root."""
    n = len(programs)
    nodes = [NodeRecord("n", None, -1, 0, NodeState.OPEN, "-1", visits=n, expansions=n)]
    for number, (steps, answer) in enumerate(programs):
        for place, text in enumerate(steps):
            last = place == len(steps) - 1
            nodes.append(
                NodeRecord(
                    f"n.{number}.{place}",
                    "n" if place == 0 else f"n.{number}.{place - 1}",
                    100 * number + place,
                    place + 1,
                    NodeState.TERMINAL if last else NodeState.OPEN,
                    f"t{number}",
                    text=text,
                    visits=1,
                    value_sum=1.0 if answer == right else -1.0,
                    prm_score=prm,
                    answer=answer if last else None,
                )
            )
    return nodes


async def selected(
    engine: AsyncEngine,
    client: SandboxClient,
    folder: Path,
    attempts: Sequence[Mapping[int, Programs]],
    *,
    run: str | None = None,
    prm: str = PRM1,
    **settings: Any,
) -> tuple[Context, DatasetCard]:
    """What the stage makes of searches, given by attempt and problem, of the next round of a run."""
    rounds, searches, store = RoundStore(engine), RoundSearchStore(engine), SearchStore(engine)
    await begin(rounds, run)
    claim = await claim_round(rounds)
    problems = [problem(number) for number in range(PROBLEMS)]
    await rounds.add_problems(claim, "train", problems)
    for attempt, found in enumerate(attempts):
        asked = requests([each.text for each in problems])
        chosen = {place: asked[place].model_copy(update={"seed": 100 * attempt + place}) for place in found}
        for planned in await searches.plan(claim, "label", attempt, chosen):
            held = await store.claim(planned.id, "w", 30.0, 5)
            assert held is not None
            place = next(place for place, each in chosen.items() if each.problem == held.request.problem)
            await store.journal(held, a_tree(found[place], answer_to(place), 0.9), Usage())
            await store.finish(held, SearchState.BUDGET_EXHAUSTED, SearchOutcome())
    models = StartModels(base="b", base_uri="/b", policy="p", policy_uri="/p", prm=prm)
    told: list[RoundProgress] = []

    async def report(progress: RoundProgress) -> None:
        told.append(progress)

    nowhere = "http://127.0.0.1:9"
    async with PolicyClient(nowhere) as policy, PrmClient(nowhere) as scores:
        context = Context(
            settings=TrainerSettings(rounds_dir=folder),
            claim=replace(claim, metrics=RoundMetrics(models=models), config=RoundConfig(**settings)),
            serving=Serving(Registry(engine), PairStore(engine), rounds, {}),
            searches=searches,
            calibrations=CalibrationStore(engine),
            queue=SearchQueue("redis://127.0.0.1:9/0", "nobody"),
            policy=policy,
            prm=scores,
            sandbox=client,
            report=report,
        )
        try:
            found_metrics = await select(context)
        finally:
            await rounds.advance(claim, RoundState.FAILED, RoundMetrics(), "over")
    assert found_metrics.selection is not None
    return context, found_metrics.selection


def lines(context: Context, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (context.folder / name).read_text().splitlines()]


def kept_apart(context: Context) -> set[str]:
    found: list[str] = json.loads((context.folder / "kept_apart.json").read_text())
    return set(found)


def programs_of(context: Context, number: int) -> list[list[str]]:
    """What was taken of a problem, in whichever file."""
    return [
        line["steps"]
        for name in ("sft.jsonl", "validation.jsonl")
        for line in lines(context, name)
        if line["id"] == problem(number).id
    ]


def all_solved(ways: int = 1) -> dict[int, Programs]:
    return {n: [(computed(n, way), answer_to(n)) for way in range(ways)] for n in range(PROBLEMS)}


async def test_only_programs_that_compute_the_answer_again_become_training_data(
    engine: AsyncEngine, client: Counting, tmp_path: Path
) -> None:
    found = all_solved()
    written, by_chance = (
        [f"print({answer_to(0)})"],
        ["import time", f"print({answer_to(0)} if time.time() < 1 else 5)"],
    )
    found[0] = [(written, answer_to(0)), (by_chance, answer_to(0)), (computed(0), answer_to(0))]
    found[1] = [(written, answer_to(1)), (["print(1 / 0)"], answer_to(1))]
    context, card = await selected(engine, client, tmp_path, [found])
    assert programs_of(context, 0) == [computed(0)]
    assert programs_of(context, 1) == []
    assert all(programs_of(context, n) == [computed(n)] for n in range(2, PROBLEMS))
    assert card.dropped == {Dropped.UNGROUNDED: 1, Dropped.NOT_REPEATED: 3}
    assert (card.solved, card.selected_problems) == (PROBLEMS, PROBLEMS - 1)


HOSTILE = [
    ["while True: pass"],
    ["import os\nos._exit(0)"],
    ["import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"],
    ["print('x' * 10**7)"],
    ["print(" + "(" * 400 + "1" + ")" * 400 + ")"],
    ["x = '\ufffd'\nprint('\ud800')".encode("utf-8", "replace").decode()],
    ["def f(:"],
    ["print('\\\\frac{' * 300)"],
    ["raise SystemExit('37')"],
    [""],
    ["print(10 ** 10 ** 6 % 10**400)"],
]


async def test_nothing_that_a_policy_wrote_makes_the_stage_fail(
    engine: AsyncEngine, client: Counting, tmp_path: Path
) -> None:
    found = all_solved()
    for number, program in enumerate(HOSTILE):
        # In its search it gave the right answer, somehow.
        found[number] = [(program, answer_to(number)), *found[number]]
    context, card = await selected(engine, client, tmp_path, [found])
    for number in range(PROBLEMS):
        assert programs_of(context, number) == [computed(number)]
    assert sum(card.dropped.values()) == len(HOSTILE)


async def test_the_programs_of_a_round_are_run_again_by_few_requests(
    engine: AsyncEngine, client: Counting, tmp_path: Path
) -> None:
    context, card = await selected(engine, client, tmp_path, [all_solved(3)], selection={"per_problem": 2})
    assert card.trajectories_selected == 2 * PROBLEMS
    assert card.dropped == {Dropped.SURPLUS: PROBLEMS}
    assert client.requests == 2, "the programs, and their variants"
    for name in ("sft.jsonl", "validation.jsonl"):
        assert {line["weight"] for line in lines(context, name)} == {0.5}


async def test_unverified_selection_runs_nothing_and_takes_any_answer(
    engine: AsyncEngine, client: Counting, tmp_path: Path
) -> None:
    found: dict[int, Programs] = {n: [([f"print({n})"], str(n))] for n in range(PROBLEMS)}
    _, card = await selected(engine, client, tmp_path, [found], selection={"how": "unverified"})
    assert (card.solved, card.trajectories_selected, client.requests) == (0, PROBLEMS, 0)


async def test_problems_are_kept_apart_from_training_in_every_round_of_a_run(
    engine: AsyncEngine, client: Counting, tmp_path: Path
) -> None:
    run = a_run()
    first, card = await selected(engine, client, tmp_path, [all_solved()], run=run)
    apart = kept_apart(first)
    assert len(apart) == card.kept_apart == 6
    assert {line["id"] for line in lines(first, "validation.jsonl")} == apart
    assert {line["id"] for line in lines(first, "sft.jsonl")} == {
        p.id for p in map(problem, range(16))
    } - apart
    assert (card.rows, card.validation_rows) == (10, 6)
    assert {line["problem_id"] for line in lines(first, "trees.jsonl")} > apart

    # The second round solves four of them; the others come from the first, split as this round draws.
    some = {n: programs for n, programs in all_solved(2).items() if n < 4}
    second, card = await selected(engine, client, tmp_path, [some], run=run, kept_apart=0.5)
    assert (card.kept_apart, card.from_earlier_rounds) == (8, 12)
    apart = kept_apart(second)
    assert {line["id"] for line in lines(second, "validation.jsonl")} == apart
    training = lines(second, "sft.jsonl")
    assert {line["id"] for line in training} == {p.id for p in map(problem, range(16))} - apart
    assert {line["weight"] for line in training if line["round"] == 1} == {1.0}
    assert {line["weight"] for line in training if line["round"] == 2} <= {0.5}


def wrong(number: int, ways: int = 3) -> Programs:
    return [(misread(number, way), str(6 * (20 + number))) for way in range(ways)]


async def test_a_problem_is_set_aside_after_a_second_look_and_until_a_person_overrules_it(
    engine: AsyncEngine, client: Counting, tmp_path: Path
) -> None:
    run, store = a_run(), RoundStore(engine)
    # Problem 0 loses in both searches, 1 was searched once, 2 has too few programs in the second, 3 only writes down.
    said: Programs = [([f"print({6 * 23})  # {n}"], str(6 * 23)) for n in range(3)]
    once = all_solved() | {0: wrong(0), 1: wrong(1), 2: wrong(2), 3: said}
    again = {0: wrong(0), 2: wrong(2, ways=2), 3: said}
    context, card = await selected(engine, client, tmp_path, [once, again], run=run, prm="prm@1")
    [entry] = await store.quarantined(run=run)
    assert (entry.id, entry.reference, entry.answer) == (problem(0).id, answer_to(0), "120")
    assert (entry.programs, entry.prm_score, entry.overruled_at) == (6, 0.9, None)
    assert (card.quarantined, card.dropped[Dropped.QUARANTINED]) == (1, 6)
    assert entry.id not in kept_apart(context)
    assert card.trees == PROBLEMS + 1, "not those of the problem that is set aside"

    # What an earlier round had taken of it is not trained on, and no tree of it counts.
    with (context.folder / "sft.jsonl").open("a") as file:
        file.write(json.dumps({"id": entry.id, "problem": "x", "steps": ["print(1)"], "round": 1}) + "\n")
    later, card = await selected(engine, client, tmp_path, [all_solved()], run=run, prm="prm@1")
    assert await store.quarantined(run=run) == [entry]
    assert programs_of(later, 0) == []

    overruled = await store.overrule(run, entry.id)
    assert overruled is not None
    assert overruled.overruled_at is not None
    last, card = await selected(engine, client, tmp_path, [once, again], run=run, prm="prm@1")
    assert card.quarantined == 0, "never a second time"
    assert await store.quarantined(run=run) == [overruled]
    assert programs_of(last, 0), "it is trained on again"


async def test_as_long_as_no_prm_was_trained_nothing_is_set_aside(
    engine: AsyncEngine, client: Counting, tmp_path: Path
) -> None:
    _, card = await selected(
        engine, client, tmp_path, [all_solved() | {0: wrong(0)}, {0: wrong(0)}], prm=PRM1
    )
    assert (card.quarantined, card.dropped) == (0, {Dropped.WRONG: 6})


async def test_where_nothing_stands_the_round_says_so(
    engine: AsyncEngine, client: Counting, tmp_path: Path
) -> None:
    written: dict[int, Programs] = {n: [([f"print({answer_to(n)})"], answer_to(n))] for n in range(PROBLEMS)}
    with pytest.raises(RoundFailedError, match="Nothing to learn from: of 16 problems, 16 solved"):
        await selected(engine, client, tmp_path, [written])
