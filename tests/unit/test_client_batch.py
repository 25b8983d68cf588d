"""A batch: lines in, lines out, and nothing that was written is asked again. The service's part is a function."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ratchet.client.batch import BatchProgress, BatchReport, read_lines, run_batch
from ratchet.contracts.search import SearchRequest, SearchResult
from ratchet.service_client import ServiceError

STATES = {"say": "solved_verified", "guess": "answered_unverified", "fail": "failed"}


def result(request: SearchRequest) -> SearchResult:
    return SearchResult.model_validate(
        {
            "id": f"s-{request.problem}",
            "state": STATES[request.problem.split()[0]],
            "problem": request.problem,
            "strategy": request.strategy,
            "seed": request.seed,
            "usage": {"policy": {"tokens": 10}},
            "created_at": datetime(2026, 1, 1, tzinfo=UTC),
        }
    )


class Service:
    """Answers at once, and remembers what it was asked; `breaks` raises where a problem begins with it."""

    def __init__(self, breaks: dict[str, ServiceError] | None = None) -> None:
        self.asked: list[SearchRequest] = []
        self.at_once = self.most_at_once = 0
        self.breaks = breaks or {}

    async def solve(self, request: SearchRequest) -> SearchResult:
        self.asked.append(request)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        for word, error in self.breaks.items():
            if request.problem.startswith(word):
                raise error
        return result(request)


async def batch(
    service: Service, problems: Any, out: Path, told: list[BatchProgress] | None = None, **options: Any
) -> BatchReport:
    lines = read_lines(problems, options)
    on_progress = None if told is None else told.append
    return await run_batch(service.solve, lines, out, concurrency=2, on_progress=on_progress)


def written(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text().splitlines()]


async def test_every_line_comes_out_with_its_id_and_its_own_options(tmp_path: Path) -> None:
    file, out, service = tmp_path / "in.jsonl", tmp_path / "out.jsonl", Service()
    lines = [
        {"problem": "say 1", "id": "a"},
        {"problem": "guess 2", "seed": 5},
        {"problem": "say 3", "id": 3},
    ]
    file.write_text("\n\n".join(map(json.dumps, lines)) + "\n")
    told: list[BatchProgress] = []
    report = await batch(service, file, out, told, seed=9, strategy="beam")
    assert (report.total, report.solved, report.failed, report.asked, report.tokens) == (3, 2, 0, 3, 30)
    assert {each["line"]: each["id"] for each in written(out)} == {1: "a", 3: None, 5: 3}
    assert {each.problem: each.seed for each in service.asked} == {"say 1": 9, "guess 2": 5, "say 3": 9}
    assert {each.strategy for each in service.asked} == {"beam"}
    assert [each.done for each in told] == [1, 2, 3]
    assert told[-1].seconds_left == 0
    assert service.most_at_once == 2


async def test_what_is_written_is_not_asked_again_and_what_failed_is(tmp_path: Path) -> None:
    out, service = tmp_path / "out.jsonl", Service()
    problems = ["say 1", "fail 2", "guess 3"]
    assert (await batch(service, problems, out)).failed == 1
    STATES["fail"] = "solved_verified"
    try:
        report = await batch(service, problems, out)
    finally:
        STATES["fail"] = "failed"
    assert (report.asked, report.solved, report.failed) == (1, 2, 0)
    assert [each.problem for each in service.asked[3:]] == ["fail 2"]
    assert (await batch(service, problems, out)).asked == 0


async def test_a_line_that_was_cut_off_is_asked_again(tmp_path: Path) -> None:
    out, service = tmp_path / "out.jsonl", Service()
    problems = ["say 1", "say 2"]
    await batch(service, problems, out)
    out.write_bytes(out.read_bytes()[:-7])
    assert (await batch(service, problems, out)).asked == 1
    assert len(written(out)) == 2


async def test_the_output_of_other_problems_or_options_is_refused(tmp_path: Path) -> None:
    out, service = tmp_path / "out.jsonl", Service()
    await batch(service, ["say 1"], out)
    others: list[tuple[list[str], dict[str, Any]]] = [(["say 2"], {}), (["say 1"], {"seed": 4})]
    for problems, options in others:
        with pytest.raises(ValueError, match="choose another file"):
            await batch(service, problems, out, **options)
    out.write_text("hello\n")
    with pytest.raises(ValueError, match="written by no batch"):
        await batch(service, ["say 1"], out)
    assert len(service.asked) == 1


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "line 2: not valid JSON"),
        ("3", "line 2: an object"),
        ('{"question": "x"}', "line 2: `problem` is missing; there are question"),
        ('{"problem": "x", "sead": 1}', "line 2: sead: Extra inputs"),
        ('{"problem": "x", "budget": {"tokens": 0}}', "line 2: budget.tokens: "),
        ('{"problem": " "}', "line 2: problem: "),
    ],
)
def test_a_bad_line_is_named_before_anything_is_asked(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "in.jsonl"
    file.write_text('{"problem": "x"}\n' + text)
    with pytest.raises(ValueError, match=named):
        read_lines(file, {})


async def test_a_refused_problem_is_an_error_of_its_line_and_an_outage_ends_the_batch(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    refused = Service({"say 1": ServiceError("search", "no", status=422)})
    report = await batch(refused, ["say 1", "say 2"], out)
    assert (report.solved, report.failed) == (1, 1)
    assert "no (422)" in next(each["error"] for each in written(out) if each["line"] == 1)
    away = Service({"say 1": ServiceError("search", "cannot be reached")})
    with pytest.raises(ServiceError, match="cannot be reached"):
        await batch(away, ["say 1", "say 2"], out)
    assert (await batch(Service(), ["say 1", "say 2"], out)).solved == 2


async def test_a_limit_of_the_key_is_waited_for_and_one_of_the_day_is_not(tmp_path: Path) -> None:
    full = ServiceError("search", "full", status=429, retry_after=0.0)
    service = Service({"say 1": full})

    async def solve(request: SearchRequest) -> SearchResult:
        try:
            return await service.solve(request)
        finally:
            service.breaks = {}

    lines = read_lines(["say 1"], {})
    report = await run_batch(solve, lines, tmp_path / "o", concurrency=1, on_progress=None)
    assert (report.solved, len(service.asked)) == (1, 2)
    spent = Service({"say 1": ServiceError("search", "spent", status=429, retry_after=3600.0)})
    with pytest.raises(ServiceError, match="spent"):
        await run_batch(spent.solve, lines, tmp_path / "p", concurrency=1, on_progress=None)
