"""The searches of an evaluation: each problem is one `POST /search`, and the sandbox grades what came of it.

All searches of a run wait in one queue, so that no engine is idle between two ways to search.
"""

import asyncio
import contextlib
import math
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from ratchet.cli.display import clean, problems_bar
from ratchet.cli.evaluation.results import ResultFile
from ratchet.cli.outcomes import GradedProblem, Trajectories, graded_problem
from ratchet.cli.session import Interrupts, connected
from ratchet.cli.solve import GRACE_SECONDS
from ratchet.clients import SandboxClient, SearchClient, ServiceError
from ratchet.contracts.measuring import MEASURING_KEY
from ratchet.contracts.sandbox import GradeRule
from ratchet.contracts.search import SearchRequest, SearchResult
from ratchet.problems import Problem
from ratchet.solutions.answers import answer_key, grade_request, same_answer
from ratchet.stack.own_sandbox import local_sandbox
from ratchet.states import SEARCH_TRANSITIONS, SearchState, is_end

SHORTEST_POLL_SECONDS, POLL_SECONDS = 0.1, 1.0
CANCEL_SECONDS = 10.0
MAX_LINES = 1000
"""Of progress, where there is no terminal."""


Show = Callable[["Way", GradedProblem], None]


@dataclass(frozen=True)
class Services:
    """What answers and grades."""

    search: SearchClient
    sandbox: SandboxClient
    model: str | None
    """Version of the policy's model, where it is known."""
    prm: str | None = None
    """Version of the PRM, likewise."""
    trainer: str = ""
    """Its URL; empty for a search service at a given URL."""
    key: str | None = None
    """For the trainer."""

    @property
    def models(self) -> dict[str, str | None]:
        """What results are of: those of other models go into other files."""
        return {"policy": self.model, "prm": self.prm}


@dataclass(frozen=True)
class Way:
    """One way to search all problems, and where its results go."""

    request: SearchRequest
    results: ResultFile
    label: str = ""
    """Tells it from the other ways of the run."""


@contextlib.asynccontextmanager
async def reach_services(
    url: str | None, data: Path | None, model: str | None, console: Console
) -> AsyncIterator[Services]:
    """Those of this session; for a search service at `url` a sandbox of our own grades."""
    async with contextlib.AsyncExitStack() as stack:
        endpoint = await stack.enter_async_context(
            connected(url=url, data=data, model=model, console=console)
        )
        sandbox = await stack.enter_async_context(
            local_sandbox()
            if endpoint.sandbox is None
            else SandboxClient(endpoint.sandbox, key=endpoint.token)
        )
        search = await stack.enter_async_context(SearchClient(endpoint.search, key=endpoint.key))
        yield Services(search, sandbox, endpoint.model, endpoint.prm, endpoint.trainer or "", endpoint.key)


@dataclass(frozen=True)
class Run:
    """All that a run shares: problems, ways to search them, and how many searches are under way at once."""

    problems: Sequence[Problem]
    ways: Sequence[Way]
    with_reference: bool
    concurrency: int

    @property
    def total(self) -> int:
        return len(self.problems) * len(self.ways)

    def done(self, way: Way) -> list[GradedProblem]:
        """The results of one way so far, in the order of the problems."""
        return [way.results.known[each.id] for each in self.problems if each.id in way.results.known]


class Pauses:
    """Between two looks at a search: the first one at half the time that searches have taken, so that a thousand short ones
    are not asked for all the time, and then at a fifth of it. Until one is over, each look waits longer than the last."""

    def __init__(self) -> None:
        self._mean: float | None = None

    def learn(self, seconds: float) -> None:
        """A search has taken so long."""
        self._mean = seconds if self._mean is None else self._mean + (seconds - self._mean) / 16

    def __iter__(self) -> Iterator[float]:
        pause = SHORTEST_POLL_SECONDS
        while self._mean is None:
            yield pause
            pause = min(POLL_SECONDS, pause * 1.5)
        yield max(SHORTEST_POLL_SECONDS, self._mean / 2)
        while True:
            yield min(POLL_SECONDS, max(SHORTEST_POLL_SECONDS, self._mean / 5))


