"""PRM service: how good is this step?"""

import math
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import Field, model_validator

from ratchet.contracts.base import Contract, ProblemText, StepText
from ratchet.contracts.serving import ModelVersion


class ScoreRequest(Contract):
    """Score the steps of one or more trajectories of one problem."""

    problem: ProblemText
    steps: list[list[StepText]] = Field(
        min_length=1,
        max_length=256,
        description="Trajectories, each the list of its steps from the first; every step is scored.",
        examples=[[["# Half as many in May.\nmay = 48 / 2"]]],
    )
    logprobs: list[list[float | None]] | None = Field(
        default=None,
        description="Mean log-probability of each step under the policy, in nats, where the caller knows it from the "
        "generation (`step_logprobs`). Of the shape of `steps`. A scorer that needs them asks the policy for the others.",
    )
    model: ModelVersion | None = Field(
        default=None, description="A version that the service holds; none: the serving one."
    )
    policy: ModelVersion | None = Field(
        default=None,
        description="The policy version whose likelihoods PRM1 reads; none: the policy's serving one. Trained PRMs ignore it.",
    )

    @model_validator(mode="after")
    def _same_shape(self) -> "ScoreRequest":
        if self.logprobs is not None and [len(row) for row in self.logprobs] != [
            len(row) for row in self.steps
        ]:
            raise ValueError("logprobs must have the shape of steps")
        return self


class ScoreResponse(Contract):
    """Scores of the same shape as the request's `steps`."""

    model: str = Field(description="Version of the PRM.", examples=["prm1-likelihood@small@3f2a91c0"])
    scores: list[list[float]] = Field(
        description="For each step a score in [0, 1]: the chance, as the PRM sees it, of a right solution after it."
    )
    cached: int = Field(default=0, ge=0, description="How many of the steps were answered from the cache.")


@dataclass(frozen=True)
class Calibration:
    """Platt scaling: slope and intercept, fitted on problems that the PRM was not trained on."""

    a: float = 1.0
    b: float = 0.0

    def probability(self, logit: float) -> float:
        """In [0, 1]."""
        return 1.0 / (1.0 + math.exp(-max(-50.0, min(50.0, self.a * logit + self.b))))

    def entry(self) -> dict[str, Any]:
        """As it stands in the config of a checkpoint (ratchet.models.prm_head.CONFIG_KEY)."""
        return {"calibration": asdict(self)}
