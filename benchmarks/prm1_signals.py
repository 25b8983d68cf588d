"""Which training-free signal tells right solutions from wrong ones? The measurement by which PRM1 was chosen.

Samples solutions of training problems from the policy (few-shot format), runs each in the jail, and compares, as AUC
over those that ran and printed something:

- `likelihood`: mean over steps of the mean log-probability of the step's tokens, as the policy wrote them (PRM1)
- `step likelihood`: the same up to each step, judged by whether the whole solution turned out right (step-level AUC)
- `bare likelihood`: the same text read without the worked examples
- `judge`: the policy's own yes/no judgement of the solution, asked in chat form
- `brevity`: fewer tokens, as a baseline that knows nothing

`python -m benchmarks.prm1_signals --data gsm8k_train.jsonl [--model small] [--problems 32] [--samples 6] [--seed 0]`
needs the extra cpu or gpu. The last line is a JSON object; intervals are 95 %, by bootstrap over problems.
"""

import argparse
import asyncio
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ratchet.contracts.policy import FinishReason, Prefix, Until
from ratchet.contracts.sandbox import GradeRequest, RunStepsRequest, StepStatus
from ratchet.models.sources import resolve
from ratchet.problems import Problem, read_problems, sample
from ratchet.settings import PolicySettings
from ratchet.solutions.answers import answer_of
from ratchet.solutions.step_formats import few_shot
from ratchet.stack.own_sandbox import local_sandbox
from services.policy.candidates import step_means, step_starts

Array = np.ndarray[Any, np.dtype[Any]]

JUDGE = (
    "<|im_start|>system\nYou check solutions of math problems. Answer Yes or No.<|im_end|>\n"
    "<|im_start|>user\nProblem: {problem}\n\nSolution:\n{solution}\n\n"
    "Does this program answer the problem correctly?<|im_end|>\n<|im_start|>assistant\n"
)


@dataclass
class Solution:
    """One sampled solution; `right` is None where it did not run or print."""

    problem: int
    steps: list[str]
    step_logprobs: list[float]
    tokens: int
    right: bool | None = None


def auc(scores: Sequence[float], right: Sequence[bool]) -> float:
    """Chance that a right one scores above a wrong one (ties count half); nan when all are of one kind."""
    values, labels = np.asarray(scores), np.asarray(right)
    good, bad = values[labels], values[~labels]
    if not len(good) or not len(bad):
        return math.nan
    return float((good[:, None] > bad).mean() + 0.5 * (good[:, None] == bad).mean())


def interval(scores: Sequence[float], right: Sequence[bool], problem: Sequence[int]) -> list[float]:
    """95 % interval of the AUC, by bootstrap over problems."""
    values, labels, groups = np.asarray(scores), np.asarray(right), np.asarray(problem)
    rng = np.random.default_rng(0)
    kinds = np.unique(groups)
    found = []
    for _ in range(500):
        rows = np.concatenate([np.where(groups == kind)[0] for kind in rng.choice(kinds, len(kinds))])
        found.append(auc(values[rows].tolist(), labels[rows].tolist()))
    return [round(float(edge), 3) for edge in np.nanpercentile(found, [2.5, 97.5])]


def generate(llm: Any, problems: Sequence[Problem], samples: int) -> list[Solution]:
    """Sample whole solutions at temperature 0.7. The seed is the engine's: vLLM's CPU core fails on requests with one."""
    from vllm import SamplingParams

    form = few_shot()
    stops = form.stops(Until.END)
    params = SamplingParams(n=samples, temperature=0.7, max_tokens=320, stop=list(stops), logprobs=0)
    found: list[Solution] = []
    outputs = llm.generate([form.render(Prefix(problem=p.text)) for p in problems], params)
    for number, output in enumerate(outputs):
        for one in output.outputs:
            drawn = [row[token] for token, row in zip(one.token_ids, one.logprobs, strict=True)]
            ends = np.cumsum([len(each.decoded_token or "") for each in drawn]).tolist()
            finish = FinishReason.LENGTH if one.finish_reason == "length" else FinishReason.END
            steps, _ = form.split(one.text, Until.END, finish)
            logprobs = step_means(step_starts(one.text, steps), ends, [each.logprob for each in drawn])
            found.append(Solution(number, steps, logprobs, len(drawn)))
    return found


