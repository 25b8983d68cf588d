"""Rollouts that draw single steps: what the gate leaves, what it costs, and where it ends. Real jail, real HTTP.

Policy and PRM are doubles, as what they say of each step has to be known: the policy writes what a script has for the steps
before, the PRM gives each step the score that stands in its comment.
"""

import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import cycle
from pathlib import Path

import pytest
from fastapi import FastAPI

from ratchet.clients import PolicyClient, PrmClient, SandboxClient
from ratchet.contracts.policy import Candidate, FinishReason, GenerateRequest, GenerateResponse, Until
from ratchet.contracts.prm import ScoreRequest, ScoreResponse
from ratchet.contracts.search import SearchRequest, StrategyName
from ratchet.states import NodeState
from services.search.interpreter import Interpreter
from services.search.rollouts import roll_out
from services.search.run import grow
from services.search.search import Backends, Search
from services.search.step_memory import StepMemory
from services.search.strategies import ExecutedStep, Node, Rollout, Task, Tree, Why
from tests.http_double import serving
from tests.sandbox_server import TOKEN, running_sandbox

TOKENS = 10
"""Of each step that the double writes."""
START, GOOD, BAD, END = "a = 2  # 0.8", "b = a * 3  # 0.7", "b = a * 0  # 0.1", "print(b)  # 0.7"
Script = Mapping[tuple[str, ...], Sequence[str]]
"""What is written after these steps, one draw after another, again and again."""


@pytest.fixture(scope="module")
async def sandbox(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SandboxClient]:
    log: Path = tmp_path_factory.mktemp("sandbox") / "log"
    with running_sandbox(log) as running:
        async with SandboxClient(str(running.http.base_url), key=TOKEN) as client:
            yield client


def policy(script: Script, heard: list[GenerateRequest]) -> FastAPI:
    app, written = FastAPI(), {before: cycle(steps) for before, steps in script.items()}

    @app.post("/generate")
    async def generate(request: GenerateRequest) -> GenerateResponse:
        heard.append(request)
        return GenerateResponse(
            model="script@0",
            candidates=[[candidate(next(written[tuple(prefix.steps)]))] for prefix in request.prefixes],
            prompt_tokens=1,
        )

    return app


def candidate(step: str) -> Candidate:
    return Candidate(
        text=step,
        steps=[step] if step else [],
        final=step == END,
        tokens=TOKENS,
        mean_logprob=-0.5,
        step_logprobs=[-0.5] if step else [],
        finish_reason=FinishReason.STEP,
    )


def prm() -> FastAPI:
    app = FastAPI()

    @app.post("/score")
    async def score(request: ScoreRequest) -> ScoreResponse:
        scores = [[float(re.findall(r"# ([\d.]+)$", step)[0]) for step in steps] for steps in request.steps]
        return ScoreResponse(model="trained@0", scores=scores, cached=0)

    return app


@asynccontextmanager
async def searching(
    sandbox: SandboxClient, script: Script, **changes: object
) -> AsyncIterator[tuple[Search, Backends, list[GenerateRequest]]]:
    fields = {"problem": "2 * 3", "models": {"prm": "trained@0"}, **changes}
    request = SearchRequest.model_validate(fields)
    heard: list[GenerateRequest] = []
    with serving() as serve:
        async with (
            PolicyClient(serve(policy(script, heard))) as writing,
            PrmClient(serve(prm())) as scoring,
            Interpreter(sandbox, 0, StepMemory()) as interpreter,
        ):
            search = Search(request, None, Tree(), interpreter)
            yield search, Backends(writing, scoring, sandbox), heard


async def rolled_out(
    sandbox: SandboxClient,
    script: Script,
    strategy_name: StrategyName = StrategyName.MCTS,
    **parameters: object,
) -> tuple[Rollout, Search]:
    """One rollout from the root, told to the strategy."""
    changes = {"strategy": strategy_name, "parameters": parameters}
    async with searching(sandbox, script, **changes) as (search, backends, heard):
        strategy = search.strategy()
        task = strategy.ask(search.tree)
        assert task is not None
        rollout = await roll_out(search, backends, task)
        strategy.tell(search.tree, rollout)
        assert {request.until for request in heard} == {Until.STEP}
        assert len({seed for request in heard for seed in request.seeds or ()}) == len(heard)
        return rollout, search


