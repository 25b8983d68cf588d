"""Rounds on nano through all services: one that is promoted, one that is rejected, and all that can go wrong with one."""

import asyncio
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from ratchet.contracts.rounds import RoundView
from ratchet.contracts.search import StrategyName
from ratchet.contracts.trainer import ModelKind
from ratchet.models.checkpoint import local_checkpoint
from ratchet.stack.data_folder import problems_folder
from ratchet.states import ModelState, RoundState
from ratchet.store import tables as t
from ratchet.store.engine import make_engine, transaction
from ratchet.summary import run_summary
from services.trainer.gate import preferred
from tests.running_stack import ratchet
from tests.small_rounds import (
    CHOOSING,
    DEVELOPMENT,
    FEW,
    HELD_OUT,
    HELD_OUT_SYSTEM,
    SAMPLES,
    TRAIN,
    Rounds,
    is_over,
    promoted_pair,
    small,
    trained_versions,
)

BASE = "nano@"
STRICT = {"margin": 0.02, "false_promotion": 0.1, "false_rejection": 0.3}
"""A gate that sees with a dozen problems that a policy is ruined."""
PROBLEM = "There are 7 cups in a box. How many cups are in 9 boxes?"


@pytest.fixture(scope="module")
async def base(rounds: Rounds) -> dict[str, str]:
    """What serves before there was a round."""
    return await rounds.served()


@pytest.fixture(scope="module")
async def promoted(rounds: Rounds, base: dict[str, str]) -> RoundView:
    """The first round of the run, at its end. Its gate lets everything pass, so that there is something to look at."""
    assert base["policy"].startswith(BASE)
    return await rounds.run("first")


def problem_file(rounds: Rounds, name: str, answers: list[str]) -> dict[str, Any]:
    """A JSON Lines file with a problem for each answer, where the trainer reads files, as a source."""
    file = problems_folder(rounds.stack.data) / name
    file.parent.mkdir(exist_ok=True)
    lines = [
        json.dumps(
            {"problem": f"Alice has {n} dreams and tells {n + 3} of them. What remains?", "answer": each}
        )
        for n, each in enumerate(answers, 11)
    ]
    file.write_text("\n".join(lines) + "\n")
    return {"spec": name, "count": len(answers)}


