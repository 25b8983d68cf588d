"""The order of an evaluation's searches: those that share draws follow one another, and those that have time come last."""

from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet.contracts.rounds import RoundConfig
from ratchet.contracts.search import StrategyName
from ratchet.store.rounds import RoundProblem, RoundStore
from services.trainer.pairs import Pair
from services.trainer.stages.context import Context
from services.trainer.stages.measuring import TOGETHER, Filling, Job, Plan, plan_together
from tests.integration.round_claims import begin, claim_round, stage_context

PAIR = Pair("r1-policy@1", "r1-prm@1")


async def planned(context: Context, job: Job) -> list[int]:
    return [place for place, _, _ in await context.searches.planned(context.claim.id, job.purpose)]


async def test_each_problem_is_put_with_all_its_strategies_until_none_is_left(
    engine: AsyncEngine, redis_url: str
) -> None:
    rounds = RoundStore(engine)
    await begin(rounds)
    problems = [RoundProblem(place, f"Problem {place}", "42", "family", None, "source") for place in range(5)]
    strategies = (StrategyName.GREEDY, StrategyName.MCTS)
    greedy, mcts = [Job("candidate", Plan("held_out", each), PAIR, problems) for each in strategies]
    async with stage_context(engine, await claim_round(rounds), redis_url) as context:
        filling = Filling(context, [greedy, mcts])
        await filling.put(3)
        assert (await planned(context, greedy), await planned(context, mcts)) == ([0, 1], [0])
        await filling.put(5)
        assert (await planned(context, greedy), await planned(context, mcts)) == ([0, 1, 2, 3], [0, 1, 2, 3])
        for _ in range(2):
            await filling.put(100)
            assert await planned(context, greedy) == await planned(context, mcts) == [0, 1, 2, 3, 4]
        await Filling(context).put(100)


async def test_searches_of_one_problem_follow_one_another_whatever_they_are_for(
    engine: AsyncEngine, redis_url: str
) -> None:
    """What the policy has drawn for one is still known when the next one asks for it."""
    rounds = RoundStore(engine)
    await begin(rounds)
    count = TOGETHER + 3
    problems = [
        RoundProblem(place, f"Problem {place}", "42", "family", None, "source") for place in range(count)
    ]
    plans = (Plan("development", StrategyName.BEST_OF_N, samples=4), Plan("development", StrategyName.MCTS))
    samples, system = [Job("candidate", each, PAIR, problems) for each in plans]
    async with stage_context(engine, await claim_round(rounds), redis_url) as context:
        await plan_together(context, {samples: set(range(count)), system: {0, TOGETHER + 1}}, 0)
        assert await planned(context, samples) == list(range(count))
        assert await planned(context, system) == [0, TOGETHER + 1]
        # Ids are in the order in which they were made.
        made = [
            (search_id, job.plan.name, place)
            for job in (samples, system)
            for place, _, search_id in await context.searches.planned(context.claim.id, job.purpose)
        ]
        order = [(name, place) for _, name, place in sorted(made)]
        assert order.index((system.plan.name, 0)) < order.index((samples.plan.name, TOGETHER))


def test_a_pair_s_searches_share_what_is_drawn_at_random() -> None:
    problem = RoundProblem(7, "Problem 7", "42", "family", None, "source")
    strategies = (StrategyName.MCTS, StrategyName.BEST_OF_N, StrategyName.GREEDY)
    plans = [
        Plan("development", StrategyName.BEST_OF_N, samples=4),
        *(Plan("held_out", each) for each in strategies),
    ]
    samples, mcts, best_of_n, greedy = [each.request(problem, PAIR, RoundConfig()) for each in plans]
    assert not greedy.parameters.shared_draws
    how = samples.seed, samples.parameters.temperature, samples.parameters.top_p, samples.parameters.gate
    for each in (samples, mcts, best_of_n):
        assert each.parameters.shared_draws
        assert (each.seed, each.parameters.temperature, each.parameters.top_p, each.parameters.gate) == how
