"""A search tree as Graphviz source. Labels are escaped; whatever a program printed stays text."""

from collections.abc import AsyncIterable, AsyncIterator

from ratchet.contracts.search import NodeView, TreeView
from ratchet.states import NodeState

_COLOURS = {
    NodeState.OPEN: "#e8eef7",
    NodeState.TERMINAL: "#d9f2dd",
    NodeState.EXHAUSTED: "#eeeeee",
    NodeState.ABANDONED: "#f7efd2",
    NodeState.FAILED: "#f9dcd9",
}
_LABEL_CHARS = 160


async def render_dot(pages: AsyncIterable[TreeView]) -> AsyncIterator[str]:
    """The tree as a digraph, one node a step, with visits, Q and PRM score; a piece for each of its pages."""
    yield 'digraph search {\n  node [shape=box, style="filled,rounded", fontname="monospace", fontsize=10];\n'
    async for page in pages:
        yield "".join(map(_lines, page.nodes))
    yield "}\n"


def _lines(node: NodeView) -> str:
    shown = f"label={_quote(_label(node))}, fillcolor={_quote(_COLOURS[node.state])}"
    edge = "" if node.parent is None else f"  {_quote(node.parent)} -> {_quote(node.id)};\n"
    return f"  {_quote(node.id)} [{shown}];\n{edge}"


def _label(node: NodeView) -> str:
    text = node.text if len(node.text) <= _LABEL_CHARS else node.text[: _LABEL_CHARS - 1] + "…"
    score = "–" if node.prm_score is None else f"{node.prm_score:.2f}"
    lines = [text, f"N={node.visits} Q={node.q:.2f} PRM={score}"]
    if node.answer is not None:
        lines.append(f"= {node.answer[:_LABEL_CHARS]}")
    return "\n".join(line for line in lines if line) + "\n"


def _quote(text: str) -> str:
    # In a DOT string a backslash begins an escape (\N is the node's name), and \l ends a left-aligned line.
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    plain = "".join(letter if letter == "\n" or letter.isprintable() else " " for letter in escaped)
    return '"' + plain.replace("\n", "\\l") + '"'