async def test_a_round_ends_with_every_measurement_and_its_report(
    rounds: Rounds, promoted: RoundView
) -> None:
    assert promoted.state is RoundState.PROMOTED, promoted.reason
    assert promoted.ended_at is not None
    metrics = promoted.metrics
    assert set(metrics.seconds) == set(list(RoundState)[:6])
    assert metrics.problems is not None
    splits = (metrics.problems.train, metrics.problems.development, metrics.problems.held_out)
    assert [split.problems for split in splits] == [TRAIN, DEVELOPMENT, HELD_OUT]
    label, selection = metrics.label, metrics.selection
    assert label is not None
    assert (label.problems, label.searches, label.failed) == (TRAIN, TRAIN, 0)
    assert 0 < label.solved <= TRAIN
    assert label.coverage == round(label.solved / TRAIN, 4)
    assert label.tokens > 0
    assert selection is not None
    assert selection.solved == label.solved
    assert selection.rows > 0
    assert selection.validation_rows > 0
    rows = selection.rows + selection.validation_rows
    assert rows == selection.trajectories_selected >= selection.selected_problems
    assert metrics.policy is not None
    assert metrics.prm is not None
    assert metrics.prm.quality.pooled_step_auc.value is not None
    assert metrics.prm.quality.within_step_auc is not None
    assert metrics.evaluation is not None
    reported = {"greedy": HELD_OUT} | dict.fromkeys(("mcts", "best_of_n", "majority"), HELD_OUT_SYSTEM)
    incumbent, candidate = metrics.evaluation.incumbent, metrics.evaluation.candidate
    reference = metrics.evaluation.reference
    assert reference is not None
    for pair in (incumbent, candidate, reference):
        for name, figures in pair.measured.items():
            low, high = figures.ci95
            assert low <= figures.accuracy <= high
            assert sum(map(int, figures.outcomes)) == figures.right
            assert figures.samples == (SAMPLES if name == "development.samples" else 1)
            assert figures.answered is not None
            assert figures.right <= figures.answered * figures.samples <= figures.n * figures.samples
    for pair in (incumbent, candidate):
        held_out = {name: each.n for name, each in pair.measured.items() if name.startswith("held_out.")}
        assert held_out == {f"held_out.{name}": n for name, n in reported.items()}
    verdict = metrics.gate
    assert verdict is not None
    assert verdict.promoted
    assert (verdict.candidate, verdict.reference) == (candidate.pair, reference.pair)
    assert "development.mcts" in verdict.comparisons
    for name, comparison in verdict.comparisons.items():
        assert comparison.n == DEVELOPMENT - CHOOSING
        assert comparison.n == candidate.measured[name].n == reference.measured[name].n
    new, old = metrics.policy.version, incumbent.pair.partition(" ")[0]
    made = [(new, metrics.prm.version), (new, "prm1-likelihood"), (old, metrics.prm.version)]
    pairs = [" ".join(pair) for pair in [*made, (old, "prm1-likelihood")]]
    assert set(verdict.selection) == set(pairs)
    assert {each.n for each in verdict.selection.values()} == {CHOOSING}
    assert verdict.candidate == preferred({key: verdict.selection[key].outcomes for key in pairs[:3]})
    summary = run_summary([promoted])
    assert (summary["held_out"], summary["held_out_system"]) == (HELD_OUT, HELD_OUT_SYSTEM)
    assert None not in [
        summary["base"],
        *(summary["rounds"][0][name] for name in ("policy_pass1", "prm_step_auc")),
    ]

    folder = rounds.stack.data / "rounds" / "first"
    [reported] = json.loads((folder / "report.json").read_text())["rounds"]
    assert (reported["id"], reported["state"]) == (promoted.id, "promoted")
    assert reported["metrics"] == metrics.model_dump(mode="json")
    assert reported["ended_at"]
    data = (folder / "round-1" / "sft.jsonl").read_bytes()
    assert hashlib.sha256(data).hexdigest() == selection.sha256
    assert len(data.splitlines()) == selection.rows


async def test_from_a_promoted_version_one_can_walk_back_to_its_data(
    rounds: Rounds, promoted: RoundView
) -> None:
    policy, prm = trained_versions(promoted)["policy"], trained_versions(promoted)["prm"]
    assert promoted.metrics.selection is not None
    assert promoted.metrics.models is not None
    engine = make_engine(rounds.stack.urls.database)
    try:
        async with transaction(engine) as connection:
            models = {
                row.version: row
                for row in await connection.execute(
                    select(t.models).where(t.models.c.version.in_([policy, prm]))
                )
            }
            dataset = (
                await connection.execute(select(t.datasets).where(t.datasets.c.id == models[policy].dataset))
            ).one()
            evaluations = (
                await connection.execute(select(t.evaluations.c.split).where(t.evaluations.c.model == policy))
            ).scalars()
            searches = (
                await connection.execute(
                    select(t.searches.c.id).where(t.searches.c.round_id == dataset.round_id)
                )
            ).all()
    finally:
        await engine.dispose()
    assert str(dataset.round_id) == promoted.id
    assert dataset.sha256 == promoted.metrics.selection.sha256
    assert models[prm].parent == policy
    assert models[policy].parent == promoted.metrics.models.base
    assert models[prm].dataset == models[policy].dataset
    assert sorted(evaluations) == ["development", "held_out"]
    # Label searches; of both policies samples for the choice; of both pairs what is compared, the policy alone, two strategies.
    testing = (
        len(promoted.metrics.gate.comparisons) * (DEVELOPMENT - CHOOSING) if promoted.metrics.gate else 0
    )
    assert len(searches) == TRAIN + 2 * (CHOOSING + testing + HELD_OUT + 2 * HELD_OUT_SYSTEM)


async def test_what_was_promoted_answers_a_plain_search(rounds: Rounds, promoted: RoundView) -> None:
    expected = promoted_pair(promoted)
    assert await rounds.served() == expected
    newest = (await rounds.trainer.get("/pairs")).json()["pairs"][0]
    assert (newest["policy"], newest["prm"]) == (expected["policy"], expected["prm"])
    assert (newest["why"], newest["round"]) == ("round", promoted.id)
    result = await rounds.stack.solve(PROBLEM, parameters={"rollouts": 4})
    assert result.models["policy"] == expected["policy"]
    assert result.models["prm"].startswith(expected["prm"])
    assert result.answer is not None, "it knows this family"


