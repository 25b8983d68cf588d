"""`kill -9` of the trainer in each stage of a round, and of what it trains in.

Damaged checkpoints and full disks are tested stage by stage: tests/integration/test_round_damage.py.
"""

from functools import partial
from pathlib import Path

import psutil

from ratchet.contracts.rounds import RoundView
from ratchet.contracts.trainer import ModelKind
from ratchet.models.checkpoint import local_checkpoint
from ratchet.states import ModelState, RoundState
from tests.small_rounds import FEW, HELD_OUT, TRAIN, Rounds, is_over, trained_versions

STAGES = (RoundState.SEARCHING, RoundState.TRAINING_POLICY, RoundState.TRAINING_PRM, RoundState.EVALUATING)
GREEDY = {"system": False}


def training(rounds: Rounds) -> list[psutil.Process]:
    """The stack's training processes."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if (
            any(word.startswith("services.trainer.") for word in words)
            and str(rounds.stack.data) in words[-1]
        ):
            found.append(process)
    return found


def under_way(view: RoundView, stage: RoundState, rounds: Rounds) -> bool:
    """In the midst of the stage: searches are over, or the training process has begun."""
    if view.state is not stage:
        return is_over(view)
    if stage in (RoundState.SEARCHING, RoundState.EVALUATING):
        return view.progress.done > 0
    return bool(training(rounds))


async def test_a_round_whose_trainer_is_killed_in_each_stage_comes_to_its_end(rounds: Rounds) -> None:
    view = await rounds.begin("killed", evaluation=GREEDY, gate={"selection": 0})
    orphans: list[psutil.Process] = []
    for stage in STAGES:
        view = await rounds.until(view, partial(under_way, stage=stage, rounds=rounds))
        assert view.state is stage, view.reason
        orphans += training(rounds)
        await rounds.stack.kill("trainer")
    assert orphans, "one was killed while it trained"
    ended = await rounds.ended(view)
    assert ended.state is RoundState.PROMOTED, ended.reason

    # Nothing was done twice, or lost.
    label, evaluation = ended.metrics.label, ended.metrics.evaluation
    assert label is not None
    assert label.searches == label.problems == TRAIN
    assert evaluation is not None
    for pair in (evaluation.incumbent, evaluation.candidate):
        assert pair.measured["held_out.greedy"].n == HELD_OUT
    assert not [process for process in orphans if process.is_running()]
    assert not training(rounds)
    for kind in ModelKind:
        [serving] = await rounds.models(kind, ModelState.SERVING)
        assert serving.version == trained_versions(ended)[kind]
        assert (await rounds.served())[kind] == serving.version
        assert local_checkpoint(Path(serving.uri), rounds.stack.data / "fresh").sha256 == serving.sha256
        waiting = await rounds.models(kind, ModelState.CANDIDATE)
        assert not [model for model in waiting if model.version.startswith("killed-")]
        made = rounds.stack.data / "rounds" / "killed" / "round-1" / kind
        assert not list(made.rglob("*.partial")), "no half of a checkpoint is left"


async def test_a_training_process_that_is_killed_fails_the_round_with_the_remedy_and_a_retry_goes_on(
    rounds: Rounds,
) -> None:
    """As a machine does that runs out of memory."""
    before = await rounds.served()
    view = await rounds.begin("out-of-memory", train=FEW, evaluation=GREEDY)
    await rounds.until(view, lambda now: under_way(now, RoundState.TRAINING_POLICY, rounds))
    [process] = training(rounds)
    process.kill()
    failed = await rounds.ended(view)
    assert failed.state is RoundState.FAILED
    assert failed.reason is not None
    assert "killed by signal 9" in failed.reason
    assert "lower micro_tokens" in failed.reason
    assert await rounds.served() == before

    await rounds.ask(failed, "retry")
    trained = await rounds.until(view, lambda now: now.state is not RoundState.TRAINING_POLICY)
    assert trained.state is RoundState.TRAINING_PRM, trained.reason
    assert trained.metrics.label == failed.metrics.label, "no problem was searched again"
    await rounds.ask(view, "cancel")
    await rounds.ended(view)
