"""Hostile text through all of a search and what follows it: jail, store, events, proof, labels, selection, replay, screen.

The policy is a script that writes programs which print what hypothesis draws; all else is real. What is pure is tested with
more of such text, and faster, in tests/unit/test_hostile_text.py.
"""

import contextlib
import math
import warnings
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path

import orjson
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet.cli.display import TreeDisplay, solution
from ratchet.client.proofs import check_programs
from ratchet.clients import PolicyClient, PrmClient, SandboxClient
from ratchet.contracts.base import Health
from ratchet.contracts.policy import Candidate, FinishReason, GenerateRequest, GenerateResponse
from ratchet.contracts.prm import ScoreRequest, ScoreResponse
from ratchet.contracts.rounds import SelectBy, Selection
from ratchet.contracts.search import EventKind, Proof, SearchRequest, SearchResult, StrategyName, TreeView
from ratchet.events import Events
from ratchet.settings import Settings
from ratchet.solutions.counterfactual import make_variants
from ratchet.solutions.proof import check_bundle
from ratchet.states import SearchState
from ratchet.store.followed import FollowedSearches
from ratchet.store.rounds import RoundProblem
from ratchet.store.search_tasks import SearchJournal
from ratchet.store.searches import SearchStore
from ratchet.web.app import create_app
from services.search.dot import render_dot
from services.search.facade.words import content_of, reasoning_of, step_words
from services.search.interpreter import Interpreter
from services.search.replay import replay
from services.search.run import grow
from services.search.search import Backends, Search
from services.search.step_memory import StepMemory
from services.search.strategies import Tree
from services.search.tree_journal import TreeJournal
from services.search.verify import conclude
from services.trainer.labelled_votes import label
from services.trainer.quarantine import suspects
from services.trainer.reexecution import Claim, reexecute
from services.trainer.selection import Choice, find, tree_line, verdict
from tests.http_double import serving
from tests.sandbox_server import TOKEN, running_sandbox
from tests.unit.test_hostile_text import HOSTILE, PROBLEM, is_harmless

PRINTED = st.one_of(
    HOSTILE.map(lambda text: f"print({text!r})"),
    HOSTILE.map(
        lambda text: f"import sys\nx = {text!r}\nsys.stdout.buffer.write(x.encode('utf-8', 'surrogatepass'))"
    ),
    HOSTILE.map(lambda text: f"# {text}\nx = 9 * 6\nprint(x - 18)"),
    st.sampled_from(
        [
            "print(list(range(600)))",
            "for i in range(40_000): print(i)",
            "print(10**4301, -10**5000)",
            "print(float('nan'), float('inf'))",
            "import sys\nsys.stderr.write('\\x1b]0;x\\x07' * 9)\nraise ValueError('\\0\\ud800')",
            "class A(Exception):\n    def __str__(self): return '[/red]' * 5000\nraise A",
            "print(9 * 6 * 2 / 3)",
        ]
    ),
)
REFERENCES = st.sampled_from([None, "36", "x + 1", "[1, 2, 3]", r"\frac{1}{2}"])


@dataclass
class Script:
    """What the policy writes: one program after another."""

    programs: Iterator[str] = field(default_factory=lambda: cycle(["print(1)"]))


@pytest.fixture(scope="module")
async def sandbox(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SandboxClient]:
    log: Path = tmp_path_factory.mktemp("sandbox") / "log"
    with running_sandbox(log) as running:
        async with SandboxClient(str(running.http.base_url), key=TOKEN) as client:
            yield client


@pytest.fixture(scope="module")
def script() -> Script:
    return Script()


