"""What is groundedness worth? Searches problems, and asks of every trajectory whether its answer depends on the problem.

Counts trajectories whose answer changes with no quantity that the problem states, how many are right among them and among the
others, what a vote of grounded ones alone would say, and how often an answer that is verified by `agreement` is right: as it is
now, as it was before (two programs that differ in more than names, whatever they do), and if the programs of one behaviour
had to have several forms, or the answer half of the votes, as well. Of two different programs that give one problem the same
answer it counts how often they behave alike. No search knows a reference answer.

`python -m benchmarks.grounding nano:development:200 --data FOLDER [--model nano] [--tokens 600]` starts a stack in that folder.
The last line is a JSON object; rates have Wilson intervals.

Limits: the agreement of before is taken from the tree, where programs ran once, and not re-executed. Trajectories of one tree
share steps, so the intervals of their rates are too narrow.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from ratchet.clients import SandboxClient, SearchClient
from ratchet.contracts.search import NodeView, SearchRequest, SearchResult, VerificationLevel
from ratchet.problems import Problem, load
from ratchet.solutions.answers import answer_key, same_answer
from ratchet.solutions.behaviour import Behaviour, Question, ask_variants, behaviour_of
from ratchet.solutions.counterfactual import apply_variant, make_variants
from ratchet.solutions.programs import fingerprint, program_of
from ratchet.stack.config import StackConfig
from ratchet.stack.local import local_stack
from ratchet.statistics import wilson

WAIT_SECONDS = 1800.0
"""For one search; a longer one ends the measurement."""


@dataclass(frozen=True, slots=True)
class Trajectory:
    """A path to an answer."""

    steps: list[str]
    answer: str
    right: bool
    weight: float
    """What it adds to its answer's vote."""
    behaviour: Behaviour

    @property
    def grounded(self) -> bool | None:
        return self.behaviour.grounded


@dataclass(frozen=True, slots=True)
class Searched:
    """A problem after its search."""

    result: SearchResult
    right: bool
    trajectories: list[Trajectory]
    runs: int
    """Variants that were run for all of its programs."""
    seconds: float

    @property
    def leaders(self) -> list[Trajectory]:
        key = answer_key(self.result.answer or "")
        return [each for each in self.trajectories if answer_key(each.answer) == key]

    @property
    def level(self) -> VerificationLevel:
        verification = self.result.verification
        return verification.level if verification else VerificationLevel.NONE

    @property
    def agreed_before(self) -> bool:
        """Whether two programs of the answer differ in more than names, and the most PRM score is behind it."""
        votes: dict[str, float] = {}
        for each in self.trajectories:
            key = answer_key(each.answer)
            votes[key] = votes.get(key, 0.0) + each.weight
        leads = votes and votes[answer_key(self.result.answer or "")] >= max(votes.values())
        return bool(leads) and len({fingerprint(program_of(each.steps)) for each in self.leaders}) >= 2

    @property
    def agreed_in_forms(self) -> bool:
        """Whether the programs that agree differ in what they compute, and not only in how often they were drawn."""
        found = self.result.verification
        return self.level is VerificationLevel.AGREEMENT and found is not None and found.forms >= 2

    @property
    def agreed_by_half(self) -> bool:
        """Whether the answer that is verified by agreement has at least half of the votes."""
        found = self.result.verification
        agreed = self.level is VerificationLevel.AGREEMENT
        return agreed and found is not None and 2 * found.votes >= found.total_votes


async def search(
    problem: Problem, options: argparse.Namespace, searches: SearchClient, sandbox: SandboxClient
) -> Searched:
    """Search one problem, and see how the programs of its tree behave."""
    request = SearchRequest.model_validate(
        {
            "problem": problem.text,
            "strategy": options.strategy,
            "seed": options.seed,
            "budget": {"tokens": options.tokens, "seconds": WAIT_SECONDS},
            "parameters": {"rollouts": options.rollouts, "batch_rollouts": True},
            "wait": WAIT_SECONDS,
        }
    )
    result = await searches.create(request)
    if result.ended_at is None:
        raise SystemExit(f"Search {result.id} did not end within {WAIT_SECONDS:.0f} s.")
    right = result.answer is not None and await same_answer(sandbox, result.answer, problem.answer)
    nodes = (await searches.tree(result.id)).nodes
    paths = [(end, [node.text for node in path]) for end, path in ends(nodes)]
    variants = make_variants(problem.text)
    began = time.monotonic()
    answers = await ask_variants(
        [Question(steps, end.answer or "", variants) for end, steps in paths], sandbox
    )
    seconds = time.monotonic() - began
    runs = {tuple(apply_variant(steps, variant)) for _, steps in paths for variant in variants}
    found = [
        Trajectory(
            steps=steps,
            answer=end.answer or "",
            right=await same_answer(sandbox, end.answer or "", problem.answer),
            weight=end.visits * (0.5 if end.prm_score is None else end.prm_score),
            behaviour=behaviour_of(steps, end.answer or "", keys),
        )
        for (end, steps), keys in zip(paths, answers, strict=True)
    ]
    return Searched(result, right, found, len(runs - {tuple(steps) for _, steps in paths}), seconds)


