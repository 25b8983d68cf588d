"""Pairs of a policy and a PRM: those that a round works with, and the best one of its run."""

from collections.abc import Sequence
from dataclasses import dataclass

from ratchet.contracts.round_metrics import RoundMetrics
from ratchet.contracts.rounds import RoundView
from ratchet.contracts.trainer import ModelKind


@dataclass(frozen=True, slots=True)
class Pair:
    """A policy with its PRM, by their versions."""

    policy: str
    prm: str

    @property
    def key(self) -> str:
        """Its measurements are kept under this name."""
        return f"{self.policy} {self.prm}"

    @classmethod
    def named(cls, key: str) -> "Pair":
        """The pair with this key."""
        policy, _, prm = key.partition(" ")
        return cls(policy, prm)

    def of(self, kind: ModelKind) -> str:
        """Its version of this kind."""
        return self.policy if kind is ModelKind.POLICY else self.prm


def best_so_far(earlier: Sequence[RoundView], incumbent: Pair) -> Pair:
    """The best pair of the run, as long as the pair that serves is the one that its last round has left.

    `earlier`: the run's rounds before this one, the newest first.
    """
    for view in earlier:
        verdict, evaluation = view.metrics.gate, view.metrics.evaluation
        if verdict is None or evaluation is None or not verdict.best:
            continue
        left = verdict.candidate if verdict.promoted else evaluation.incumbent.pair
        return Pair.named(verdict.best) if left == incumbent.key else incumbent
    return incumbent


def worked_with(metrics: RoundMetrics, earlier: Sequence[RoundView]) -> list[Pair]:
    """The pairs that a round has the services hold, as far as it has come; `earlier` as in `best_so_far`."""
    models = metrics.models
    if models is None:
        return []
    incumbent = Pair(models.policy, models.prm)
    made = Pair(
        incumbent.policy if metrics.policy is None else metrics.policy.version,
        incumbent.prm if metrics.prm is None else metrics.prm.version,
    )
    return [Pair(models.base, models.prm), incumbent, made, best_so_far(earlier, incumbent)]
