"""What every stage of a round works with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from ratchet.clients import PolicyClient, PrmClient, SandboxClient
from ratchet.contracts.rounds import RoundProgress
from ratchet.queue import SearchQueue
from ratchet.settings import TrainerSettings
from ratchet.store.calibrations import CalibrationStore
from ratchet.store.pairs import PairStore
from ratchet.store.registry import Registry
from ratchet.store.round_searches import RoundSearchStore
from ratchet.store.rounds import RoundClaim, RoundStore
from services.trainer.files import run_folder
from services.trainer.holding import Serving


class RoundFailedError(Exception):
    """The round cannot go on; the message says why, for its `reason`."""


class Report(Protocol):
    """Tells those who watch where a stage stands."""

    async def __call__(self, progress: RoundProgress) -> None:
        """Write it down."""


@dataclass(frozen=True, slots=True)
class Context:
    """The services, the stores and the round that a stage works on."""

    settings: TrainerSettings
    claim: RoundClaim
    serving: Serving
    searches: RoundSearchStore
    calibrations: CalibrationStore
    queue: SearchQueue
    policy: PolicyClient
    prm: PrmClient
    sandbox: SandboxClient
    report: Report

    @property
    def rounds(self) -> RoundStore:
        """The store of the rounds."""
        return self.serving.rounds

    @property
    def registry(self) -> Registry:
        """The store of the model versions."""
        return self.serving.registry

    @property
    def pairs(self) -> PairStore:
        """The store of what serves."""
        return self.serving.pairs

    @property
    def folder(self) -> Path:
        """Where the round keeps its files."""
        return run_folder(self.settings, self.claim.run) / f"round-{self.claim.number}"


P = TypeVar("P")


def require_part(part: P | None) -> P:
    """A part of the metrics that an earlier stage has handed on. Raises RoundFailedError where it is missing."""
    if part is None:
        raise RoundFailedError(
            "An earlier stage has left nothing that this one can work with. Begin a new round."
        )
    return part
