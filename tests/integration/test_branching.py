"""Searches that go on from a step that they were given: scripted policy, real jail, real HTTP."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from ratchet.clients import PolicyClient, PrmClient, SandboxClient
from ratchet.contracts.branching import Beginning
from ratchet.contracts.policy import (
    GenerateRequest,
    GenerateResponse,
    LikelihoodRequest,
    LikelihoodResponse,
    Until,
)
from ratchet.contracts.prm import ScoreRequest, ScoreResponse
from ratchet.contracts.search import Parent, Proof, SearchRequest, VerificationLevel
from ratchet.settings import Settings
from ratchet.solutions.proof import check_bundle
from ratchet.states import NodeState, SearchState
from ratchet.store.search_results import SearchOutcome
from ratchet.web.app import create_app, invalid
from services.search.beginning import BeginningFailedError
from services.search.interpreter import Interpreter
from services.search.run import grow
from services.search.search import Backends, Search
from services.search.step_memory import StepMemory
from services.search.strategies import Node, Rollout, Task, Tree, Why
from services.search.verify import conclude
from tests.http_double import serving
from tests.integration.test_scripted_search import HOOPS, candidate, lifespan, no_health
from tests.sandbox_server import TOKEN, running_sandbox

GIVEN = "# Ann.\nann = 9 / 3"
FINISHES = ("print(ann + 4)", "print(4 + ann)", "bea = ann + 4\nprint(bea)")


@pytest.fixture(scope="module")
async def sandbox(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SandboxClient]:
    log: Path = tmp_path_factory.mktemp("sandbox") / "log"
    with running_sandbox(log) as running:
        async with SandboxClient(str(running.http.base_url), key=TOKEN) as client:
            yield client


class Script:
    """A double of policy and PRM. It writes one step after another in the policy's place, and remembers what it read."""

    def __init__(self, steps: Sequence[str], reads: int = 99) -> None:
        self.prefixes: list[list[str]] = []
        self.seeds: list[int] = []
        written = cycle(steps)
        self.app: FastAPI = create_app(
            service="script", summary="A double.", settings=Settings(), lifespan=lifespan, health=no_health
        )

        @self.app.post("/likelihood")
        async def likelihood(request: LikelihoodRequest) -> LikelihoodResponse:
            rows = [[-0.25] * len(each.steps) for each in request.trajectories]
            return LikelihoodResponse(model="script@0", step_logprobs=rows)

        @self.app.post("/score")
        async def score(request: ScoreRequest) -> ScoreResponse:
            return ScoreResponse(model="script@0", scores=[[0.75] * len(row) for row in request.steps])

        @self.app.post("/generate")
        async def generate(request: GenerateRequest) -> GenerateResponse:
            if any(len(each.steps) > reads for each in request.prefixes):
                raise invalid("prefixes.0", "the prompt is too long")
            self.prefixes += [each.steps for each in request.prefixes]
            self.seeds += request.seeds or []
            rows = [[candidate((next(written),))] for _ in request.prefixes]
            if request.until is Until.STEP:
                rows = [[each.model_copy(update={"final": True})] for [each] in rows]
            return GenerateResponse(model="script@0", candidates=rows, prompt_tokens=1)


class Silent:
    """A journal that nobody reads, but for what is new."""

    def __init__(self) -> None:
        self.noted: list[str] = []

    def note(self, nodes: Sequence[Node]) -> None:
        self.noted += [node.id for node in nodes]

    def ask(self, task: Task, prm: str | None, why: Why | None) -> None: ...

    def tell(self, tree: Tree, rollout: Rollout) -> None: ...


async def branched(
    sandbox: SandboxClient,
    script: Script,
    steps: Sequence[str],
    *,
    forbidden: Sequence[str] = (),
    edited: bool = False,
    strategy: str = "mcts",
    reference: str | None = None,
    tokens: int = 100_000,
    **parameters: Any,
) -> tuple[Search, SearchState, SearchOutcome, Silent]:
    request = SearchRequest.model_validate(
        {
            "problem": HOOPS,
            "reference_answer": reference,
            "strategy": strategy,
            "parameters": {"rollouts": 6, "width": 4, "branching_factor": 2, **parameters},
            "budget": {"tokens": tokens},
        }
    )
    beginning = Beginning(
        parent=Parent(search="s0", node="n"), steps=list(steps), edited=edited, forbidden=list(forbidden)
    )
    journal = Silent()
    with serving() as serve:
        url = serve(script.app)
        async with (
            PolicyClient(url) as policy,
            PrmClient(url) as prm,
            Interpreter(sandbox, 0, StepMemory()) as interpreter,
        ):
            search = Search(request, reference, Tree(), interpreter, beginning=beginning)
            reason = await grow(search, Backends(policy, prm, sandbox), journal, float("inf"))
            state, outcome = await conclude(search, sandbox, "s1", datetime.now(UTC), reason)
    return search, state, outcome, journal


