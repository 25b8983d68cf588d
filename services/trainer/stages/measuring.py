"""Measures pairs: searches of problems without their reference answers, and what they solve of them.

Limits: a problem whose search fails every time is left out of all figures, and pairs out of the comparisons.
"""

import asyncio
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ratchet.contracts.round_metrics import Measured
from ratchet.contracts.rounds import RoundConfig
from ratchet.contracts.search import (
    Budget,
    PinnedModels,
    Priority,
    PrmUse,
    SearchRequest,
    StrategyName,
    StrategyParameters,
    VerificationLevel,
)
from ratchet.solutions.answers import same_answer
from ratchet.solutions.votes import AnswerGroup, count_votes, find_ends, vote_of
from ratchet.statistics import clustered_wilson
from ratchet.store.round_searches import SearchedTree
from ratchet.store.rounds import RoundProblem
from services.trainer.pairs import Pair
from services.trainer.stages.context import Context
from services.trainer.stages.planned_searches import could_not_run, plan, require_sound, wait_for

ATTEMPTS = 3
"""A search that failed is made again: what failed is the system, which says nothing of the pair."""
GRADED_AT_ONCE = 16
TOGETHER = 100
"""Searches that are planned at once, problem after problem, of each all jobs."""
FILLING = 2
"""Behind so many searches that are waited for goes one that has time."""
FAILED = "-"
"""Outcome of a problem whose search failed each time."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One strategy on one split."""

    split: str
    strategy: StrategyName
    samples: int = 0
    """Of the policy, each counted for itself; 0: the strategy's answer is."""

    @property
    def name(self) -> str:
        return f"{self.split}.samples" if self.samples else f"{self.split}.{self.strategy}"

    @property
    def tries(self) -> int:
        return self.samples or 1

    def request(self, problem: RoundProblem, pair: Pair, config: RoundConfig) -> SearchRequest:
        """The search of one problem. It knows no reference answer."""
        how = config.evaluation
        alone = 1 if self.strategy is StrategyName.GREEDY else self.samples
        tokens = alone * how.max_tokens if alone else how.tokens
        parameters = StrategyParameters(
            rollouts=alone or how.rollouts,
            branching_factor=how.branching_factor,
            exploration=how.exploration,
            widening=how.widening,
            gate=how.gate,
            temperature=how.temperature,
            top_p=how.top_p,
            max_tokens=how.max_tokens,
            early_stop=False,
            batch_rollouts=how.batch_rollouts,
            # A pair's samples, search and best-of-N begin with the same draws, and pairs of one policy too.
            shared_draws=self.strategy is not StrategyName.GREEDY,
            in_flight=how.in_flight,
            prm=PrmUse.NONE if self.strategy is StrategyName.GREEDY else PrmUse.VALUE,
        )
        return SearchRequest(
            problem=problem.text,
            strategy=self.strategy,
            parameters=parameters,
            budget=Budget(tokens=tokens, nodes=parameters.most_nodes, seconds=3600),
            # What is measured is counted from the trees.
            require=VerificationLevel.NONE,
            models=PinnedModels(policy=pair.policy, prm=pair.prm),
            seed=(config.seed + problem.place) % 2**31,
            priority=Priority.LOW,
        )


def samples_of(config: RoundConfig) -> Plan:
    """The policy alone, on development problems."""
    return Plan("development", StrategyName.BEST_OF_N, config.evaluation.samples)


SYSTEM_PLAN = Plan("development", StrategyName.MCTS)


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """Searches of problems with one pair."""

    who: str
    plan: Plan
    pair: Pair
    problems: Sequence[RoundProblem]

    @property
    def purpose(self) -> str:
        """Its searches are the round's under this name."""
        return f"{self.who}.{self.plan.name}"


class Filling:
    """Searches that have time, for the workers that would wait for the slowest of those that are waited for.

    Some of them go into the queue behind each lot of these. What is left is made when it is waited for itself.
    """

    def __init__(self, context: Context, jobs: Sequence[Job] = ()) -> None:
        """Problem after problem, of each all jobs: whatever part is made first is of all of them."""
        self._context = context
        self._left = deque(
            sorted(((each, job) for job in jobs for each in job.problems), key=lambda pair: pair[0].place)
        )

    async def put(self, count: int) -> None:
        """Put so many more into the queue."""
        some = [self._left.popleft() for _ in range(min(count, len(self._left)))]
        await _plan_some(self._context, some, 0)


async def _plan_some(context: Context, some: Sequence[tuple[RoundProblem, Job]], attempt: int) -> None:
    """Plan each of these problems' searches by the job that stands beside it."""
    for job in dict.fromkeys(job for _, job in some):
        requests = {
            each.place: job.plan.request(each, job.pair, context.claim.config)
            for each, of in some
            if of is job
        }
        await plan(context, job.purpose, attempt, requests)


