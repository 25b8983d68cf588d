"""Deletes searches and trees that are older than the operator wants to keep. Without such a setting it does nothing."""

from collections.abc import Coroutine
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet import background
from ratchet.settings import SearchSettings
from ratchet.store.errors import StoreUnavailableError
from ratchet.store.retention import Retention, WasteStore

log = structlog.get_logger()

EVERY_SECONDS = 3600.0
LONGEST_SECONDS = 6 * 3600.0
"""A first deletion of years of searches takes its time."""


def pruning(settings: SearchSettings, engine: AsyncEngine) -> list[Coroutine[Any, Any, None]]:
    """The loop, where the settings ask for one. Several processes may run it: each search is locked by one of them."""
    retention = Retention(settings.keep_searches_days, settings.keep_trees_days)
    if retention == Retention():
        return []
    store = WasteStore(engine)

    async def turn() -> None:
        try:
            gone = await store.prune(retention)
        except StoreUnavailableError as error:
            log.warning("nothing deleted now", error=str(error))
        else:
            log.info(
                "deleted", **{waste.value: amount.searches for waste, amount in gone.items() if amount.bytes}
            )

    return [background.repeat("prune", turn, EVERY_SECONDS, LONGEST_SECONDS)]
