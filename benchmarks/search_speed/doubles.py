"""DOUBLES of policy, PRM and sandbox, which compute nothing: they speak the contracts and answer at once, over real HTTP.

With them a search costs only what it costs itself. The policy's double writes trajectories of DEPTH steps that all differ; the
sandbox's double says that each step ran and that each last one printed a number of its own, so that no answer ever
leads and no search stops early; the PRM's double gives each step a score by its text.

`python -m benchmarks.search_speed.doubles PORT` serves all three.
"""

import sys
import zlib
from typing import Any

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

DEPTH = 4
"""Steps in a trajectory."""
TOKENS_PER_STEP = 15
VERSION = "double@0"


async def generate(request: Request) -> Response:
    """`POST /generate`: one step, or all that are left."""
    asked = orjson.loads(await request.body())
    seeds = asked.get("seeds") or [asked.get("seed") or 0] * len(asked["prefixes"])
    return _answer(
        {
            "model": VERSION,
            "candidates": [
                [
                    _candidate(len(prefix["steps"]), seed + number, asked["until"])
                    for number in range(asked["n"])
                ]
                for prefix, seed in zip(asked["prefixes"], seeds, strict=True)
            ],
            "prompt_tokens": 0,
        }
    )


def _candidate(depth: int, seed: int, until: str) -> dict[str, Any]:
    last = min(DEPTH, depth + 1) if until == "step" else DEPTH
    steps = [_step(number, seed) for number in range(depth + 1, last + 1)]
    return {
        "text": "\n".join(steps),
        "steps": steps,
        "final": last == DEPTH,
        "tokens": TOKENS_PER_STEP * len(steps),
        "mean_logprob": -0.5,
        "step_logprobs": [-0.5] * len(steps),
        "finish_reason": "end" if last == DEPTH else "step",
    }


def _step(number: int, seed: int) -> str:
    verb = f"print({seed})" if number == DEPTH else f"x{number} = {seed}"
    return f"# Step {number} of the draw with seed {seed}.\n{verb}"


async def score(request: Request) -> Response:
    """`POST /score`."""
    asked = orjson.loads(await request.body())
    scores = [[0.4 + 0.6 * zlib.crc32(step.encode()) / 2**32 for step in steps] for steps in asked["steps"]]
    return _answer({"model": VERSION, "scores": scores, "cached": 0})


async def run_steps(request: Request) -> Response:
    """`POST /run_steps`."""
    return _answer(_ran(orjson.loads(await request.body())))


async def run_steps_batch(request: Request) -> Response:
    """`POST /run_steps/batch`."""
    asked = orjson.loads(await request.body())
    return _answer({"results": [_ran(run) for run in asked["runs"]]})


def _ran(run: dict[str, Any]) -> dict[str, Any]:
    printed = [step.rpartition("print(")[2][:-1] + "\n" if "print(" in step else "" for step in run["steps"]]
    return {
        "status": "Success",
        "steps": [{"status": "ok", "stdout": stdout} for stdout in printed],
        "measured": {"wall_seconds": 0.001, "cpu_seconds": 0.001, "peak_memory_mb": 1.0},
    }


async def grade(_: Request) -> Response:
    """`POST /grade`: no two answers are equal."""
    return _answer({"equal": False, "rule": "text"})


async def health(_: Request) -> Response:
    """`GET /health`."""
    return _answer({"service": "double", "version": VERSION, "ready": True, "detail": {"double": True}})


async def _gone(_: Request, __: Exception) -> Response:
    """The caller has gone: a search that is over gives up what was under way."""
    return Response(status_code=499)


def _answer(document: dict[str, Any]) -> Response:
    return Response(orjson.dumps(document), media_type="application/json")


app = Starlette(
    routes=[
        Route("/generate", generate, methods=["POST"]),
        Route("/score", score, methods=["POST"]),
        Route("/run_steps", run_steps, methods=["POST"]),
        Route("/run_steps/batch", run_steps_batch, methods=["POST"]),
        Route("/grade", grade, methods=["POST"]),
        Route("/health", health),
    ],
    exception_handlers={ClientDisconnect: _gone},
)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)