async def test_a_second_round_of_a_run_waits_for_the_first_and_both_can_be_steered(
    rounds: Rounds, promoted: RoundView
) -> None:
    before = await rounds.served()
    second = await rounds.begin("first", train={"spec": "nano:train?count=400", "count": 400})
    assert second.number == 2
    refused = await rounds.trainer.post("/rounds", json={"run": "first", "config": small()})
    assert refused.status_code == 409
    assert "Round 2 of the run 'first' is" in refused.json()["detail"]

    searching = await rounds.until(second, lambda view: view.progress.done > 0)
    assert searching.state is RoundState.SEARCHING
    assert (await rounds.ask(second, "pause")).paused
    still = (await rounds.until(second, lambda view: view.paused)).progress
    await asyncio.sleep(1.5)
    stopped = await rounds.until(second, lambda view: view.paused)
    assert stopped.state is RoundState.SEARCHING
    assert stopped.progress.done <= still.done + 60, "nobody counts for a round that is paused"
    assert not (await rounds.ask(second, "resume")).paused
    await rounds.until(second, lambda view: view.progress.done > stopped.progress.done)

    await rounds.ask(second, "cancel")
    ended = await rounds.ended(second)
    assert (ended.state, ended.reason) == (RoundState.FAILED, "cancelled on request")
    assert ended.metrics.problems is not None
    assert ended.metrics.problems.train.problems == 400, "what was gathered stays"
    for what in ("pause", "resume", "cancel"):
        assert (await rounds.trainer.post(f"/rounds/{second.id}/{what}")).status_code == 409
    assert await rounds.served() == before


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"run": "a b"}, "run"),
        ({"config": {"train": {"spec": "nano:train", "count": 0}}}, "config.train.count"),
        ({"config": {"policy": {"lr": -1}}}, "config.policy.lr"),
        ({"config": {"prm": {"epoch": 2}}}, "config.prm.epoch"),
        ({"config": {"gate": {"margin": 0}}}, "config.gate.margin"),
    ],
)
async def test_a_bad_field_of_a_round_is_named(rounds: Rounds, body: dict[str, Any], field: str) -> None:
    response = await rounds.trainer.post("/rounds", json=body)
    assert response.status_code == 422, response.text
    assert [error["field"] for error in response.json()["errors"]] == [field]
    assert field in response.json()["detail"]


async def test_training_on_what_is_held_out_is_refused(rounds: Rounds) -> None:
    source = {"spec": "nano:train", "count": 10}
    response = await rounds.trainer.post("/rounds", json={"config": {"train": source, "held_out": source}})
    assert response.status_code == 422
    assert "train must not overlap held_out" in response.json()["detail"]


async def fails_and_changes_nothing(rounds: Rounds, run: str, reason: str, **changes: Any) -> RoundView:
    before = await rounds.served()
    ended = await rounds.run(run, **changes)
    assert ended.state is RoundState.FAILED, ended.metrics.gate
    assert ended.reason is not None
    assert reason in ended.reason
    assert "Traceback" not in ended.reason
    assert await rounds.served() == before
    return ended


async def test_a_round_on_unverifiable_problems_fails_and_says_why(rounds: Rounds) -> None:
    source = problem_file(rounds, "dreams.jsonl", ["It depends on what you mean by that."] * 4)
    await fails_and_changes_nothing(rounds, "dreams", "The problems of train cannot be used.", train=source)


async def test_a_round_in_which_nothing_is_solved_fails_and_keeps_its_searches(rounds: Rounds) -> None:
    source = problem_file(rounds, "hard.jsonl", [str(10**9 + 7 * n) for n in range(8)])
    ended = await fails_and_changes_nothing(
        rounds, "hopeless", "Nothing to learn from: none of 8 problems was solved", train=source
    )
    assert ended.metrics.label is not None
    assert (ended.metrics.label.solved, ended.metrics.label.searches) == (0, 8)


