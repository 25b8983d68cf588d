"""What a worker tells the readers of a search: bounded, and of a search that nobody reads nothing but its end."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet.clients import SandboxClient
from ratchet.contracts.sandbox import StepStatus
from ratchet.contracts.search import EventKind, SearchRequest
from ratchet.events import SHOWN_CHARS, Events
from ratchet.states import NodeState
from ratchet.store.searches import SearchStore
from services.search.interpreter import Interpreter
from services.search.saved_tree import tree_of
from services.search.search import Search
from services.search.step_memory import StepMemory
from services.search.strategies import Node, Tree
from services.search.tree_journal import TreeJournal


@pytest.fixture
def store(engine: AsyncEngine) -> SearchStore:
    return SearchStore(engine)


@pytest.fixture
async def events(redis_url: str) -> AsyncIterator[Events]:
    events = Events(redis_url)
    yield events
    await events.aclose()


async def begin(store: SearchStore, events: Events, tree: Tree | None = None, **changes: Any) -> TreeJournal:
    request = SearchRequest.model_validate({"problem": "6 * 7?", **changes})
    search_id, _ = await store.create(request, None)
    claim = await store.claim(search_id, "w", 60, 5)
    assert claim is not None
    # It runs no step here.
    interpreter = Interpreter(SandboxClient("http://127.0.0.1:9"), 0, StepMemory())
    return TreeJournal(claim, Search(request, None, tree or Tree(), interpreter), store, events, lambda: 0.0)


def add(journal: TreeJournal, number: int, stdout: str = "42\n") -> None:
    tree = journal.search.tree
    node = Node(f"n{number}", "root", (number, 0), 1, NodeState.TERMINAL, f"print({number})", StepStatus.OK)
    node.stdout = stdout
    node.answer = stdout.strip()
    journal.note([tree.root, tree.add(tree.root, node)])


async def told(journal: TreeJournal, events: Events) -> list[tuple[EventKind, str]]:
    found = await events.read(journal.claim.id)
    return [(event.kind, event.data.get("id") or event.data["node"]) for event in found]


async def test_a_search_of_low_priority_tells_all_once_somebody_reads(
    store: SearchStore, events: Events
) -> None:
    journal = await begin(store, events, priority="low")
    add(journal, 0)
    await journal.flush()
    assert await told(journal, events) == []
    await events.watch([journal.claim.id])
    add(journal, 1)
    await journal.flush()
    nodes = [(EventKind.NODE, name) for name in ("root", "n0", "n1")]
    assert await told(journal, events) == [*nodes, (EventKind.ANSWER, "n0"), (EventKind.ANSWER, "n1")]


async def test_what_an_earlier_worker_told_nobody_is_told_by_the_next(
    store: SearchStore, events: Events
) -> None:
    journal = await begin(store, events, priority="low")
    add(journal, 0)
    await journal.flush()
    tree = tree_of(await store.load_nodes(journal.claim.id))
    after = TreeJournal(
        journal.claim,
        Search(journal.claim.request, None, tree, journal.search.interpreter),
        store,
        events,
        lambda: 0.0,
    )
    await events.watch([journal.claim.id])
    add(after, 1)
    await after.flush()
    assert {name for _, name in await told(after, events)} == {"root", "n0", "n1"}


async def test_other_searches_tell_at_once(store: SearchStore, events: Events) -> None:
    journal = await begin(store, events)
    add(journal, 0)
    await journal.flush()
    assert (EventKind.NODE, "n0") in await told(journal, events)


async def test_an_event_carries_so_much_of_a_text_and_the_store_all_of_it(
    store: SearchStore, events: Events
) -> None:
    journal = await begin(store, events)
    long = "9" * (3 * SHOWN_CHARS)
    add(journal, 0, stdout=long)
    await journal.flush()
    for event in await events.read(journal.claim.id):
        texts = [value for value in event.data.values() if isinstance(value, str)]
        assert max(map(len, texts)) <= SHOWN_CHARS
    assert [node.stdout for node in await store.load_nodes(journal.claim.id)] == ["", long]
