"""`ratchet replay`: a search that is over, run again from its journal, step by step.

The search service asks the strategy anew and tells it what policy, sandbox and PRM answered then; no model is asked. What is
checked is that the strategy asks for the same tasks, grows the same tree, and that the vote over it gives the same answer.
"""

import asyncio
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from ratchet.cli.display import TreeDisplay, clean, tree_lines
from ratchet.cli.session import Interrupts, looking, run
from ratchet.clients import ServiceError
from ratchet.contracts.replay import Replay, ReplayedTask
from ratchet.contracts.search import NodeView, SearchResult, TreeView

EXIT_DIFFERS = 1
WRONG_SEARCH = (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY)
"""No id, unknown, without a journal, or not over yet."""
FINAL_TREE_LINES = 40


def replay(
    search: Annotated[str, typer.Argument(metavar="ID", help="Id of a search that is over.")],
    speed: Annotated[
        float, typer.Option(min=0, help="Tasks a second on a terminal; 0 shows the whole tree at once.")
    ] = 5.0,
    json: Annotated[bool, typer.Option("--json", help="Print only the replay, as JSON.")] = False,
    url: Annotated[str | None, typer.Option(help="A search service; otherwise the local stack.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Data folder of the local stack.", envvar="RATCHET_DATA")
    ] = None,
) -> None:
    """Run a search again from its journal. Exit code 0: it came out the same, 1: it did not, 2: wrong use, 3: the system
    failed."""
    # With --json stdout belongs to the result alone.
    console = Console(stderr=json)

    async def command(_: Interrupts) -> int:
        async with looking(url, data) as client:
            try:
                found = await client.replay(search)
            except ServiceError as error:
                if error.status in WRONG_SEARCH:
                    raise typer.BadParameter(clean(str(error)), param_hint="ID") from None
                raise
            result, tree = await client.get(search), await client.tree(search)
        if json:
            print(orjson.dumps(found.model_dump(mode="json")).decode(), flush=True)
        else:
            await _show(_Growth(result, tree, found), console, speed)
            for line in verdict(found):
                console.print(line, highlight=False, soft_wrap=True)
        return 0 if found.holds else EXIT_DIFFERS

    run(command)


class _Growth:
    """The tree as it was after each task."""

    def __init__(self, result: SearchResult, tree: TreeView, found: Replay) -> None:
        self.found = found
        self._nodes: Mapping[str, NodeView] = {node.id: node for node in tree.nodes}
        self._visits: dict[str, int] = {}
        self.display = TreeDisplay(result.problem)
        self.display.state = result.state

    def take(self, task: ReplayedTask) -> Text:
        """What the task added; gives its line."""
        way = [] if task.end is None else list(self._way_to(task.end))
        for node in way:
            self._visits[node] = self._visits.get(node, 0) + 1
        # Parents before children, as the display wants them: what was made may hang below what was known.
        changed = sorted({*way, *task.made}, key=lambda node: self._nodes[node].depth)
        self.display.add(self._now(node) for node in changed)
        return task_line(task)

    def whole(self) -> None:
        """All nodes as they were at the end."""
        self.display.add(node for node in self._nodes.values() if node.parent is not None)

    def _now(self, node: str) -> NodeView:
        return self._nodes[node].model_copy(update={"visits": self._visits.get(node, 0)})

    def _way_to(self, node: str) -> Iterator[str]:
        """The node and those above it, the root apart."""
        current: str | None = node
        while current is not None and (view := self._nodes.get(current)) is not None:
            if view.parent is not None:
                yield current
            current = view.parent


async def _show(growth: _Growth, console: Console, speed: float) -> None:
    """The tree as it grows, task by task; at the end all of it. Where there is no terminal, a line for each task."""
    if not console.is_terminal:
        for task in growth.found.tasks:
            console.print(growth.take(task), soft_wrap=True)
        return
    if speed > 0:
        with Live(console=console, transient=True, auto_refresh=False) as live:
            for task in growth.found.tasks:
                line = growth.take(task)
                live.update(_frame(growth, line, tree_lines(console) - 2), refresh=True)
                await asyncio.sleep(1 / speed)
    growth.whole()
    console.print(growth.display.render(FINAL_TREE_LINES))


def _frame(growth: _Growth, line: Text, lines: int) -> RenderableType:
    return Group(growth.display.render(lines), Text(), line)


def task_line(task: ReplayedTask) -> Text:
    """One task on one line: where it began, what it added, and how it ended."""
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(f"task {task.number:>3}", style="bold")
    line.append(f"  {task.draw} from {clean(task.node)[:8]}: {len(task.made)} new steps")
    if task.value is not None:
        line.append(f", value {task.value:+.2f}", style="cyan")
    if task.leading is not None:
        line.append(f"; {clean(task.leading)[:40]} leads", style="green")
    if not task.same:
        line.append("  ✗ the strategy asks for something else", style="red")
    return line


def verdict(found: Replay) -> Iterator[Text]:
    """What was checked, and what came of it."""
    other = [task.number for task in found.tasks if not task.same]
    workers = "" if found.workers == 1 else f" of {found.workers} workers"
    yield _check(
        found.same_tasks,
        f"{found.strategy} asks for the same {len(found.tasks)} tasks{workers}",
        f"{found.strategy} asks for other tasks than then: {len(other)} of {len(found.tasks)}, the first is task "
        f"{other[0] if other else '–'}",
    )
    yield _check(
        found.same_tree,
        "the tree has the same nodes, visits and values",
        f"nodes differ: {', '.join(map(clean, found.differing_nodes))}",
    )
    if found.answer is None:
        yield Text("– the search gave no answer", style="dim")
    elif found.place == 1:
        yield _check(True, f"the vote gives the same answer: {clean(found.answer)[:200]}", "")
    else:
        yield _check(
            found.place is not None,
            f"the answer {clean(found.answer)[:200]} is number {found.place} of the vote; those before it were not confirmed",
            f"the answer {clean(found.answer)[:200]} is not among those of the trajectories",
        )


def _check(holds: bool, yes: str, no: str) -> Text:
    return Text(f"✓ {yes}" if holds else f"✗ {no}", style="green" if holds else "red")


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(replay)