async def search_all(run: Run, services: Services, console: Console, interrupts: Interrupts) -> bool:
    """Search and grade what has no result yet; whether all is done, or a person stopped it."""
    waiting = iter(
        [(way, each) for way in run.ways for each in run.problems if each.id not in way.results.known]
    )
    pauses = Pauses()
    with _progress(run, console) as show:

        async def work() -> None:
            for way, problem in waiting:
                line = await _solve_and_grade(problem, way.request, run.with_reference, services, pauses)
                way.results.append(line)
                show(way, line)

        with interrupts.caught() as interrupted:
            stopping = asyncio.create_task(interrupted.wait())
            workers = asyncio.gather(*(work() for _ in range(run.concurrency)))
            either: set[asyncio.Future[Any]] = {stopping, workers}
            try:
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if workers.done():
                    await workers
            finally:
                stopping.cancel()
                workers.cancel()
                with contextlib.suppress(asyncio.CancelledError, ServiceError):
                    await workers
    return sum(len(run.done(way)) for way in run.ways) == run.total


@contextlib.contextmanager
def _progress(run: Run, console: Console) -> Iterator[Show]:
    """A bar on a terminal, otherwise lines; gives the function that shows a new result."""
    right = {id(way): sum(each.correct for each in run.done(way)) for way in run.ways}
    count = {id(way): len(run.done(way)) for way in run.ways}
    every = math.ceil(run.total / MAX_LINES)
    with problems_bar(console) as bar:
        task = bar.add_task("accuracy –", total=run.total, completed=sum(count.values()))

        def show(way: Way, line: GradedProblem) -> None:
            right[id(way)] += line.correct
            count[id(way)] += 1
            name = f"{way.label}: " if way.label else ""
            share = f"{name}accuracy {right[id(way)] / count[id(way)]:.1%}"
            done = sum(count.values())
            bar.update(task, completed=done, description=share)
            if not console.is_terminal and (done % every == 0 or done == run.total):
                console.print(
                    clean(
                        f"{done}/{run.total}  {name}right {right[id(way)]}  {line.source}  "
                        f"answer {line.answer} reference {line.reference}  {line.state.value}"
                    ),
                    markup=False,
                    highlight=False,
                    soft_wrap=True,
                )

        yield show


async def _solve_and_grade(
    problem: Problem, request: SearchRequest, with_reference: bool, services: Services, pauses: Pauses
) -> GradedProblem:
    reference = problem.answer if with_reference else None
    asked = request.model_copy(update={"problem": problem.text, "reference_answer": reference})
    result = await _to_the_end(asked, services.search, pauses)
    correct, rule = await _grade(result, problem, services.sandbox)
    found = await _trajectories(result, problem, services)
    return graded_problem(problem, result, found, correct=correct, rule=rule)


async def _grade(
    result: SearchResult, problem: Problem, sandbox: SandboxClient
) -> tuple[bool, GradeRule | None]:
    answer = result.answer
    if answer is None or result.state is SearchState.FAILED:
        return False, None
    request = grade_request(answer, problem.answer)
    if request is None:
        return False, GradeRule.UNPARSED
    grade = await sandbox.grade(request)
    return grade.equal, grade.rule


async def _trajectories(result: SearchResult, problem: Problem, services: Services) -> Trajectories:
    """The ends of the search's tree, graded: each answer once, however often it was given."""
    if result.state is SearchState.FAILED:
        return Trajectories()
    tree = await services.search.tree(result.id)
    votes: dict[str, int] = {}
    spelling: dict[str, str] = {}
    for node in tree.nodes:
        if node.answer is not None and node.visits > 0:
            key = answer_key(node.answer)
            votes[key] = votes.get(key, 0) + node.visits
            spelling.setdefault(key, node.answer)
    right = 0
    for key, answer in spelling.items():
        if await same_answer(services.sandbox, answer, problem.answer):
            right += votes[key]
    return Trajectories(n=sum(votes.values()), right=right)


async def _to_the_end(request: SearchRequest, client: SearchClient, pauses: Pauses) -> SearchResult:
    """Create a search and wait for its end; whoever stops waiting cancels it."""
    result = await client.create(request, idempotency_key=f"{MEASURING_KEY}{uuid.uuid4().hex}")
    began = time.monotonic()
    waits = iter(pauses)
    try:
        async with asyncio.timeout(request.budget.seconds + GRACE_SECONDS):
            while not is_end(SEARCH_TRANSITIONS, result.state):
                await asyncio.sleep(next(waits))
                result = await client.get(result.id)
        pauses.learn(time.monotonic() - began)
    except (asyncio.CancelledError, TimeoutError) as error:
        with contextlib.suppress(ServiceError, TimeoutError):
            async with asyncio.timeout(CANCEL_SECONDS):
                await client.cancel(result.id)
        if isinstance(error, asyncio.CancelledError):
            raise
        return result.model_copy(update={"state": SearchState.FAILED, "reason": "no end in time"})
    return result
