"""The policy service with a script in front: a problem that has one is answered from it, all others by the real model.

This is the one double of the page's tests. No model writes hostile text when it is asked to, so a script does; sandbox, PRM,
worker, store and events behind it are the real ones.
"""

from collections.abc import Iterator, Mapping
from itertools import cycle

import httpx
from fastapi import FastAPI, Request, Response
from starlette.requests import ClientDisconnect

from ratchet.contracts.policy import Candidate, FinishReason, GenerateRequest, GenerateResponse, Prefix, Until

Programs = Mapping[str, tuple[tuple[str, ...], ...]]
"""By problem: the programs that are written for it in turn, each as its steps."""


def candidate(steps: tuple[str, ...], ends: bool) -> Candidate:
    """What the policy says when it writes these steps."""
    return Candidate(
        text="\n".join(steps),
        steps=list(steps),
        final=ends,
        tokens=10 * len(steps),
        mean_logprob=-0.5,
        step_logprobs=[-0.5] * len(steps),
        finish_reason=FinishReason.END if ends else FinishReason.STEP,
    )


def scripted_policy(target: str, programs: Programs) -> FastAPI:
    """An app that passes on to the policy service at `target` what it has no script for."""
    app = FastAPI()
    client = httpx.AsyncClient(base_url=target, timeout=600, trust_env=False)
    turns: Mapping[str, Iterator[tuple[str, ...]]] = {each: cycle(programs[each]) for each in programs}

    def next_steps(prefix: Prefix, until: Until) -> Candidate:
        """What goes on from the prefix: the program that began so, otherwise the next one."""
        begun = tuple(step.strip() for step in prefix.steps)
        known = (
            each for each in programs[prefix.problem] if tuple(map(str.strip, each[: len(begun)])) == begun
        )
        steps = next(known, ()) if begun else next(turns[prefix.problem])
        rest = steps[len(begun) :] or ("x = 6\nprint(x)",)
        return candidate(rest, ends=True) if until is Until.END else candidate(rest[:1], ends=len(rest) == 1)

    def write(request: GenerateRequest) -> GenerateResponse:
        rows = [[next_steps(prefix, request.until) for _ in range(request.n)] for prefix in request.prefixes]
        return GenerateResponse(model=request.model or "script@0", candidates=rows, prompt_tokens=1)

    @app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "DELETE"])
    async def answer(request: Request, path: str) -> Response:
        try:
            body = await request.body()
        except ClientDisconnect:
            return Response(status_code=499)
        if path == "generate":
            asked = GenerateRequest.model_validate_json(body)
            if all(prefix.problem in programs for prefix in asked.prefixes):
                return Response(write(asked).model_dump_json(), media_type="application/json")
        names = ("content-type", "accept", "authorization")
        kept = {name: value for name, value in request.headers.items() if name in names}
        try:
            told = await client.request(request.method, f"/{path}", content=body, headers=kept)
        except httpx.TransportError as error:
            return Response(type(error).__name__, status_code=502)
        passed = {
            name: told.headers[name] for name in ("content-type", "retry-after") if name in told.headers
        }
        return Response(told.content, status_code=told.status_code, headers=passed)

    return app
