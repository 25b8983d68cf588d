"""Which prompt suits a model that was not trained on our step format? Solves the same problems with each variant.

Greedy programs, and with `--samples` also sampled ones at 0.7, from the policy service's own engine; each program runs in the
jail, its answer is graded, and groundedness is asked as the product asks it (`ratchet.solutions.behaviour`). Variants:

- `few_shot_with_results`: four worked examples whose comments say each result, the format until version 0.1
- `few_shot`: the same examples, and comments that state no results
- `chat`: the model's own chat template, zero-shot: the instructions and the problem in one turn of the user
- `chat_system`: the same instructions in the system's turn
- `chat_examples`: the instructions, and the examples before the problem, in the user's turn

`python -m benchmarks.prompts --data gsm8k_train.jsonl [--model small] [--limit 120] [--samples 0] [--variants chat,few_shot]`
needs the extra cpu or gpu. The problems are those of `benchmarks.slices.CHOOSING`. What was done is kept line by line in
`results/prompts/`: a run that was broken off goes on where it was. The last line is a JSON object; rates have Wilson intervals.

Limits: greedy programs are one draw a problem. Samples of one problem are not independent: the interval of their rate is by
bootstrap over problems. Seconds and `tokens_per_second` are those of the machine as it was, with 40 problems at once.
"""

import argparse
import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import psutil
from pydantic import ValidationError

from benchmarks.slices import CHOOSING, SEED
from ratchet.clients import SandboxClient
from ratchet.contracts.policy import FinishReason, Prefix, Until
from ratchet.contracts.sandbox import GradeRequest, RunStepsRequest, StepStatus
from ratchet.models.checkpoint import ResolvedModel
from ratchet.models.prompts import read_chat_frame
from ratchet.models.sources import resolve
from ratchet.problems import Problem
from ratchet.settings import PolicySettings
from ratchet.solutions.answers import answer_key, last_line
from ratchet.solutions.behaviour import Question, ask_variants, behaviour_of
from ratchet.solutions.counterfactual import make_variants, telling_variants
from ratchet.solutions.step_formats import (
    FEW_SHOT_FILE,
    INSTRUCTIONS_FILE,
    NumberedSteps,
    chat_format,
    few_shot,
    few_shot_format,
)
from ratchet.stack.own_sandbox import local_sandbox
from ratchet.statistics import mcnemar, wilson
from services.policy.__main__ import choose_engine
from services.policy.candidates import candidate
from services.policy.engines.base import Engine, Sampling
from services.policy.versions import StepWriter, warm_up

WITH_RESULTS = Path(__file__).with_name("few_shot_with_results.txt")
FOLDER = Path("results/prompts")
BLOCK = 40
"""Problems that the engine works on at once."""
MAX_TOKENS = 320
TEMPERATURE = 0.7
LONGEST_ANSWER = 2000
RESAMPLES = 2000


def chat_system(checkpoint: Path) -> NumberedSteps:
    """The instructions in the system's turn, the problem alone in the user's."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    turns = [
        {"role": "system", "content": INSTRUCTIONS_FILE.read_text().strip()},
        {"role": "user", "content": "{problem}"},
    ]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    before, _, after = str(text).partition("{problem}")
    end = read_chat_frame(checkpoint).end_of_turn.strip()
    return NumberedSteps("chat_system", before, f"{after}```python\n", end=end, closing="```")


def chat_examples(checkpoint: Path) -> NumberedSteps:
    """Instructions and worked examples before the problem, in the user's turn."""
    frame = read_chat_frame(checkpoint)
    examples = FEW_SHOT_FILE.read_text().rpartition("{problem}")[0]
    instructions = INSTRUCTIONS_FILE.read_text().strip()
    return NumberedSteps(
        "chat_examples",
        f"{frame.before}{instructions}\n\n{examples}",
        f"{frame.between}```python\n",
        end=frame.end_of_turn.strip(),
        closing="```",
    )


