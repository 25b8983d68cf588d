"""The clients against real HTTP servers that speak the contracts but compute nothing (doubles)."""

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from ratchet.clients import PolicyClient, PrmClient, SandboxClient, SearchClient, ServiceError
from ratchet.contracts.policy import GenerateRequest, Prefix
from ratchet.contracts.prm import ScoreRequest
from ratchet.contracts.sandbox import GradeRequest
from ratchet.contracts.search import EventKind, SearchRequest, SearchResult, StrategyName
from ratchet.states import SearchState
from tests.http_double import Serve, listening, serving


@pytest.fixture
def serve() -> Iterator[Serve]:
    with serving() as start:
        yield start


ASK = GenerateRequest(prefixes=[Prefix(problem="What is 1+1?")])
ANSWER = {"model": "double", "candidates": [[]], "prompt_tokens": 3}
EQUAL = {"equal": True, "rule": "exact"}


def answering(path: str, *answers: Response) -> tuple[FastAPI, list[float]]:
    """An app that gives these answers in turn (the last for ever) and the times at which it was asked."""
    app, asked = FastAPI(), list[float]()

    @app.post(path)
    async def answer(request: Request) -> Response:
        await request.body()
        asked.append(time.monotonic())
        return answers[min(len(asked), len(answers)) - 1]

    return app, asked


async def test_a_call_is_sent_and_its_answer_parsed(serve: Serve) -> None:
    app = FastAPI()

    @app.post("/score")
    async def score(request: ScoreRequest) -> dict[str, Any]:
        return {"model": request.problem, "scores": [[0.5] * len(steps) for steps in request.steps]}

    async with PrmClient(serve(app)) as prm:
        answer = await prm.score(ScoreRequest(problem="p", steps=[["a", "b"], ["c"]]))
    assert (answer.model, answer.scores, answer.cached) == ("p", [[0.5, 0.5], [0.5]], 0)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_transient_statuses_are_retried(serve: Serve, status: int) -> None:
    app, asked = answering(
        "/grade", Response(status_code=status), Response(status_code=status), JSONResponse(EQUAL)
    )
    async with SandboxClient(serve(app)) as sandbox:
        assert (await sandbox.grade(GradeRequest(candidate="1", reference="1"))).equal
    assert len(asked) == 3


async def test_retry_after_is_honoured(serve: Serve) -> None:
    app, asked = answering(
        "/grade", Response(status_code=503, headers={"retry-after": "1"}), JSONResponse(EQUAL)
    )
    async with SandboxClient(serve(app)) as sandbox:
        await sandbox.grade(GradeRequest(candidate="1", reference="1"))
    assert 1.0 <= asked[1] - asked[0] < 2.5


async def test_a_wish_beyond_the_retry_time_is_not_waited_for(serve: Serve) -> None:
    app, asked = answering("/grade", Response(status_code=503, headers={"retry-after": "3600"}))
    async with SandboxClient(serve(app), retry_seconds=2) as sandbox:
        with pytest.raises(ServiceError) as caught:
            await sandbox.grade(GradeRequest(candidate="1", reference="1"))
    assert (caught.value.status, len(asked)) == (503, 1)


async def test_a_refusal_is_final_and_names_the_fields(serve: Serve) -> None:
    document = {
        "title": "Unprocessable Content",
        "status": 422,
        "detail": "The request is not valid.",
        "errors": [{"field": "n", "message": "too many"}],
    }
    app, asked = answering("/generate", JSONResponse(document, 422, media_type="application/problem+json"))
    async with PolicyClient(serve(app)) as policy:
        with pytest.raises(ServiceError) as caught:
            await policy.generate(ASK)
    error = caught.value
    assert (error.service, error.status, error.refused, len(asked)) == ("policy", 422, True, 1)
    assert (error.errors[0].field, error.errors[0].message) == ("n", "too many")
    assert str(error) == "policy: Unprocessable Content (422): The request is not valid."


@pytest.mark.parametrize(
    "answer", [Response(b"<html>", 200), JSONResponse({"model": "x"}), JSONResponse(ANSWER | {"odd": 1})]
)
async def test_an_answer_that_breaks_the_contract_is_an_error_and_not_retried(
    serve: Serve, answer: Response
) -> None:
    app, asked = answering("/generate", answer)
    async with PolicyClient(serve(app)) as policy:
        with pytest.raises(ServiceError, match="unreadable answer"):
            await policy.generate(ASK)
    assert len(asked) == 1


async def test_an_internal_error_is_not_retried(serve: Serve) -> None:
    app, asked = answering("/generate", Response(b"boom", 500))
    async with PolicyClient(serve(app)) as policy:
        with pytest.raises(ServiceError, match=r"Internal Server Error \(500\): boom"):
            await policy.generate(ASK)
    assert len(asked) == 1


async def test_a_service_that_restarts_is_survived(serve: Serve) -> None:
    app, _ = answering("/generate", JSONResponse(ANSWER))
    sock = listening()  # bound, not listening yet: connections are refused
    async with PolicyClient(f"http://127.0.0.1:{sock.getsockname()[1]}") as policy:
        call = asyncio.create_task(policy.generate(ASK))
        await asyncio.sleep(0.7)
        assert not call.done()
        serve(app, sock)
        assert (await asyncio.wait_for(call, 15)).model == "double"


async def test_a_service_that_stays_away_is_given_up_in_time() -> None:
    with listening() as sock:
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        began = time.monotonic()
        async with PolicyClient(url, retry_seconds=1.0) as policy:
            with pytest.raises(ServiceError, match="cannot be reached") as caught:
                await policy.generate(ASK)
    assert time.monotonic() - began < 3
    assert caught.value.status is None
    assert url in str(caught.value)