def ends(nodes: Sequence[NodeView]) -> list[tuple[NodeView, list[NodeView]]]:
    """The ends of trajectories that were visited, each with the path to it; the root is not a step."""
    by_id = {node.id: node for node in nodes}
    found: list[tuple[NodeView, list[NodeView]]] = []
    for end in nodes:
        if end.answer is None or not end.visits:
            continue
        path, node = [], end
        while node.parent is not None:
            path.append(node)
            node = by_id[node.parent]
        found.append((end, path[::-1]))
    return found


def rate(holds: Sequence[bool]) -> dict[str, Any]:
    """Of how many it was asked, of how many it holds, and the share with its interval."""
    count = sum(holds)
    if not holds:
        return {"n": 0, "count": 0}
    edges = [round(edge, 4) for edge in wilson(count, len(holds))]
    return {"n": len(holds), "count": count, "share": round(count / len(holds), 4), "ci95": edges}


def alike(found: Sequence[Searched], *, right: bool) -> list[bool]:
    """Of two programs that differ in more than names and give the same right (or wrong) answer: do they behave alike?"""
    pairs: list[bool] = []
    for searched in found:
        programs: dict[str, Trajectory] = {}
        for each in searched.trajectories:
            if each.right is right and each.grounded:
                programs.setdefault(fingerprint(program_of(each.steps)), each)
        for one, other in combinations(programs.values(), 2):
            if answer_key(one.answer) == answer_key(other.answer):
                pairs.append(one.behaviour.signature == other.behaviour.signature)
    return pairs


def vote_of_grounded(searched: Searched) -> bool:
    """Whether the answer with the most weight among grounded trajectories is right; all vote where none is grounded."""
    voters = [each for each in searched.trajectories if each.grounded is not False] or searched.trajectories
    votes: dict[str, float] = {}
    rights: dict[str, bool] = {}
    for each in voters:
        key = answer_key(each.answer)
        votes[key] = votes.get(key, 0.0) + each.weight
        rights[key] = each.right
    return bool(votes) and rights[max(votes, key=lambda key: votes[key])]


def figures(found: Sequence[Searched], options: argparse.Namespace) -> dict[str, Any]:
    """The JSON object."""
    trajectories = [each for searched in found for each in searched.trajectories]

    def of(grounded: bool | None) -> dict[str, Any]:
        return rate([each.right for each in trajectories if each.grounded is grounded])

    known = [each.grounded is False for each in trajectories if each.grounded is not None]
    return {
        "benchmark": "grounding",
        "problems": options.problems,
        "n": len(found),
        "model": found[0].result.models["policy"],
        "strategy": options.strategy,
        "token_budget": options.tokens,
        "seed": options.seed,
        "answers": rate([each.right for each in found]),
        "trajectories": {
            "ungrounded": rate(known),
            "right_of_grounded": of(True),
            "right_of_ungrounded": of(False),
            "right_of_untold": of(None),
        },
        "pairs_that_behave_alike": {
            "right": rate(alike(found, right=True)),
            "wrong": rate(alike(found, right=False)),
        },
        "vote_of_grounded": rate([vote_of_grounded(each) for each in found]),
        "agreement_before": rate([each.right for each in found if each.agreed_before]),
        "agreement": rate([each.right for each in found if each.level is VerificationLevel.AGREEMENT]),
        "agreement_in_several_forms": rate([each.right for each in found if each.agreed_in_forms]),
        "agreement_by_half": rate([each.right for each in found if each.agreed_by_half]),
        "execution": rate([each.right for each in found if each.level is VerificationLevel.EXECUTION]),
        "none": rate([each.right for each in found if each.level is VerificationLevel.NONE]),
        "runs_a_trajectory": round(sum(each.runs for each in found) / max(1, len(trajectories)), 2),
        "milliseconds_a_run": round(
            1000 * sum(each.seconds for each in found) / max(1, sum(each.runs for each in found)), 2
        ),
    }


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Search the problems and count."""
    problems = load(options.problems).require_any().problems[: options.limit]
    slots = asyncio.Semaphore(options.at_once)
    async with (
        local_stack(StackConfig(data=options.data, model=options.model)) as urls,
        SearchClient(urls.search, key=urls.key) as searches,
        SandboxClient(urls.sandbox, key=urls.token) as sandbox,
    ):

        async def one(problem: Problem) -> Searched:
            async with slots:
                return await search(problem, options, searches, sandbox)

        found = await asyncio.gather(*map(one, problems))
    return figures(found, options)


def main() -> None:
    """Measure, and print the JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("problems", help="a problem set, as `ratchet eval` takes it")
    parser.add_argument("--data", type=Path, required=True, help="data folder of the stack; made if need be")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--limit", type=int, help="so many of the problems; default: all")
    parser.add_argument("--strategy", default="mcts")
    parser.add_argument("--tokens", type=int, default=600, help="budget of one search")
    parser.add_argument("--rollouts", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at-once", type=int, default=8, help="searches under way at once")
    print(json.dumps(asyncio.run(measure(parser.parse_args()))))


if __name__ == "__main__":
    main()
