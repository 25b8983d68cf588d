"""A peer, side by side: optillm before the same model on vLLM's OpenAI server, and Ratchet on the same problems.

optillm (PyPI, Apache-2.0) is a proxy that answers one chat request by many: its `none` passes the request on; `bon` draws
and has the model rate, `self_consistency` clusters texts, `mcts` plays dialogues on, `rstar` searches with rStar's actions,
`executecode` runs the program that the model writes. It runs in an environment of its own, without what it needs for local
models, and cannot write to the machine's files. Its settings are its defaults; the length of an answer is bounded for all
alike. Tokens are counted by vLLM, whatever optillm says.

Ratchet then searches the same problems with as many tokens a problem as each approach took (`mcts`, its default; at most
`--most-tokens`), where two took about the same once for both, and answers greedily once.

`python -m benchmarks.optillm_peer gsm8k_train.jsonl --folder FOLDER [--limit 50]`: problems on which nothing was chosen or
fitted (`slices.py`). The folder gets the environment, logs, the stack's data, and a file for each way that was measured
with these settings: the same command goes on where it was broken off (`--fresh`: it starts over). The last line is JSON.

Limits: an answer in words is read as its last number, after `boxed` or "answer is" where they stand. One run each; the model's
chat template, one prompt. What the model wrote for `executecode` can read files and reach the network.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from benchmarks.slices import REPORT
from ratchet.clients import SandboxClient, SearchClient
from ratchet.contracts.search import SearchRequest
from ratchet.models.checkpoint import ResolvedModel
from ratchet.models.sources import resolve
from ratchet.problems import Problem
from ratchet.settings import PolicySettings
from ratchet.solutions.answers import numeric_value, same_answer
from ratchet.stack.config import StackConfig
from ratchet.stack.local import local_stack
from ratchet.stack.ports import free_port
from ratchet.statistics import wilson
from services.policy.engines.vllm import CPU_BLOCK, dtype_here, use_every_core
from services.sandbox.jail import find_bwrap

APPROACHES = ("none", "self_consistency", "bon", "mcts", "rstar", "executecode")
OPTILLM = "optillm==0.4.0"
NEEDED = [
    *("flask", "openai", "cerebras_cloud_sdk", "z3-solver<=4.15.4.0", "networkx", "numpy", "pyyaml", "sympy"),
    *("nbformat", "nbconvert", "ipykernel", "aiohttp", "math-verify", "requests"),
]
"""What its proxy and these approaches import. Torch and the like are for models that it runs itself."""
PROMPT = "{problem}\n\nThink step by step. End with one line: The final answer is [your numeric answer]"
MODEL_LEN = 4096
READY_SECONDS = 300.0
ANSWER_SECONDS = 7200.0
SEARCH_SECONDS = 3600.0
COMPLETIONS_OF = {"rstar": 5}
"""What an approach asks for at once for one problem, where that is more than one. So many fewer problems are asked at once:
with 125 completions in flight the last ones ran into the time-out of optillm's client, and were asked for again."""
SAME_BUDGET = 0.25
"""Budgets that differ by less are one, the smaller."""
_NUMBER = r"-?\$?\d[\d,]*(?:\.\d+)?"
_SAID = re.compile(rf"(?:boxed\{{|answer is:?)\s*\**({_NUMBER})", re.IGNORECASE)


def number_in(text: str) -> str | None:
    """The number that a text gives as its answer: the last one that it calls so, otherwise its last one."""
    found = _SAID.findall(text) or re.findall(_NUMBER, text)
    return found[-1].replace("$", "") if found else None


def install(folder: Path) -> Path:
    """The folder of programs of optillm's environment, made where there is none."""
    programs = folder / "optillm" / "bin"
    if not (programs / "optillm").exists():
        pip = [str(programs / "python"), "-m", "pip", "install", "--quiet"]
        subprocess.run([sys.executable, "-m", "venv", str(folder / "optillm")], check=True)
        subprocess.run([*pip, *NEEDED], check=True)
        subprocess.run([*pip, "--no-deps", OPTILLM], check=True)
    return programs.resolve()