async def test_an_attempt_that_hangs_is_bounded(serve: Serve) -> None:
    app = FastAPI()

    @app.post("/generate")
    async def hang() -> Response:
        async def drip() -> Any:
            while True:  # bytes keep coming, so a read time-out alone would never end this
                yield b" "
                await asyncio.sleep(0.05)

        return StreamingResponse(drip())

    began = time.monotonic()
    async with PolicyClient(serve(app), attempt_seconds=0.5, retry_seconds=0) as policy:
        with pytest.raises(ServiceError, match=r"no answer in time.*0\.5 s"):
            await policy.generate(ASK)
    assert time.monotonic() - began < 2


async def test_many_calls_at_once_share_one_client(serve: Serve) -> None:
    app = FastAPI()
    under_way = peak = 0

    @app.post("/generate")
    async def slow(request: GenerateRequest) -> dict[str, Any]:
        nonlocal under_way, peak
        under_way += 1
        peak = max(peak, under_way)
        # All must have come while the first is still here, on a slow machine too.
        await asyncio.sleep(1.0)
        under_way -= 1
        return ANSWER | {"prompt_tokens": request.n}

    async with PolicyClient(serve(app)) as policy:
        asks = [ASK.model_copy(update={"n": n % 64 + 1}) for n in range(100)]
        answers = await asyncio.gather(*(policy.generate(ask) for ask in asks))
    assert [answer.prompt_tokens for answer in answers] == [ask.n for ask in asks]
    assert peak > 90


async def test_health_that_is_not_ready_is_an_answer(serve: Serve) -> None:
    app = FastAPI()

    @app.get("/health")
    async def health() -> Response:
        return JSONResponse(
            {"service": "sandbox", "ready": False, "version": "1", "detail": {"level": "none"}}, 503
        )

    async with SandboxClient(serve(app)) as sandbox:
        state = await sandbox.health()
    assert (state.ready, state.detail) == (False, {"level": "none"})


def result(state: SearchState = SearchState.QUEUED) -> dict[str, Any]:
    held = SearchResult(
        id="s1", state=state, problem="p", strategy=StrategyName.MCTS, seed=0, created_at=datetime.now(UTC)
    )
    return held.model_dump(mode="json")


async def test_a_search_that_is_sent_twice_carries_one_idempotency_key(serve: Serve) -> None:
    app, keys = FastAPI(), list[str | None]()

    @app.post("/search")
    async def create(request: Request) -> Response:
        keys.append(request.headers.get("idempotency-key"))
        return Response(status_code=503) if len(keys) < 3 else JSONResponse(result(), 202)

    async with SearchClient(serve(app)) as search:
        assert (await search.create(SearchRequest(problem="p"))).id == "s1"
        assert (await search.create(SearchRequest(problem="p"))).id == "s1"
    assert len(set(keys[:3])) == 1
    assert keys[0]
    assert keys[3] != keys[0]


async def test_events_are_taken_up_where_the_connection_broke(serve: Serve) -> None:
    """The double ends the stream early, then refuses once, then breaks off inside an event, then goes on."""
    app, asked = FastAPI(), list[str | None]()

    def event(number: int, kind: str = "state", data: str = '{"state": "running"}', end: str = "\n") -> str:
        lines = "".join(f"data: {line}{end}" for line in data.splitlines())
        return f": ping{end}{end}id: {number}{end}event: {kind}{end}{lines}{end}"

    async def chunks(*texts: str, fail: bool = False) -> Any:
        for text in texts:
            yield text
        if fail:
            raise ConnectionError

    @app.get("/search/s1/events")
    async def events(request: Request) -> Response:
        asked.append(request.headers.get("last-event-id"))
        body = {
            1: chunks(event(1), event(2, data='{"state":\n"running"}')),
            3: chunks(
                event(3, end="\r\n"), event(99, kind="unknown"), "id: 4\nevent: state\ndata: {", fail=True
            ),
            4: chunks(event(4), event(5, "end", SearchResult.model_validate(result()).model_dump_json())),
        }.get(len(asked))
        return (
            Response(status_code=503)
            if body is None
            else StreamingResponse(body, media_type="text/event-stream")
        )

    async with SearchClient(serve(app)) as search:
        seen = [event async for event in search.events("s1")]
    assert [event.id for event in seen] == ["1", "2", "3", "4", "5"]
    assert asked == [None, "2", "2", "3"]
    assert seen[1].data == {"state": "running"}
    assert seen[-1].kind is EventKind.END
    assert SearchResult.model_validate(seen[-1].data).id == "s1"


async def test_events_of_an_unknown_search_are_refused_at_once(serve: Serve) -> None:
    async with SearchClient(serve(FastAPI())) as search:
        with pytest.raises(ServiceError) as caught:
            async for _ in search.events("../metrics"):
                pass
    assert caught.value.status == 404


async def test_a_stream_that_never_says_anything_is_given_up(serve: Serve) -> None:
    app = FastAPI()

    @app.get("/search/s1/events")
    async def events() -> Response:
        return Response(b"", media_type="text/event-stream")

    async with SearchClient(serve(app), retry_seconds=1) as search:
        with pytest.raises(ServiceError, match="ended the event stream early"):
            async for _ in search.events("s1"):
                pass


async def test_an_address_that_is_none_is_an_error() -> None:
    for url in ("nonsense", "http://", "ftp://127.0.0.1/"):
        async with SearchClient(url, retry_seconds=0) as search:
            with pytest.raises(ServiceError):
                await search.get("s1")