@pytest.fixture(scope="module")
def models(script: Script) -> Iterator[str]:
    """A double of policy and PRM."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield

    app = create_app(
        service="script",
        summary="A double.",
        settings=Settings(),
        lifespan=lifespan,
        health=lambda: Health(service="script", ready=True, version="0"),
    )

    @app.post("/generate")
    async def generate(request: GenerateRequest) -> GenerateResponse:
        rows = [[candidate(next(script.programs))] for _ in request.prefixes]
        return GenerateResponse(model="script@0", candidates=rows, prompt_tokens=1)

    @app.post("/score")
    async def score(request: ScoreRequest) -> ScoreResponse:
        return ScoreResponse(model="script@0", scores=[[0.75] * len(steps) for steps in request.steps])

    with serving() as serve:
        yield serve(app)


def candidate(program: str) -> Candidate:
    return Candidate(
        text=program,
        steps=[program],
        final=True,
        tokens=10,
        mean_logprob=-0.5,
        step_logprobs=[-0.5],
        finish_reason=FinishReason.END,
    )


@settings(deadline=None, max_examples=20, suppress_health_check=list(HealthCheck))
@given(programs=st.lists(PRINTED, min_size=1, max_size=4), reference=REFERENCES)
async def test_whatever_programs_print_a_search_ends_and_all_that_follows_takes_it(
    programs: list[str],
    reference: str | None,
    engine: AsyncEngine,
    redis_url: str,
    sandbox: SandboxClient,
    script: Script,
    models: str,
) -> None:
    # A program comes to the service as JSON: half a character cannot.
    script.programs = cycle([program.encode("utf-8", "replace").decode() for program in programs])
    request = SearchRequest.model_validate(
        {
            "problem": PROBLEM,
            "reference_answer": reference,
            "strategy": "best_of_n",
            "parameters": {"rollouts": len(programs) + 1, "early_stop": False},
        }
    )
    store, events = SearchStore(engine), Events(redis_url)
    search_id, _ = await store.create(request)
    claim = await store.claim(search_id, "w", 600, 5)
    assert claim is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        async with (
            contextlib.aclosing(events),
            PolicyClient(models) as policy,
            PrmClient(models) as prm,
            Interpreter(sandbox, 0, StepMemory()) as interpreter,
        ):
            search = Search(claim.request, reference, Tree(), interpreter)
            journal = TreeJournal(claim, search, store, events, lambda: 0.0)
            journal.note([search.tree.root])
            reason = await grow(search, Backends(policy, prm, sandbox), journal, math.inf)
            state, outcome = await conclude(search, sandbox, str(search_id), datetime.now(UTC), reason)
            await journal.flush()
            await store.finish(claim, state, outcome)
            told = await events.read(search_id)
        assert {EventKind.NODE} <= {event.kind for event in told}
        result = await store.result(search_id)
        tree = await FollowedSearches(engine).tree(search_id)
        kept = await store.load_journal(search_id)
        assert result is not None
        assert tree is not None
        assert kept is not None
        assert (result.answer is None) == (state is SearchState.BUDGET_EXHAUSTED)
        assert state is not SearchState.FAILED
        await shown_and_sent(result, tree)
        await replayed_labelled_and_selected(kept, reference or "36", sandbox)
        if (proof := await store.proof(search_id)) is not None:
            await proven(proof, sandbox)


async def shown_and_sent(result: SearchResult, tree: TreeView) -> None:
    """What callers and people get of a search is text, and acts on no terminal."""
    assert SearchResult.model_validate_json(result.model_dump_json()) == result
    assert TreeView.model_validate_json(tree.model_dump_json()) == tree
    display = TreeDisplay(result.problem)
    display.add(tree.nodes)
    assert is_harmless(display.render(99))
    assert is_harmless(solution(result))

    async def pages() -> AsyncIterator[TreeView]:
        yield tree

    dot = "".join([piece async for piece in render_dot(pages())])
    words = [content_of(result), reasoning_of(result) or "", *(step_words(node) or "" for node in tree.nodes)]
    for text in (dot, *words):
        orjson.dumps(text)


async def replayed_labelled_and_selected(kept: SearchJournal, reference: str, sandbox: SandboxClient) -> None:
    """What a round and a calibration make of the tree."""
    found = replay("s", kept.request, None, kept.nodes, kept.tasks)
    assert found.same_tasks
    assert found.same_tree, found.differing_nodes
    vote = await label(sandbox, StrategyName.BEST_OF_N, kept.nodes, reference)
    assert len(vote.right) == len(vote.groups)
    problem = RoundProblem(0, PROBLEM, reference, "any", 1, "hostile:0")
    searched = find([(0, kept.nodes), (1, kept.nodes)])
    choice = Choice(searched, Selection(how=SelectBy.UNVERIFIED), trained_prm=True, seed=0)
    variants = make_variants(PROBLEM)
    while asked := choice.ask():
        claims = [Claim(each.steps, each.answer, variants) for each in asked]
        for each, behaviour in zip(asked, await reexecute(claims, sandbox), strict=True):
            choice.tell(each, verdict(behaviour))
    suspects(searched, Selection(quarantine_programs=2, quarantine_prm=0.0))
    orjson.dumps(tree_line("p", problem, 0, kept.nodes))


async def proven(document: dict[str, object], sandbox: SandboxClient) -> None:
    """A bundle that was made holds, however its text looks."""
    proof = Proof.model_validate(document)
    checks = [*check_bundle(orjson.loads(orjson.dumps(document)), proof)]
    checks += [check async for check in check_programs(proof, sandbox)]
    assert all(check.holds for check in checks), [check for check in checks if not check.holds]
