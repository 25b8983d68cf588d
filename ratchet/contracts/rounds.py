"""A self-evolution round: what it is to do, and how it stands."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from itertools import combinations
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ratchet.contracts.base import Contract, Text
from ratchet.contracts.round_metrics import RoundMetrics
from ratchet.contracts.search import PrmUse, StrategyName
from ratchet.contracts.training import PrmTraining, SftConfig
from ratchet.states import RoundState

RunName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", examples=["nano-seed1"])]
ProblemId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$", examples=["3f2a91c07d5be684"])]
"""As the files of a round name a problem: a hash of its text and its reference answer."""
ProblemSpec = Annotated[Text, Field(min_length=1, max_length=1000)]


class ProblemSource(Contract):
    """Problems, and how many of them."""

    spec: ProblemSpec = Field(
        description="nano:train, a problem file (perhaps with ?problem=…&answer=… behind its name), hub:name, or "
        "reasoning-gym:task.",
        examples=["nano:train"],
    )
    count: int = Field(ge=1, le=1_000_000)
    offset: int = Field(
        default=0, ge=0, description="Problems to pass over in the order that the seed shuffles them into."
    )


class LabelSearch(Contract):
    """How the training problems are searched. The verifier knows the reference answers; nobody else does."""

    strategy: Literal[StrategyName.MCTS, StrategyName.BEST_OF_N] = Field(
        default=StrategyName.MCTS,
        description="best_of_n: independent trajectories, as rejection sampling draws them.",
    )
    rollouts: int = Field(default=8, ge=1, le=1024)
    tokens: int | None = Field(
        default=None,
        ge=1,
        le=10_000_000,
        description="Generated tokens of a search, in place of `rollouts`: what two strategies need to cost the same.",
    )
    branching_factor: int = Field(default=4, ge=1, le=64)
    exploration: float = Field(default=2.0, ge=0, le=100)
    widening: float = Field(default=0.0, ge=0, le=1, description="See the parameters of a search.")
    gate: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="A step is left when its PRM score is under so much of its parent's. 0: none is, so that the trees "
        "show where steps lead that the PRM would have left.",
    )
    temperature: float = Field(default=1.0, gt=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_depth: int = Field(default=16, ge=1, le=64)
    max_tokens: int = Field(default=512, ge=8, le=4096, description="Most tokens in one trajectory.")
    in_flight: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="Rollouts of one search at once. Null: see the parameters of a search.",
    )
    batch_rollouts: bool = Field(default=False, description="They share one request to the policy.")
    prm: PrmUse | None = Field(
        default=None,
        description="What the PRM does; null: nothing as long as it is PRM1, and gives values once it was trained.",
    )
    retries: int = Field(
        default=1, ge=0, le=8, description="More searches, with new seeds, of a problem that stayed unsolved."
    )
    retry_factor: float = Field(
        default=2.0,
        ge=1,
        le=16,
        description="Rollouts or tokens of such a search over those of the one before.",
    )


class SelectBy(StrEnum):
    """How trajectories of a problem are ranked; all but the first exist for comparison."""

    SCORE = "score"
    """Correct ones, by mean Q and PRM score over their steps."""
    RANDOM = "random"
    """Correct ones, in random order."""
    UNVERIFIED = "unverified"
    """Any that gave an answer, in random order, right or wrong."""


class Selection(Contract):
    """Which trajectories become training data."""

    how: SelectBy = SelectBy.SCORE
    per_problem: int = Field(default=2, ge=1, le=64)
    max_chars: int | None = Field(default=None, ge=1, description="Longer solutions are left out.")
    max_steps: int | None = Field(default=None, ge=1)
    min_mean_q: float = Field(
        default=-1.0, ge=-1, le=1, description="Least mean Q over the steps of a trajectory."
    )
    quarantine_programs: int = Field(
        default=3,
        ge=2,
        description="Independent finds of one grounded behaviour that agree on another answer than the reference, to set a "
        "problem aside: of all its searches, and of the last one alone. A problem that was searched once is not.",
    )
    quarantine_prm: float = Field(
        default=0.8, ge=0, le=1, description="Mean PRM score that such an answer needs at the least."
    )


class Evaluation(Contract):
    """How policy and system are measured, on problems without their reference answers."""

    system: bool = Field(default=True, description="Search with PRM, beside best-of-N and majority.")
    held_out_system: int | None = Field(
        default=None,
        ge=1,
        description="So many of the held-out problems are searched so, for the report; null: all. The policy alone answers all "
        "of them: it takes a tenth of the time.",
    )
    tokens: int = Field(default=600, ge=1, description="Generated tokens for each problem and strategy.")
    rollouts: int = Field(default=64, ge=1, le=4096, description="Most trajectories of a search.")
    branching_factor: int = Field(default=8, ge=1, le=64)
    exploration: float = Field(default=2.0, ge=0, le=100)
    widening: float = Field(default=0.0, ge=0, le=1, description="See the parameters of a search.")
    gate: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="A step is left when its PRM score is under so much of its parent's. Null: what was measured best "
        "for the PRM.",
    )
    temperature: float = Field(default=0.8, gt=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=512, ge=8, le=4096, description="Most tokens in one trajectory.")
    in_flight: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="Rollouts of one search at once. Null: see the parameters of a search.",
    )
    batch_rollouts: bool = Field(default=False, description="They share one request to the policy.")
    samples: int = Field(
        default=4,
        ge=1,
        le=9,
        description="Of the policy alone, for each development problem; the gate compares their share of right ones.",
    )


class Gate(Contract):
    """When a new pair is promoted: it must be shown to be not worse than the best pair so far, alone and as a system.

    Problem after problem is looked at until both sequential tests are decided, or the development problems are used up. The
    first `selection` of them choose which of the new pairs is tested: the new policy with the new PRM or with the old one, or
    the old policy with the new PRM.
    """

    margin: float = Field(
        default=0.02,
        gt=0,
        le=1,
        description="A pair that is so much less accurate is worse; not one that is as good.",
    )
    false_promotion: float = Field(
        default=0.1, gt=0, lt=0.5, description="How often a pair that is worse by the margin may be promoted."
    )
    false_rejection: float = Field(
        default=0.05,
        gt=0,
        lt=0.5,
        description="How often a pair that is as good may be found worse. Where the development problems are too few to tell, "
        "it is not promoted either.",
    )
    selection: int = Field(
        default=50,
        ge=0,
        description="Development problems that choose the pair that is tested on the others. Where there are no "
        "others, the new policy with the new PRM is tested on these.",
    )
    block: int = Field(default=50, ge=1, description="Problems between two looks at the tests.")


class RoundConfig(Contract):
    """All that a round does; kept with it."""

    train: ProblemSource = Field(default_factory=lambda: ProblemSource(spec="nano:train", count=300))
    development: ProblemSource = Field(
        default_factory=lambda: ProblemSource(spec="nano:development", count=200)
    )
    held_out: ProblemSource = Field(default_factory=lambda: ProblemSource(spec="nano:held_out", count=400))
    seed: int = Field(default=0, ge=0, lt=2**31)
    label: LabelSearch = Field(default_factory=LabelSearch)
    selection: Selection = Field(default_factory=Selection)
    kept_apart: float = Field(
        default=0.15,
        gt=0,
        le=0.5,
        description="Share of the training problems that neither policy nor PRM is trained on: their trainings are judged by "
        "them. Six at the least, and never more than half.",
    )
    policy: SftConfig = Field(default_factory=SftConfig)
    from_current: bool = Field(
        default=False, description="Train on from the serving policy, not from the base: for comparison."
    )
    prm: PrmTraining | None = Field(
        default_factory=PrmTraining, description="None: no PRM is trained; the one that serves stays."
    )
    evaluation: Evaluation = Field(default_factory=Evaluation)
    gate: Gate = Field(default_factory=Gate)


READ_IN: Mapping[str, RoundState] = {
    **dict.fromkeys(("train", "development", "held_out", "seed"), RoundState.CREATED),
    "label": RoundState.SEARCHING,
    **dict.fromkeys(("selection", "kept_apart"), RoundState.SELECTING),
    **dict.fromkeys(("policy", "from_current"), RoundState.TRAINING_POLICY),
    "prm": RoundState.TRAINING_PRM,
    **dict.fromkeys(("evaluation", "gate"), RoundState.EVALUATING),
}
"""The first stage that works with each part of a RoundConfig."""


class RoundRequest(Contract):
    """Body of `POST /rounds`: the next round of a run. Rounds of a run follow one another, each from where the last ended."""

    run: RunName = "default"
    config: RoundConfig = Field(default_factory=RoundConfig)

    @model_validator(mode="after")
    def _splits_are_disjoint(self) -> Self:
        splits = ("train", "development", "held_out")
        for one, other in combinations(splits, 2):
            if _overlap(getattr(self.config, one), getattr(self.config, other)):
                raise ValueError(f"{one} must not overlap {other}: give other specs or offsets")
        return self


def _overlap(one: ProblemSource, other: ProblemSource) -> bool:
    return one.spec == other.spec and (
        one.offset < other.offset + other.count and other.offset < one.offset + one.count
    )


class RoundRetry(Contract):
    """Body of `POST /rounds/{id}/retry`."""

    config: RoundConfig | None = Field(
        default=None,
        description="The whole configuration from here on; it may differ in what no finished stage has worked with. "
        "None: as it was.",
        examples=[None],
    )


class RoundProgress(Contract):
    """Where the stage under way stands."""

    stage: str = ""
    done: int = 0
    total: int = 0
    note: str = ""
    seconds_left: float | None = Field(
        default=None,
        description="About, of this part of the stage: at the rate so far. None: not known yet.",
    )


class RoundView(Contract):
    """One self-evolution round."""

    id: str
    run: str
    number: int
    state: RoundState
    paused: bool
    cancel_requested: bool
    progress: RoundProgress
    config: RoundConfig
    metrics: RoundMetrics
    reason: str | None
    failed_in: RoundState | None = Field(
        default=None, description="The stage that failed; a retry goes on there."
    )
    created_at: datetime
    ended_at: datetime | None


class RoundList(Contract):
    """Rounds, the newest first."""

    rounds: list[RoundView]


class Disagreement(Contract):
    """Programs of one behaviour agree on another answer than the reference, and the PRM believes it."""

    answer: str
    programs: int = Field(description="How often they were found independently.")
    prm_score: float


class Quarantined(Disagreement):
    """A problem whose reference answer is not trusted. No training of its run sees it, unless a person overrules that."""

    id: str = Field(description="Of the problem, as in the files of a round.")
    problem: str
    reference: str
    source: str
    round: int = Field(description="Number of the round that has set it aside.")
    created_at: datetime
    overruled_at: datetime | None = Field(
        description="Since when the run trains on it again; it is not set aside a second time."
    )
    overruled_because: str | None = Field(
        default=None, description="In the words of who overruled; the audit says who."
    )
    searches: list[str] = Field(
        default_factory=list,
        description="Ids of the searches of it that are kept, the last one last: their trees hold the programs.",
    )


class Overrule(Contract):
    """Body of `POST /runs/{run}/quarantine/{problem}/overrule`."""

    reason: Annotated[Text, Field(max_length=1000)] | None = Field(
        default=None,
        description="Why the reference answer is right; kept with the problem.",
        examples=["The bus has 40 seats on each of two decks."],
    )


class QuarantineList(Contract):
    """Problems that a round, or a run, has set aside."""

    problems: list[Quarantined]
