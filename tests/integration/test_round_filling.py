"""Searches that have time go into the queue behind those that are waited for, each once."""

from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet.contracts.search import StrategyName
from ratchet.store.rounds import RoundProblem, RoundStore
from services.trainer.pairs import Pair
from services.trainer.stages.context import Context
from services.trainer.stages.measuring import Filling, Job, Plan
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
