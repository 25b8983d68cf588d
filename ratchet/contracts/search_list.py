"""The list of searches: what it may be narrowed down to, and a line of it."""

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, Field

from ratchet.contracts.base import Contract, Text, not_blank
from ratchet.contracts.search import Parent, StrategyName, VerificationLevel
from ratchet.contracts.serving import ModelVersion
from ratchet.states import SearchState

FilterText = Annotated[Text, Field(min_length=1, max_length=200), AfterValidator(not_blank)]


class SearchFilter(Contract):
    """Only searches for which all that is given holds."""

    text: FilterText | None = Field(
        default=None, description="Stands in the problem or in the answer, in whatever case."
    )
    state: SearchState | None = None
    level: VerificationLevel | None = Field(default=None, description="What stands behind the answer.")
    model: ModelVersion | None = Field(default=None, description="A policy or PRM version that worked on it.")
    strategy: StrategyName | None = None


class SearchSummary(Contract):
    """One line of the list of searches."""

    id: str
    state: SearchState
    problem: str = Field(description="Its first 200 characters.")
    strategy: StrategyName
    answer: str | None
    level: VerificationLevel | None
    confidence: float | None = Field(
        default=None, description="Calibrated probability that the answer is right; null where there is none."
    )
    models: dict[str, str] = Field(default_factory=dict, description="Versions, by part: policy, prm.")
    parent: Parent | None = Field(default=None, description="The search that it was branched from.")
    created_at: datetime
    ended_at: datetime | None


class SearchPage(Contract):
    """Searches, the newest first."""

    searches: list[SearchSummary]
    next: str | None = Field(
        description="`cursor` of the next page; none on the last. A page looks at so many searches at most that one which is "
        "narrowed down may be short, or empty, and still have a next one."
    )
