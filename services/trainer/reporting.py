"""The report of a run."""

import asyncio
from collections.abc import Sequence

import orjson

from ratchet.contracts.rounds import RoundView
from ratchet.settings import TrainerSettings
from services.trainer.context import run_folder


async def write_report(settings: TrainerSettings, rounds: Sequence[RoundView]) -> None:
    """Write report.json for the rounds of one run."""
    if not rounds:
        return
    folder = run_folder(settings, rounds[0].run)
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    (folder / "report.json").write_bytes(orjson.dumps([each.model_dump(mode="json") for each in rounds]))
