"""One export, from a database to a folder: the rows, the data card, and what came of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratchet.contracts.search import VerificationLevel
from ratchet.exports import card
from ratchet.exports.gathering import Asked, ExportError, Gathering
from ratchet.exports.kinds import Format, From
from ratchet.exports.rounds import Stores, export_run, find_run
from ratchet.exports.searches import export_searches
from ratchet.exports.whole_folder import made_whole
from ratchet.exports.writers import Writers
from ratchet.stack.database import Stored
from ratchet.store.exported import ExportedStore
from ratchet.store.registry import Registry
from ratchet.store.rounds import RoundStore

PROOFS = "proofs"
"""Folder of the proof bundles, one file a search."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is exported, and how it is written."""

    asked: Asked
    source: From
    format: Format = Format.JSONL
    run: str | None = None
    """None: the only one."""
    number: int | None = None
    """The last round; None: the last that has data."""
    level: VerificationLevel = VerificationLevel.AGREEMENT
    """Of searches: the weakest that leaves."""
    min_confidence: float | None = None
    proofs: bool = False


async def write_export(stored: Stored, order: Order, target: Path) -> dict[str, Any]:
    """Write the folder `target`, whole or not at all; what is in it, as a JSON object.

    Raises ExportError: it is there already, there is nothing that may leave, or files of the run are missing.
    StoreUnavailableError where Postgres is away.
    """
    stores = Stores(RoundStore(stored.engine), Registry(stored.engine), ExportedStore(stored.engine))
    with made_whole(target) as folder:
        proofs = folder / PROOFS if order.proofs else None
        if proofs is not None:
            proofs.mkdir()
        with Writers(folder, order.format) as writers:
            if order.source is From.ROUNDS:
                run = await find_run(stores, order.run, order.number, stored.rounds_dir)
                about, gathering = await export_run(
                    stores, run, order.asked, writers, proofs, stored.problems_dir
                )
            else:
                about, gathering = await export_searches(
                    stores,
                    order.asked,
                    writers,
                    proofs,
                    level=order.level,
                    min_confidence=order.min_confidence,
                )
        if not writers.written:
            raise ExportError(_why_nothing(gathering))
        (folder / card.FILE).write_text(card.data_card(about, gathering, writers.written), encoding="utf-8")
    return {
        "folder": str(target),
        "files": [
            {
                "kind": each.kind,
                "split": each.split,
                "path": each.path,
                "rows": each.rows,
                "sha256": each.sha256,
            }
            for each in writers.written
        ],
        "problems": len(gathering.problems),
        "left_out": {str(why): count for why, count in sorted(gathering.left_out.items())},
    }


def _why_nothing(gathering: Gathering) -> str:
    left_out = "; ".join(f"{count} because {why}" for why, count in sorted(gathering.left_out.items()))
    return "There is nothing that may leave" + (f": left out were {left_out}." if left_out else ".")
