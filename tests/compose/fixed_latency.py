"""A test double of policy and PRM: right in form, and every answer takes a fixed time however many are asked at once."""

import asyncio
import itertools

import uvicorn
from fastapi import FastAPI

from ratchet.contracts.base import Health
from ratchet.contracts.policy import Candidate, FinishReason, GenerateRequest, GenerateResponse
from ratchet.contracts.prm import ScoreRequest, ScoreResponse

GENERATE_SECONDS = 0.5
SCORE_SECONDS = 0.05
MODEL = "double@0"

app = FastAPI()
numbers = itertools.count()


@app.get("/livez")
@app.get("/readyz")
@app.get("/health")
def health() -> Health:
    return Health(service="double", ready=True, version="0", detail={})


def candidate() -> Candidate:
    # Another answer each time: no search ends before its budget does.
    step = f"# Count.\nx = {next(numbers)}\nprint(x)"
    return Candidate(
        text=step, steps=[step], final=True, tokens=16, mean_logprob=-1.0, step_logprobs=[-1.0],
        finish_reason=FinishReason.END,
    )  # fmt: skip


@app.post("/generate")
async def generate(request: GenerateRequest) -> GenerateResponse:
    await asyncio.sleep(GENERATE_SECONDS)
    return GenerateResponse(
        model=MODEL,
        candidates=[[candidate() for _ in range(request.n)] for _ in request.prefixes],
        prompt_tokens=0,
    )


@app.post("/score")
async def score(request: ScoreRequest) -> ScoreResponse:
    await asyncio.sleep(SCORE_SECONDS)
    return ScoreResponse(model=MODEL, scores=[[0.5] * len(steps) for steps in request.steps])


if __name__ == "__main__":
    uvicorn.run(app, host="0.0.0.0", port=8000, log_level="warning")
