"""Does a round whose trainer is killed make what it would have made?

`make kill-trainer`, or `python -m benchmarks.trainer_kills [--kills N] [--seed N]`.

The same small round of nano, once undisturbed and once with `kill -9` of the trainer at random moments of every stage, each in
a stack of its own; the undisturbed one says how long a stage takes. Compared are the files that trainings read (trees, selected
and kept-apart solutions) and the weights that they write, byte by byte but for the ids of searches. Nothing is left to chance:
searches run one after another with one rollout in flight, for a batch of other texts changes the last bits of a likelihood, and
trainings run on one thread. After each kill, what policy and PRM serve is read again from its folder, and must have the content
that the registry promises.

The last line is a JSON object. Status 0 if every file is the same and no served checkpoint was damaged.
"""

import argparse
import asyncio
import hashlib
import itertools
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ratchet.clients import ModelServiceClient, PolicyClient, PrmClient, TrainerClient
from ratchet.contracts.rounds import RoundConfig, RoundRequest, RoundView
from ratchet.contracts.serving import PRM1
from ratchet.models.checkpoint import local_checkpoint
from ratchet.round_files import KEPT_APART_FILE, SFT_FILE, TREES_FILE, VALIDATION_FILE
from ratchet.service_client import ServiceError
from ratchet.stack.config import StackConfig, StackUrls
from ratchet.stack.local import local_stack
from ratchet.stack.supervisor import ChildState, ChildStatus
from ratchet.states import ROUND_ENDS, RoundState

RUN = "killed"
DATA_FILES = (TREES_FILE, SFT_FILE, VALIDATION_FILE, KEPT_APART_FILE)
WEIGHTS = tuple(f"{kind}/model/model.safetensors" for kind in ("policy", "prm"))
POLL_SECONDS = 0.2
BACK_SECONDS = 60.0
"""For the trainer to be started again."""
SHARES = {
    RoundState.SEARCHING: 0.4,
    RoundState.SELECTING: 0.1,
    RoundState.TRAINING_POLICY: 0.2,
    RoundState.TRAINING_PRM: 0.15,
    RoundState.EVALUATING: 0.15,
}
"""Of the kills, by stage. Moments drawn over a whole round would nearly all lie in its searches."""


def configuration(seed: int) -> RoundConfig:
    """A round of some minutes, that saves its trainings often and leaves nothing to chance."""
    training = {
        "batch_tokens": 1024,
        "micro_tokens": 1024,
        "max_length": 256,
        "seed": seed,
        "threads": 1,
        "save_every_steps": 5,
    }
    return RoundConfig.model_validate(
        {
            "train": {"spec": f"nano:train?count=60&seed={seed}", "count": 60},
            "development": {"spec": "nano:development?count=60", "count": 60},
            "held_out": {"spec": "nano:held_out?count=40", "count": 40},
            "seed": seed,
            "label": {
                "rollouts": 8,
                "in_flight": 1,
                "exploration": 1.0,
                "max_depth": 8,
                "max_tokens": 160,
                "retries": 0,
            },
            "policy": {**training, "epochs": 4, "lr": 5e-4},
            "prm": {**training, "epochs": 4, "lr": 7e-4, "batch_problems": 1, "value_weight": 1.0},
            "evaluation": {"system": False, "samples": 2, "max_tokens": 160},
            "gate": {"selection": 0, "block": 30},
        }
    )


@dataclass
class Watched:
    """What was seen while a round ran."""

    seconds: defaultdict[RoundState, float] = field(default_factory=lambda: defaultdict(float))
    """What each stage took, the time in which the trainer was away included."""
    kills: Counter[RoundState] = field(default_factory=Counter)
    checks: int = 0
    damaged: list[str] = field(default_factory=list)
    """Served versions whose folder did not hold what the registry says."""


class Stack:
    """A running stack, and how its trainer stands."""

    def __init__(self) -> None:
        self.children: Sequence[ChildStatus] = ()

    def on_status(self, children: Sequence[ChildStatus]) -> None:
        """What the supervisor tells."""
        self.children = children

    @property
    def trainer(self) -> ChildStatus:
        """The trainer as the supervisor sees it."""
        return next(child for child in self.children if child.name == "trainer")

    async def kill_trainer(self) -> None:
        """Kill it, and return when another one answers."""
        victim = self.trainer
        if victim.pid is None or victim.state is not ChildState.READY:
            return
        os.kill(victim.pid, signal.SIGKILL)
        async with asyncio.timeout(BACK_SECONDS):
            while True:
                await asyncio.sleep(POLL_SECONDS)
                now = self.trainer
                if now.pid != victim.pid and now.state is ChildState.READY:
                    return


async def check_served(urls: StackUrls, trainer: TrainerClient, cache: Path, seen: Watched) -> None:
    """Read again what policy and PRM serve, and compare it with the registry."""
    for client in (PolicyClient(urls.policy, key=urls.token), PrmClient(urls.prm, key=urls.token)):
        async with client:
            serving = await _serving(client)
            if serving is None:
                continue
            version, uri = serving
            promised = (await trainer.model(version)).sha256
            seen.checks += 1
            found = await asyncio.to_thread(local_checkpoint, Path(uri), cache)
            if promised is not None and found.sha256 != promised:
                seen.damaged.append(version)


