"""Many problems: JSON lines in, JSON lines out. What was written is not asked again.

A line of the output: `{"line": 3, "id": …, "request": SHA-256, "result": …}`, or `"error"` in place of `"result"` where the
service refused the problem. It is written when its search is over, so the order is that of the ends; `line` counts from 1.
With a pool of tokens (`pool.py`) a search that was extended is written once more; when the batch has ended, each problem has
one line.

Limits: a search that was under way when the process was killed is asked again. Two processes must not write one file.
"""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import orjson
from pydantic import ValidationError

from ratchet.client.options import search_request
from ratchet.client.pool import Spent, pooled, shares, spent
from ratchet.contracts.search import SearchRequest, SearchResult
from ratchet.service_client import ServiceError
from ratchet.states import SearchState

AGAIN: Final = frozenset({SearchState.FAILED, SearchState.CANCELLED})
"""A search that ended so is asked again by the next call."""
LONGEST_WAIT: Final = 60.0
"""Seconds that a service whose limit is reached may ask to wait; one that asks for more ends the batch."""


@dataclass(frozen=True, slots=True)
class BatchLine:
    """One problem."""

    line: int
    id: Any
    request: SearchRequest

    @property
    def digest(self) -> str:
        """SHA-256 of what is asked."""
        return hashlib.sha256(self.request.model_dump_json().encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """Where a batch stands."""

    total: int
    done: int
    """Lines with a result or an error, those of earlier calls among them."""
    solved: int
    """Of them, those verified as was asked for."""
    failed: int
    """Of them, failed, cancelled or refused ones."""
    tokens: int
    """Generated in this call and earlier ones."""
    seconds_left: float | None
    """At the pace of this call; None before its first end."""


@dataclass(frozen=True, slots=True)
class BatchReport:
    """What a batch came to."""

    total: int
    solved: int
    failed: int
    tokens: int
    asked: int
    """In this call; the others were in the output already."""
    out: Path


OnProgress = Callable[[BatchProgress], None]
Solve = Callable[[SearchRequest], Awaitable[SearchResult]]
Extend = Callable[[str, int], Awaitable[SearchResult]]
"""Has a search (its id) use so many tokens in all, and returns when it is over again."""


def read_lines(
    problems: Path | str | Iterable[str | Mapping[str, Any]],
    options: Mapping[str, Any],
    *,
    pool: bool = False,
) -> list[BatchLine]:
    """The problems of a file (a path), or of an iterable; `pool`: they share their tokens.

    Raises ValueError that names the line, OSError.
    """
    entries = _of_file(Path(problems)) if isinstance(problems, Path | str) else enumerate(problems, 1)
    lines = [_line(number, entry, options) for number, entry in entries]
    return [replace(line, request=pooled(line.request)) for line in lines] if pool else lines


def _of_file(path: Path) -> Iterator[tuple[int, Any]]:
    for number, text in enumerate(path.read_text("utf-8-sig").split("\n"), 1):
        if text.strip():
            try:
                yield number, orjson.loads(text)
            except orjson.JSONDecodeError as error:
                raise ValueError(f"line {number}: not valid JSON: {error.msg}") from None


def _line(number: int, entry: Any, options: Mapping[str, Any]) -> BatchLine:
    fields = {"problem": entry} if isinstance(entry, str) else entry
    if not isinstance(fields, Mapping):
        raise ValueError(f"line {number}: an object with `problem` is needed")
    told = {name: value for name, value in fields.items() if name != "id"}
    if "problem" not in told:
        raise ValueError(
            f"line {number}: `problem` is missing; there are {', '.join(map(str, fields)) or 'no fields'}"
        )
    try:
        request = search_request(told.pop("problem"), {**options, **told})
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"line {number}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    return BatchLine(number, fields.get("id"), request)


async def run_batch(
    solve: Solve,
    lines: Sequence[BatchLine],
    out: Path,
    *,
    concurrency: int,
    on_progress: OnProgress | None,
    extend: Extend | None = None,
) -> BatchReport:
    """Ask what is not in `out` yet; `extend`: the problems share their tokens.

    Raises ValueError where `out` is of other problems, ServiceError, OSError.
    """
    if concurrency < 1:
        raise ValueError("concurrency must be at least 1")
    batch = _Batch(lines, out, concurrency, on_progress)
    await batch.work_through([partial(_ask, solve, line) for line in lines if batch.tally.is_open(line)])
    if extend is not None:
        await _share_out(batch, lines, extend)
    last = batch.tally.progress(batch.asked)
    return BatchReport(last.total, last.solved, last.failed, last.tokens, batch.asked, out)


async def _share_out(batch: "_Batch", lines: Sequence[BatchLine], extend: Extend) -> None:
    """Give what is left of all tokens to the problems that are not solved, until little is left."""
    closed: set[int] = set()

    async def more(line: BatchLine, tokens: int) -> dict[str, Any] | None:
        try:
            result = await extend(batch.tally.known[line.line]["result"]["id"], tokens)
        except ServiceError as error:
            if error.status not in (HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND):
                raise
            # Its tree is no longer kept, or somebody has done something with it: what was found stays.
            closed.add(line.line)
            return None
        return _written(line, result)

    while granted := shares(
        {line.line: line.request.budget.tokens for line in lines}, batch.tally.spent(), frozenset(closed)
    ):
        await batch.work_through(
            [partial(more, line, granted[line.line]) for line in lines if line.line in granted]
        )
    batch.keep_last_lines()


@dataclass(slots=True)
class _Batch:
    """What is done for the lines, and what is written of them."""

    lines: Sequence[BatchLine]
    out: Path
    concurrency: int
    on_progress: OnProgress | None
    asked: int = 0
    tally: "_Tally" = field(init=False)

    def __post_init__(self) -> None:
        self.tally = _Tally(self.lines, _read_written(self.out, self.lines))

    async def work_through(self, asks: Sequence[Callable[[], Awaitable[dict[str, Any] | None]]]) -> None:
        """Do these, so many at once, and write what comes of each. Raises what the first to fail raises."""
        waiting = iter(asks)

        async def work() -> None:
            for ask in waiting:
                written = await ask()
                if written is not None:
                    self.write(written)

        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(min(self.concurrency, len(asks))):
                    workers.create_task(work())
        except ExceptionGroup as group:
            # One is enough to tell; they are mostly the same.
            raise group.exceptions[0] from group

    def write(self, written: dict[str, Any]) -> None:
        """Add the line, and tell who watches."""
        self.asked += 1
        # Opened for each line: a batch takes hours, and its lines are to be there whatever ends it.
        with self.out.open("ab") as file:
            file.write(orjson.dumps(written) + b"\n")
        self.tally.note(written)
        if self.on_progress is not None:
            self.on_progress(self.tally.progress(self.asked))

    def keep_last_lines(self) -> None:
        """Have one line for each problem in the file."""
        if self.out.exists():
            fresh = self.out.with_name(self.out.name + ".new")
            fresh.write_bytes(b"".join(orjson.dumps(each) + b"\n" for each in self.tally.known.values()))
            fresh.replace(self.out)


async def _ask(solve: Solve, line: BatchLine) -> dict[str, Any]:
    """The line of the output. Raises ServiceError where the next one would fare the same."""
    while True:
        try:
            result = await solve(line.request)
        except ServiceError as error:
            if error.status == HTTPStatus.UNPROCESSABLE_ENTITY:
                return _written(line, error)
            asked_to_wait = error.retry_after or 0.0
            if error.status != HTTPStatus.TOO_MANY_REQUESTS or asked_to_wait > LONGEST_WAIT:
                raise
            # Fewer at once are allowed than were asked for: those under way have to end first.
            await asyncio.sleep(max(1.0, asked_to_wait))
        else:
            return _written(line, result)


def _written(line: BatchLine, came: SearchResult | ServiceError) -> dict[str, Any]:
    head = {"line": line.line, "id": line.id, "request": line.digest}
    if isinstance(came, ServiceError):
        return {**head, "error": str(came)}
    return {**head, "result": came.model_dump(mode="json")}


def _read_written(out: Path, lines: Sequence[BatchLine]) -> list[dict[str, Any]]:
    """What is in the file. A last line that was cut off is removed. Raises ValueError where it is of other problems."""
    if not out.exists():
        return []
    content = out.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    digests = {line.line: line.digest for line in lines}
    written: list[dict[str, Any]] = []
    for number, text in enumerate(whole.splitlines(), 1):
        try:
            entry = orjson.loads(text)
            same = digests.get(entry["line"]) == entry["request"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise ValueError(f"{out}, line {number}: written by no batch; choose another file") from None
        if not same:
            raise ValueError(
                f"{out}, line {number}: line {entry['line']} of the problems, or an option, was another one then; choose "
                "another file"
            )
        written.append(entry)
    if len(whole) < len(content):
        with out.open("r+b") as file:
            file.truncate(len(whole))
    return written


class _Tally:
    """What is known of each line: the last that was written of it."""

    def __init__(self, lines: Sequence[BatchLine], written: Iterable[dict[str, Any]]) -> None:
        self._total = len(lines)
        self._own = {line.line: line.request.budget.tokens for line in lines}
        self._began = time.monotonic()
        self.known: dict[int, dict[str, Any]] = {}
        for each in written:
            self.note(each)
        self._open_at_first = sum(self.is_open(line) for line in lines)

    def note(self, written: dict[str, Any]) -> None:
        """This was written."""
        self.known[written["line"]] = written

    def is_open(self, line: BatchLine) -> bool:
        """Whether it has to be asked."""
        known = self.known.get(line.line)
        return known is None or _is_failed(known)

    def spent(self) -> dict[int, Spent]:
        """What the searches of the lines have used."""
        return {
            line: spent(each["result"], self._own[line])
            for line, each in self.known.items()
            if "result" in each
        }

    def progress(self, asked: int) -> BatchProgress:
        """Where the batch stands after so many ends in this call."""
        known = self.known.values()
        results = [each["result"] for each in known if "result" in each]
        pace = (time.monotonic() - self._began) / asked if asked else None
        return BatchProgress(
            total=self._total,
            done=len(self.known),
            solved=sum(each["state"] == SearchState.SOLVED_VERIFIED for each in results),
            failed=sum(map(_is_failed, known)),
            tokens=sum(each["usage"]["policy"]["tokens"] for each in results),
            seconds_left=None if pace is None else pace * (self._open_at_first - asked),
        )


def _is_failed(written: Mapping[str, Any]) -> bool:
    return "result" not in written or SearchState(written["result"]["state"]) in AGAIN
