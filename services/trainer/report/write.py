"""Writes the report of a run beside its rounds: report.json, report.html and accuracy.png.

It is written anew after every round that ends, from what the store keeps. Limit: it shows what the rounds have measured, and
measures nothing itself.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from ratchet.contracts.rounds import RoundView
from ratchet.settings import TrainerSettings
from ratchet.summary import run_summary
from services.trainer.files import run_folder

JSON_FILE, HTML_FILE, CURVE_FILE = "report.json", "report.html", "accuracy.png"


async def write_report(settings: TrainerSettings, rounds: Sequence[RoundView]) -> None:
    """Write the report of the rounds of one run, in any order and state. Raises OSError where it cannot be written."""
    if rounds:
        ordered = sorted(rounds, key=lambda view: view.number)
        await asyncio.to_thread(_write, run_folder(settings, ordered[0].run), ordered)


def _write(folder: Path, rounds: Sequence[RoundView]) -> None:
    """The figures come first, so that they are there even if a drawing fails."""
    try:
        # matplotlib takes a second to import, which the service need not wait for when it starts.
        from services.trainer.report.curve import png
        from services.trainer.report.page import base_model, page

        folder.mkdir(parents=True, exist_ok=True)
        _replace(folder / JSON_FILE, orjson.dumps(as_json(rounds), option=orjson.OPT_INDENT_2) + b"\n")
        title = f"{rounds[0].run}, from {base_model(rounds) or 'an unknown base'}"
        _replace(folder / CURVE_FILE, png(rounds, title))
        _replace(folder / HTML_FILE, page(rounds).encode())
    except OSError:
        raise
    except Exception as error:
        # A round must not be lost to figures that nobody foresaw.
        raise OSError(f"the report could not be made: {type(error).__name__}: {error}") from error


def as_json(rounds: Sequence[RoundView]) -> dict[str, Any]:
    """The summary that `ratchet rounds run` prints, and all that was kept of the rounds, in their order."""
    ended = [view.ended_at for view in rounds if view.ended_at is not None]
    seconds = (max(ended) - rounds[0].created_at).total_seconds() if ended else None
    return {
        "run": rounds[0].run,
        "summary": run_summary(rounds, seconds),
        "rounds": [view.model_dump(mode="json") for view in rounds],
    }


def _replace(file: Path, content: bytes) -> None:
    """A reader sees the old file or the new one, whole."""
    partial = file.with_name(f".{file.name}.partial")
    partial.write_bytes(content)
    partial.replace(file)