@contextlib.asynccontextmanager
async def running(name: str, command: Sequence[str], url: str, log: Path, **env: str) -> AsyncIterator[None]:
    """A server until the end of the block; it is ready when it answers at `url`."""
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: ASYNC220 - nothing else waits here
            command, stdout=output, stderr=output, env=os.environ | env, cwd=log.parent
        )
    try:
        deadline = time.monotonic() + READY_SECONDS
        async with httpx.AsyncClient(trust_env=False) as http:
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if (await http.get(url)).is_success:
                        break
                if process.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"{name} did not start; its log: {log}")
                await asyncio.sleep(0.5)
        yield
    finally:
        process.terminate()
        try:
            await asyncio.to_thread(process.wait, 30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def optillm_command(programs: Path, vllm: str, port: int) -> list[str]:
    """The proxy, with a view of the machine's files that it cannot write to, and a /tmp of its own."""
    bwrap = find_bwrap()
    if bwrap is None:
        sys.exit("bubblewrap is missing: install the extra sandbox.")
    folder = str(programs.parent)
    return [
        *(bwrap, "--ro-bind", "/", "/", "--dev", "/dev", "--tmpfs", "/tmp", "--ro-bind", folder, folder),
        *(
            "--unshare-pid",
            "--proc",
            "/proc",
            "--die-with-parent",
            "--chdir",
            "/tmp",
            "--setenv",
            "HOME",
            "/tmp",
        ),
        *(str(programs / "optillm"), "--base-url", f"{vllm}/v1", "--port", str(port)),
    ]


def vllm_command(model: ResolvedModel, port: int, max_tokens: int) -> list[str]:
    """vLLM's OpenAI server, set up like the policy service's engine."""
    return [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(model.path), "--served-model-name", "model", "--port", str(port)),
        *("--dtype", dtype_here(model.path, "cpu")),
        *("--host", "127.0.0.1", "--max-model-len", str(MODEL_LEN), "--block-size", str(CPU_BLOCK)),
        *("--enforce-eager", "--enable-prefix-caching", "--max-num-seqs", "64"),
        # `executecode` names no limit of its own.
        *("--override-generation-config", json.dumps({"max_new_tokens": max_tokens})),
    ]


async def generated_tokens(http: httpx.AsyncClient, vllm: str) -> int:
    """All that vLLM has generated since its start."""
    lines = (await http.get(f"{vllm}/metrics")).raise_for_status().text.splitlines()
    return int(
        sum(
            float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("vllm:generation_tokens_total")
        )
    )


class Rows:
    """What was measured, a file for each way (`.part`: as far as it has come), by its settings and the problems."""

    def __init__(self, problems: Sequence[Problem], options: argparse.Namespace) -> None:
        texts = [[each.text, each.answer] for each in problems]
        settings = [texts, options.model, options.max_tokens, options.at_once, options.seed, OPTILLM, PROMPT]
        digest = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:12]
        self._folder = options.folder / "rows" / digest
        if options.fresh:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True, exist_ok=True)

    def get(self, way: str) -> dict[str, Any] | None:
        """What was measured of it; None where nothing was."""
        file = self._folder / f"{way}.json"
        found: dict[str, Any] | None = json.loads(file.read_text()) if file.exists() else None
        return found

    def put(self, way: str, found: dict[str, Any]) -> None:
        """Keep it."""
        new = self._folder / f"{way}.new"
        new.write_text(json.dumps(found))
        new.rename(self._folder / f"{way}.json")

    def drop(self, way: str) -> None:
        """Forget it."""
        (self._folder / f"{way}.json").unlink(missing_ok=True)


