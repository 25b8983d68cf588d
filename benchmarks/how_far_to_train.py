"""How far is a policy to be trained? Trains on what rounds have selected, and stops by several rules.

`python -m benchmarks.how_far_to_train results/rounds/nano-seed2/rounds/nano-seed2` takes the folder of a run of nano, with
`round-1`, `round-2` …; no stack has to run. Of each round's `sft.jsonl` the programs of 15 % of the problems are kept apart.
The policy is trained on the others as the preset `nano` says: to the last step, to the point of least loss on what is kept
apart, and to the last point that is not worse than that by two standard errors. Each policy solves the same development
problems greedily; programs run in the jail. The last line is a JSON object.

Limits: one seed, one division of the problems; greedy programs are one draw a problem.
"""

import argparse
import asyncio
import json
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.prompts import Judge, rate
from ratchet.cli.presets import nano
from ratchet.contracts.policy import Prefix, Until
from ratchet.contracts.training import SftConfig
from ratchet.models.prompts import choose
from ratchet.problems import Problem, load, sample
from ratchet.round_files import SFT_FILE
from ratchet.stack.own_sandbox import local_sandbox
from ratchet.statistics import mcnemar
from services.policy.candidates import candidate
from services.policy.engines.base import Sampling
from services.policy.engines.transformers import TransformersEngine
from services.trainer.training.jobs import MODEL_FOLDER, SftJob
from services.trainer.training.sft import train

BASE = Path("models/nano/policy")
KEPT_APART = 0.15
MAX_TOKENS = 200
RULES: dict[str, float | None] = {"the last step": None, "the least loss": 0.0, "two standard errors": 2.0}


def divided(file: Path, folder: Path) -> tuple[Path, Path]:
    """Files of what is learnt from and of what is kept apart, problem by problem."""
    lines = [json.loads(line) for line in file.read_bytes().splitlines()]
    ids = sorted({line["id"] for line in lines})
    random.Random(0).shuffle(ids)
    apart = set(ids[: round(KEPT_APART * len(ids))])
    files = folder / "data.jsonl", folder / "validation.jsonl"
    for target, kept in zip(files, (False, True), strict=True):
        chosen = [line for line in lines if (line["id"] in apart) is kept]
        target.write_text("".join(json.dumps(line) + "\n" for line in chosen))
    return files


async def solved(checkpoint: Path, problems: Sequence[Problem], judge: Judge) -> list[bool]:
    """Which problems the policy's greedy program solves."""
    form = choose("auto", checkpoint)
    meaning = form.stops(Until.END)
    engine = TransformersEngine(checkpoint, checkpoint.name, device="cpu")
    await engine.start()
    prompts = engine.encode([form.render(Prefix(problem=each.text)) for each in problems])
    sampling = Sampling(temperature=0.0, max_tokens=MAX_TOKENS, stop=tuple(meaning))
    written = await engine.generate(prompts, sampling)
    await engine.stop()
    programs = [candidate(one, Until.END, form, meaning).steps for [one] in written]
    return await asyncio.gather(
        *(judge.is_right(steps, problem) for steps, problem in zip(programs, problems, strict=True))
    )


async def measure(
    run: Path, number: int, problems: Sequence[Problem], judge: Judge, threads: int
) -> dict[str, Any]:
    """Figures of one round's data, by rule."""
    config = SftConfig.model_validate(nano(number, 0)["policy"] | {"threads": threads})
    found: dict[str, Any] = {}
    rights: dict[str, list[bool]] = {}
    for rule, errors in RULES.items():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            data, validation = divided(run / f"round-{number}" / SFT_FILE, folder)
            asked = config if errors is None else config.model_copy(update={"validation_errors": errors})
            job = SftJob(
                base=BASE,
                data=data,
                validation=None if errors is None else validation,
                out=folder / "out",
                step_format="markers",
                config=asked,
            )
            result = await asyncio.to_thread(train, job)
            rights[rule] = await solved(job.out / MODEL_FOLDER, problems, judge)
        told = result.validation
        found[rule] = {
            "steps": result.steps,
            "seconds": round(result.seconds, 1),
            "right": rate(rights[rule]),
            "chosen": None
            if told is None
            else {"step": told.step, "scale": told.scale, "nll": round(told.nll, 4)},
        }
        if told is not None:
            found |= {"problems": told.problems, "programs": told.programs, "examples": result.examples}
            found["curve"] = [[point.step, round(point.nll, 4)] for point in told.curve]
    last = rights["the last step"]
    for rule in list(RULES)[1:]:
        pairs = list(zip(rights[rule], last, strict=True))
        better, worse = pairs.count((True, False)), pairs.count((False, True))
        found[rule]["against_last"] = {
            "better": better,
            "worse": worse,
            "p": round(mcnemar(better, worse), 4),
        }
    return {"round": number, **found}


async def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--rounds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--problems", type=int, default=300)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    problems = sample(load("nano:development?count=400").problems, seed=1, offset=0, limit=arguments.problems)
    rounds = []
    async with local_sandbox() as sandbox:
        for number in arguments.rounds:
            rounds.append(await measure(arguments.run, number, problems, Judge(sandbox), arguments.threads))
            print(json.dumps(rounds[-1]), flush=True)
    print(json.dumps({"problems": len(problems), "rounds": rounds}))


if __name__ == "__main__":
    asyncio.run(main())
