"""Small rounds for tests: nano on a stack of its own, with so few problems that a round takes seconds."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import select

from ratchet.contracts.rounds import Disagreement, RoundView
from ratchet.contracts.trainer import ModelKind, ModelView
from ratchet.problems import problem_id
from ratchet.states import ROUND_ENDS, ModelState
from ratchet.store import tables as t
from ratchet.store.engine import make_engine, transaction
from tests.running_stack import Running, running_stack

NANO = Path("nano")
TRAIN, DEVELOPMENT, HELD_OUT, CHOOSING, SAMPLES = 30, 12, 12, 4, 2
HELD_OUT_SYSTEM = 8
"""Problems of each split, those of development that choose the pair which is tested, and samples of a policy."""
FEW: dict[str, Any] = {"spec": "nano:train?count=20", "count": 20}
"""Training problems for a round that is about something else."""
WHY_ASIDE = Disagreement(answer="41", programs=3, prm_score=0.9)
"""What speaks against a problem that a test sets aside."""
PROMOTE_ANYWAY = {"margin": 1.0, "false_promotion": 0.49, "false_rejection": 1e-9}
SMALL: dict[str, Any] = {
    "train": {"spec": f"nano:train?count={TRAIN}", "count": TRAIN},
    "development": {"spec": f"nano:development?count={DEVELOPMENT}", "count": DEVELOPMENT},
    "held_out": {"spec": f"nano:held_out?count={HELD_OUT}", "count": HELD_OUT},
    "label": {
        "rollouts": 4,
        "exploration": 1.0,
        "max_depth": 8,
        "max_tokens": 160,
        "batch_rollouts": True,
        "retries": 0,
    },
    "policy": {
        "epochs": 2,
        "lr": 5e-4,
        "batch_tokens": 1024,
        "micro_tokens": 1024,
        "max_length": 256,
        "threads": 1,
    },
    "prm": {
        "epochs": 1,
        "lr": 7e-4,
        "batch_tokens": 4096,
        "max_length": 256,
        "value_weight": 1.0,
        "margin": 0.3,
        "edit_distance": 1,
        "threads": 1,
    },
    "evaluation": {
        "held_out_system": HELD_OUT_SYSTEM,
        "tokens": 200,
        "rollouts": 8,
        "exploration": 1.0,
        "max_tokens": 160,
        "batch_rollouts": True,
        "samples": SAMPLES,
    },
    "gate": {**PROMOTE_ANYWAY, "selection": CHOOSING, "block": DEVELOPMENT - CHOOSING},
}


def small(**changes: Any) -> dict[str, Any]:
    """The configuration of a small round; a dict among the changes adds to what is there."""
    return SMALL | {
        name: SMALL.get(name, {}) | value if isinstance(value, dict) else value
        for name, value in changes.items()
    }


@dataclass
class Rounds:
    """The trainer of a running stack."""

    stack: Running
    trainer: httpx.AsyncClient

    async def begin(self, run: str, **changes: Any) -> RoundView:
        """The next round of a run."""
        response = await self.trainer.post("/rounds", json={"run": run, "config": small(**changes)})
        assert response.status_code == 201, response.text
        return RoundView.model_validate(response.json())

    async def ask(self, view: RoundView, what: str) -> RoundView:
        """Pause, resume, cancel or retry it."""
        response = await self.trainer.post(f"/rounds/{view.id}/{what}")
        assert response.status_code == 200, response.text
        return RoundView.model_validate(response.json())

    async def until(
        self, view: RoundView, holds: Callable[[RoundView], bool], seconds: float = 240
    ) -> RoundView:
        """The round as soon as `holds` says so of it; a trainer that is away is asked again."""
        async with asyncio.timeout(seconds):
            while True:
                with contextlib.suppress(httpx.TransportError):
                    response = await self.trainer.get(f"/rounds/{view.id}")
                    if response.status_code != 503:
                        assert response.status_code == 200, response.text
                        view = RoundView.model_validate(response.json())
                        if holds(view):
                            return view
                await asyncio.sleep(0.05)

    async def ended(self, view: RoundView) -> RoundView:
        """The round at its end."""
        return await self.until(view, is_over)

    async def set_aside(self, view: RoundView, problem: str | None = None) -> str:
        """Enter a training problem of a round into the ledger, the first one where none is named, as a second look of a trained
        PRM would; its id."""
        engine = make_engine(self.stack.urls.database)
        try:
            async with transaction(engine) as connection:
                rows = await connection.execute(
                    select(t.round_problems, t.problems.c.text)
                    .join(t.problems, t.problems.c.id == t.round_problems.c.problem_id)
                    .where(t.round_problems.c.round_id == view.id, t.round_problems.c.split == "train")
                    .order_by(t.round_problems.c.place)
                )
                found = {problem_id(row.text, row.answer): row for row in rows}
                aside = problem or next(iter(found))
                row = found[aside]
                await connection.execute(
                    t.quarantine.insert().values(
                        run=view.run,
                        problem_id=row.problem_id,
                        round_id=row.round_id,
                        reference=row.answer,
                        source=row.source,
                        disagreement=WHY_ASIDE.model_dump(mode="json"),
                    )
                )
                return aside
        finally:
            await engine.dispose()

    async def run(self, run: str, **changes: Any) -> RoundView:
        """A round, up to its end."""
        return await self.ended(await self.begin(run, **changes))

    async def models(self, kind: ModelKind, state: ModelState) -> list[ModelView]:
        """Versions in the registry."""
        response = await self.trainer.get("/models", params={"kind": kind, "state": state})
        return [ModelView.model_validate(each) for each in response.json()["models"]]

    async def served(self) -> dict[str, str]:
        """What policy and PRM answer with, as these services say."""
        found = {}
        for kind, url in (("policy", self.stack.urls.policy), ("prm", self.stack.urls.prm)):
            held = (await self.trainer.get(f"{url}/models")).json()["models"]
            found[kind] = next(each["version"] for each in held if each["serving"])
        return found


def is_over(view: RoundView) -> bool:
    """Whether the round has come to an end."""
    return view.state in ROUND_ENDS


def trained_versions(view: RoundView) -> dict[str, str]:
    """The versions that the round has trained, by kind."""
    made = {"policy": view.metrics.policy, "prm": view.metrics.prm}
    return {kind: each.version for kind, each in made.items() if each is not None}


def promoted_pair(view: RoundView) -> dict[str, str]:
    """The versions that the round has made serve, by kind: on so few problems any of the new pairs may be chosen."""
    assert view.metrics.gate is not None
    assert view.metrics.gate.promoted
    policy, prm = view.metrics.gate.candidate.split()
    return {"policy": policy, "prm": prm}


@contextlib.asynccontextmanager
async def running_rounds(data: Path) -> AsyncIterator[Rounds]:
    """A stack with nano in the folder `data`, once its trainer knows what serves."""
    async with (
        running_stack(data, NANO, poll_seconds="0.2", lease_seconds="3") as stack,
        httpx.AsyncClient(
            base_url=stack.urls.trainer, auth=stack.keys, timeout=60, trust_env=False
        ) as trainer,
    ):
        rounds = Rounds(stack, trainer)
        async with asyncio.timeout(60):
            while not await rounds.models(ModelKind.POLICY, ModelState.SERVING):
                await asyncio.sleep(0.1)
        yield rounds