async def test_a_training_that_diverges_fails_the_round_which_goes_on_with_another_rate(
    rounds: Rounds, promoted: RoundView
) -> None:
    failed = await fails_and_changes_nothing(rounds, "nan", "lower lr", train=FEW, policy={"lr": 1e30})
    assert failed.metrics.policy is None
    assert failed.metrics.selection is not None
    assert failed.metrics.selection.rows > 0
    assert failed.failed_in is RoundState.TRAINING_POLICY

    used = {"config": small(train=FEW, label={"rollouts": 5})}
    refused = await rounds.trainer.post(f"/rounds/{failed.id}/retry", json=used)
    assert refused.status_code == 422
    assert [error["field"] for error in refused.json()["errors"]] == ["config.label"]
    # The same command again. Its rate ruins the model: nothing is promoted, and the tests after this one find what they know.
    evaluation = {"system": False, "max_tokens": 80}
    policy = {"lr": 0.2, "epochs": 1}
    config = small(policy=policy, prm=None, evaluation=evaluation, gate=STRICT)
    overrides = [
        f"--set={name}={json.dumps(config[name])}" for name in ("policy", "prm", "evaluation", "gate")
    ]
    before = await rounds.served()
    command = ["rounds", "run", "--rounds=1", "--run=nan", f"--url={rounds.stack.urls.trainer}"]
    done = await ratchet(*command, *overrides, RATCHET_KEY=rounds.stack.urls.key)
    assert done.code == 0, done.stderr
    assert "round 1 of nan goes on with training_policy" in done.stderr
    assert done.json["rounds"][0]["state"] == "rejected"
    ended = await rounds.ended(failed)
    assert ended.config.policy.lr == 0.2
    for stage in ("problems", "label", "selection"):
        assert getattr(ended.metrics, stage) == getattr(failed.metrics, stage), "it was not done again"
    assert await rounds.served() == before
    again = await rounds.trainer.post(f"/rounds/{failed.id}/retry")
    assert again.status_code == 409
    assert "Only a failed round can be retried; this one is rejected" in again.json()["detail"]


async def test_a_round_that_makes_the_policy_worse_is_rejected(rounds: Rounds, promoted: RoundView) -> None:
    before = await rounds.served()
    ended = await rounds.run(
        "ruin",
        train=FEW,
        policy={"lr": 0.2, "epochs": 1},
        prm=None,
        gate=STRICT,
        evaluation={"system": False, "max_tokens": 80},
    )
    assert ended.state is RoundState.REJECTED, ended.reason
    assert ended.reason is not None
    assert ended.reason == "worse than the best pair so far: development.samples"
    assert await rounds.served() == before
    version = trained_versions(ended)["policy"]
    assert version in [model.version for model in await rounds.models(ModelKind.POLICY, ModelState.REJECTED)]
    response = await rounds.trainer.post(f"/models/{version}/serve")
    assert response.status_code == 409
    assert "was rejected by its gate" in response.json()["detail"]


async def held(rounds: Rounds) -> list[str]:
    """What the policy service holds, the serving version first."""
    models = (await rounds.trainer.get(f"{rounds.stack.urls.policy}/models")).json()["models"]
    return [each["version"] for each in models]


async def test_a_round_that_is_cancelled_while_it_evaluates_leaves_no_candidate_behind(
    rounds: Rounds, promoted: RoundView
) -> None:
    before = await held(rounds)
    view = await rounds.begin("ruin", train=FEW, policy={"lr": 0.2, "epochs": 1}, prm=None)
    await rounds.until(view, lambda now: is_over(now) or now.progress.stage == "evaluating")
    await rounds.ask(view, "cancel")
    ended = await rounds.ended(view)
    assert ended.state is RoundState.FAILED
    assert ended.metrics.models is not None
    async with asyncio.timeout(30):
        # What an earlier round has left may go too.
        while not set(await held(rounds)) <= {*before, ended.metrics.models.base}:
            await asyncio.sleep(0.1)