VARIANTS: Mapping[str, Callable[[Path], NumberedSteps]] = {
    "few_shot_with_results": lambda _: few_shot_format(WITH_RESULTS.read_text()),
    "few_shot": lambda _: few_shot(),
    "chat": lambda checkpoint: chat_format(read_chat_frame(checkpoint)),
    "chat_system": chat_system,
    "chat_examples": chat_examples,
}


@dataclass(frozen=True)
class Record:
    """One program: `number` 0 is the greedy one, samples count from 1. A line of the kept file."""

    variant: str
    problem: str
    number: int
    tokens: int
    prompt_tokens: int
    cut: bool
    """It was longer than MAX_TOKENS."""
    answer: str | None
    """None where it did not run, or printed nothing."""
    right: bool
    grounded: bool | None
    """None too where there is no answer, or no quantity that could be changed."""


class Records:
    """What was done, in a file that is only ever added to."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file = file
        self._seconds: dict[str, float] = {}
        self.engine: dict[str, Any] = {}
        """Seconds of its start and memory, of the last run that did something."""
        self.done: dict[tuple[str, str, int], Record] = {}
        for line in file.read_text().splitlines() if file.is_file() else []:
            entry = json.loads(line)
            if "engine" in entry:
                self.engine = entry["engine"]
                continue
            self._take(entry["seconds"], [Record(**each) for each in entry["records"]])

    def add(self, seconds: float, block: Sequence[Record]) -> None:
        """A block that is done, and the seconds that its generation took."""
        self._append({"seconds": seconds, "records": [asdict(each) for each in block]})
        self._take(seconds, block)

    def tell_engine(self, engine: dict[str, Any]) -> None:
        """What the engine took."""
        self._append({"engine": engine})
        self.engine = engine

    def _append(self, entry: dict[str, Any]) -> None:
        with self._file.open("a") as opened:
            opened.write(json.dumps(entry) + "\n")

    def _take(self, seconds: float, block: Sequence[Record]) -> None:
        for each in block:
            self.done[each.variant, each.problem, each.number] = each
        variant = block[0].variant
        self._seconds[variant] = self._seconds.get(variant, 0.0) + seconds

    def speed(self, variant: str) -> float:
        """Generated tokens a second."""
        tokens = sum(each.tokens for each in self.done.values() if each.variant == variant)
        return tokens / max(1e-9, self._seconds.get(variant, 0.0))


@dataclass(frozen=True)
class Judge:
    """Runs programs and grades their answers."""

    sandbox: SandboxClient

    async def __call__(self, steps: list[str], problem: Problem) -> tuple[str | None, bool, bool | None]:
        """Answer, whether it is right, whether it is grounded."""
        answer = await self._answer(steps)
        if answer is None:
            return None, False, None
        grade = await self.sandbox.grade(GradeRequest(candidate=answer, reference=problem.answer))
        variants = telling_variants(make_variants(problem.text))
        [keys] = await ask_variants([Question(steps, answer, variants)], self.sandbox)
        return answer, grade.equal, behaviour_of(steps, answer, keys).grounded

    async def is_right(self, steps: list[str], problem: Problem) -> bool:
        """Whether the program's answer is right."""
        answer = await self._answer(steps)
        if answer is None:
            return False
        return (await self.sandbox.grade(GradeRequest(candidate=answer, reference=problem.answer))).equal

    async def _answer(self, steps: list[str]) -> str | None:
        try:
            request = RunStepsRequest(steps=steps)
        except ValidationError:
            return None  # No step, or a character that no program may have.
        ran = await self.sandbox.run_steps(request)
        if not ran.steps or any(step.status is not StepStatus.OK for step in ran.steps):
            return None
        answer = last_line(ran.steps[-1].stdout)
        return answer if answer is not None and len(answer) <= LONGEST_ANSWER else None


