"""What a person sees of searches: a bar for many of them, the tree of one while it grows, its solution and what stands
behind it.

Everything that a model wrote or a program printed passes through `clean`: it cannot move the cursor, colour the
screen or hide text, and none of it is read as markup.
"""

import re
from collections.abc import Iterable

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from ratchet.contracts.sandbox import StepStatus
from ratchet.contracts.search import (
    EventKind,
    NodeView,
    SearchEvent,
    SearchResult,
)
from ratchet.solutions.words import STATE_WORDS, verification_words
from ratchet.states import NodeState, SearchState

# Control characters but tab and newline, and the marks that turn the direction of text.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def clean(text: str) -> str:
    """The text with every character that could act on a terminal replaced."""
    return _UNSAFE.sub("�", text)


class TreeDisplay:
    """The tree as its events tell it, cut to what fits on the screen: the newest nodes and the ways to them."""

    def __init__(self, problem: str) -> None:
        self._problem = problem
        self._nodes: dict[str, NodeView] = {}
        self._newest: list[str] = []
        self.state = SearchState.QUEUED

    def take(self, event: SearchEvent) -> Text | None:
        """Learn from an event; a node gives its line, for those who cannot see the tree."""
        match event.kind:
            case EventKind.STATE:
                self.state = SearchState(event.data.get("state", self.state))
            case EventKind.NODE:
                node = NodeView.model_validate(event.data)
                self.add([node])
                return Text("  " * node.depth) + node_line(node)
            case EventKind.ANSWER:
                node_id = str(event.data.get("node"))
                if node_id in self._nodes:
                    names = {"answer", "prm_score"}
                    known = {key: value for key, value in event.data.items() if key in names}
                    self._nodes[node_id] = self._nodes[node_id].model_copy(update=known)
            case EventKind.END:
                self.state = SearchState(event.data.get("state", self.state))
        return None

    def add(self, nodes: Iterable[NodeView]) -> None:
        """Add nodes, or replace what was known of them."""
        for node in nodes:
            if node.id in self._nodes:
                self._newest.remove(node.id)
            self._nodes[node.id] = node
            self._newest.append(node.id)

    def render(self, lines: int) -> RenderableType:
        """The tree in at most `lines` lines of nodes."""
        shown: set[str] = set()
        for node_id in reversed(self._newest):
            way = set(self._way_to(node_id)) - shown
            if len(shown) + len(way) > lines:
                break
            shown |= way
        head = Text(clean(" ".join(self._problem.split()))[:300], style="bold")
        head.append(f"\n{STATE_WORDS[self.state]}, {len(self._nodes)} steps tried", style="cyan")
        if len(shown) < len(self._nodes):
            head.append(f" ({len(self._nodes) - len(shown)} not shown)", style="dim")
        tree = Tree(head)
        branches: dict[str, Tree] = {}
        # A parent is always known before its children.
        for node_id, node in self._nodes.items():
            if node_id in shown:
                branches[node_id] = branches.get(node.parent or "", tree).add(node_line(node))
        return tree

    def _way_to(self, node_id: str) -> Iterable[str]:
        current: str | None = node_id
        while current is not None and current in self._nodes:
            yield current
            current = self._nodes[current].parent


def node_line(node: NodeView) -> Text:
    """One step on one line: what it is about, what it printed, how it was scored."""
    if node.parent is None and not node.text:
        return Text("start", style="dim")
    failed = node.state is NodeState.FAILED or node.status not in (None, StepStatus.OK)
    terminal = node.answer is not None
    line = Text(no_wrap=True, overflow="ellipsis")
    abandoned = node.state is NodeState.ABANDONED
    mark = "✗ " if failed else "↩ " if abandoned else "◆ " if terminal else "• "
    line.append(mark, style="red" if failed else "yellow" if abandoned else "green")
    line.append(_headline(node.text), style="dim red" if failed else "dim" if abandoned else "")
    if failed:
        error = clean(node.stderr.strip().rpartition("\n")[2]) or (
            node.status.value if node.status else "failed"
        )
        line.append(f"  {error[:80]}", style="red dim")
        return line
    if terminal:
        line.append(f"  answer {clean(node.answer or '')[:60]}", style="bold green")
    elif node.stdout.strip():
        line.append(f"  → {clean(node.stdout.strip().rpartition(chr(10))[2])[:60]}", style="yellow")
    if node.prm_score is not None:
        line.append(f"  prm {node.prm_score:.2f}", style="cyan")
    if node.visits:
        line.append(f"  visits {node.visits}", style="dim")
    return line


def _headline(text: str) -> str:
    lines = [line.strip() for line in clean(text).splitlines() if line.strip()]
    comment = next((line.lstrip("# ").strip() for line in lines if line.startswith("#")), "")
    return (comment or (lines[0] if lines else "(empty)"))[:90]


def solution(result: SearchResult) -> RenderableType:
    """Answer, program, verification and cost."""
    solved = result.state is SearchState.SOLVED_VERIFIED
    parts: list[RenderableType] = []
    if result.answer is not None:
        answer = Text(clean(result.answer), style="bold green" if solved else "bold yellow")
        parts.append(Panel(answer, title="Answer", title_align="left", expand=False))
    if result.program:
        code = Syntax(clean(result.program), "python", word_wrap=True, background_color="default")
        parts.append(Panel(code, title="Program", title_align="left"))
    parts.append(Text(f"{STATE_WORDS[result.state]}.", style="green" if solved else "yellow"))
    if result.reason:
        parts.append(Text(clean(result.reason), style="dim"))
    if result.verification is not None:
        parts.append(Text(verification_words(result.verification)))
    parts.append(_cost(result))
    if result.models:
        parts.append(
            Text(", ".join(f"{part}: {clean(name)}" for part, name in result.models.items()), style="dim")
        )
    return Group(*parts)


def _cost(result: SearchResult) -> Table:
    usage = result.usage
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("cost", "calls", "tokens", "seconds"):
        table.add_column(column, justify="left" if column == "cost" else "right")
    for name, part in (("policy", usage.policy), ("prm", usage.prm), ("sandbox", usage.sandbox)):
        table.add_row(name, str(part.calls), str(part.tokens) if part.tokens else "", f"{part.seconds:.1f}")
    table.add_row("all, wall clock", "", "", f"{usage.wall_seconds:.1f}", style="bold")
    table.caption = f"{usage.nodes} nodes, {usage.rollouts} rollouts"
    table.caption_justify = "left"
    return table


def tree_lines(console: Console) -> int:
    """How many nodes fit under the head of the tree."""
    return max(5, console.size.height - 6)


def problems_bar(console: Console) -> Progress:
    """How many of how many problems are done, and how long the others will take; nothing where no terminal shows it."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