async def ask_optillm(
    approach: str,
    problems: Sequence[Problem],
    optillm: str,
    vllm: str,
    rows: Rows,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """All problems by one approach: how many are right, and what it took.

    Goes on with what is known of a run that was broken off; the tokens of its unfinished problems count, too.
    """
    slots = asyncio.Semaphore(max(1, options.at_once // COMPLETIONS_OF.get(approach, 1)))
    part = f"{approach}.part"
    known = rows.get(part) or {"answers": {}, "tokens": 0, "seconds": 0.0}
    answers: dict[str, str | None] = known["answers"]
    missing = [place for place in range(len(problems)) if str(place) not in answers]
    async with httpx.AsyncClient(timeout=ANSWER_SECONDS, trust_env=False) as http:

        async def ask(place: int) -> None:
            document = {
                "model": f"{approach}-model",
                "messages": [{"role": "user", "content": PROMPT.format(problem=problems[place].text)}],
                "max_tokens": options.max_tokens,
            }
            async with slots:
                answer = await http.post(f"{optillm}/v1/chat/completions", json=document)
            answers[str(place)] = None
            if answer.is_success:
                answers[str(place)] = number_in(str(answer.json()["choices"][0]["message"]["content"]))
            else:
                print(f"{approach}: {answer.status_code} {answer.text[:200]}", flush=True)
            rows.put(part, {"answers": answers, **await spent()})

        async def spent() -> dict[str, Any]:
            return {
                "tokens": known["tokens"] + await generated_tokens(http, vllm) - before,
                "seconds": known["seconds"] + time.monotonic() - began,
            }

        before, began = await generated_tokens(http, vllm), time.monotonic()
        await asyncio.gather(*map(ask, missing))
        tokens, seconds = (await spent()).values()
    # It answers by another approach, and says so in its log alone, where it reads the model's name otherwise than was meant.
    used = (options.folder / "optillm.log").read_text(errors="replace").count(f"approach(es) ['{approach}'],")
    if used < len(missing):
        sys.exit(f"optillm took the approach {approach} for {used} of {len(missing)} problems; see its log.")
    right = [
        (answer := answers[str(place)]) is not None and numeric_value(answer) == numeric_value(problem.answer)
        for place, problem in enumerate(problems)
    ]
    failed = sum(answer is None for answer in answers.values())
    return row(approach, right, tokens, seconds) | {"without_answer": failed}


def row(name: str, right: Sequence[bool], tokens: int, seconds: float) -> dict[str, Any]:
    """Accuracy with its interval, and the price."""
    n, count = len(right), sum(right)
    found = {
        "way": name,
        "n": n,
        "right": count,
        "accuracy": round(count / n, 4),
        "ci95": [round(edge, 4) for edge in wilson(count, n)],
        "tokens_a_problem": round(tokens / n, 1),
        "seconds": round(seconds, 1),
    }
    print(json.dumps(found), flush=True)
    return found


async def measure_optillm(problems: Sequence[Problem], rows: Rows, options: argparse.Namespace) -> None:
    """The approaches of which nothing is known, one after another, before one vLLM."""
    missing = [each for each in options.approaches if rows.get(each) is None]
    if not missing:
        return
    programs = install(options.folder)
    use_every_core()
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
    model = await asyncio.to_thread(resolve, options.model, PolicySettings().cache_dir)
    at, proxy = free_port(), free_port()
    vllm, optillm = f"http://127.0.0.1:{at}", f"http://127.0.0.1:{proxy}"
    async with (
        running(
            "vLLM", vllm_command(model, at, options.max_tokens), f"{vllm}/health", options.folder / "vllm.log"
        ),
        running(
            "optillm",
            optillm_command(programs, vllm, proxy),
            f"{optillm}/health",
            options.folder / "optillm.log",
            OPENAI_API_KEY="none",
            NO_PROXY="127.0.0.1,localhost",
        ),
    ):
        for each in missing:
            rows.put(each, await ask_optillm(each, problems, optillm, vllm, rows, options))
            rows.drop(f"{each}.part")


async def measure_ratchet(
    problems: Sequence[Problem], ways: Mapping[str, tuple[str, int]], rows: Rows, options: argparse.Namespace
) -> None:
    """The same problems by those ways of which nothing is known: strategy and budget of tokens a problem."""
    missing = {name: way for name, way in ways.items() if rows.get(name) is None}
    if not missing:
        return
    stack = StackConfig(data=options.folder / "stack", model=options.model)
    async with (
        local_stack(stack) as urls,
        SearchClient(urls.search, key=urls.key) as searches,
        SandboxClient(urls.sandbox, key=urls.token) as sandbox,
    ):
        slots = asyncio.Semaphore(options.at_once)

        async def ask(problem: Problem, strategy: str, tokens: int) -> tuple[bool, int]:
            asked = SearchRequest.model_validate(
                {
                    "problem": problem.text,
                    "strategy": strategy,
                    "seed": options.seed,
                    "budget": {"tokens": tokens, "seconds": SEARCH_SECONDS},
                    "parameters": {"rollouts": 256, "early_stop": False},
                    "wait": SEARCH_SECONDS,
                }
            )
            async with slots:
                result = await searches.create(asked)
            if result.answer is None:
                return False, result.usage.policy.tokens
            return await same_answer(sandbox, result.answer, problem.answer), result.usage.policy.tokens

        for name, (strategy, tokens) in missing.items():
            began = time.monotonic()
            outcomes = await asyncio.gather(*(ask(problem, strategy, tokens) for problem in problems))
            seconds = time.monotonic() - began
            right, spent = [each for each, _ in outcomes], sum(each for _, each in outcomes)
            rows.put(name, row(f"ratchet {strategy}", right, spent, seconds) | {"token_budget": tokens})


def distinct(budgets: Sequence[float], most: int) -> list[int]:
    """Budgets of tokens, none larger than `most`, those that are about the same once."""
    found: list[int] = []
    for budget in sorted(min(each, most) for each in budgets):
        if not found or budget > found[-1] * (1 + SAME_BUDGET):
            found.append(round(budget))
    return found


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """optillm first, then Ratchet with as many tokens."""
    options.folder.mkdir(parents=True, exist_ok=True)
    options.folder = options.folder.resolve()
    problems = REPORT.problems(options.problems, options.limit)
    rows = Rows(problems, options)
    await measure_optillm(problems, rows, options)
    theirs = [found for each in options.approaches if (found := rows.get(each))]
    budgets = distinct(
        [each["tokens_a_problem"] for each in theirs if each["way"] != "none"], options.most_tokens
    )
    ways = {"ratchet-greedy": ("greedy", MODEL_LEN)}
    ways |= {f"ratchet-mcts-{budget}": ("mcts", budget) for budget in budgets}
    await measure_ratchet(problems, ways, rows, options)
    return {
        "benchmark": "optillm_peer",
        "model": options.model,
        "peer": OPTILLM,
        "problems": options.problems.name,
        "n": len(problems),
        "max_tokens": options.max_tokens,
        "at_once": options.at_once,
        "seed": options.seed,
        "optillm": theirs,
        "ratchet": [rows.get(name) for name in ways],
    }


def main() -> None:
    """Measure, and print the JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("problems", type=Path, help="GSM8K's training file")
    parser.add_argument("--folder", type=Path, required=True, help="for the environment, logs and data")
    parser.add_argument("--model", default="small")
    parser.add_argument("--limit", type=int, default=50, help="so many of the problems")
    parser.add_argument("--approaches", nargs="+", choices=APPROACHES, default=list(APPROACHES))
    parser.add_argument("--max-tokens", type=int, default=400, help="of one completion")
    parser.add_argument("--most-tokens", type=int, default=100_000, help="a problem, for Ratchet's searches")
    parser.add_argument("--at-once", type=int, default=8, help="problems at once")
    parser.add_argument("--fresh", action="store_true", help="start over")
    parser.add_argument("--seed", type=int, default=0, help="of Ratchet's searches; optillm has none")
    print(json.dumps(asyncio.run(measure(parser.parse_args()))))


if __name__ == "__main__":
    main()