async def test_any_number_of_versions_can_be_served_in_turn_and_a_damaged_one_changes_nothing(
    rounds: Rounds, promoted: RoundView, tmp_path: Path
) -> None:
    now = promoted.metrics.policy
    assert now is not None
    for number in range(5):
        copy = Path(shutil.copytree(now.uri, tmp_path / f"copy-{number}"))
        (copy / "config.json").write_text((copy / "config.json").read_text() + " " * (number + 1))
        found = local_checkpoint(copy, tmp_path / "cache")
        body = {
            "version": found.version, "kind": "policy", "uri": str(copy), "sha256": found.sha256,
            "parent": now.version,
        }  # fmt: skip
        assert (await rounds.trainer.post("/models", json=body)).status_code == 201
        if number == 4:
            weights = copy / "model.safetensors"
            weights.write_bytes(weights.read_bytes()[:-100])
        before = await rounds.served()
        response = await rounds.trainer.post(f"/models/{found.version}/serve")
        if number < 4:
            assert response.status_code == 200, response.text
            assert (await rounds.served())["policy"] == found.version
    assert response.status_code == 409
    assert "model.safetensors is damaged" in response.json()["detail"]
    assert await rounds.served() == before
    assert [each.version for each in await rounds.models(ModelKind.POLICY, ModelState.SERVING)] == [
        before["policy"]
    ]
    assert (await rounds.trainer.post(f"/models/{now.version}/serve")).status_code == 200


async def test_going_back_and_forward_again_fails_no_search(
    rounds: Rounds, base: dict[str, str], promoted: RoundView
) -> None:
    new = trained_versions(promoted)["policy"]
    used: set[str] = set()
    done = asyncio.Event()

    async def search(seed: int) -> None:
        while not done.is_set():
            result = await rounds.stack.solve(
                PROBLEM, seed=seed, strategy="majority", parameters={"rollouts": 3}
            )
            assert result.state in ("solved_verified", "answered_unverified"), result.reason
            used.add(result.models["policy"])

    async def switch(version: str) -> None:
        response = await rounds.trainer.post(f"/models/{version}/serve")
        assert response.status_code == 200, response.text
        assert (await rounds.served())["policy"] == version
        used.clear()
        async with asyncio.timeout(60):
            while version not in used:
                await asyncio.sleep(0.05)

    async with asyncio.TaskGroup() as group:
        for seed in range(3):
            group.create_task(search(seed))
        for version in (base["policy"], new):
            await switch(version)
        done.set()
    [serving] = await rounds.models(ModelKind.POLICY, ModelState.SERVING)
    assert serving.version == new


async def test_independent_samples_label_at_the_price_of_a_tree_and_train_a_policy_without_a_prm(
    rounds: Rounds, promoted: RoundView
) -> None:
    tokens = 250
    label = {"tokens": tokens, "retries": 0}
    changes: dict[str, Any] = {"train": FEW, "selection": {"how": "random"}, "prm": None}
    tree = await rounds.begin("tree", label=label, **changes)
    tree = await rounds.until(tree, lambda now: now.metrics.label is not None or is_over(now))
    await rounds.ask(tree, "cancel")
    await rounds.ended(tree)
    samples = await rounds.run(
        "samples",
        label=label | {"strategy": "best_of_n"},
        evaluation={"system": False, "max_tokens": 80},
        **changes,
    )
    assert samples.state in (RoundState.PROMOTED, RoundState.REJECTED), samples.reason
    assert samples.metrics.policy is not None
    assert samples.metrics.policy.step_format == "markers", "as its base is served"
    assert samples.metrics.prm is None
    for view in (tree, samples):
        assert view.metrics.label is not None
        assert view.metrics.label.tokens / FEW["count"] == pytest.approx(tokens, rel=0.2)
    engine = make_engine(rounds.stack.urls.database)
    try:
        async with transaction(engine) as connection:
            for view, strategy in ((tree, StrategyName.MCTS), (samples, StrategyName.BEST_OF_N)):
                asked = (
                    select(t.searches.c.strategy)
                    .join(t.round_searches, t.round_searches.c.search_id == t.searches.c.id)
                    .where(t.round_searches.c.round_id == view.id, t.round_searches.c.purpose == "label")
                )
                found = list((await connection.execute(asked)).scalars())
                assert found == [strategy] * FEW["count"]
    finally:
        await engine.dispose()
