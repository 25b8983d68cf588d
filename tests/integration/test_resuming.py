"""A search that a worker leaves at any moment ends with the tree that it would have had anyhow: real jail, store, HTTP."""

import contextlib
import math
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet.clients import PolicyClient, PrmClient, SandboxClient
from ratchet.contracts.base import Health
from ratchet.contracts.branching import Beginning
from ratchet.contracts.policy import (
    Candidate,
    FinishReason,
    GenerateRequest,
    GenerateResponse,
    LikelihoodRequest,
    LikelihoodResponse,
    Until,
)
from ratchet.contracts.prm import ScoreRequest, ScoreResponse
from ratchet.contracts.search import Parent, SearchRequest, Usage
from ratchet.events import Events
from ratchet.settings import Settings
from ratchet.store.nodes import NodeRecord
from ratchet.store.search_progress import Progress
from ratchet.store.search_requests import Branch
from ratchet.store.search_tasks import TaskRecord
from ratchet.store.searches import Claim, SearchStore
from ratchet.web.app import create_app, invalid
from services.search.interpreter import Interpreter
from services.search.replay import replay
from services.search.run import grow, most_in_flight
from services.search.saved_tree import tree_of
from services.search.search import Backends, Search
from services.search.step_memory import StepMemory
from services.search.strategies import Tree
from services.search.tree_journal import TreeJournal
from tests.http_double import serving
from tests.sandbox_server import TOKEN, running_sandbox

READS = 3
"""Steps that the policy reads at most."""
OF_THE_CLOCK = {"seconds": 0.0}


@pytest.fixture(scope="module")
async def sandbox(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SandboxClient]:
    log: Path = tmp_path_factory.mktemp("sandbox") / "log"
    with running_sandbox(log) as running:
        async with SandboxClient(str(running.http.base_url), key=TOKEN) as client:
            yield client


@pytest.fixture(scope="module")
def models() -> Any:
    """A double of policy and PRM: what it writes and says depends on nothing but what it is asked."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield

    app = create_app(
        service="script",
        summary="A double.",
        settings=Settings(),
        lifespan=lifespan,
        health=lambda: Health(service="script", ready=True, version="0", detail={"model": "prm@1"}),
    )

    @app.post("/generate")
    async def generate(request: GenerateRequest) -> GenerateResponse:
        for number, prefix in enumerate(request.prefixes):
            if len(prefix.steps) > READS:
                raise invalid(f"prefixes.{number}", "the prompt is too long")
        assert request.seeds is not None
        rows = [
            [candidate(random.Random(f"{seed} {prefix.steps}"), request.until)]
            for seed, prefix in zip(request.seeds, request.prefixes, strict=True)
        ]
        return GenerateResponse(model="policy@1", candidates=rows, prompt_tokens=1)

    @app.post("/likelihood")
    async def likelihood(request: LikelihoodRequest) -> LikelihoodResponse:
        rows = [[-0.5 - len(step) / 100 for step in each.steps] for each in request.trajectories]
        return LikelihoodResponse(model="policy@1", step_logprobs=rows)

    @app.post("/score")
    async def score(request: ScoreRequest) -> ScoreResponse:
        return ScoreResponse(
            model="prm@1",
            scores=[
                [random.Random(f"{row[: n + 1]}").random() for n in range(len(row))] for row in request.steps
            ],
        )

    with serving() as serve:
        yield serve(app)


def candidate(rng: random.Random, until: Until) -> Candidate:
    """Few kinds of steps, in words of their own: rollouts find the same nodes again."""
    kinds = ["x = 1", "x = 2", "y = 3", "print(7)", "print(8)", "1 / 0"]
    many = 1 if until is Until.STEP else rng.randint(1, 3)
    steps = [f"# {rng.randrange(100)}\n{rng.choice(kinds)}" for _ in range(many)]
    return Candidate(
        text="\n".join(steps),
        steps=steps,
        final=False,
        tokens=rng.randint(5, 40),
        mean_logprob=-rng.random(),
        step_logprobs=[-rng.random() for _ in steps],
        finish_reason=FinishReason.STEP,
    )


Batch = tuple[Sequence[NodeRecord], Usage, Sequence[TaskRecord], Mapping[str, str] | None, Progress | None]


class KeepingStore(SearchStore):
    """The store, which remembers what one search wrote and when."""

    def __init__(self, engine: AsyncEngine) -> None:
        super().__init__(engine)
        self.batches: list[Batch] = []
        self.tree = Tree()
        self.seen: list[dict[str, dict[str, Any]]] = []
        """The tree as it was at each moment at which it was written."""

    async def journal(
        self,
        claim: Claim,
        nodes: Sequence[NodeRecord],
        usage: Usage,
        tasks: Sequence[TaskRecord] = (),
        models: Mapping[str, str] | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.seen.append(state_of(self.tree))
        self.batches.append((nodes, usage, tasks, models, progress))
        await super().journal(claim, nodes, usage, tasks, models, progress)


class WatchedPolicy(PolicyClient):
    """The policy's client. Before each question the tree is written down."""

    at_each: Any = None

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        await self.at_each()
        return await super().generate(request)