def texts(path: Sequence[ExecutedStep]) -> list[str]:
    return [step.text for step in path]


async def test_a_step_whose_score_collapses_is_drawn_again_from_its_parent(sandbox: SandboxClient) -> None:
    script = {(): [START], (START,): [BAD, GOOD], (START, GOOD): [END]}
    rollout, search = await rolled_out(sandbox, script)
    assert [texts(path) for path in rollout.paths] == [[START, BAD], [START, GOOD, END]]
    assert rollout.paths[-1][-1].answer == "6"
    states = {node.text: node.state for node in search.tree.nodes.values() if node.text}
    assert states == {
        START: NodeState.OPEN,
        BAD: NodeState.ABANDONED,
        GOOD: NodeState.OPEN,
        END: NodeState.TERMINAL,
    }
    spent = sum(node.tokens for node in search.tree.nodes.values())
    assert spent == search.usage.policy.tokens == 4 * TOKENS, (
        "each draw is counted once, the abandoned one too"
    )


async def test_a_step_that_does_not_run_is_drawn_again_likewise(sandbox: SandboxClient) -> None:
    broken = "b = c  # 0.9"
    script = {(): [START], (START,): [broken, GOOD], (START, GOOD): [END]}
    rollout, search = await rolled_out(sandbox, script)
    assert [texts(path) for path in rollout.paths] == [[START, broken], [START, GOOD, END]]
    assert [node.state for node in search.tree.nodes.values() if node.text == broken] == [NodeState.FAILED]


@pytest.mark.parametrize("redraws", [0, 1, 3])
async def test_the_best_draw_is_taken_when_none_passes(sandbox: SandboxClient, redraws: int) -> None:
    draws = [f"b = {n}  # 0.{n}" for n in (2, 3, 1, 0)]
    taken = draws[: redraws + 1][1 if redraws else 0]
    script: Script = {(): [START], (START,): draws, (START, taken): [END]}
    rollout, search = await rolled_out(sandbox, script, redraws=redraws)
    assert texts(rollout.paths[-1])[:2] == [START, taken]
    left = [node for node in search.tree.nodes.values() if node.state is NodeState.ABANDONED]
    assert len(left) == redraws
    assert all(node.prm_score is not None and node.visits == 0 for node in left)


async def test_where_no_draw_runs_the_rollout_is_a_dead_end(sandbox: SandboxClient) -> None:
    script: Script = {(): [START], (START,): ["b = c  # 0.9"]}
    rollout, search = await rolled_out(sandbox, script)
    assert texts(rollout.paths[-1]) == [START]
    assert search.usage.policy.calls == 4
    assert (search.tree.root.visits, search.tree.root.value_sum) == (1, -1.0)


async def test_a_rollout_ends_with_its_tokens_and_its_depth(sandbox: SandboxClient) -> None:
    script: Script = {(START,) * depth: [START] for depth in range(9)}
    rollout, _ = await rolled_out(sandbox, script, max_tokens=3 * TOKENS)
    assert len(rollout.paths[-1]) == 3
    rollout, _ = await rolled_out(sandbox, script, max_depth=5)
    assert len(rollout.paths[-1]) == 5


async def test_a_policy_that_writes_nothing_ends_the_rollout(sandbox: SandboxClient) -> None:
    rollout, _ = await rolled_out(sandbox, {(): [START], (START,): [""]})
    assert [texts(path) for path in rollout.paths] == [[START]]


