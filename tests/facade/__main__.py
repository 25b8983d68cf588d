"""The façade, asked by the clients that people have: `make test-facade`.

A stack of our own on the memorised checkpoint, which knows six problems, and each client as a program in an environment of its
own (tests/facade/requirements.txt). The last line is JSON: `{"clients": …, "failed": 0, "incremental": true, …}`; the exit
code is 0 only when nothing failed and steps came while their search ran.
"""

import asyncio
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.evaluators.lm_eval_task import METRIC, NAME, write_task
from ratchet.clients import SearchClient
from ratchet.contracts.keys import KeyRequest, KeyScope
from tests.models import REMEMBERED, make_memorised_checkpoint
from tests.running_stack import Running, running_stack

HERE = Path(__file__).parent
CLIENT_SECONDS = 240
LIMIT = 4
"""Problems that an evaluation asks."""


@dataclass(frozen=True)
class Asking:
    """Where a client asks, and by what it runs."""

    python: Path
    url: str
    key: str
    data: Path
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        known = REMEMBERED[0]
        assert known.answer is not None
        return os.environ | {
            "FACADE_URL": f"{self.url}/v1",
            "FACADE_KEY": self.key,
            "FACADE_PROBLEM": known.problem,
            "FACADE_ANSWER": known.answer,
            "FACADE_DATA": str(self.data),
            "OPENAI_API_KEY": self.key,
            "FACADE_SERVICE_API_KEY": self.key,
            "FACADE_SERVICE_BASE_URL": f"{self.url}/v1",
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(self.folder / "hub"),
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "NO_PROXY": "127.0.0.1",
        }


async def run(asking: Asking, *arguments: str) -> str:
    """What the program printed. Raises AssertionError with its last lines where it failed."""
    process = await asyncio.create_subprocess_exec(
        asking.python,
        *arguments,
        env=asking.environment,
        cwd=asking.folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(CLIENT_SECONDS):
            printed, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    text = printed.decode(errors="replace")
    if process.returncode != 0:
        raise AssertionError("\n".join(text.strip().splitlines()[-25:]))
    return text


def program(name: str) -> Callable[[Asking], Awaitable[dict[str, Any]]]:
    """A client whose program reports by itself."""

    async def ask(asking: Asking) -> dict[str, Any]:
        printed = await run(asking, str(HERE / "clients" / f"{name}.py"))
        found: dict[str, Any] = json.loads(printed.strip().splitlines()[-1])
        return found

    return ask


async def lm_eval(asking: Asking) -> dict[str, Any]:
    """Its `local-chat-completions` on problems like GSM8K's, with its own filter and metric."""
    write_task(asking.folder, asking.data, max_gen_toks=4096)
    out = asking.folder / "lm_eval"
    await run(
        asking, "-m", "lm_eval", "--model", "local-chat-completions",
        "--model_args", f"model=ratchet,base_url={asking.url}/v1/chat/completions,num_concurrent=2,max_retries=1",
        "--include_path", str(asking.folder), "--tasks", NAME, "--apply_chat_template",
        "--limit", str(LIMIT), "--output_path", str(out),
    )  # fmt: skip
    [file] = out.rglob("results_*.json")
    results = json.loads(file.read_text())
    accuracy = results["results"][NAME][METRIC]
    assert accuracy == 1.0, f"lm-eval reports {accuracy}"
    return {
        "version": f"lm-eval {results.get('lm_eval_version', '')}".strip(),
        "ran": [f"local-chat-completions, {LIMIT} problems in gsm8k's form: exact_match {accuracy}"],
    }


async def inspect_ai(asking: Asking) -> dict[str, Any]:
    """Its `openai-api/…` provider on the same problems, with its own scorer."""
    logs = asking.folder / "inspect"
    # It takes no absolute path.
    task = shutil.copy(HERE / "clients" / "inspect_task.py", asking.folder)
    await run(
        asking, "-m", "inspect_ai", "eval", Path(task).name, "--seed", "1",
        "--model", "openai-api/facade-service/ratchet", "--limit", str(LIMIT), "--log-dir", str(logs),
        "--log-format", "json", "--display", "plain",
    )  # fmt: skip
    [file] = logs.glob("*.json")
    log = json.loads(file.read_text())
    assert log["status"] == "success", log.get("error")
    accuracy = log["results"]["scores"][0]["metrics"]["accuracy"]["value"]
    assert accuracy == 1.0, f"Inspect reports {accuracy}"
    return {
        "version": f"inspect-ai {log['eval']['packages']['inspect_ai']}",
        "ran": [f"openai-api/…, {LIMIT} problems: accuracy {accuracy}"],
    }


CLIENTS: dict[str, Callable[[Asking], Awaitable[dict[str, Any]]]] = {
    "openai-python": program("openai_sync"),
    "openai-python, async": program("openai_async"),
    "openai-python, stream": program("openai_stream"),
    "LiteLLM": program("litellm_client"),
    "LangChain": program("langchain_client"),
    "Open WebUI (replayed)": program("open_webui_calls"),
    "lm-eval": lm_eval,
    "Inspect AI": inspect_ai,
}


async def ask_all(stack: Running, python: Path, folder: Path, only: str) -> tuple[dict[str, Any], list[str]]:
    """What each client reports, and which failed."""
    data = folder / "remembered.jsonl"
    lines = [
        json.dumps(
            {
                "question": each.problem,
                "answer": f"It is {each.answer}.\n#### {each.answer}",
                "number": each.answer,
            }
        )
        for each in REMEMBERED
    ]
    data.write_text("\n".join(lines) + "\n")
    async with SearchClient(stack.urls.search, key=stack.urls.key) as operator:
        # What a key of the scope `solve` may do is enough.
        key = (await operator.create_key(KeyRequest(name="facade", scope=KeyScope.SOLVE))).key
    asking = Asking(python, stack.urls.search, key, data, folder)
    found: dict[str, Any] = {}
    failed: list[str] = []
    for name, ask in CLIENTS.items():
        if not re.search(only, name):
            continue
        try:
            found[name] = await ask(asking)
        except (AssertionError, TimeoutError, ValueError, KeyError, OSError) as error:
            failed.append(name)
            _say(f"FAILED  {name}: {error or type(error).__name__}")
        else:
            _say(f"ok      {name}: {found[name]['version']}; {'; '.join(found[name]['ran'])}")
    return found, failed


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def main(python: Path, only: str) -> int:
    """Ask, say what came of it, and whether all is well."""
    with tempfile.TemporaryDirectory(prefix="ratchet-facade-") as place:
        folder = Path(place)
        checkpoint = await asyncio.to_thread(make_memorised_checkpoint, folder / "memorised")
        async with running_stack(folder / "data", checkpoint) as stack:
            found, failed = await ask_all(stack, python, folder, only)
    incremental = all(each.get("incremental", True) for each in found.values()) and any(
        "incremental" in each for each in found.values()
    )
    summary = {
        "clients": len(found) + len(failed),
        "failed": len(failed),
        "incremental": incremental,
        "versions": {name: each["version"] for name, each in found.items()},
        "ran": {name: "; ".join(each["ran"]) for name, each in found.items()},
        "stream": {
            name: value
            for each in found.values()
            for name, value in each.items()
            if name in ("role_seconds", "first_step_seconds", "seconds", "steps")
        },
    }
    _say(json.dumps(summary))
    return 0 if not failed and incremental else 1


if __name__ == "__main__":
    interpreter = Path(sys.argv[1]).absolute()
    sys.exit(asyncio.run(main(interpreter, sys.argv[2] if len(sys.argv) > 2 else "")))
