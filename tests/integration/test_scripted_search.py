"""Whole searches over programs that a script writes in the policy's place: real jail, real grader, real HTTP."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path

import orjson
import pytest
from fastapi import FastAPI

from ratchet.clients import PolicyClient, PrmClient, SandboxClient
from ratchet.contracts.base import Health
from ratchet.contracts.policy import Candidate, FinishReason, GenerateRequest, GenerateResponse
from ratchet.contracts.prm import ScoreRequest, ScoreResponse
from ratchet.contracts.sandbox import MAX_ANSWER_CHARS, StepStatus
from ratchet.contracts.search import SearchRequest, VerificationLevel
from ratchet.events import answer_event, node_event
from ratchet.settings import Settings
from ratchet.states import NodeState, SearchState
from ratchet.store.search_results import SearchOutcome
from ratchet.web.app import create_app, invalid
from services.search.interpreter import Interpreter
from services.search.rollouts import roll_out
from services.search.saved_tree import record_of
from services.search.search import Backends, Search
from services.search.step_memory import StepMemory
from services.search.strategies import Tree
from services.search.verify import conclude
from tests.http_double import serving
from tests.sandbox_server import TOKEN, running_sandbox

ROLLOUTS = 4
TOO_LONG = "the prompt is too long"
Program = Sequence[str]


@pytest.fixture(scope="module")
async def sandbox(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SandboxClient]:
    log: Path = tmp_path_factory.mktemp("sandbox") / "log"
    with running_sandbox(log) as running:
        async with SandboxClient(str(running.http.base_url), key=TOKEN) as client:
            yield client


def models(programs: Sequence[Program], reads: int = 99) -> FastAPI:
    """A double of policy and PRM: writes one program after another, scores with 0.75, reads so many steps at most."""
    written = cycle(programs)
    app = create_app(
        service="script", summary="A double.", settings=Settings(), lifespan=lifespan, health=no_health
    )

    @app.post("/score")
    async def score(request: ScoreRequest) -> ScoreResponse:
        for number, steps in enumerate(request.steps):
            if len(steps) > reads:
                raise invalid(f"steps.{number}", "it is too long")
        return ScoreResponse(model="script@0", scores=[[0.75] * len(steps) for steps in request.steps])

    @app.post("/generate")
    async def generate(request: GenerateRequest) -> GenerateResponse:
        for number, prefix in enumerate(request.prefixes):
            if len(prefix.steps) > reads:
                raise invalid(f"prefixes.{number}", TOO_LONG)
        return GenerateResponse(
            model="script@0",
            candidates=[[candidate(next(written))] for _ in request.prefixes],
            prompt_tokens=1,
        )

    return app


@contextlib.asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    yield


def no_health() -> Health:
    return Health(service="script", ready=True, version="0")


def candidate(steps: Program) -> Candidate:
    return Candidate(
        text="\n".join(steps),
        steps=list(steps),
        final=True,
        tokens=10,
        mean_logprob=-0.5,
        step_logprobs=[-0.5] * len(steps),
        finish_reason=FinishReason.END,
    )


async def searched(
    sandbox: SandboxClient,
    problem: str,
    *programs: Program,
    reference: str | None = None,
    reads: int = 99,
    **asked: object,
) -> tuple[SearchState, SearchOutcome, Tree]:
    parameters = {"rollouts": ROLLOUTS, "prm": "none"} | asked
    request = SearchRequest.model_validate(
        {
            "problem": problem,
            "reference_answer": reference,
            "strategy": "majority" if parameters["prm"] == "none" else "mcts",
            "parameters": parameters,
        }
    )
    with serving() as serve:
        url = serve(models(programs, reads))
        async with (
            PolicyClient(url) as writing,
            PrmClient(url) as prm,
            Interpreter(sandbox, 0, StepMemory()) as interpreter,
        ):
            search = Search(request, reference, Tree(), interpreter)
            strategy, backends = search.strategy(), Backends(writing, prm, sandbox)
            while (task := strategy.ask(search.tree)) is not None:
                strategy.tell(search.tree, await roll_out(search, backends, task))
            state, outcome = await conclude(search, sandbox, "s1", datetime.now(UTC), "all rollouts done")
            return state, outcome, search.tree


HOOPS = "Ann throws 9 hoops and hits with a third of them. Bea hits 4 more than Ann. How many hits has Bea?"


async def test_a_reference_that_is_wrong_changes_no_answer_and_verifies_nothing(
    sandbox: SandboxClient,
) -> None:
    programs = (("ann = 9 / 3", "print(ann + 4)"), ("print(9 // 3 + 4)",))
    state, outcome, _ = await searched(sandbox, HOOPS, *programs, reference="13")
    assert (state, outcome.answer) == (SearchState.ANSWERED_UNVERIFIED, "7.0")
    assert outcome.verification is not None
    assert outcome.verification.level is not VerificationLevel.REFERENCE


@pytest.mark.parametrize(
    ("reference", "program"),
    [
        (r"\left( 2, \frac{\pi}{3} \right)", "from sympy import pi\nprint((2, pi/3))"),
        (r"\frac{1}{3}", "from fractions import Fraction\nprint(Fraction('1/3'))"),
        ("2, 3", "from sympy import solve\nprint(solve('x**2 - 5*x + 6'))"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", "from sympy import Matrix\nprint(Matrix([1, 2]))"),
    ],
)
async def test_what_libraries_print_is_verified_against_the_references_of_people(
    sandbox: SandboxClient, reference: str, program: str
) -> None:
    state, outcome, _ = await searched(sandbox, "Which is it?", (program,), reference=reference)
    assert state is SearchState.SOLVED_VERIFIED, outcome
    assert outcome.verification is not None
    assert outcome.verification.level is VerificationLevel.REFERENCE


@pytest.mark.parametrize("reference", [None, "7"])
@pytest.mark.parametrize(
    "said",
    [
        "print(list(range(600)))",
        f"print('1' * {MAX_ANSWER_CHARS + 1})",
        "for i in range(40_000): print(i)\nprint(7)",
        "print('\\0' * 9, '\\x1b[31m7', '\\u202e', 2**13000 // 10)",
        "import sys\nsys.stdout.buffer.write(bytes(range(256)))",
        "print(chr(0xd800))",
        "print('(' * 1000 + ')' * 999)",
        "print('9' * 1900)",
        "print('9**' * 500 + '9')",
        "print(float('nan'), float('inf'))",
        "print('\\\\frac{' * 300)",
    ],
)
async def test_whatever_a_program_prints_the_search_ends_and_is_told(
    sandbox: SandboxClient, said: str, reference: str | None
) -> None:
    state, outcome, tree = await searched(sandbox, HOOPS, (said,), reference=reference)
    assert state in (SearchState.ANSWERED_UNVERIFIED, SearchState.BUDGET_EXHAUSTED)
    assert (outcome.answer is None) == (state is SearchState.BUDGET_EXHAUSTED)
    for node in tree.nodes.values():
        view = record_of(node).view()
        orjson.dumps([node_event(view).data, answer_event(view).data])


async def test_an_answer_that_cannot_be_known_does_not_stand_beside_one_that_is(
    sandbox: SandboxClient,
) -> None:
    flood = ("for i in range(40_000): print(i)\nprint(9 + 4)",)
    _, outcome, tree = await searched(sandbox, HOOPS, flood, ("print(9 / 3 + 4)",))
    assert outcome.answer == "7.0"
    assert outcome.verification is not None
    assert (outcome.verification.votes, outcome.verification.total_votes) == (2, 2)
    assert sum(node.answer is None for node in tree.children(tree.root)) == 1


@pytest.mark.parametrize("together", [False, True])
async def test_what_is_too_long_for_a_model_ends_its_branch_and_not_the_search(
    sandbox: SandboxClient, together: bool
) -> None:
    breaks = ("ann = 9 / 3", "bea = ann + hits")
    programs = (breaks, ("print(9 / 3 + 4)",), ("ann = 9 / 3", "print(ann + 4)"))
    _, outcome, tree = await searched(
        sandbox, HOOPS, *programs, reads=0, prm="value", batch_rollouts=together
    )
    assert outcome.answer == "7.0"
    assert all(node.prm_score is None for node in tree.nodes.values())
    ended = [node for node in tree.nodes.values() if node.ended_by is not None]
    assert ended
    assert {node.ended_by for node in ended} == {TOO_LONG}
    assert NodeState.OPEN not in {node.state for node in ended}
    _, outcome, tree = await searched(
        sandbox, HOOPS, *programs, reads=1, prm="value", batch_rollouts=together
    )
    assert outcome.answer == "7.0"
    scores = {
        (node.depth > 1, node.prm_score) for node in tree.nodes.values() if node.status is StepStatus.OK
    }
    assert scores <= {(False, 0.75), (False, None), (True, None)}
    assert (False, 0.75) in scores
