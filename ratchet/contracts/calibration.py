"""How probable an answer is: the model that is fitted to a policy with its PRM, and how well it keeps its word."""

from datetime import datetime

from pydantic import Field, FiniteFloat

from ratchet.contracts.base import Contract, Text
from ratchet.contracts.serving import ModelVersion


class Feature(Contract):
    """One thing that the model looks at, and what it makes of it."""

    name: str = Field(description="One of ratchet.solutions.aggregator.FEATURES.", examples=["log_votes"])
    mean: FiniteFloat
    scale: FiniteFloat = Field(
        gt=0, description="Standard deviation; the coefficient is of (value - mean) / scale."
    )
    coefficient: FiniteFloat


class ReliabilityBin(Contract):
    """Answers with about the same probability, and how many of them were right."""

    n: int
    right: int
    predicted: float = Field(description="Mean probability.")
    share: float = Field(description="Of right ones.")
    ci95: tuple[float, float] = Field(description="Wilson score interval of the share.")


class Reliability(Contract):
    """Stated probabilities against truth, each of a problem that the model was not fitted on."""

    n: int = Field(description="Problems that got an answer.")
    right: int
    bins: list[ReliabilityBin] = Field(description="As many answers in each, the least probable first.")
    ece: float = Field(
        description="Expected calibration error: mean distance of probability and share over the bins."
    )
    brier: float = Field(description="Mean squared difference of probability and truth; 0 is perfect.")


class AnswerCalibration(Contract):
    """The model of one policy version with one PRM version."""

    policy: ModelVersion
    prm: ModelVersion
    features: list[Feature]
    intercept: FiniteFloat
    l2: float = Field(ge=0, description="Strength of the regularisation, chosen by cross-validation.")
    problems: int = Field(ge=1, description="That it was fitted on.")
    source: Text = Field(max_length=1000, description="Which problems those were.")
    min_confidence: float = Field(
        ge=0,
        le=1,
        description="What an answer needs to count as solved where the request asks for nothing else.",
    )
    early_stop: bool = Field(
        default=False,
        description="Fitted to searches that ended early where their answer could hardly be overtaken. Only then may a search "
        "whose probability counts end so.",
    )
    reliability: Reliability = Field(description="Out of fold: of each problem by a model fitted on others.")
    created_at: datetime


class LabelledSearch(Contract):
    """A search that is over, and the right answer of its problem."""

    search: str = Field(max_length=64, description="Its id.")
    reference_answer: Text = Field(min_length=1, max_length=1000)


class CalibrationRequest(Contract):
    """Body of `POST /calibrations`: searches of one policy and PRM that have ended, none of which knew its reference answer."""

    searches: list[LabelledSearch] = Field(min_length=1, max_length=10_000)
    source: Text = Field(min_length=1, max_length=1000, description="Which problems these are.")


class CalibrationList(Contract):
    """Calibrations, the newest first."""

    calibrations: list[AnswerCalibration]