async def search_all(context: Context, jobs: Sequence[Job], filling: Filling | None = None) -> None:
    """Have the searches of all jobs made, those that fail up to ATTEMPTS times. Raises RoundFailedError where many fail."""
    left: dict[Job, Collection[int]] = {job: {each.place for each in job.problems} for job in jobs}
    for attempt in range(ATTEMPTS):
        await plan_together(context, left, attempt)
        if filling is not None:
            await filling.put(sum(map(len, left.values())) // FILLING)
        await wait_for(context, [job.purpose for job in left], "evaluating", [job.pair for job in left])
        left = {job: failed for job in left if (failed := await _failed(context, job))}
        if not left:
            break


async def plan_together(context: Context, left: Mapping[Job, Collection[int]], attempt: int) -> None:
    """Plan what is left of each job, problem after problem: what their searches share is known when it is wanted."""
    wanted = [(each, job) for job, places in left.items() for each in job.problems if each.place in places]
    wanted.sort(key=lambda pair: pair[0].place)
    for start in range(0, len(wanted), TOGETHER):
        await _plan_some(context, wanted[start : start + TOGETHER], attempt)


async def _failed(context: Context, job: Job) -> set[int]:
    """Places whose last search could not run. Raises RoundFailedError where they are so many that something is broken."""
    wanted = {each.place for each in job.problems}
    last = {
        each.place: each
        for each in await context.searches.results(context.claim.id, job.purpose)
        if each.place in wanted
    }
    require_sound(list(last.values()), job.purpose)
    return {place for place, each in last.items() if could_not_run(each)}


async def read_trees(context: Context, job: Job) -> dict[int, SearchedTree]:
    """The tree of each problem's last search, by place; none where it failed."""
    failed = await _failed(context, job)
    places = {each.place for each in job.problems} - failed
    return {tree.place: tree async for tree in context.searches.trees(context.claim.id, job.purpose, places)}


async def measure(context: Context, job: Job, *strategies: StrategyName) -> list[Measured]:
    """Figures of a job whose searches are over. Independent trajectories can be counted by several votes.

    `strategies`: whose votes count the trees; the plan's own where none is given. Where the plan is of samples, each of a
    problem's samples is a try.
    """
    trees = await read_trees(context, job)
    tokens = {
        each.place: each.usage.policy.tokens
        for each in await context.searches.results(context.claim.id, job.purpose)
        if each.place in trees
    }
    found = []
    for strategy in strategies or (job.plan.strategy,):
        votes = {
            place: count_votes(find_ends(tree.nodes), vote_of(strategy)) for place, tree in trees.items()
        }
        rights = await _count_right(context, job, votes)
        found.append(
            figures(
                outcomes="".join(str(rights.get(each.place, FAILED)) for each in job.problems),
                samples=job.plan.tries,
                answered=sum(bool(each) for each in votes.values()),
                tokens=sum(tokens.values()) / max(1, len(tokens)),
            )
        )
    return found


async def _count_right(
    context: Context, job: Job, votes: Mapping[int, Sequence[AnswerGroup]]
) -> dict[int, int]:
    """How many of a problem's tries were right, by place."""
    references = {each.place: each.answer for each in job.problems}
    at_once = asyncio.Semaphore(GRADED_AT_ONCE)

    async def one(place: int) -> int:
        groups = votes[place] if job.plan.samples else votes[place][:1]
        right = 0
        for group in groups:
            async with at_once:
                if await same_answer(context.sandbox, group.ends[0].answer, references[place]):
                    right += group.votes if job.plan.samples else 1
        return min(right, job.plan.tries)

    counted = await asyncio.gather(*(one(place) for place in votes))
    return dict(zip(votes, counted, strict=True))


def figures(*, outcomes: str, samples: int, answered: int, tokens: float) -> Measured:
    """The figures of outcomes: accuracy with its interval. `tokens` of one problem, on average."""
    rights = [int(each) for each in outcomes if each != FAILED]
    n, right = len(rights), sum(rights)
    low, high = clustered_wilson(rights, samples)
    return Measured(
        n=n,
        right=right,
        samples=samples,
        # Counted apart: a policy that has not learnt the step format may write right programs that cannot be read.
        answered=answered,
        accuracy=round(right / max(1, n * samples), 4),
        ci95=(round(low, 4), round(high, 4)),
        tokens=round(tokens, 1),
        outcomes=outcomes,
    )


def joined(known: Measured | None, more: Measured) -> Measured:
    """The figures of the problems of both, the known ones first."""
    if known is None:
        return more
    n = known.n + more.n
    return figures(
        outcomes=known.outcomes + more.outcomes,
        samples=more.samples,
        answered=(known.answered or 0) + (more.answered or 0),
        tokens=(known.tokens * known.n + more.tokens * more.n) / max(1, n),
    )
