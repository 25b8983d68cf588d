"""Second stage: search the training problems, with the reference answers known to the verifier alone.

Values come from the ends of trajectories. Once a PRM was trained, its scores seed them. Problems that stay unsolved are
searched again with other seeds and more rollouts, as in the paper's last round (rStar-Math, arXiv 2501.04519, section 3.4).
"""

from ratchet.contracts.round_metrics import LabelCounts, RoundMetrics, StartModels
from ratchet.contracts.rounds import LabelSearch
from ratchet.contracts.search import (
    MAX_ROLLOUTS,
    Budget,
    PinnedModels,
    Priority,
    PrmUse,
    SearchRequest,
    StrategyParameters,
    VerificationLevel,
)
from ratchet.contracts.serving import PRM1
from ratchet.states import SearchState
from ratchet.store.quarantine import LABEL
from ratchet.store.round_searches import RoundSearch
from ratchet.store.rounds import RoundProblem
from services.trainer.pairs import Pair
from services.trainer.stages.context import Context, require_part
from services.trainer.stages.planned_searches import (
    plan,
    queue_failed_again,
    require_sound,
    wait_for,
)

SEEDS_PER_ATTEMPT = 100_003


async def search(context: Context) -> RoundMetrics:
    """Search all training problems, those without a solution again; coverage and cost."""
    config, models = context.claim.config, require_part(context.claim.metrics.models)
    problems = await context.rounds.problems(context.claim.id, "train")
    for attempt in range(config.label.retries + 1):
        solved = _solved_places(await context.searches.results(context.claim.id, LABEL))
        requests = {
            problem.place: label_request(
                problem,
                config.label,
                config.label.retry_factor**attempt,
                models,
                seed=config.seed + attempt * SEEDS_PER_ATTEMPT + problem.place,
            )
            for problem in problems
            if problem.place not in solved
        }
        await plan(context, LABEL, attempt, requests)
        stage, pairs = f"searching, attempt {attempt + 1}", [Pair(models.policy, models.prm)]
        await wait_for(context, [LABEL], stage, pairs)
        # A search that failed says nothing of its problem: it goes on from its tree, once for each attempt.
        if await queue_failed_again(context, LABEL):
            await wait_for(context, [LABEL], stage, pairs)
    results = await context.searches.results(context.claim.id, LABEL)
    require_sound(results, LABEL)
    solved = _solved_places(results)
    return RoundMetrics(
        label=LabelCounts(
            problems=len(problems),
            solved=len(solved),
            coverage=round(len(solved) / max(1, len(problems)), 4),
            searches=len(results),
            failed=sum(result.state is SearchState.FAILED for result in results),
            tokens=sum(result.usage.policy.tokens for result in results),
            rollouts=sum(result.usage.rollouts for result in results),
        )
    )


def _solved_places(results: list[RoundSearch]) -> set[int]:
    return {result.place for result in results if result.state is SearchState.SOLVED_VERIFIED}


def label_request(
    problem: RoundProblem, label: LabelSearch, factor: float, models: StartModels, *, seed: int
) -> SearchRequest:
    """The search of a training problem; `factor` says how much larger than its first search this one is."""
    rollouts = min(MAX_ROLLOUTS, round(label.rollouts * factor))
    tokens = rollouts * label.max_tokens if label.tokens is None else round(label.tokens * factor)
    parameters = StrategyParameters(
        rollouts=rollouts if label.tokens is None else MAX_ROLLOUTS,
        branching_factor=label.branching_factor,
        max_depth=label.max_depth,
        exploration=label.exploration,
        widening=label.widening,
        gate=label.gate,
        temperature=label.temperature,
        top_p=label.top_p,
        max_tokens=label.max_tokens,
        in_flight=label.in_flight,
        early_stop=False,
        batch_rollouts=label.batch_rollouts,
        prm=label.prm or (PrmUse.NONE if models.prm == PRM1 else PrmUse.VALUE),
    )
    return SearchRequest(
        problem=problem.text,
        reference_answer=problem.answer,
        strategy=label.strategy,
        parameters=parameters,
        budget=Budget(tokens=min(10_000_000, tokens), nodes=parameters.most_nodes, seconds=3600),
        require=VerificationLevel.EXECUTION,
        models=PinnedModels(policy=models.policy, prm=models.prm),
        seed=seed % 2**31,
        priority=Priority.LOW,
    )
