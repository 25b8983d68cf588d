"""Last stage: measure the new pair beside the one that serves, on problems without their reference answers, and decide.

Four strategies are measured: the policy alone (greedy), the whole system (search with the PRM), and best-of-N and majority over
independent trajectories, for as many generated tokens. The gate looks at development problems only; held-out problems are for
the report. What the serving pair has measured in an earlier round of the run is used again. The searches of development
problems with the whole system also say how probable a pair's answers are: they calibrate it.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog

from ratchet.contracts.round_metrics import Comparison, Measured, MeasuredPair, MeasuredPairs, RoundMetrics
from ratchet.contracts.rounds import Evaluation, RoundConfig
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
from ratchet.contracts.serving import LoadModel
from ratchet.solutions.answers import same_answer
from ratchet.solutions.calibration import calibrate
from ratchet.solutions.votes import End, count_votes, find_ends, vote_of
from ratchet.statistics import wilson
from ratchet.store.rounds import RoundProblem
from services.trainer.gate import SYSTEM, compare, gate
from services.trainer.labelled_votes import label
from services.trainer.stages.context import Context, require_part
from services.trainer.stages.planned_searches import Pair, plan, require_sound, wait_for

log = structlog.get_logger()

SPLITS = ("development", "held_out")
INCUMBENT, CANDIDATE, SERVING_PRM = "incumbent", "candidate", "serving_prm"


async def evaluate(context: Context) -> RoundMetrics:
    """Measurements of both pairs, and the gate's verdict."""
    config, metrics = context.claim.config, context.claim.metrics
    models = require_part(metrics.models)
    incumbent = Pair(models.policy, models.prm)
    problems = {split: await context.rounds.problems(context.claim.id, split) for split in SPLITS}
    plans = _plans(config.evaluation)
    development, held_out = ([each for each in plans if each.split == split] for split in SPLITS)
    candidate, measured, of_prm = await _choose_prm(context, development, problems)
    measured |= await _measure_pair(context, CANDIDATE, candidate, held_out, problems)
    before = await _find_measured(context, incumbent)
    if before is None:
        before = await _measure_pair(context, INCUMBENT, incumbent, [*development, *held_out], problems)
    for split in SPLITS:
        of_split = {name: figures for name, figures in measured.items() if name.startswith(split)}
        await context.registry.add_evaluation(context.claim, candidate.policy, split, of_split)
    return RoundMetrics(
        evaluation=MeasuredPairs(
            incumbent=MeasuredPair(pair=incumbent.key, measured=before),
            candidate=MeasuredPair(pair=candidate.key, measured=measured),
        ),
        gate=gate(before, measured, config.gate, of_prm),
    )


async def _choose_prm(
    context: Context, development: Sequence["Plan"], problems: Mapping[str, Sequence[RoundProblem]]
) -> tuple[Pair, dict[str, Measured], Comparison | None]:
    """The new pair, what it measured on development problems, and how the new PRM compared with the one that serves.

    Both PRMs are compared under the new policy. Where the new one loses, the pair is the new policy with the serving PRM.
    """
    metrics = context.claim.metrics
    models, policy, prm = require_part(metrics.models), require_part(metrics.policy), metrics.prm
    await context.policy.load(policy.version, LoadModel(uri=policy.uri, sha256=policy.sha256))
    if prm is not None:
        await context.prm.load(prm.version, LoadModel(uri=prm.uri, sha256=prm.sha256))
    candidate = Pair(policy.version, models.prm if prm is None else prm.version)
    measured = await _measure_pair(context, CANDIDATE, candidate, development, problems)
    if prm is None or SYSTEM not in measured:
        return candidate, measured, None
    serving = Pair(policy.version, models.prm)
    system = [each for each in development if each.name == SYSTEM]
    with_serving = await _measure_pair(context, SERVING_PRM, serving, system, problems)
    compared = compare(with_serving[SYSTEM].outcomes, measured[SYSTEM].outcomes, context.claim.config.gate)
    if compared.loses:
        return serving, measured | with_serving, compared
    return candidate, measured, compared


async def _measure_pair(
    context: Context,
    who: str,
    pair: Pair,
    plans: Sequence["Plan"],
    problems: Mapping[str, Sequence[RoundProblem]],
) -> dict[str, Measured]:
    """Figures of these plans with a pair. Pairs take turns, as the engines of two policies would share the cores."""
    purposes = {f"{who}.{each.name}": each for each in plans}
    for purpose, each in purposes.items():
        chosen = problems[each.split][: each.limit]
        requests = {one.place: each.request(one, pair, context.claim.config) for one in chosen}
        await plan(context, purpose, 0, requests)
    await wait_for(context, list(purposes), "evaluating", [pair])
    found: dict[str, Measured] = {}
    for purpose, each in purposes.items():
        chosen = problems[each.split][: each.limit]
        found |= await _measure(context, purpose, each, chosen)
        if each.name == SYSTEM:
            await calibrate_pair(context, purpose, each, chosen)
    return found


async def _find_measured(context: Context, pair: Pair) -> dict[str, Measured] | None:
    """What a pair measured in an earlier round of this run on the same problems in the same way."""
    for earlier in await context.rounds.rounds(context.claim.run):
        evaluation = earlier.metrics.evaluation
        if (
            evaluation is None
            or earlier.number >= context.claim.number
            or not _measures_alike(earlier.config, context.claim.config)
        ):
            continue
        for found in (evaluation.incumbent, evaluation.candidate):
            if found.pair == pair.key:
                return found.measured
    return None


