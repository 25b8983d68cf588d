"""Is a policy better that also unlearns wrong programs? Trains on what rounds have selected, with and without them.

`python -m benchmarks.wrong_programs results/rounds/nano-seed2/rounds/nano-seed2` takes the folder of a run of nano, with
`round-1`, `round-2` …; no stack has to run. Of each round the policy is trained as the preset `nano` says on the round's
`sft.jsonl`, alone or with wrong programs of the same problems (from the round's `trees.jsonl`), by several weights. Each policy
solves the same development problems greedily; programs run in the jail. The last line is a JSON object.

Limits: greedy programs are one draw a problem.
"""

import argparse
import asyncio
import json
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.how_far_to_train import BASE, solved
from benchmarks.prompts import Judge, rate
from ratchet.cli.presets import nano
from ratchet.contracts.training import SftConfig
from ratchet.problems import Problem, load, sample
from ratchet.round_files import SFT_FILE, TREES_FILE
from ratchet.solutions.canonical import canonical_form
from ratchet.solutions.preferences import Tree, nodes_that_ran, path
from ratchet.solutions.programs import program_of
from ratchet.stack.own_sandbox import local_sandbox
from ratchet.statistics import mcnemar
from services.trainer.training.jobs import MODEL_FOLDER, SftJob
from services.trainer.training.sft import train

PER_PROBLEM = 2
"""Wrong programs of a problem, as many as right ones are learnt."""


@dataclass(frozen=True, slots=True)
class Arm:
    """How strongly wrong programs are unlearnt, and how soon that ends: see `SftConfig`."""

    weight: float
    beta: float

    @classmethod
    def named(cls, text: str) -> "Arm":
        """From `weight:beta`."""
        weight, beta = text.split(":")
        return cls(float(weight), float(beta))


def wrong_lines(trees: Path, problems: Collection[str]) -> Iterator[dict[str, Any]]:
    """Of each problem the wrong programs that most rollouts ended with, no two of one canonical form."""
    found: dict[str, list[dict[str, Any]]] = {}
    for line in trees.read_bytes().splitlines():
        tree = Tree.model_validate_json(line)
        if tree.problem_id in problems:
            known = found.setdefault(tree.problem_id, [])
            known += list(_wrong_programs(tree))[: PER_PROBLEM - len(known)]
    for lines in found.values():
        yield from ({**each, "weight": 1 / len(lines)} for each in lines)


def _wrong_programs(tree: Tree) -> Iterator[dict[str, Any]]:
    nodes = nodes_that_ran(tree)
    ends = [node for node in nodes.values() if node.terminal and node.correct is not None]
    right = {node.id for end in ends if end.correct for node in path(nodes, end.id)}
    forms: set[str] = set()
    for end in sorted((end for end in ends if not end.correct), key=lambda end: -end.visits):
        way = path(nodes, end.id)
        steps = [node.text for node in way]
        form = canonical_form(program_of(steps), compute=False)
        if form not in forms:
            forms.add(form)
            right_steps = sum(node.id in right for node in way)
            yield {
                "id": tree.problem_id,
                "problem": tree.problem,
                "steps": steps,
                "right_steps": right_steps,
            }


async def measure(
    source: Path, config: SftConfig, arms: Sequence[Arm], problems: Sequence[Problem], judge: Judge
) -> dict[str, Any]:
    """Figures of one round's data, by arm; the others are compared with the first."""
    rows: list[dict[str, Any]] = []
    first: list[bool] = []
    learnt = {json.loads(line)["id"] for line in (source / SFT_FILE).read_bytes().splitlines()}
    with tempfile.TemporaryDirectory() as name:
        wrong, lines = Path(name) / "wrong.jsonl", list(wrong_lines(source / TREES_FILE, learnt))
        wrong.write_text("".join(json.dumps(line) + "\n" for line in lines))
        for number, arm in enumerate(arms):
            job = SftJob(
                base=BASE,
                data=source / SFT_FILE,
                wrong=wrong,
                out=Path(name) / str(number),
                step_format="markers",
                config=config.model_copy(update={"wrong_weight": arm.weight, "wrong_beta": arm.beta}),
            )
            result = await asyncio.to_thread(train, job)
            rights = await solved(job.out / MODEL_FOLDER, problems, judge)
            first = first or rights
            pairs = list(zip(rights, first, strict=True))
            better, worse = pairs.count((True, False)), pairs.count((False, True))
            rows.append(
                {
                    "weight": arm.weight,
                    "beta": arm.beta,
                    "steps": result.steps,
                    "right": rate(rights),
                    "better": better,
                    "worse": worse,
                    "p": round(mcnemar(better, worse), 4),
                }
            )
            print(source.name, rows[-1], flush=True)
    return {"problems_learnt": len(learnt), "wrong_programs": len(lines), "arms": rows}


async def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--rounds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--problems", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--arms",
        type=Arm.named,
        nargs="+",
        metavar="WEIGHT:BETA",
        default=[Arm(0, 0.5), Arm(0.1, 0.5), Arm(0.3, 0.5), Arm(1, 0.5), Arm(0.3, 0.1), Arm(1, 2)],
    )
    arguments = parser.parse_args()
    problems = sample(load("nano:development?count=3100").problems, seed=1, limit=arguments.problems)
    rounds = []
    async with local_sandbox() as sandbox:
        for number in arguments.rounds:
            config = SftConfig.model_validate(nano(number, 0)["policy"] | {"threads": arguments.threads})
            source = arguments.run / f"round-{number}"
            found = await measure(source, config, arguments.arms, problems, Judge(sandbox))
            rounds.append({"round": number, **found})
    print(json.dumps({"problems": len(problems), "rounds": rounds}))


if __name__ == "__main__":
    asyncio.run(main())
