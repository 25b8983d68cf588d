"""Last stage: choose the pair that is tested, test it against the best pair so far, and measure it for the report.

The gate looks at development problems only, and at no more of them than it takes to decide. Held-out problems are for the
report: the policy alone (greedy), the whole system (search with the PRM), and best-of-N and majority over independent
trajectories, for as many generated tokens. What a pair has measured in an earlier round of the run is used again. The
searches of development problems with the whole system also say how probable a pair's answers are: they calibrate it.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from ratchet.contracts.round_metrics import (
    Comparison,
    Measured,
    MeasuredPair,
    MeasuredPairs,
    RoundMetrics,
    Verdict,
)
from ratchet.contracts.rounds import RoundConfig, RoundView
from ratchet.contracts.search import StrategyName
from ratchet.solutions.calibration import calibrate
from ratchet.store.rounds import RoundProblem
from services.trainer.gate import (
    POLICY,
    SYSTEM,
    compare,
    is_best,
    is_decided,
    is_open,
    is_promoted,
    looks,
    paired,
)
from services.trainer.holding import hold_pairs
from services.trainer.labelled_votes import label
from services.trainer.pairs import Pair, best_so_far
from services.trainer.stages.choosing import CANDIDATE, REFERENCE, choose_pair, new_pairs
from services.trainer.stages.context import Context, require_part
from services.trainer.stages.measuring import (
    SYSTEM_PLAN,
    Filling,
    Job,
    Plan,
    joined,
    measure,
    samples_of,
    search_all,
)

log = structlog.get_logger()

INCUMBENT = "incumbent"
HELD_OUT = "held_out"


async def evaluate(context: Context) -> RoundMetrics:
    """Measurements of the pairs, and the gate's verdict."""
    config, models = context.claim.config, require_part(context.claim.metrics.models)
    earlier = [
        each for each in await context.rounds.rounds(context.claim.run) if each.number < context.claim.number
    ]
    incumbent = Pair(models.policy, models.prm)
    reference = best_so_far(earlier, incumbent)
    await hold_pairs(context.serving, [reference, *new_pairs(context, reference)])
    problems = await context.rounds.problems(context.claim.id, "development")
    choosing = config.gate.selection if len(problems) > config.gate.selection else 0
    candidate, votes = await choose_pair(context, reference, problems[:choosing])
    # The same problems whether or not there was a choice: outcomes of other rounds are paired by their places.
    testing = problems[choosing:]
    held_out = await context.rounds.problems(context.claim.id, HELD_OUT)
    new_jobs = _held_out_jobs(context, CANDIDATE, candidate, held_out)
    old = _of_split(measured_before(earlier, incumbent, config), HELD_OUT)
    old_jobs = [] if old else _held_out_jobs(context, INCUMBENT, incumbent, held_out)
    # The figures of the report need nothing of the test: their searches fill its waits, each beside its own pair's, as the
    # services are made to hold no other pair meanwhile.
    filling = {
        CANDIDATE: Filling(context, new_jobs),
        REFERENCE: Filling(context, old_jobs if incumbent == reference else ()),
    }
    test = _Test(context, candidate, reference, testing, measured_before(earlier, reference, config), filling)
    await test.run()
    new = await _measure_held_out(context, new_jobs)
    if not old:
        old = await _measure_held_out(context, old_jobs)
    for split, of_split in (("development", test.new), (HELD_OUT, new)):
        await context.registry.add_evaluation(context.claim, candidate.policy, split, of_split)
    return RoundMetrics(
        evaluation=MeasuredPairs(
            incumbent=MeasuredPair(pair=incumbent.key, measured=old),
            candidate=MeasuredPair(pair=candidate.key, measured=test.new | new),
            reference=MeasuredPair(pair=reference.key, measured=test.old),
        ),
        gate=Verdict(
            promoted=is_promoted(test.comparisons),
            lost=[name for name, each in test.comparisons.items() if not is_promoted({name: each})],
            comparisons=test.comparisons,
            candidate=candidate.key,
            reference=reference.key,
            best=(candidate if is_best(test.comparisons) else reference).key,
            selection=votes,
        ),
    )


def measured_before(earlier: Sequence[RoundView], pair: Pair, config: RoundConfig) -> dict[str, Measured]:
    """What a pair measured in earlier rounds on the same problems in the same way: of each the most problems."""
    found: dict[str, Measured] = {}
    for view in earlier:
        evaluation = view.metrics.evaluation
        if evaluation is None or not _measures_alike(view.config, config):
            continue
        for each in (evaluation.incumbent, evaluation.candidate, evaluation.reference):
            if each is None or each.pair != pair.key:
                continue
            for name, measured in each.measured.items():
                if name not in found or len(measured.outcomes) > len(found[name].outcomes):
                    found[name] = measured
    return found


def _measures_alike(one: RoundConfig, other: RoundConfig) -> bool:
    """Whether two rounds measure the same problems, in the same order and in the same way."""

    def how(config: RoundConfig) -> tuple[object, ...]:
        return config.development, config.held_out, config.evaluation, config.seed, config.gate.selection

    return how(one) == how(other)


