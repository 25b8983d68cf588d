"""What a person sees: the tree as events tell it, and nothing that a model wrote can act on the terminal."""

import io
from typing import Any

from rich.console import Console, RenderableType

from ratchet.cli.display import TreeDisplay, clean, node_line, solution
from ratchet.contracts.sandbox import StepStatus
from ratchet.contracts.search import EventKind, NodeView, SearchEvent, SearchResult, Verification
from ratchet.solutions.words import verification_words
from ratchet.states import NodeState

EVIL = "\x1b[2J[bold]\x07\x9b31m\u202e"


def node(number: int, parent: int | None = None, **changes: Any) -> NodeView:
    fields: dict[str, Any] = {
        "id": str(number),
        "parent": None if parent is None else str(parent),
        "depth": 1,
        "state": NodeState.OPEN,
        "text": f"# Thought {number}.\nx = {number}",
        "status": StepStatus.OK,
        "stdout": "",
        "stderr": "",
        "prm_score": 0.5,
        "prior": -0.1,
        "visits": 1,
        "q": 0.5,
        "tokens": 9,
        "seconds": 0.1,
        "answer": None,
    }
    return NodeView.model_validate(fields | changes)


def shown(renderable: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=160, force_terminal=False)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def event(kind: EventKind, data: dict[str, Any]) -> SearchEvent:
    return SearchEvent(id="1", kind=kind, data=data)


def test_the_tree_grows_with_its_events() -> None:
    display = TreeDisplay("How many?")
    display.take(event(EventKind.STATE, {"state": "running", "reason": None}))
    for each in (
        node(1),
        node(2, 1, stdout="a\n42\n"),
        node(3, 1, state="failed", status="error", stderr="Traceback\nNameError: y"),
        node(4, 2, state="terminal"),
    ):
        assert display.take(event(EventKind.NODE, each.model_dump(mode="json"))) is not None
    display.take(event(EventKind.ANSWER, {"node": "4", "answer": "42", "prm_score": 0.9, "votes": 1}))
    text = shown(display.render(30))
    assert "searching, 4 steps tried" in text
    assert "Thought 2.  → 42  prm 0.50  visits 1" in text
    assert "✗ Thought 3.  NameError: y" in text
    assert "◆ Thought 4.  answer 42  prm 0.90" in text
    assert (
        text.index("Thought 1") < text.index("Thought 2") < text.index("Thought 4") < text.index("Thought 3")
    )


def test_a_tree_that_is_too_big_shows_the_newest_nodes_and_the_ways_to_them() -> None:
    display = TreeDisplay("How many?")
    display.add([node(0), *(node(number, 0) for number in range(1, 100)), node(100, 1)])
    text = shown(display.render(6))
    assert "(95 not shown)" in text
    assert all(f"Thought {number}." in text for number in (0, 1, 100, 99, 98, 97))
    assert "Thought 50." not in text


def test_model_text_cannot_act_on_the_terminal() -> None:
    evil = node(1, text=f"# {EVIL}", stdout=EVIL, stderr=EVIL, answer=EVIL)
    result = SearchResult.model_validate(
        {
            "id": EVIL,
            "state": "solved_verified",
            "problem": EVIL,
            "strategy": "mcts",
            "seed": 0,
            "answer": EVIL,
            "program": EVIL,
            "reason": EVIL,
            "models": {"policy": EVIL},
            "created_at": "2026-01-01T00:00:00Z",
        }
    )
    display = TreeDisplay(EVIL)
    display.add([evil, node(2, 1, state="failed", stderr=EVIL)])
    for text in (shown(node_line(evil)), shown(solution(result)), shown(display.render(9))):
        assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(text)
        assert "[bold]" in text
    assert clean("a\tb\nc é 数") == "a\tb\nc é 数"


def words(level: str, *, grounded: bool | None) -> str:
    fields = {
        "votes": 3,
        "total_votes": 4,
        "independent_programs": 2,
        "forms": 2,
        "prm_share": 0.5,
        "confidence": 0.5,
    }
    return verification_words(Verification.model_validate({"level": level, "grounded": grounded, **fields}))


def test_a_verification_says_whether_the_answer_was_computed() -> None:
    assert "2 programs that behave alike, found independently in 2 forms" in words("agreement", grounded=True)
    assert "2 programs that differ in what they compute" in words("agreement", grounded=None)
    assert "Not verified. Its program does not compute it" in words("none", grounded=False)
    assert "could be re-executed" in words("none", grounded=None)
    assert "reference answer. Its program does not compute it" in words("reference", grounded=False)
