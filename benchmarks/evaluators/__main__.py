"""The same problems, searched and graded three times: by `ratchet eval`, and from outside by lm-eval and Inspect AI.

`make bench-evaluators` makes an environment with lm-eval and Inspect AI and starts a stack on nano. `ratchet eval` asks
`POST /search` and grades by itself. The other two ask the OpenAI façade, as they ask any model (`local-chat-completions`,
`openai-api/…`), and grade the content with their own means: gsm8k's filter and exact match, `match(numeric=True)`. Strategy,
seed and budget are the same. Every problem on which the three differ, in the answer or in its grade, is printed. The last line
is a JSON object; the exit code is 1 where a grade differs.

The budget of tokens is one that no search exhausts. In a tree the order in which rollouts end decides what is drawn next, so
that three runs would be three trees: `mcts` has one rollout under way at a time.
"""

import argparse
import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.evaluators.lm_eval_task import METRIC, NAME, write_task
from ratchet.cli.outcomes import GradedProblem
from ratchet.clients import SearchClient
from ratchet.contracts.keys import KeyRequest, KeyScope
from ratchet.problems import Problem, load
from ratchet.stack.config import StackConfig
from ratchet.stack.local import local_stack
from ratchet.statistics import wilson

HERE = Path(__file__).parent
PROGRAM_SECONDS = 1800.0
SECONDS = 600.0
"""Budget of one search. It ends none: that would depend on the machine."""
AT_ONCE = 4
_ANSWER = re.compile(r"^#### (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Graded:
    """What an evaluator says of one problem."""

    answer: str | None
    right: bool


Grades = Sequence[Graded]
"""In the order of the problems."""


@dataclass(frozen=True)
class Asking:
    """What all three are told."""

    problems: Sequence[Problem]
    data: Path
    """The stack's folder."""
    url: str
    key: str
    python: Path
    """Of the environment that has lm-eval and Inspect AI."""
    folder: Path
    strategy: str
    rollouts: int
    tokens: int
    seed: int

    @property
    def search(self) -> dict[str, Any]:
        """What the façade is told besides; `ratchet eval` says the same."""
        return {
            "strategy": self.strategy,
            "parameters": {"rollouts": self.rollouts, "early_stop": False, **self.in_order},
            "budget": {"tokens": self.tokens, "seconds": SECONDS},
        }

    @property
    def in_order(self) -> dict[str, int]:
        """The parameters with which a tree is the same each time."""
        return {"in_flight": 1} if self.strategy == "mcts" else {}

    @property
    def file(self) -> Path:
        return self.folder / "problems.jsonl"


def write_problems(asking: Asking) -> None:
    """The problems with GSM8K's fields, and the number alone besides."""
    lines = (
        {
            "id": each.id,
            "question": each.text,
            "answer": f"It is {each.answer}.\n#### {each.answer}",
            "number": each.answer,
        }
        for each in asking.problems
    )
    asking.file.write_text("".join(json.dumps(line) + "\n" for line in lines))


async def run(asking: Asking, program: Path, *arguments: str) -> str:
    """Standard output of the program. Raises SystemExit with its last lines where it fails."""
    environment = os.environ | {
        "OPENAI_API_KEY": asking.key,
        "FACADE_API_KEY": asking.key,
        "FACADE_BASE_URL": f"{asking.url}/v1",
        "PROBLEMS": str(asking.file),
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(asking.folder / "hub"),
        "NO_PROXY": "127.0.0.1",
    }
    process = await asyncio.create_subprocess_exec(
        program,
        *arguments,
        env=environment,
        cwd=asking.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(PROGRAM_SECONDS):
            out, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise SystemExit("\n".join((out + said).decode(errors="replace").strip().splitlines()[-25:]))
    return out.decode()


async def ratchet_eval(asking: Asking) -> tuple[float, Grades]:
    """Our own accuracy, and the grades by problem."""
    results = asking.folder / "ratchet.jsonl"
    changes = [option for name, value in asking.in_order.items() for option in ("--set", f"{name}={value}")]
    printed = await run(
        asking, Path(sys.executable), "-m", "ratchet.cli.main", "eval", str(asking.file), "--data", str(asking.data),
        "--strategy", asking.strategy, "--rollouts", str(asking.rollouts), "--tokens", str(asking.tokens), *changes,
        "--seconds", str(SECONDS), "--seed", str(asking.seed), "--concurrency", str(AT_ONCE), "--output", str(results),
    )  # fmt: skip
    lines = [GradedProblem.model_validate_json(line) for line in results.read_bytes().splitlines()]
    by_id = {line.id: Graded(line.answer, line.correct) for line in lines}
    summary = json.loads(printed.splitlines()[-1])
    return summary["accuracy"], [by_id[each.id] for each in asking.problems]


async def lm_eval(asking: Asking) -> tuple[float, Grades, str]:
    """What lm-eval's report says, its grades, and its version."""
    write_task(
        asking.folder, asking.file, max_gen_toks=asking.tokens, seed=asking.seed, ratchet=asking.search
    )
    out = asking.folder / "lm_eval"
    await run(
        asking, asking.python, "-m", "lm_eval", "--model", "local-chat-completions",
        "--model_args", f"model=ratchet,base_url={asking.url}/v1/chat/completions,num_concurrent={AT_ONCE},max_retries=1",
        "--include_path", str(asking.folder), "--tasks", NAME, "--apply_chat_template",
        "--output_path", str(out), "--log_samples",
    )  # fmt: skip
    [report], [log] = out.rglob("results_*.json"), out.rglob("samples_*.jsonl")
    results = json.loads(report.read_text())
    samples = sorted(map(json.loads, log.read_text().splitlines()), key=lambda sample: sample["doc_id"])
    grades = [Graded(answer_of(each["resps"][0][0]), each["exact_match"] == 1.0) for each in samples]
    version = str(results.get("lm_eval_version", ""))
    return results["results"][NAME][METRIC], grades, version


async def inspect_ai(asking: Asking) -> tuple[float, Grades, str]:
    """What Inspect's report says, its grades, and its version."""
    # It takes no absolute path.
    shutil.copy(HERE / "inspect_task.py", asking.folder)
    logs = asking.folder / "inspect"
    await run(
        asking, asking.python, "-m", "inspect_ai", "eval", "inspect_task.py", "--model", "openai-api/facade/ratchet",
        "--seed", str(asking.seed), "--max-tokens", str(asking.tokens), "--max-connections", str(AT_ONCE),
        "--extra-body", json.dumps({"ratchet": asking.search}),
        "--log-dir", str(logs), "--log-format", "json", "--display", "plain",
    )  # fmt: skip
    [file] = logs.glob("*.json")
    log = json.loads(file.read_text())
    if log["status"] != "success":
        raise SystemExit(f"Inspect AI: {log.get('error')}")
    by_id = {
        each["id"]: Graded(answer_of(each["output"]["completion"]), each["scores"]["match"]["value"] == "C")
        for each in log["samples"]
    }
    accuracy = log["results"]["scores"][0]["metrics"]["accuracy"]["value"]
    return accuracy, [by_id[each.id] for each in asking.problems], log["eval"]["packages"]["inspect_ai"]


def answer_of(content: str) -> str | None:
    """What the last line that is marked as an answer says."""
    found = _ANSWER.findall(content)
    return found[-1] if found else None


def differences(problems: Sequence[Problem], grades: Mapping[str, Grades]) -> tuple[int, int]:
    """How many problems are graded differently, and how many answered differently; each is printed."""
    graded = answered = 0
    for place, problem in enumerate(problems):
        said = {name: each[place] for name, each in grades.items()}
        differs = len({each.right for each in said.values()}) > 1
        graded += differs
        answered += len({each.answer for each in said.values()}) > 1
        if differs or len({each.answer for each in said.values()}) > 1:
            shown = "; ".join(f"{name} {each.answer} ({each.right})" for name, each in said.items())
            print(f"{problem.id}, reference {problem.answer}: {shown}", flush=True)
    return graded, answered


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Ask all three, and compare."""
    problems = load(options.problems).require_any().problems[: options.limit]
    with tempfile.TemporaryDirectory(prefix="ratchet-evaluators-") as place:
        folder = Path(place)
        async with local_stack(StackConfig(data=folder / "stack", model=options.model)) as urls:
            async with SearchClient(urls.search, key=urls.key) as operator:
                # What a key of the scope `solve` may do is enough for the façade.
                key = (await operator.create_key(KeyRequest(name="evaluators", scope=KeyScope.SOLVE))).key
            asking = Asking(
                problems, folder / "stack", urls.search, key, options.python.absolute(), folder,
                options.strategy, options.rollouts, options.tokens, options.seed,
            )  # fmt: skip
            write_problems(asking)
            ours, our_grades = await ratchet_eval(asking)
            theirs, their_grades, lm_eval_version = await lm_eval(asking)
            inspected, inspect_grades, inspect_version = await inspect_ai(asking)
    grades = {"ratchet": our_grades, "lm-eval": their_grades, "inspect": inspect_grades}
    graded, answered = differences(problems, grades)
    right = sum(each.right for each in our_grades)
    return {
        "benchmark": "evaluators",
        "data": options.problems,
        "problems": len(problems),
        "model": options.model,
        "strategy": options.strategy,
        "rollouts": options.rollouts,
        "token_budget": options.tokens,
        "seed": options.seed,
        "ratchet": ours,
        "ci95": [round(edge, 4) for edge in wilson(right, len(problems))],
        "lm_eval": theirs,
        "inspect": inspected,
        "differing": graded,
        "differing_answers": answered,
        "versions": {"lm_eval": lm_eval_version, "inspect_ai": inspect_version},
    }


def main() -> int:
    """Measure, and print the JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("python", type=Path, help="interpreter of an environment with lm-eval and Inspect AI")
    parser.add_argument("--problems", default="nano:held_out?count=40&seed=5", help="numbers as answers")
    parser.add_argument("--limit", type=int, help="so many of the problems; default: all")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--strategy", default="majority", choices=["greedy", "majority", "best_of_n", "mcts"])
    parser.add_argument("--rollouts", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=4096, help="budget of one search")
    parser.add_argument("--seed", type=int, default=0)
    found = asyncio.run(measure(parser.parse_args()))
    print(json.dumps(found))
    return 1 if found["differing"] else 0


if __name__ == "__main__":
    sys.exit(main())