async def solve(
    form: NumberedSteps, variant: str, problems: Sequence[Problem], samples: int, engine: Engine, judge: Judge
) -> tuple[float, list[Record]]:
    """The programs of a block: the greedy ones, or so many samples of each problem; and the seconds of generation."""
    prompts = engine.encode([form.render(Prefix(problem=problem.text)) for problem in problems])
    meaning: dict[str, FinishReason] = form.stops(Until.END)
    sampling = Sampling(
        n=max(1, samples),
        temperature=TEMPERATURE if samples else 0.0,
        max_tokens=MAX_TOKENS,
        seed=SEED,
        stop=tuple(meaning),
    )
    began = monotonic()
    rows = await engine.generate(prompts, sampling)
    seconds = monotonic() - began

    async def record(problem: Problem, prompt: Sequence[int], number: int, completion: Any) -> Record:
        written = candidate(completion, Until.END, form, meaning)
        answer, right, grounded = await judge(written.steps, problem)
        cut = written.finish_reason is FinishReason.LENGTH
        tokens = written.tokens
        return Record(variant, problem.source, number, tokens, len(prompt), cut, answer, right, grounded)

    return seconds, await asyncio.gather(
        *(
            record(problem, prompt, number, completion)
            for problem, prompt, row in zip(problems, prompts, rows, strict=True)
            for number, completion in enumerate(row, 1 if samples else 0)
        )
    )


def rate(flags: Sequence[bool]) -> dict[str, Any]:
    """Share, count and 95 % interval (Wilson)."""
    low, high = wilson(sum(flags), len(flags))
    return {"n": len(flags), "count": sum(flags), "ci95": [round(low, 4), round(high, 4)]}


def of_greedy(found: Sequence[Record]) -> dict[str, Any]:
    """Figures of greedy programs."""
    known = [not each.grounded for each in found if each.grounded is not None]
    return {
        "right": rate([each.right for each in found]),
        "ran": rate([each.answer is not None for each in found]),
        "ungrounded": rate(known),
        "cut": sum(each.cut for each in found),
        "tokens": round(float(np.mean([each.tokens for each in found])), 1),
        "prompt_tokens": round(float(np.mean([each.prompt_tokens for each in found])), 1),
    }


def of_samples(by_problem: Sequence[Sequence[Record]]) -> dict[str, Any]:
    """Figures of samples: of one, of the vote, of any."""
    shares = np.array([np.mean([each.right for each in group]) for group in by_problem])
    rng = np.random.default_rng(SEED)
    means = [rng.choice(shares, len(shares)).mean() for _ in range(RESAMPLES)]
    known = [not each.grounded for group in by_problem for each in group if each.grounded is not None]
    return {
        "a_problem": len(by_problem[0]),
        "right_each": {
            "share": round(float(shares.mean()), 4),
            "ci95": [round(float(edge), 4) for edge in np.percentile(means, [2.5, 97.5])],
        },
        "majority": rate([vote(group) for group in by_problem]),
        "any": rate([any(each.right for each in group) for group in by_problem]),
        "ungrounded": rate(known),
        "tokens": round(float(np.mean([each.tokens for group in by_problem for each in group])), 1),
    }


def vote(group: Sequence[Record]) -> bool:
    """Whether the most frequent answer is right; of two that are as frequent, the first."""
    counts: dict[str, int] = {}
    right: dict[str, bool] = {}
    for each in group:
        if each.answer is not None:
            key = answer_key(each.answer)
            counts[key] = counts.get(key, 0) + 1
            right[key] = each.right
    return bool(counts) and right[max(counts, key=lambda key: counts[key])]


