"""Policy service: what is the next step?"""

from enum import StrEnum
from typing import Annotated

from pydantic import Field, model_validator

from ratchet.contracts.base import Contract, ProblemText, StepText, Text
from ratchet.contracts.serving import ModelVersion


class Until(StrEnum):
    """Where a candidate ends."""

    STEP = "step"
    """After exactly one step: comment lines and code."""
    END = "end"
    """After the last step of the solution: the policy writes all that is left."""


class FinishReason(StrEnum):
    """Why the engine stopped."""

    STEP = "step"
    """A step boundary was reached (the format's step marker, or the start of the next step)."""
    END = "end"
    """The policy ended the solution (end of sequence, or the format's end-of-code marker)."""
    LENGTH = "length"
    """`max_tokens` was used up: the last step may be cut in the middle."""
    STOP = "stop"
    """A stop string of the request was met."""


class Prefix(Contract):
    """A partial solution: the problem and the steps taken so far, the root first."""

    problem: ProblemText
    steps: list[StepText] = Field(default_factory=list, max_length=64)


class GenerateRequest(Contract):
    """Ask for `n` candidates after each prefix."""

    prefixes: list[Prefix] = Field(min_length=1, max_length=256)
    n: int = Field(default=1, ge=1, le=64, description="Candidates per prefix.")
    temperature: float = Field(default=0.8, ge=0.0, le=2.0, description="0 is greedy.")
    top_p: float = Field(default=0.95, gt=0.0, le=1.0)
    max_tokens: int = Field(
        default=256,
        ge=1,
        le=4096,
        description="Most tokens in one candidate. It ends sooner, with the finish reason `length`, where what the model reads "
        "and writes is full.",
    )
    seed: int | None = Field(
        default=None,
        ge=0,
        lt=2**63,
        description="Makes sampling repeatable for a given model, engine and batch.",
    )
    seeds: list[Annotated[int, Field(ge=0, lt=2**63)]] | None = Field(
        default=None,
        description="A seed for each prefix in place of `seed`: its candidates are those that it would get alone.",
    )
    shared: bool = Field(
        default=False,
        description="With `seeds`: candidates that were drawn before after the same prefix with the same seed, for a request "
        "that was `shared` too, are given again. They are what would be drawn anew.",
    )
    stop: list[Text] = Field(
        default_factory=list, max_length=8, description="More stop strings, beside the format's own."
    )
    until: Until = Until.STEP
    model: ModelVersion | None = Field(
        default=None, description="A version that the service holds; none: the serving one."
    )

    @model_validator(mode="after")
    def _a_seed_for_each(self) -> "GenerateRequest":
        if self.seeds is not None and len(self.seeds) != len(self.prefixes):
            raise ValueError("seeds must have one seed for each prefix")
        if self.shared and self.seeds is None:
            raise ValueError("shared needs seeds: without them no two draws are the same")
        return self


class Candidate(Contract):
    """What the policy proposes after a prefix: one step, or (until `end`) all the steps that are left."""

    text: str = Field(description="The generated text as it is, without the stop string.")
    steps: list[str] = Field(
        description="The text cut at step boundaries, in order, markers removed. Empty when the policy proposed nothing."
    )
    final: bool = Field(description="The policy says that the last of these steps ends the solution.")
    tokens: int = Field(ge=0, description="Generated tokens, as the engine counts them.")
    mean_logprob: float = Field(
        le=0.0,
        description="Mean log-probability of the generated tokens under the untempered policy, in nats.",
    )
    step_logprobs: list[float] = Field(
        description="Mean log-probability of each step's own tokens, in nats, in the order of `steps`."
    )
    finish_reason: FinishReason


class GenerateResponse(Contract):
    """Candidates, one list per prefix, in the order of the request."""

    model: str = Field(description="Version of the model that wrote them.", examples=["small@3f2a91c0"])
    candidates: list[list[Candidate]]
    prompt_tokens: int = Field(ge=0, description="Prompt tokens over all prefixes, each prefix counted once.")


class LikelihoodRequest(Contract):
    """How likely does the policy find these steps? Each trajectory is read after the policy's own prompt."""

    trajectories: list[Prefix] = Field(min_length=1, max_length=256)
    model: ModelVersion | None = Field(
        default=None, description="A version that the service holds; none: the serving one."
    )


class LikelihoodResponse(Contract):
    """For each trajectory, the mean log-probability of each of its steps, in nats."""

    model: str
    step_logprobs: list[list[float]]