@dataclass
class World:
    """What searches are made in."""

    store: KeepingStore
    events: Events
    sandbox: SandboxClient
    url: str

    async def work(self, request: SearchRequest, search_id: UUID) -> tuple[Tree, str]:
        """What a worker does with a search: take it up, grow it to its end, write it down."""
        claim = await self.store.claim(search_id, "w", 600, 50)
        assert claim is not None
        progress = await self.store.load_progress(search_id)
        tree = tree_of(
            await self.store.load_nodes(search_id),
            progress,
            lost=(claim.fence - 1) * most_in_flight(request),
        )
        if claim.fence > 1:
            assert state_of(tree) == self.store.seen[-1], "what is read is not what was written"
        self.store.tree = tree
        async with (
            WatchedPolicy(self.url) as policy,
            PrmClient(self.url) as prm,
            Interpreter(self.sandbox, 0, StepMemory()) as interpreter,
        ):
            search = Search(
                request,
                None,
                tree,
                interpreter,
                progress=progress,
                models=dict(claim.models),
                usage=claim.usage,
                beginning=claim.beginning,
            )
            journal = TreeJournal(claim, search, self.store, self.events, lambda: 0.0)
            journal.note([tree.root])
            policy.at_each = journal.flush
            backends = Backends(policy, prm, self.sandbox)
            reason = await grow(search, backends, journal, math.inf)
            await journal.flush()
        return tree, reason


def state_of(tree: Tree) -> dict[str, dict[str, Any]]:
    """All that a strategy can see of a tree, and what is told of it."""
    return {node.id: asdict(node) | OF_THE_CLOCK for node in tree.nodes.values()} | {
        "": {"asked": tree.asked, "pending": sorted(tree.pending)}
    }


def at_rest(tree: Tree) -> dict[str, dict[str, Any]]:
    return {name: node | {"in_flight": 0, "expanding": 0} for name, node in state_of(tree).items() if name}


REQUESTS: dict[str, dict[str, Any]] = {
    "mcts": {"in_flight": 1, "rollouts": 9, "branching_factor": 2, "gate": 0.6},
    "mcts whole": {"in_flight": 1, "rollouts": 9, "branching_factor": 2, "gate": 0.0},
    "beam": {"in_flight": 1, "rollouts": 4, "width": 4, "branching_factor": 2},
    # Several at once, told as they come: each is drawn for itself, so that the order tells nothing.
    "mcts given": {"in_flight": 1, "rollouts": 9, "branching_factor": 2, "gate": 0.6},
    "dvts given": {"in_flight": 1, "rollouts": 4, "width": 4, "branching_factor": 2},
    "majority": {"in_flight": 3, "rollouts": 12, "early_stop": True, "min_agreement": 64},
}

GIVEN = Branch(
    Beginning(parent=Parent(search="s", node="n"), steps=["# Given.\nx = 1"], forbidden=["x = 2"]), "0" * 64
)


@pytest.mark.parametrize("name", REQUESTS)
async def test_a_search_left_at_any_moment_ends_with_the_same_tree(
    name: str, engine: AsyncEngine, redis_url: str, sandbox: SandboxClient, models: str
) -> None:
    request = SearchRequest.model_validate(
        {
            "problem": f"Which is it, by {name}?",
            "strategy": name.split()[0],
            "parameters": {"max_depth": 6, "early_stop": False, **REQUESTS[name]},
            "budget": {"tokens": 100_000},
            # With this one all that is asked of the whole tree below is in it.
            "seed": 1,
        }
    )
    events = Events(redis_url)
    world = World(KeepingStore(engine), events, sandbox, models)
    branch = GIVEN if name.endswith("given") else None
    whole_id, _ = await world.store.create(request, branch=branch)
    whole, reason = await world.work(request, whole_id)
    batches, seen = world.store.batches, world.store.seen
    assert len(batches) >= 4
    ordinals = [node.ordinal for node in whole.nodes.values()]
    assert len(set(ordinals)) == len(ordinals)
    if name.startswith("mcts"):
        assert any(node.ended_by for node in whole.nodes.values())
    if branch is not None:
        [given] = whole.children(whole.root)
        assert (whole.start, given.text, given.tokens, given.prior) == (given.id, "# Given.\nx = 1", 0, -0.64)
        assert given.prm_score is not None
        assert whole.root.visits == given.visits > 0
        assert not any("x = 2" in child.text for child in whole.children(given))
        assert all(child.ordinal[0] > 0 for child in whole.children(given))
    # Nodes that several rollouts found are what used to differ.
    assert any(
        node.visits > node.ended > 0 or node.visits > 1 for node in whole.nodes.values() if node.parent
    )
    told = await world.store.load_journal(whole_id)
    assert told is not None
    whys = {task.number: task.why for task in told.tasks}
    assert all(whys.values())
    for last in range(1, len(batches) + 1):
        left_id, _ = await world.store.create(request, branch=branch)
        claim = await world.store.claim(left_id, "killed", 600, 50)
        assert claim is not None
        for nodes, usage, tasks, kinds, progress in batches[:last]:
            await SearchStore.journal(world.store, claim, nodes, usage, tasks, kinds, progress)
        # Its lease is taken to be over.
        await world.store.release(claim)
        world.store.seen = seen[:last]
        again, why = await world.work(request, left_id)
        assert why == reason
        assert at_rest(again) == at_rest(whole), f"left after {last} of {len(batches)} batches"
        stored = await world.store.load_journal(left_id)
        assert stored is not None
        assert at_rest(tree_of(stored.nodes, await world.store.load_progress(left_id))) == at_rest(whole)
        assert {task.number: task.why for task in stored.tasks} == whys
        found = replay("s", stored.request, None, stored.nodes, stored.tasks, stored.beginning)
        assert found.same_tasks
        assert found.same_tree, found.differing_nodes
    await events.aclose()