@pytest.mark.parametrize("strategy", ["mcts", "beam", "dvts", "rebase", "majority", "best_of_n", "greedy"])
async def test_every_strategy_goes_on_from_what_it_was_given_and_nothing_of_it_counts_as_found(
    sandbox: SandboxClient, strategy: str
) -> None:
    script = Script(FINISHES)
    search, state, outcome, journal = await branched(sandbox, script, [GIVEN], strategy=strategy)
    tree = search.tree
    [given] = tree.children(tree.root)
    assert (given.text, given.tokens, given.prior, given.prm_score) == (GIVEN, 0, -0.25, 0.75)
    assert given.id in journal.noted
    assert tree.start == given.id
    assert all(prefix[:1] == [GIVEN] for prefix in script.prefixes)
    assert (outcome.answer, state) == ("7.0", SearchState.ANSWERED_UNVERIFIED)
    assert outcome.verification is not None
    assert outcome.verification.level is VerificationLevel.EXECUTION, "three forms, and one find at the most"
    assert outcome.verification.independent_programs <= 1
    assert outcome.verification.confidence is None
    assert outcome.proof is not None
    proof = Proof.model_validate(outcome.proof)
    assert proof.beginning is not None
    assert (proof.beginning.steps, proof.beginning.search) == ([GIVEN], "s0")
    assert all(check.holds for check in check_bundle(outcome.proof, proof))
    forged = {**outcome.proof, "beginning": outcome.proof["beginning"] | {"steps": ["x = 1"]}}
    checks = {each.name: each.holds for each in check_bundle(forged, Proof.model_validate(forged))}
    assert not checks["beginning"]


async def test_an_edited_step_that_does_not_run_ends_the_search_and_says_so(sandbox: SandboxClient) -> None:
    script = Script(FINISHES)
    with pytest.raises(BeginningFailedError, match="The edited step does not run: NameError") as failed:
        await branched(sandbox, script, [GIVEN, "print(bob)"], edited=True)
    assert "\n" not in str(failed.value)
    assert script.prefixes == [], "nothing is drawn after it"
    with pytest.raises(BeginningFailedError, match="Step 1 of the given beginning does not run"):
        await branched(sandbox, script, ["1 / 0", "print(1)"], edited=True)


async def test_an_edited_step_that_gives_the_answer_is_the_answer_and_nobodys_find(
    sandbox: SandboxClient,
) -> None:
    script = Script(FINISHES)
    search, state, outcome, _ = await branched(sandbox, script, [GIVEN, "print(ann + 4)"], edited=True)
    assert (outcome.answer, outcome.reason) == ("7.0", "the given beginning gives an answer")
    assert state is SearchState.ANSWERED_UNVERIFIED
    assert outcome.verification is not None
    assert (outcome.verification.votes, outcome.verification.independent_programs) == (1, 0)
    assert outcome.verification.level is VerificationLevel.EXECUTION
    assert (script.prefixes, search.usage.policy.tokens) == ([], 0)
    _, state, outcome, _ = await branched(
        sandbox, script, [GIVEN, "print(ann + 4)"], edited=True, reference="7"
    )
    assert state is SearchState.SOLVED_VERIFIED


@pytest.mark.parametrize(
    ("strategy", "gate"), [("mcts", 0.0), ("mcts", 0.6), ("majority", 0.0), ("beam", 0.0)]
)
async def test_a_forbidden_step_is_drawn_again_and_never_taken(
    sandbox: SandboxClient, strategy: str, gate: float
) -> None:
    # The same step in other words: what counts is what it computes.
    script = Script(["# Add.\nprint(ann + 4)", "print(ann  +  4)  # so", "print(4 + ann)"])
    search, _, outcome, _ = await branched(
        sandbox, script, [GIVEN], forbidden=["print(ann + 4)"], strategy=strategy, gate=gate, early_stop=False
    )
    assert {child.text for child in search.tree.children(search.tree.top)} == {"print(4 + ann)"}
    assert outcome.answer == "7.0"
    assert len(set(script.seeds)) == len(script.seeds), "each draw has a seed of its own"
    assert search.usage.policy.tokens == 10 * len(script.seeds), "what was drawn in vain is paid for"


@pytest.mark.parametrize("strategy", ["mcts", "majority", "rebase"])
async def test_a_policy_that_writes_nothing_but_what_is_forbidden_ends_with_its_budget(
    sandbox: SandboxClient, strategy: str
) -> None:
    script = Script(["print(4)"])
    search, state, outcome, _ = await branched(
        sandbox, script, [], forbidden=["print(4)"], strategy=strategy, tokens=700, prm="none"
    )
    assert (state, outcome.answer) == (SearchState.BUDGET_EXHAUSTED, None)
    assert list(search.tree.nodes) == ["root"]
    assert 0 < search.usage.policy.tokens < 700 + 4 * 8 * 10


async def test_a_beginning_that_fills_what_the_policy_reads_ends_the_search(sandbox: SandboxClient) -> None:
    for strategy in ("mcts", "beam", "majority"):
        _, state, outcome, _ = await branched(sandbox, Script(FINISHES, reads=0), [GIVEN], strategy=strategy)
        assert state is SearchState.BUDGET_EXHAUSTED
        assert outcome.reason == "nothing can follow the given beginning: the prompt is too long"


async def test_a_step_as_deep_as_a_solution_may_be_is_the_end(sandbox: SandboxClient) -> None:
    search, _, outcome, _ = await branched(sandbox, Script(FINISHES), [GIVEN], edited=True, max_depth=1)
    assert outcome.reason == "the given beginning is as long as a solution may be"
    assert search.tree.top.state is NodeState.EXHAUSTED
