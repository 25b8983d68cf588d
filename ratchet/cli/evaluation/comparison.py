"""From graded outcomes to a comparison of strategies: accuracy and coverage per budget, and paired tests against a baseline.

Pure. A problem that is searched with several seeds counts once: intervals and tests are clustered by problem
(`ratchet.statistics`). The p-values are of one comparison each, not corrected for how many there are.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from pydantic import Field

from ratchet.cli.outcomes import GradedProblem
from ratchet.contracts.base import Contract
from ratchet.contracts.search import StrategyName
from ratchet.states import SearchState
from ratchet.statistics import clustered_wilson, paired_test


@dataclass(frozen=True)
class ArmOutcomes:
    """What one strategy did at one budget."""

    strategy: StrategyName
    tokens: int
    by_seed: Sequence[Sequence[GradedProblem]]
    """For each seed the problems, in the same order."""

    @property
    def all(self) -> list[GradedProblem]:
        return [each for seed in self.by_seed for each in seed]

    def right(self) -> list[int]:
        """By problem, how many seeds solved it."""
        return [sum(each.correct for each in tries) for tries in zip(*self.by_seed, strict=True)]

    def covered(self) -> list[int]:
        """By problem, for how many seeds a right answer is among the trajectories."""
        return [sum(each.covered for each in tries) for tries in zip(*self.by_seed, strict=True)]


class Measured(Contract):
    """One strategy at one budget, in figures."""

    strategy: StrategyName
    tokens: int = Field(description="The budget: generated tokens a search.")
    n: int = Field(description="Problems.")
    seeds: int = Field(description="Searches of each problem.")
    accuracy: float
    ci95: tuple[float, float] = Field(description="Of the accuracy: Wilson's, clustered by problem.")
    coverage: float = Field(description="Share of the searches with a right answer among the trajectories.")
    coverage_ci95: tuple[float, float]
    lost_by_vote: float = Field(description="Coverage less accuracy.")
    tokens_per_search: float = Field(description="Generated tokens, measured.")
    trajectories_per_search: float
    seconds_per_search: float
    failed: int


class Paired(Contract):
    """A strategy and the baseline at one budget, problem by problem."""

    strategy: StrategyName
    baseline: StrategyName
    tokens: int
    n: int
    difference: float = Field(description="Accuracy of the strategy less that of the baseline.")
    ci95: tuple[float, float] = Field(
        description="Of the difference: Bonett and Price's (2012), clustered by problem."
    )
    better: int = Field(description="Problems that the strategy solves with more of its seeds.")
    worse: int
    p: float = Field(description="Exact two-sided sign-flip test; with one seed it is McNemar's.")


def measured(arm: ArmOutcomes) -> Measured:
    """The figures of an arm, which has one problem at least."""
    tries, n = len(arm.by_seed), len(arm.by_seed[0])
    right, covered = arm.right(), arm.covered()
    searches = n * tries
    return Measured(
        strategy=arm.strategy,
        tokens=arm.tokens,
        n=n,
        seeds=tries,
        accuracy=sum(right) / searches,
        ci95=clustered_wilson(right, tries),
        coverage=sum(covered) / searches,
        coverage_ci95=clustered_wilson(covered, tries),
        lost_by_vote=(sum(covered) - sum(right)) / searches,
        tokens_per_search=sum(each.tokens for each in arm.all) / searches,
        trajectories_per_search=sum(each.trajectories for each in arm.all) / searches,
        seconds_per_search=sum(each.seconds for each in arm.all) / searches,
        failed=sum(each.state is SearchState.FAILED for each in arm.all),
    )


def paired(arm: ArmOutcomes, baseline: ArmOutcomes) -> Paired:
    """Both arms on the same problems; they may have different numbers of seeds."""
    ours, theirs = arm.right(), baseline.right()
    test = paired_test(ours, len(arm.by_seed), theirs, len(baseline.by_seed))
    return Paired(
        strategy=arm.strategy,
        baseline=baseline.strategy,
        tokens=arm.tokens if baseline.strategy is StrategyName.GREEDY else baseline.tokens,
        n=len(ours),
        **asdict(test),
    )


def compare(arms: Sequence[ArmOutcomes], baseline: StrategyName) -> list[Paired]:
    """Every other strategy with the baseline, at each of the baseline's budgets; greedy, which has one, at all of them."""
    found: list[Paired] = []
    for base in (arm for arm in arms if arm.strategy is baseline):
        for arm in arms:
            at_once = StrategyName.GREEDY in (arm.strategy, baseline)
            if arm.strategy is not baseline and (at_once or arm.tokens == base.tokens):
                found.append(paired(arm, base))
    return found


def best_strategy(arms: Sequence[Measured]) -> StrategyName:
    """The strategy with the highest accuracy, the mean over its budgets; of two that are equal, the one named first."""
    by_strategy: dict[StrategyName, list[float]] = {}
    for arm in arms:
        by_strategy.setdefault(arm.strategy, []).append(arm.accuracy)
    return max(by_strategy, key=lambda name: sum(by_strategy[name]) / len(by_strategy[name]))