async def _serving(client: ModelServiceClient) -> tuple[str, str] | None:
    """Version and folder of what a service answers with; None for PRM1, which has no folder."""
    held = next(each for each in await client.models() if each.serving)
    return None if held.version == PRM1 else (held.version, held.uri)


async def run_round(data: Path, seed: int, plan: "Plan | None" = None) -> tuple[RoundView, Watched]:
    """A round in a stack of its own; with a plan, its trainer is killed as that says."""
    seen, running = Watched(), Stack()
    config = StackConfig(data=data, model="nano", log_level="WARNING", env={"RATCHET_CONCURRENCY": "1"})
    async with (
        local_stack(config, running.on_status) as urls,
        TrainerClient(urls.trainer, key=urls.key) as trainer,
    ):
        view = await trainer.create_round(RoundRequest(run=RUN, config=configuration(seed)))
        looked = time.monotonic()
        while view.state not in ROUND_ENDS:
            await asyncio.sleep(POLL_SECONDS)
            stage, view = view.state, await trainer.round(view.id)
            now = time.monotonic()
            seen.seconds[stage] += now - looked
            looked = now
            if plan is not None and plan.is_due(view.state, seen):
                seen.kills[view.state] += 1
                await running.kill_trainer()
                await check_served(urls, trainer, data / "read-again", seen)
                say(f"{seen.kills.total()} of {plan.kills} kills, {view.state} {view.progress.done}")
        await check_served(urls, trainer, data / "read-again", seen)
    return view, seen


class Plan:
    """When the trainer is killed: so often in each stage, at moments that are drawn from what it takes undisturbed."""

    def __init__(self, kills: int, undisturbed: Watched, seed: int) -> None:
        self.kills = kills
        self._draw = random.Random(seed)
        self._usual = undisturbed.seconds
        self._next: dict[RoundState, float] = {}
        self._until = self._running_totals()

    def _running_totals(self) -> dict[RoundState, int]:
        """The kills at the end of each stage: what did not fit into one goes to the next."""
        ends = itertools.accumulate(SHARES.values())
        return {stage: round(self.kills * end) for stage, end in zip(SHARES, ends, strict=True)}

    def is_due(self, stage: RoundState, seen: Watched) -> bool:
        """Whether the trainer is to be killed now."""
        left = self._until.get(stage, 0) - seen.kills.total()
        if left <= 0:
            return False
        spent = seen.seconds[stage]
        if stage not in self._next:
            self._next[stage] = self._gap(stage, left)
        if spent < self._next[stage]:
            return False
        self._next[stage] = spent + self._gap(stage, max(1, left - 1))
        return True

    def _gap(self, stage: RoundState, left: int) -> float:
        """Seconds to the next of the kills that are left to the stage."""
        return self._draw.uniform(0.0, self._usual[stage] / left)


def digests(data: Path) -> dict[str, str]:
    """SHA-256 of what the round has made, by file."""
    folder = data / "rounds" / RUN / "round-1"
    return {name: hashlib.sha256(content_of(folder / name)).hexdigest() for name in (*DATA_FILES, *WEIGHTS)}


def content_of(file: Path) -> bytes:
    """What a training reads of it: the ids of searches, which differ between two rounds, are left out."""
    content = file.read_bytes()
    if file.name != TREES_FILE:
        return content
    trees = [json.loads(line) for line in content.splitlines()]
    return json.dumps([{name: tree[name] for name in tree if name != "search"} for tree in trees]).encode()


def say(message: str) -> None:
    """Tell people how far it is."""
    print(message, file=sys.stderr, flush=True)


async def measure(seed: int, kills: int, keep: Path | None) -> dict[str, Any]:
    """Both rounds, compared."""
    root = keep or Path(tempfile.mkdtemp(prefix="trainer-kills-"))
    root.mkdir(parents=True, exist_ok=True)
    try:
        undisturbed, usual = await run_round(root / "undisturbed", seed)
        took = ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in usual.seconds.items())
        say(f"undisturbed: {undisturbed.state}; {took}")
        disturbed, seen = await run_round(root / "killed", seed, Plan(kills, usual, seed))
        ends = {"undisturbed": undisturbed.state.value, "killed": disturbed.state.value}
        if any(view.metrics.prm is None for view in (undisturbed, disturbed)):
            return {"seed": seed, "ends": ends, "reason": disturbed.reason, "same": False}
        made = [digests(root / name) for name in ("undisturbed", "killed")]
        differing = sorted(name for name in made[0] if made[0][name] != made[1][name])
    finally:
        if keep is None:
            shutil.rmtree(root, ignore_errors=True)
    return {
        "seed": seed,
        "ends": ends,
        "kills": seen.kills.total(),
        "kills_by_stage": dict(seen.kills),
        "files": len(made[0]),
        "differing": differing,
        "served_checked": seen.checks,
        "served_damaged": len(seen.damaged),
        "same": not differing and not seen.damaged and ends["undisturbed"] == ends["killed"],
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20, help="of the trainer in one round (default: 20)")
    parser.add_argument("--seed", type=int, default=1, help="of the round and of the moments (default: 1)")
    parser.add_argument("--data", type=Path, help="keep both data folders here")
    options = parser.parse_args()
    try:
        found = asyncio.run(measure(options.seed, options.kills, options.data))
    except (ServiceError, TimeoutError) as error:
        sys.exit(f"The measurement stopped: {error or 'the trainer did not come back'}")
    print(json.dumps(found))
    sys.exit(0 if found["same"] else 1)


if __name__ == "__main__":
    main()
