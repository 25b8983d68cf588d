"""Which of the new pairs is tested: the new policy with the new PRM or with the old one, or the old policy with the new PRM.

So a good PRM does not go with a bad policy, nor a good policy with a bad PRM. The policies' samples of a few development
problems are drawn once each, and scored by both PRMs: the four votes cost no more generated tokens than two. These problems
choose only, and take no part in the test.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from ratchet.contracts.prm import ScoreRequest
from ratchet.contracts.round_metrics import Measured
from ratchet.contracts.search import StrategyName
from ratchet.solutions.answers import same_answer
from ratchet.solutions.votes import End, count_votes, find_ends, vote_of
from ratchet.store.round_searches import SearchedTree
from ratchet.store.rounds import RoundProblem
from services.trainer.gate import preferred
from services.trainer.pairs import Pair
from services.trainer.selection import path_of
from services.trainer.stages.context import Context, require_part
from services.trainer.stages.measuring import FAILED, Job, figures, read_trees, samples_of, search_all

CANDIDATE, REFERENCE = "candidate", "reference"
AT_ONCE = 8
MOST_TRAJECTORIES = 256
"""That one request to the PRM may score."""


def new_pairs(context: Context, reference: Pair) -> list[Pair]:
    """The pairs with something new in them, the one that is preferred among equals first."""
    policy, prm = require_part(context.claim.metrics.policy).version, context.claim.metrics.prm
    if prm is None:
        return [Pair(policy, reference.prm)]
    return [
        Pair(policy, prm.version),
        Pair(policy, reference.prm),
        Pair(reference.policy, prm.version),
    ]


async def choose_pair(
    context: Context, reference: Pair, problems: Sequence[RoundProblem]
) -> tuple[Pair, dict[str, Measured]]:
    """The pair that is tested, and what each pair's vote solves of these problems.

    Nothing is measured where there is nothing to choose, or no system is measured in this round.
    """
    pairs = new_pairs(context, reference)
    if len(pairs) == 1 or not problems or not context.claim.config.evaluation.system:
        return pairs[0], {}
    drawn = [
        Job(who, samples_of(context.claim.config), pair, problems)
        for who, pair in ((CANDIDATE, pairs[0]), (REFERENCE, reference))
    ]
    solved: dict[str, Measured] = {}
    for job in drawn:
        # Policies take turns, as their engines would share the cores.
        await search_all(context, [job])
        for prm in (pairs[0].prm, reference.prm):
            pair = Pair(job.pair.policy, prm)
            solved[pair.key] = await _vote(context, job, pair)
    return Pair.named(preferred({pair.key: solved[pair.key].outcomes for pair in pairs})), solved


async def _vote(context: Context, job: Job, pair: Pair) -> Measured:
    """What the vote over a policy's samples solves when this pair's PRM scores them."""
    trees = await read_trees(context, job)
    at_once = asyncio.Semaphore(AT_ONCE)

    async def one(problem: RoundProblem) -> tuple[bool, bool]:
        """Whether there is an answer, and whether it is right."""
        async with at_once:
            ends = await _ends(context, trees[problem.place], problem, pair, scored=pair == job.pair)
            counted = count_votes(ends, vote_of(StrategyName.BEST_OF_N))
            if not counted:
                return False, False
            return True, await same_answer(context.sandbox, counted[0].ends[0].answer, problem.answer)

    found = [each for each in job.problems if each.place in trees]
    votes = await asyncio.gather(*(one(each) for each in found))
    said = {each.place: vote for each, vote in zip(found, votes, strict=True)}
    return figures(
        outcomes="".join(
            str(int(said[each.place][1])) if each.place in said else FAILED for each in job.problems
        ),
        samples=1,
        answered=sum(answered for answered, _ in said.values()),
        tokens=_mean_tokens(trees),
    )


def _mean_tokens(trees: dict[int, SearchedTree]) -> float:
    return sum(node.tokens for tree in trees.values() for node in tree.nodes) / max(1, len(trees))


async def _ends(
    context: Context, tree: SearchedTree, problem: RoundProblem, pair: Pair, *, scored: bool
) -> list[End]:
    """The ends of a tree with the scores of the pair's PRM, which are asked for unless the tree was `scored` by it."""
    ends = find_ends(tree.nodes)
    if scored or not ends:
        return ends
    by_id = {node.id: node for node in tree.nodes}
    steps = [[node.text for node in path_of(by_id, by_id[end.node])] for end in ends]
    found: list[End] = []
    for start in range(0, len(ends), MOST_TRAJECTORIES):
        response = await context.prm.score(
            ScoreRequest(
                problem=problem.text,
                steps=steps[start : start + MOST_TRAJECTORIES],
                model=pair.prm,
                policy=pair.policy,
            )
        )
        part = ends[start : start + MOST_TRAJECTORIES]
        found += [
            replace(end, scores=tuple(scores)) for end, scores in zip(part, response.scores, strict=True)
        ]
    return found