def _measures_alike(one: RoundConfig, other: RoundConfig) -> bool:
    """Whether two rounds are measured on the same problems in the same way."""
    return (one.development, one.held_out, one.evaluation, one.seed) == (
        other.development,
        other.held_out,
        other.evaluation,
        other.seed,
    )


@dataclass(frozen=True, slots=True)
class Plan:
    """One strategy on one split, for one pair."""

    split: str
    strategy: StrategyName
    limit: int | None = None
    """Only so many of the split's problems."""

    @property
    def name(self) -> str:
        return f"{self.split}.{self.strategy}"

    def request(self, problem: RoundProblem, pair: Pair, config: RoundConfig) -> SearchRequest:
        """The search of one problem. It knows no reference answer."""
        how = config.evaluation
        greedy = self.strategy is StrategyName.GREEDY
        return SearchRequest(
            problem=problem.text,
            strategy=self.strategy,
            parameters=StrategyParameters(
                rollouts=1 if greedy else how.rollouts,
                branching_factor=how.branching_factor,
                exploration=how.exploration,
                widening=how.widening,
                gate=how.gate,
                temperature=how.temperature,
                top_p=how.top_p,
                max_tokens=how.max_tokens,
                early_stop=False,
                batch_rollouts=how.batch_rollouts,
                in_flight=how.in_flight,
                prm=PrmUse.NONE if greedy else PrmUse.VALUE,
            ),
            budget=Budget(tokens=how.max_tokens if greedy else how.tokens, seconds=3600),
            require=VerificationLevel.EXECUTION,
            models=PinnedModels(policy=pair.policy, prm=pair.prm),
            seed=(config.seed + problem.place) % 2**31,
            priority=Priority.LOW,
        )


def _plans(how: Evaluation) -> list[Plan]:
    """The gate's comparisons on development problems, and what is reported of the held-out ones."""
    plans = [Plan(split, StrategyName.GREEDY) for split in SPLITS]
    if how.system:
        plans += [Plan("held_out", StrategyName.MCTS), Plan("held_out", StrategyName.BEST_OF_N)]
    if how.system and how.development_system:
        plans.append(Plan("development", StrategyName.MCTS, how.development_system))
    return plans


async def _measure(
    context: Context, purpose: str, plan: Plan, problems: Sequence[RoundProblem]
) -> dict[str, Measured]:
    """Figures of the searches for a purpose, by name. Independent trajectories give two: best-of-N and majority.

    All are counted from the trees, by the same vote.
    """
    # A retry may measure on fewer problems than there are searches of.
    places = {problem.place for problem in problems}
    results = [
        each for each in await context.searches.results(context.claim.id, purpose) if each.place in places
    ]
    require_sound(results, purpose)
    tokens = sum(each.usage.policy.tokens for each in results) / max(1, len(results))
    counted = [plan.strategy]
    if plan.strategy is StrategyName.BEST_OF_N:
        counted.append(StrategyName.MAJORITY)
    answers: dict[StrategyName, dict[int, str | None]] = {strategy: {} for strategy in counted}
    async for tree in context.searches.trees(context.claim.id, purpose):
        ends = find_ends(tree.nodes)
        for strategy in counted:
            answers[strategy][tree.place] = leading_answer(ends, strategy)
    return {
        f"{plan.split}.{strategy}": await _grade(context, found, problems, tokens)
        for strategy, found in answers.items()
    }


async def calibrate_pair(
    context: Context, purpose: str, plan: "Plan", problems: Sequence[RoundProblem]
) -> None:
    """Fit how probable the pair's answers are to the trees of a purpose, and store it; too few of them are none."""
    results = await context.searches.results(context.claim.id, purpose)
    pairs = {(each.models.get("policy"), each.models.get("prm")) for each in results if each.models}
    references = {problem.place: problem.answer for problem in problems}
    votes = [
        await label(context.sandbox, plan.strategy, tree.nodes, references[tree.place])
        async for tree in context.searches.trees(context.claim.id, purpose)
        if tree.place in references
    ]
    source = f"round {context.claim.number} of run {context.claim.run}: {len(votes)} development problems"
    try:
        # Versions do not change within a purpose, as its searches are pinned.
        [(policy, prm)] = pairs
        calibration = await asyncio.to_thread(calibrate, policy or "", prm or "", votes, source)
    except ValueError as error:
        log.info("no calibration", purpose=purpose, pairs=len(pairs), reason=str(error))
    else:
        await context.calibrations.put(calibration)


def leading_answer(ends: Sequence[End], strategy: StrategyName) -> str | None:
    """The answer that a search with this strategy gives; None where no trajectory has ended in one."""
    counted = count_votes(ends, vote_of(strategy))
    return counted[0].ends[0].answer if counted else None


async def _grade(
    context: Context, answers: Mapping[int, str | None], problems: Sequence[RoundProblem], tokens: float
) -> Measured:
    """Grade the answers, which are given by the problem's place: accuracy, its interval, and a digit for each problem."""
    outcomes = ""
    answered = 0
    for problem in problems:
        if problem.place not in answers:
            continue
        answer = answers[problem.place]
        answered += answer is not None
        correct = answer is not None and await same_answer(context.sandbox, answer, problem.answer)
        outcomes += "1" if correct else "0"
    right, n = outcomes.count("1"), len(outcomes)
    low, high = wilson(right, n)
    return Measured(
        n=n,
        right=right,
        # Counted apart: a policy that has not learnt the step format may write right programs that cannot be read.
        answered=answered,
        accuracy=round(right / max(1, n), 4),
        ci95=(round(low, 4), round(high, 4)),
        tokens=round(tokens, 1),
        outcomes=outcomes,
    )