async def test_searches_that_share_their_draws_ask_for_the_same_ones(sandbox: SandboxClient) -> None:
    """Independent solutions and those of mcts, where the gate leaves no step."""
    script: Script = {(): [START], (START,): [GOOD], (START, GOOD): [END]}
    asked = {}
    for strategy in (StrategyName.MCTS, StrategyName.BEST_OF_N, StrategyName.MAJORITY):
        parameters = {"rollouts": 3, "shared_draws": True, "in_flight": 1, "early_stop": False}
        async with searching(sandbox, script, strategy=strategy, parameters=parameters) as (
            search,
            backends,
            heard,
        ):
            await grow(search, backends, Unwritten(), time.monotonic() + 60)
            assert all(request.shared for request in heard)
            asked[strategy] = [
                (request.prefixes, request.seeds, request.until, request.temperature) for request in heard
            ]
            [end] = [node for node in search.tree.nodes.values() if node.state is NodeState.TERMINAL]
            assert (end.answer, end.ended, end.prm_score) == ("6", 3, 0.7)
            assert search.usage.policy.tokens == 9 * TOKENS, "what is shared counts as drawn"
            scored = search.usage.prm.calls
            assert scored == (9 if strategy is StrategyName.MCTS else 3), "once each, where nothing is gated"
    assert len(asked[StrategyName.MCTS]) == 9
    assert asked[StrategyName.MCTS] == asked[StrategyName.BEST_OF_N] == asked[StrategyName.MAJORITY]


async def test_an_independent_solution_ends_with_a_step_that_does_not_run(sandbox: SandboxClient) -> None:
    """What the policy wrote after it is paid for, as in a solution that is drawn in one piece."""
    broken = "b = c  # 0.9"
    script: Script = {(): [START], (START,): [broken], (START, broken): [END]}
    rollout, search = await rolled_out(sandbox, script, StrategyName.BEST_OF_N, shared_draws=True)
    assert [texts(path) for path in rollout.paths] == [[START, broken], [START]]
    assert search.usage.policy.tokens == 3 * TOKENS
    assert [node.tokens for node in search.tree.nodes.values() if node.text] == [TOKENS, TOKENS]
    assert search.usage.sandbox.calls == 1
    [start] = [node for node in search.tree.nodes.values() if node.text == START]
    assert (start.prm_score, start.visits, start.value_sum) == (0.8, 1, -1.0)


async def test_an_independent_solution_drawn_in_steps_keeps_one_whose_score_collapses(
    sandbox: SandboxClient,
) -> None:
    script: Script = {(): [START], (START,): [BAD], (START, BAD): [END]}
    rollout, _ = await rolled_out(sandbox, script, StrategyName.BEST_OF_N, shared_draws=True)
    assert [texts(path) for path in rollout.paths] == [[START, BAD, END]]
    assert [step.prm_score for step in rollout.paths[0]] == [0.8, 0.1, 0.7]
    rollout, _ = await rolled_out(sandbox, script, StrategyName.BEST_OF_N, shared_draws=True, max_depth=2)
    assert [texts(path) for path in rollout.paths] == [[START, BAD]]
    rollout, _ = await rolled_out(
        sandbox, {(): [START], (START,): [""]}, StrategyName.BEST_OF_N, shared_draws=True
    )
    assert [texts(path) for path in rollout.paths] == [[START]]


class Unwritten:
    """The journal of a search that nobody will go on with."""

    def note(self, nodes: Sequence[Node]) -> None: ...

    def ask(self, task: Task, prm: str | None, why: Why | None) -> None: ...

    def tell(self, tree: Tree, rollout: Rollout) -> None: ...


@pytest.mark.parametrize(
    "strategy", [StrategyName.MCTS, StrategyName.BEAM, StrategyName.DVTS, StrategyName.REBASE]
)
@pytest.mark.parametrize("in_flight", [1, 6])
async def test_a_budget_of_tokens_holds_where_single_steps_are_drawn(
    sandbox: SandboxClient, strategy: StrategyName, in_flight: int
) -> None:
    budget = 300
    script: Script = {(): [START], (START,): [BAD, GOOD], (START, GOOD): [END], (START, BAD): [END]}
    changes = {
        "strategy": strategy,
        "budget": {"tokens": budget},
        "parameters": {"rollouts": 4096, "early_stop": False, "in_flight": in_flight, "width": 4},
    }
    async with searching(sandbox, script, **changes) as (search, backends, _):
        reason = await grow(search, backends, Unwritten(), time.monotonic() + 60)
        assert reason == f"budget of {budget} tokens used up"
        # At most the steps of one trajectory more: what others will spend is reserved.
        assert budget - 60 <= search.usage.policy.tokens <= budget + 60
        assert {end.answer for end in search.tree.terminals()} <= {"0", "6"}
        assert search.tree.root.visits > 0