def figures(
    model: ResolvedModel, problems: Sequence[Problem], records: Records, variants: Sequence[str], samples: int
) -> dict[str, Any]:
    """The JSON object."""

    def greedy(variant: str) -> list[Record]:
        return [records.done[variant, problem.source, 0] for problem in problems]

    def compare(variant: str, other: str) -> dict[str, Any]:
        pairs = [(a.right, b.right) for a, b in zip(greedy(variant), greedy(other), strict=True)]
        better, worse = pairs.count((True, False)), pairs.count((False, True))
        return {"only_first": better, "only_second": worse, "p": round(mcnemar(better, worse), 4)}

    found: dict[str, Any] = {}
    for variant in variants:
        found[variant] = {
            "greedy": of_greedy(greedy(variant)),
            "tokens_per_second": round(records.speed(variant), 1),
        }
        if samples:
            groups = [
                [records.done[variant, problem.source, number] for number in range(1, samples + 1)]
                for problem in problems
            ]
            found[variant]["samples"] = of_samples(groups)
    return {
        "benchmark": "prompts",
        "model": model.version,
        "n": len(problems),
        "slice": {"offset": CHOOSING.offset, "count": len(problems)},
        "seed": SEED,
        "max_tokens": MAX_TOKENS,
        "temperature": TEMPERATURE if samples else 0.0,
        "engine": records.engine,
        "variants": found,
        "paired": {
            f"{variant} against {other}": compare(variant, other)
            for place, other in enumerate(variants)
            for variant in variants[place + 1 :]
        },
    }


def blocks(items: Sequence[Problem]) -> Iterator[Sequence[Problem]]:
    """BLOCK of them at a time."""
    for start in range(0, len(items), BLOCK):
        yield items[start : start + BLOCK]


async def work(
    todo: Sequence[tuple[str, int, Sequence[Problem]]],
    forms: Mapping[str, NumberedSteps],
    engine: Engine,
    records: Records,
) -> None:
    """Solve the blocks (variant, samples, problems), and keep each as soon as it is done."""
    began = monotonic()
    await engine.start()
    start_seconds = monotonic() - began
    for form in forms.values():
        # As the service does: the fixed part of each prompt is in the prefix cache then.
        await warm_up(StepWriter(engine, form))
    this = psutil.Process()
    processes = [this, *this.children(recursive=True)]
    async with local_sandbox() as sandbox:
        for place, (variant, samples, block) in enumerate(todo, 1):
            seconds, made = await solve(forms[variant], variant, block, samples, engine, Judge(sandbox))
            records.add(seconds, made)
            right = sum(each.right for each in made)
            print(
                f"{place}/{len(todo)}  {variant}  right {right} of {len(made)}  {seconds:.0f} s", flush=True
            )
            memory = sum(each.memory_full_info().pss for each in processes if each.is_running())
            records.tell_engine(
                {
                    "name": engine.name,
                    "start_seconds": round(start_seconds, 1),
                    "memory_gb": round(memory / 1e9, 2),
                }
            )
    await engine.stop()


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Solve the problems with each variant, and count."""
    variants: list[str] = options.variants.split(",")
    if unknown := set(variants) - set(VARIANTS):
        raise SystemExit(f"There is no variant {unknown.pop()!r}; there are {', '.join(VARIANTS)}.")
    problems = CHOOSING.problems(options.data, options.limit)
    settings = PolicySettings()
    model = resolve(options.model, settings.cache_dir)
    forms = {variant: VARIANTS[variant](model.path) for variant in variants}
    records = Records(FOLDER / f"{model.version}.jsonl")
    modes = [0, options.samples] if options.samples else [0]
    todo = [
        (variant, samples, block)
        for variant in variants
        for samples in modes
        for block in blocks(
            [each for each in problems if (variant, each.source, samples) not in records.done]
        )
    ]
    if todo:
        await work(todo, forms, choose_engine(settings, model), records)
    return figures(model, problems, records, variants, options.samples)


def main() -> None:
    """Measure, and print the JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="GSM8K's training file")
    parser.add_argument("--model", default="small", help="a folder, a hub id, or a name")
    parser.add_argument("--limit", type=int, default=CHOOSING.count, help="so many of the problems")
    parser.add_argument("--samples", type=int, default=0, help=f"programs a problem at {TEMPERATURE}, beside")
    parser.add_argument("--variants", default=",".join(VARIANTS), help="comma-separated")
    print(json.dumps(asyncio.run(measure(parser.parse_args()))))


if __name__ == "__main__":
    main()
