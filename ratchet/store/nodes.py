"""The nodes of search trees in Postgres: written in any number with one round trip, read back parents before children.

The journal of a search writes nodes again and again. A node keeps its place in the tree (`_FIXED`); all else is as the search
knows it now, so that a tree that is read again is the one that was written. Its state moves only along `NODE_TRANSITIONS`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from ratchet.contracts.sandbox import StepStatus
from ratchet.contracts.search import NodeView
from ratchet.solutions.answers import answer_group
from ratchet.states import NODE_TRANSITIONS, IllegalTransitionError, NodeState
from ratchet.store import tables as t
from ratchet.store.text import replace_unstorable


class OrphanNodeError(ValueError):
    """A node names a parent that is neither in the tree nor in the same batch: nothing was written."""


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """One node of the tree, as the worker keeps it. `Q` is value_sum / visits."""

    id: str
    """Unique within its search."""
    parent: str | None
    ordinal: int
    """Order of creation, unique within its search."""
    depth: int
    state: NodeState
    task: str
    """The strategy's task that made it."""
    text: str = ""
    status: StepStatus | None = None
    stdout: str = ""
    stderr: str = ""
    prm_score: float | None = None
    prior: float = 0.0
    visits: int = 0
    value_sum: float = 0.0
    tokens: int = 0
    seconds: float = 0.0
    answer: str | None = None
    ended_by: str | None = None
    """Why nothing can follow it, where that is not its depth, its answer or its failure."""
    expansions: int = 0
    """Rollouts that began here: each tried one child."""

    def view(self) -> NodeView:
        """As the API shows it."""
        return NodeView(
            id=self.id,
            parent=self.parent,
            depth=self.depth,
            state=self.state,
            text=self.text,
            status=self.status,
            stdout=self.stdout,
            stderr=self.stderr,
            prm_score=self.prm_score,
            prior=self.prior,
            visits=self.visits,
            q=self.value_sum / self.visits if self.visits else 0.0,
            tokens=self.tokens,
            seconds=self.seconds,
            answer=self.answer,
            answer_group=None if self.answer is None else answer_group(self.answer),
            ended_by=self.ended_by,
        )


_COLUMN_TYPES = {
    "id": "text",
    "parent": "text",
    "ordinal": "bigint",
    "depth": "integer",
    "state": "text",
    "task": "text",
    "text": "text",
    "status": "text",
    "stdout": "text",
    "stderr": "text",
    "prm_score": "double precision",
    "prior": "double precision",
    "visits": "integer",
    "value_sum": "double precision",
    "tokens": "integer",
    "seconds": "double precision",
    "answer": "text",
    "ended_by": "text",
    "expansions": "integer",
}
_COLUMNS = ", ".join(_COLUMN_TYPES)
_ARRAYS = ", ".join(f"CAST(:{name} AS {type_}[])" for name, type_ in _COLUMN_TYPES.items())
_FIXED = ("id", "parent", "depth")
_ALLOWED_MOVES = [(old.value, new.value) for old, news in NODE_TRANSITIONS.items() for new in news]

# Arrays in, rows out: one round trip for any number of nodes.
_UPSERT = text(
    f"INSERT INTO nodes (search_id, {_COLUMNS}) "  # noqa: S608 - names from the table above
    f"SELECT CAST(:search_id AS uuid), u.* FROM unnest({_ARRAYS}) AS u({_COLUMNS}) "
    "ON CONFLICT (search_id, id) DO UPDATE SET "
    + ", ".join(f"{name} = EXCLUDED.{name}" for name in _COLUMN_TYPES if name not in _FIXED)
)
_FIRST_ILLEGAL_MOVE = text(
    "SELECT n.id, n.state AS old, u.state AS new "
    "FROM unnest(CAST(:id AS text[]), CAST(:state AS text[])) AS u(id, state) "
    "JOIN nodes n ON n.search_id = CAST(:search_id AS uuid) AND n.id = u.id "
    "LEFT JOIN unnest(CAST(:old AS text[]), CAST(:new AS text[])) AS m(old, new) "
    "ON m.old = n.state AND m.new = u.state "
    "WHERE n.state <> u.state AND m.old IS NULL LIMIT 1"
)
_MISSING = text(
    "SELECT u.id FROM unnest(CAST(:id AS text[])) AS u(id) "
    "LEFT JOIN nodes n ON n.search_id = CAST(:search_id AS uuid) AND n.id = u.id WHERE n.id IS NULL"
)


async def write_nodes(connection: AsyncConnection, search_id: UUID, nodes: Sequence[NodeRecord]) -> None:
    """Store new nodes and the later state of known ones. Of a node given twice, the last one counts.

    Raises IllegalTransitionError or OrphanNodeError before anything is written.
    """
    if not nodes:
        return
    latest = {node.id: node for node in nodes}  # One statement may touch a row once only.
    rows = [
        replace(
            node,
            text=replace_unstorable(node.text),
            stdout=replace_unstorable(node.stdout),
            stderr=replace_unstorable(node.stderr),
            answer=None if node.answer is None else replace_unstorable(node.answer),
            ended_by=None if node.ended_by is None else replace_unstorable(node.ended_by),
        )
        for node in latest.values()
    ]
    await _require_legal_moves(connection, search_id, rows)
    await _require_parents(connection, search_id, rows)
    arrays: dict[str, Any] = {name: [getattr(row, name) for row in rows] for name in _COLUMN_TYPES}
    await connection.execute(_UPSERT, {"search_id": search_id, **arrays})


async def read_trees(connection: AsyncConnection, search_ids: Sequence[UUID]) -> dict[UUID, list[NodeRecord]]:
    """The tree of each search, parents before children; of one depth in order of creation."""
    trees: dict[UUID, list[NodeRecord]] = {search_id: [] for search_id in search_ids}
    rows = await connection.execute(
        select(t.nodes.c.search_id, *(t.nodes.c[name] for name in _COLUMN_TYPES))
        .where(t.nodes.c.search_id.in_(search_ids))
        # A node may get a child from an earlier task than the one that made it, so the ordinal alone will not do.
        .order_by(t.nodes.c.search_id, t.nodes.c.depth, t.nodes.c.ordinal)
    )
    for row in rows.mappings():
        trees[row["search_id"]].append(NodeRecord(**{name: row[name] for name in _COLUMN_TYPES}))
    return trees


async def _require_legal_moves(
    connection: AsyncConnection, search_id: UUID, rows: Sequence[NodeRecord]
) -> None:
    illegal = (
        await connection.execute(
            _FIRST_ILLEGAL_MOVE,
            {
                "search_id": search_id,
                "id": [row.id for row in rows],
                "state": [row.state for row in rows],
                "old": [old for old, _ in _ALLOWED_MOVES],
                "new": [new for _, new in _ALLOWED_MOVES],
            },
        )
    ).one_or_none()
    if illegal is not None:
        raise IllegalTransitionError(
            f"NodeState: {illegal.old} -> {illegal.new} is not allowed (node {illegal.id})"
        )


async def _require_parents(connection: AsyncConnection, search_id: UUID, rows: Sequence[NodeRecord]) -> None:
    given = {row.id for row in rows}
    elsewhere = {row.parent for row in rows if row.parent is not None and row.parent not in given}
    if not elsewhere:
        return
    parents = {"search_id": search_id, "id": sorted(elsewhere)}
    missing = (await connection.execute(_MISSING, parents)).scalars().all()
    if missing:
        raise OrphanNodeError(f"parents that are not in the tree: {sorted(missing)}")
