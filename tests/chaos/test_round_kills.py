"""`kill -9` of the trainer in each stage of a round, and of what it trains in; a checkpoint that is damaged between two
stages; a full disk."""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from ratchet.contracts.rounds import RoundView
from ratchet.contracts.trainer import ModelKind
from ratchet.models.checkpoint import local_checkpoint
from ratchet.stack.supervisor import ChildState
from ratchet.states import ModelState, RoundState
from tests.small_rounds import Rounds, is_over, running_rounds, trained_versions

STAGES = (RoundState.SEARCHING, RoundState.TRAINING_POLICY, RoundState.TRAINING_PRM, RoundState.EVALUATING)
GREEDY = {"system": False}
BOUND_SECONDS = 60.0


@pytest.fixture(scope="module")
async def rounds(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rounds]:
    """A stack of its own: what is killed here is nobody else's."""
    async with running_rounds(tmp_path_factory.mktemp("round_kills")) as running:
        yield running


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


async def kill_trainer(rounds: Rounds) -> None:
    """Kill it, and return when another one runs."""
    victim = rounds.stack.child("trainer")
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGKILL)
    async with asyncio.timeout(BOUND_SECONDS):
        while (now := rounds.stack.child("trainer")).pid == victim.pid or now.state is not ChildState.READY:
            await asyncio.sleep(0.05)
    assert now.restarts == victim.restarts + 1


async def test_a_round_whose_trainer_is_killed_in_each_stage_comes_to_its_end(rounds: Rounds) -> None:
    view = await rounds.begin("killed", evaluation=GREEDY)
    orphans: list[psutil.Process] = []
    for stage in STAGES:
        view = await rounds.until(view, partial(under_way, stage=stage, rounds=rounds))
        assert view.state is stage, view.reason
        orphans += training(rounds)
        await kill_trainer(rounds)
    assert orphans, "one was killed while it trained"
    ended = await rounds.ended(view)
    assert ended.state is RoundState.PROMOTED, ended.reason

    # Nothing was done twice, or lost.
    label, evaluation = ended.metrics.label, ended.metrics.evaluation
    assert label is not None
    assert label.searches == label.problems == 60
    assert evaluation is not None
    for pair in (evaluation.incumbent, evaluation.candidate):
        assert pair.measured["held_out.greedy"].n == 40
    assert not [process for process in orphans if process.is_running()]
    assert not training(rounds)
    for kind in ModelKind:
        [serving] = await rounds.models(kind, ModelState.SERVING)
        assert serving.version == trained_versions(ended)[kind]
        assert (await rounds.served())[kind] == serving.version
        assert local_checkpoint(Path(serving.uri), rounds.stack.data / "fresh").sha256 == serving.sha256
        assert not [*await rounds.models(kind, ModelState.CANDIDATE)]
        made = rounds.stack.data / "rounds" / "killed" / "round-1" / kind
        assert not list(made.rglob("*.partial")), "no half of a checkpoint is left"


async def test_a_training_process_that_is_killed_fails_the_round_with_the_remedy_and_a_retry_ends_it(
    rounds: Rounds,
) -> None:
    """As a machine does that runs out of memory."""
    before = await rounds.served()
    few = {"spec": "nano:train?count=20", "count": 20}
    view = await rounds.begin("out-of-memory", train=few, evaluation=GREEDY)
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
    ended = await rounds.ended(view)
    assert ended.state is RoundState.PROMOTED, ended.reason
    assert ended.metrics.label == failed.metrics.label, "no problem was searched again"


@pytest.mark.parametrize("damage", ["cut", "changed"])
async def test_a_checkpoint_that_is_damaged_after_its_training_is_never_served(
    rounds: Rounds, damage: str
) -> None:
    before = await rounds.served()
    few = {"spec": "nano:train?count=20", "count": 20}
    view = await rounds.begin(f"damaged-{damage}", train=few, evaluation=GREEDY)
    await rounds.until(view, lambda now: under_way(now, RoundState.TRAINING_PRM, rounds))
    await rounds.ask(view, "pause")
    async with asyncio.timeout(BOUND_SECONDS):
        while training(rounds):
            await asyncio.sleep(0.05)
    weights = rounds.stack.data / "rounds" / view.run / "round-1" / "policy" / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1000] ^= 1
    weights.write_bytes(content if damage == "changed" else content[: len(content) // 2])
    paused = await rounds.until(view, lambda now: now.paused)
    assert paused.state is RoundState.TRAINING_PRM, "it had not ended before it was paused"
    await rounds.ask(view, "resume")
    ended = await rounds.ended(view)
    assert ended.state is RoundState.FAILED
    assert ended.reason is not None
    assert {"cut": "model.safetensors is damaged", "changed": "was changed after its training"}[
        damage
    ] in ended.reason
    assert "Traceback" not in ended.reason
    assert await rounds.served() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="a disk of its own has to be mounted")
@pytest.mark.parametrize(
    ("size", "stage", "reason"),
    [
        ("8k", RoundState.SELECTING, "No space left"),
        ("1m", RoundState.TRAINING_POLICY, "The disk is full"),
    ],
)
async def test_a_disk_that_fills_up_fails_the_round_and_the_next_one_works(
    rounds: Rounds, size: str, stage: RoundState, reason: str
) -> None:
    before = await rounds.served()
    run = f"full-{size}"
    folder = rounds.stack.data / "rounds" / run
    folder.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("nothing may be mounted here")
    few = {"spec": "nano:train?count=20", "count": 20}
    try:
        ended = await rounds.run(run, train=few, evaluation=GREEDY)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
    assert ended.state is RoundState.FAILED
    assert ended.reason is not None
    assert reason in ended.reason
    assert "Traceback" not in ended.reason
    assert stage not in ended.metrics.seconds, "it failed in this stage"
    assert await rounds.served() == before
    again = await rounds.run(run, train=few, evaluation=GREEDY)
    assert again.state is RoundState.PROMOTED, again.reason
