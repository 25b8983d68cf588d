"""Which model versions policy and PRM hold for the trainer: what serves, what rounds under way work with, and no more.

A version is let go of where what needed it ends: a pair that no longer serves, a round that is over; `keep_unloading` tries
until it is gone. Where a service is full all the same, as after the death of a trainer, what the registry knows and nobody
needs makes room. A version that the registry does not know was loaded by a person, and stays.

Limit: what is being promoted at this moment counts as not needed by another trainer, and may have to be loaded once more.
"""

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

import structlog

from ratchet import background
from ratchet.clients import ModelServiceClient, ServiceError
from ratchet.contracts.serving import PRM1, HeldModel, LoadModel
from ratchet.contracts.trainer import ModelKind
from ratchet.states import ROUND_ENDS
from ratchet.store.errors import StoreUnavailableError
from ratchet.store.pairs import PairStore, UnknownVersionError
from ratchet.store.registry import Registry
from ratchet.store.rounds import RoundStore
from services.trainer.pairs import Pair, worked_with

log = structlog.get_logger()

EVERY_SECONDS = 1.0
SILENT_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Serving:
    """What says which pair serves and what rounds need, and the services that hold and serve it."""

    registry: Registry
    pairs: PairStore
    rounds: RoundStore
    services: Mapping[ModelKind, ModelServiceClient]
    leaving: dict[ModelKind, set[str]] = field(default_factory=lambda: {kind: set() for kind in ModelKind})
    """Versions to unload, unless somebody needs them again."""
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once policy and PRM serve the pair: a service that has just started serves the model of its settings, and PRM1."""


async def hold(serving: Serving, kind: ModelKind, version: str) -> HeldModel | None:
    """Have a service hold a version, and make room for it where that is full; None for PRM1, which is always held.

    Raises UnknownVersionError and ServiceError.
    """
    if version == PRM1:
        return None
    model = await serving.registry.get(version)
    if model is None:
        raise UnknownVersionError(f"There is no {kind} {version} in the registry.")
    client, body = serving.services[kind], LoadModel(uri=model.uri, sha256=model.sha256)
    try:
        return await client.load(version, body)
    except ServiceError as error:
        if error.status != HTTPStatus.CONFLICT:
            raise
        await _make_room(serving, kind, version)
        # Asked again also where nothing was found: what filled the service may have gone since it answered.
        return await client.load(version, body)


async def hold_pairs(serving: Serving, pairs: Iterable[Pair]) -> None:
    """Have the services hold these pairs. Raises UnknownVersionError and ServiceError."""
    wanted = list(pairs)
    for kind in ModelKind:
        for version in dict.fromkeys(pair.of(kind) for pair in wanted):
            await hold(serving, kind, version)


def let_go(serving: Serving, pairs: Iterable[Pair]) -> None:
    """Have `keep_unloading` unload what of these pairs nobody needs any more."""
    for pair in pairs:
        for kind in ModelKind:
            serving.leaving[kind].add(pair.of(kind))


async def keep_unloading(serving: Serving) -> None:
    """Unload what was let go of, for as long as the trainer runs. What cannot be unloaded is tried again."""

    async def turn() -> None:
        for kind in ModelKind:
            with contextlib.suppress(StoreUnavailableError):
                await _unload(serving, kind)

    # A version is unloaded when the last request that uses it has been answered.
    await background.repeat("unloading", turn, EVERY_SECONDS, silent_seconds=SILENT_SECONDS)


async def _unload(serving: Serving, kind: ModelKind) -> None:
    for version in list(serving.leaving[kind]):
        # Looked up for each: unloading may take long, and meanwhile it may be needed again.
        if version not in await _needed(serving):
            try:
                await serving.services[kind].unload(version)
            except ServiceError as error:
                if error.status != HTTPStatus.NOT_FOUND:
                    log.warning("not unloaded yet", model=version, error=str(error))
                    continue
        serving.leaving[kind].discard(version)


async def _make_room(serving: Serving, kind: ModelKind, wanted: str) -> None:
    """Unload what the registry knows and nobody needs."""
    needed = await _needed(serving) | {wanted}
    spare = {
        each.version
        for each in await serving.services[kind].models()
        if not (each.serving or each.configured or each.version in needed)
        and await serving.registry.get(each.version) is not None
    }
    log.info("making room", kind=kind.value, unloading=sorted(spare))
    serving.leaving[kind] |= spare
    await _unload(serving, kind)


async def _needed(serving: Serving) -> set[str]:
    """Versions that serve, with the base of their policy, and those that rounds under way work with."""
    needed = {PRM1}
    pair = await serving.pairs.current()
    if pair is not None:
        needed |= {pair.policy, pair.prm}
        # The next round trains from it.
        lineage = await serving.registry.lineage(pair.policy)
        needed |= set() if lineage is None else {lineage.versions[-1].model.version}
    rounds = await serving.rounds.rounds()
    for view in rounds:
        if view.state not in ROUND_ENDS:
            earlier = [each for each in rounds if each.run == view.run and each.number < view.number]
            needed |= {one.of(kind) for one in worked_with(view.metrics, earlier) for kind in ModelKind}
    return needed