async def judge_by_running(solutions: Sequence[Solution], problems: Sequence[Problem]) -> None:
    """Run every solution in the jail and compare its answer with the reference."""
    async with local_sandbox() as sandbox:

        async def one(solution: Solution) -> None:
            if not solution.steps:
                return
            ran = await sandbox.run_steps(RunStepsRequest(steps=solution.steps))
            answer = answer_of(ran.steps[-1])
            if answer is None or any(step.status is not StepStatus.OK for step in ran.steps):
                return
            reference = problems[solution.problem].answer
            grade = await sandbox.grade(GradeRequest(candidate=answer, reference=reference))
            solution.right = grade.equal

        await asyncio.gather(*map(one, solutions))


def yes_no(llm: Any, solutions: Sequence[Solution], problems: Sequence[Problem]) -> list[float]:
    """The policy's probability of Yes against No, for each solution."""
    from vllm import SamplingParams

    tokenizer = llm.get_tokenizer()
    yes, no = (tokenizer.encode(word)[0] for word in ("Yes", "No"))
    asked = [JUDGE.format(problem=problems[s.problem].text, solution="\n".join(s.steps)) for s in solutions]
    scores = []
    for output in llm.generate(asked, SamplingParams(temperature=0, max_tokens=1, logprobs=20)):
        row = output.outputs[0].logprobs[0]
        margin = (row[yes].logprob if yes in row else -20.0) - (row[no].logprob if no in row else -20.0)
        scores.append(1 / (1 + math.exp(-margin)))
    return scores


def bare_likelihood(llm: Any, solutions: Sequence[Solution], problems: Sequence[Problem]) -> list[float]:
    """Mean log-probability of the solution after the problem alone."""
    from vllm import SamplingParams

    heads = [f"Problem: {problems[s.problem].text}\nSolution:\n" for s in solutions]
    texts = [head + "\n".join(s.steps) for head, s in zip(heads, solutions, strict=True)]
    tokenizer = llm.get_tokenizer()
    scores = []
    outputs = llm.generate(texts, SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0))
    for head, output in zip(heads, outputs, strict=True):
        rows = output.prompt_logprobs[len(tokenizer.encode(head)) :]
        scores.append(float(np.mean([next(iter(row.values())).logprob for row in rows])))
    return scores


def main() -> None:
    """Measure, and print the JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="problem file, as for `ratchet eval`")
    parser.add_argument("--model", default="small")
    parser.add_argument("--problems", type=int, default=32)
    parser.add_argument("--samples", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    print(json.dumps(measure(options)))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Sample, run, score; all figures."""
    problems = sample(
        read_problems(options.data).problems, seed=options.seed, offset=0, limit=options.problems
    )
    found = resolve(options.model, PolicySettings().cache_dir, lambda _: None)
    llm = start_vllm(found.path, options.seed)
    solutions = generate(llm, problems, options.samples)
    asyncio.run(judge_by_running(solutions, problems))
    ran = [solution for solution in solutions if solution.right is not None]
    return {
        "benchmark": "prm1_signals",
        "model": found.version,
        "problems": len(problems),
        "solutions": len(solutions),
        "ran": len(ran),
        "right": sum(bool(solution.right) for solution in ran),
        "auc": areas(llm, ran, problems),
        "seed": options.seed,
    }


def start_vllm(checkpoint: Path, seed: int) -> Any:
    """vLLM's own batch interface, on every core."""
    from services.policy.engines.vllm import use_every_core

    use_every_core()
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    from vllm import LLM

    return LLM(
        str(checkpoint),
        dtype="bfloat16",
        enforce_eager=True,
        max_model_len=2048,
        max_num_seqs=64,
        logprobs_mode="raw_logprobs",
        seed=seed,
    )


def areas(llm: Any, ran: Sequence[Solution], problems: Sequence[Problem]) -> dict[str, dict[str, Any]]:
    """AUC of each signal over the solutions that ran, with its interval."""
    right = [bool(solution.right) for solution in ran]
    groups = [solution.problem for solution in ran]
    signals = {
        "likelihood": [float(np.mean(s.step_logprobs)) for s in ran],
        "bare likelihood": bare_likelihood(llm, ran, problems),
        "judge": yes_no(llm, ran, problems),
        "brevity": [-float(s.tokens) for s in ran],
    }
    found = {name: area(scores, right, groups) for name, scores in signals.items()}
    beginnings = [(s, length) for s in ran for length in range(1, len(s.steps) + 1)]
    found["step likelihood"] = area(
        [float(np.mean(s.step_logprobs[:length])) for s, length in beginnings],
        [bool(s.right) for s, _ in beginnings],
        [s.problem for s, _ in beginnings],
    )
    return found


def area(scores: Sequence[float], right: Sequence[bool], problem: Sequence[int]) -> dict[str, Any]:
    """AUC of one signal, with its interval."""
    return {"auc": round(auc(scores, right), 3), "ci95": interval(scores, right, problem)}


if __name__ == "__main__":
    main()
