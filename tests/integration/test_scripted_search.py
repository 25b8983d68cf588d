"""Whole searches over programs that a script writes in the policy's place: real jail, real grader, real HTTP."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path

import orjson
import pytest
from fastapi import FastAPI

from ratchet.clients import PolicyClient, PrmClient, SandboxClient
from ratchet.contracts.policy import Candidate, FinishReason, GenerateRequest, GenerateResponse
from ratchet.contracts.sandbox import MAX_ANSWER_CHARS
from ratchet.contracts.search import SearchRequest, VerificationLevel
from ratchet.events import answer_event, node_event
from ratchet.states import SearchState
from ratchet.store.search_results import SearchOutcome
from services.search.interpreter import Interpreter
from services.search.rollouts import roll_out
from services.search.search import Backends, Search
from services.search.step_memory import StepMemory
from services.search.strategies import Tree
from services.search.verify import conclude
from services.search.worker import record_of
from tests.http_double import serving
from tests.sandbox_server import running_sandbox

ROLLOUTS = 4
Program = Sequence[str]


@pytest.fixture(scope="module")
async def sandbox(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SandboxClient]:
    log: Path = tmp_path_factory.mktemp("sandbox") / "log"
    with running_sandbox(log) as running:
        async with SandboxClient(str(running.http.base_url)) as client:
            yield client


def policy(programs: Sequence[Program]) -> FastAPI:
    """A double that writes one program after another, whatever it is asked."""
    app, written = FastAPI(), cycle(programs)

    @app.post("/generate")
    async def generate(request: GenerateRequest) -> GenerateResponse:
        return GenerateResponse(
            model="script@0",
            candidates=[[candidate(next(written))] for _ in request.prefixes],
            prompt_tokens=1,
        )

    return app


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
    sandbox: SandboxClient, problem: str, *programs: Program, reference: str | None = None
) -> tuple[SearchState, SearchOutcome, Tree]:
    request = SearchRequest.model_validate(
        {
            "problem": problem,
            "reference_answer": reference,
            "strategy": "majority",
            "parameters": {"rollouts": ROLLOUTS, "prm": "none"},
        }
    )
    with serving() as serve:
        async with (
            PolicyClient(serve(policy(programs))) as writing,
            PrmClient("http://127.0.0.1:9") as prm,
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
