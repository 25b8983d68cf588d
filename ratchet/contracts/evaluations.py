"""Two evaluations of the same problems, and the paired test between them."""

from enum import StrEnum
from typing import Annotated, Self
from uuid import UUID

from pydantic import Field, model_validator

from ratchet.contracts.base import Contract, Text
from ratchet.contracts.rounds import ProblemId

MAX_PROBLEMS = 5000
"""Of one evaluation that is compared."""
MAX_TRIES = 16
MAX_SHOWN = 500
"""Problems on which two evaluations differ, in one answer."""


class PairInRound(StrEnum):
    """Whose evaluation it is, of the pairs that a round has measured."""

    CANDIDATE = "candidate"
    """The new pair that was tested."""
    INCUMBENT = "incumbent"
    """What served when the round began."""
    REFERENCE = "reference"
    """The best pair so far, against which the new one was tested."""


class EvaluationOfRound(Contract):
    """What a round has measured of one pair."""

    round: UUID = Field(description="Id of the round.")
    pair: PairInRound = PairInRound.CANDIDATE
    measured: str = Field(
        pattern=r"^(development|held_out)\.[a-z0-9_]{1,40}$",
        description="Split and strategy, as in the round's metrics.",
        examples=["held_out.mcts"],
    )


class ProblemOutcome(Contract):
    """How one problem went."""

    id: ProblemId
    right: int = Field(ge=0, le=MAX_TRIES, description="Tries that were right.")


class EvaluationOfFile(Contract):
    """Result files of `ratchet eval`, one for each seed, as far as the test needs them."""

    name: Text = Field(min_length=1, max_length=300, description="What to call it.")
    tries: int = Field(default=1, ge=1, le=MAX_TRIES, description="Tries of each problem: seeds.")
    problems: list[ProblemOutcome] = Field(min_length=1, max_length=MAX_PROBLEMS)

    @model_validator(mode="after")
    def _counts_each_problem_once(self) -> Self:
        if len({each.id for each in self.problems}) < len(self.problems):
            raise ValueError("problems: one of them is there twice")
        if any(each.right > self.tries for each in self.problems):
            raise ValueError("problems: more tries were right than there are")
        return self


class EvaluationNamed(Contract):
    """One evaluation: of a round, or of files. Exactly one of the two."""

    round: EvaluationOfRound | None = None
    file: EvaluationOfFile | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.round is None) == (self.file is None):
            raise ValueError("give round or file, one of the two")
        return self


class CompareEvaluations(Contract):
    """Body of `POST /evaluations/compare`."""

    first: EvaluationNamed = Field(
        examples=[{"file": {"name": "best_of_n", "problems": [{"id": "3f2a91c07d5be684", "right": 0}]}}]
    )
    second: EvaluationNamed = Field(
        description="What is measured against the first.",
        examples=[{"file": {"name": "mcts", "problems": [{"id": "3f2a91c07d5be684", "right": 1}]}}],
    )


class EvaluationSide(Contract):
    """One of the two, in figures, over the problems that both have."""

    name: str
    tries: int
    accuracy: float
    ci95: Annotated[tuple[float, float], Field(description="Wilson's, clustered by problem.")]
    left_out: int = Field(
        description="Its other problems: not in the other one, or their searches failed in one."
    )


class DifferingProblem(Contract):
    """A problem of which one evaluation solved more than the other."""

    id: str
    problem: str | None = Field(description="Its text; none where only files have it.")
    source: str | None
    first: int = Field(description="Tries that were right.")
    second: int
    first_search: str | None = Field(description="Id of the search that was counted, where it is kept.")
    second_search: str | None


class EvaluationComparison(Contract):
    """The paired test of two evaluations, problem by problem."""

    first: EvaluationSide
    second: EvaluationSide
    n: int = Field(description="Problems that both have tried.")
    difference: float = Field(description="Accuracy of the second less that of the first.")
    ci95: tuple[float, float] = Field(
        description="Of the difference: Bonett and Price's (2012), clustered by problem."
    )
    better: int = Field(description="Problems of which the second solves more.")
    worse: int
    p: float = Field(description="Exact two-sided sign-flip test; with one try of each it is McNemar's.")
    differing: list[DifferingProblem] = Field(
        description="Those that the second lost first, at most 500 of each kind."
    )
