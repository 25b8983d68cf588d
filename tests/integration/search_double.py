"""A double of the services for tests of the command line: it speaks the contracts and finds answers by their text.

A problem `say X` is answered with X and verified; `guess X` with X, unverified; `lose X` with 0, though X is in its tree;
`fail` fails; `endless` runs until it is cancelled. `/grade` compares text. It is served by real HTTP.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from ratchet.contracts.extending import ExtendRequest
from ratchet.contracts.search import Asked, SearchRequest, SearchResult
from ratchet.contracts.strategies import StrategyChoice
from ratchet.states import SEARCH_TRANSITIONS, SearchState, is_end

MODEL, PRM = "double@0", "prm1-likelihood@double@0"


class Searches:
    """What was asked of the double."""

    def __init__(self) -> None:
        self.requests: list[SearchRequest] = []
        self.results: list[SearchResult] = []
        self.cancelled: list[int] = []
        self.branches: list[dict[str, Any]] = []
        self.choices: list[StrategyChoice] = []


def result(number: int, request: SearchRequest) -> SearchResult:
    word, _, rest = request.problem.partition(" ")
    state = {
        "say": SearchState.SOLVED_VERIFIED,
        "guess": SearchState.ANSWERED_UNVERIFIED,
        "lose": SearchState.ANSWERED_UNVERIFIED,
        "fail": SearchState.FAILED,
        "endless": SearchState.RUNNING,
    }[word]
    answered = bool(rest)
    if word == "lose":
        rest = "0"
    return SearchResult.model_validate(
        {
            "id": f"s{number}",
            "state": state,
            "problem": request.problem,
            "strategy": request.strategy,
            "seed": request.seed,
            "answer": rest or None,
            "program": f"# Say it.\nprint({rest})" if answered else None,
            "verification": {
                "level": "agreement" if word == "say" else "execution",
                "votes": 3,
                "total_votes": 4,
                "independent_programs": 2,
                "forms": 2,
                "grounded": True,
                "prm_share": 0.8,
                "confidence": 0.9,
            }
            if answered
            else None,
            "usage": {"policy": {"calls": 2, "tokens": 120, "seconds": 1.5}, "wall_seconds": 2.0},
            "models": {"policy": MODEL, "prm": PRM},
            "reason": "out of luck" if word == "fail" else None,
            "created_at": datetime.now(UTC),
        }
    )


def node(number: int, parent: int | None, **changes: Any) -> dict[str, Any]:
    return {
        "id": f"n{number}",
        "parent": None if parent is None else f"n{parent}",
        "depth": number,
        "state": "open",
        "text": f"# Thought {number}.\nx = 1",
        "status": "ok",
        "stdout": "1\n",
        "stderr": "",
        "prm_score": 0.5,
        "prior": -0.2,
        "visits": 1,
        "q": 0.5,
        "tokens": 20,
        "seconds": 0.1,
        "answer": None,
        **changes,
    }


def search_double() -> tuple[FastAPI, Searches]:
    """The app, and the record of what was asked of it."""
    app, searches = FastAPI(), Searches()

    def found(search: str) -> int:
        return int(search.removeprefix("s"))

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"service": "double", "ready": True, "version": "0", "detail": {"model": MODEL}}

    @app.post("/search")
    async def create(request: SearchRequest) -> Response:
        searches.requests.append(request)
        searches.results.append(result(len(searches.results), request))
        begun = searches.results[-1].model_copy(update={"state": SearchState.QUEUED, "answer": None})
        return Response(begun.model_dump_json(), 202, media_type="application/json")

    @app.get("/search/{search}")
    async def get(search: str) -> SearchResult:
        return searches.results[found(search)]

    @app.delete("/search/{search}")
    async def cancel(search: str) -> SearchResult:
        number = found(search)
        searches.cancelled.append(number)
        ended = {"state": SearchState.CANCELLED, "answer": "7"}
        searches.results[number] = searches.results[number].model_copy(update=ended)
        return searches.results[number]

    @app.get("/searches")
    async def recent(
        limit: int, state: SearchState | None = None, text: str = "", cursor: int = 0
    ) -> dict[str, Any]:
        """Looks at one search a page, as the service looks at so many."""
        found = [
            each
            for each in searches.results[cursor : cursor + 1]
            if state in (None, each.state) and text.lower() in each.problem.lower()
        ]
        names = ("id", "state", "problem", "strategy", "answer", "created_at", "ended_at", "parent")
        lines = [{name: getattr(each, name) for name in names} | {"level": None} for each in found[:limit]]
        following = cursor + 1
        return {"searches": lines, "next": str(following) if following < len(searches.results) else None}

    @app.post("/search/{search}/retry")
    async def retry(search: str) -> Response:
        number = found(search)
        if searches.results[number].state is not SearchState.FAILED:
            problem = {"title": "Conflict", "status": 409, "detail": "only a failed one", "instance": search}
            return JSONResponse(problem, 409, media_type="application/problem+json")
        searches.results[number] = searches.results[number].model_copy(update={"state": SearchState.QUEUED})
        return Response(searches.results[number].model_dump_json(), 202, media_type="application/json")

    @app.post("/search/{search}/extend")
    async def extend(search: str, body: ExtendRequest) -> Response:
        number = found(search)
        of = searches.results[number]
        plain = SearchRequest(problem=of.problem).model_dump()
        budget = plain["budget"] | body.model_dump(exclude_none=True)
        asked = Asked.model_validate({name: plain[name] for name in Asked.model_fields} | {"budget": budget})
        searches.results[number] = of.model_copy(update={"asked": asked})
        return Response(searches.results[number].model_dump_json(), 202, media_type="application/json")

    @app.post("/search/{search}/branch")
    async def branch(search: str, request: Request) -> Response:
        searches.branches.append(await request.json())
        of = searches.results[found(search)]
        parent = {"search": search, "node": searches.branches[-1]["node"]}
        new = of.model_dump() | {"id": f"s{len(searches.results)}", "parent": parent}
        searches.results.append(SearchResult.model_validate(new))
        return Response(searches.results[-1].model_dump_json(), 202, media_type="application/json")

    @app.get("/search/{search}/events")
    async def events(search: str) -> Response:
        number = found(search)

        async def stream() -> AsyncIterator[str]:
            def event(order: int, kind: str, data: Any) -> str:
                return f"id: {order}\nevent: {kind}\ndata: {json.dumps(data)}\n\n"

            yield event(1, "state", {"state": "running", "reason": None})
            yield event(2, "node", node(1, None))
            yield event(3, "node", node(2, 1, state="failed", status="error", stderr="NameError: y"))
            while not is_end(SEARCH_TRANSITIONS, searches.results[number].state):
                yield ": ping\n\n"
                await asyncio.sleep(0.05)
            yield event(4, "end", searches.results[number].model_dump(mode="json"))

        return StreamingResponse(stream(), media_type="text/event-stream")

    @app.get("/search/{search}/tree")
    async def tree(search: str) -> dict[str, Any]:
        of = searches.results[found(search)]
        ends = [of.answer] if of.problem.startswith(("say", "guess")) else ["0", of.problem.split()[-1]]
        nodes = [
            node(2 + place, 1, answer=answer, visits=4 - 3 * place, state="terminal")
            for place, answer in enumerate(ends)
        ]
        return {"search": search, "nodes": [node(1, None, visits=4), *nodes]}

    @app.put("/strategies")
    async def keep(choice: StrategyChoice) -> StrategyChoice:
        searches.choices.append(choice)
        return choice

    @app.post("/grade")
    async def grade(request: Request) -> Response:
        body = await request.json()
        return JSONResponse({"equal": body["candidate"] == body["reference"], "rule": "exact"})

    return app, searches