@dataclass
class _Test:
    """The gate's comparisons of two pairs, as far as they have come."""

    context: Context
    candidate: Pair
    reference: Pair
    problems: Sequence[RoundProblem]
    known: Mapping[str, Measured]
    """What the reference has measured of these problems before, from the first on."""
    filling: Mapping[str, Filling]
    """What is searched besides, by whose searches it goes behind."""
    comparisons: dict[str, Comparison] = field(default_factory=dict)
    new: dict[str, Measured] = field(default_factory=dict)
    old: dict[str, Measured] = field(default_factory=dict)

    async def run(self) -> None:
        """Look at problem after problem until it is decided; then calibrate the pairs by what was searched."""
        config, plans = self.context.claim.config, self._plans()
        self.old = {name: self.known[name] for name in plans if name in self.known}
        planned = looks(len(self.problems), config.gate.block)
        for look, done in enumerate(planned):
            # A comparison that is decided is not looked at again.
            open_ = [
                name for name in plans if name not in self.comparisons or is_open(self.comparisons[name])
            ]
            for who, pair, found in (
                (CANDIDATE, self.candidate, self.new),
                (REFERENCE, self.reference, self.old),
            ):
                await self._measure(who, pair, [plans[name] for name in open_], found, done)
            for name in open_:
                pairs = paired(self.old[name].outcomes, self.new[name].outcomes, plans[name].tries)
                self.comparisons[name] = compare(pairs, config.gate, len(plans), planned, look)
            if is_decided(self.comparisons):
                break
        for who, pair in ((CANDIDATE, self.candidate), (REFERENCE, self.reference)):
            if SYSTEM in plans:
                await calibrate_pair(self.context, Job(who, SYSTEM_PLAN, pair, self.problems))

    def _plans(self) -> dict[str, Plan]:
        """What is compared. A policy is not compared with itself."""
        config = self.context.claim.config
        plans: dict[str, Plan] = {}
        if self.candidate.policy != self.reference.policy:
            plans[POLICY] = samples_of(config)
        if config.evaluation.system:
            plans[SYSTEM] = SYSTEM_PLAN
        return plans

    async def _measure(
        self, who: str, pair: Pair, plans: Sequence[Plan], found: dict[str, Measured], until: int
    ) -> None:
        """Add to `found` what is missing of it up to the problem `until`."""
        jobs = []
        for each in plans:
            known = len(found[each.name].outcomes) if each.name in found else 0
            if known < until:
                jobs.append(Job(who, each, pair, self.problems[known:until]))
        if jobs:
            await search_all(self.context, jobs, self.filling[who])
        for job in jobs:
            [more] = await measure(self.context, job)
            found[job.plan.name] = joined(found.get(job.plan.name), more)


def _held_out_jobs(context: Context, who: str, pair: Pair, problems: Sequence[RoundProblem]) -> list[Job]:
    """What is searched for a pair's figures in the report."""
    how = context.claim.config.evaluation
    jobs = [Job(who, Plan(HELD_OUT, StrategyName.GREEDY), pair, problems)]
    if how.system:
        some = problems[: how.held_out_system]
        jobs += [
            Job(who, Plan(HELD_OUT, strategy), pair, some)
            for strategy in (StrategyName.MCTS, StrategyName.BEST_OF_N)
        ]
    return jobs


async def _measure_held_out(context: Context, jobs: Sequence[Job]) -> dict[str, Measured]:
    """A pair's figures for the report."""
    await search_all(context, jobs)
    found: dict[str, Measured] = {}
    for job in jobs:
        counted = [job.plan.strategy]
        if job.plan.strategy is StrategyName.BEST_OF_N:
            # The same trajectories, counted with the PRM's scores and without.
            counted.append(StrategyName.MAJORITY)
        for strategy, measured in zip(counted, await measure(context, job, *counted), strict=True):
            found[f"{HELD_OUT}.{strategy}"] = measured
    return found


def _of_split(measured: Mapping[str, Measured], split: str) -> dict[str, Measured]:
    return {name: each for name, each in measured.items() if name.startswith(f"{split}.")}


async def calibrate_pair(context: Context, job: Job) -> None:
    """Fit how probable the pair's answers are to the trees of a job, and store it; too few of them are none."""
    results = await context.searches.results(context.claim.id, job.purpose)
    pairs = {(each.models.get("policy"), each.models.get("prm")) for each in results if each.models}
    references = {problem.place: problem.answer for problem in job.problems}
    votes = [
        await label(context.sandbox, job.plan.strategy, tree.nodes, references[tree.place])
        async for tree in context.searches.trees(context.claim.id, job.purpose)
        if tree.place in references
    ]
    source = f"round {context.claim.number} of run {context.claim.run}: {len(votes)} development problems"
    try:
        # Versions do not change within a purpose, as its searches are pinned.
        [(policy, prm)] = pairs
        calibration = await asyncio.to_thread(calibrate, policy or "", prm or "", votes, source)
    except ValueError as error:
        log.info("no calibration", purpose=job.purpose, pairs=len(pairs), reason=str(error))
    else:
        await context.calibrations.put(calibration)
