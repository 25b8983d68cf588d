"""What a search needs of another one to go on from one of its nodes."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import and_, exists, select
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet.contracts.branching import Beginning
from ratchet.contracts.search import SearchRequest
from ratchet.states import SEARCH_TRANSITIONS, NodeState, is_end
from ratchet.store import tables as t
from ratchet.store.engine import reading, retried
from ratchet.store.search_requests import read_beginning, read_request


@dataclass(frozen=True, slots=True)
class PathNode:
    """A node on the way from the first step to the one that is gone on from."""

    id: str
    text: str
    state: NodeState
    answer: str | None


@dataclass(frozen=True, slots=True)
class BranchSource:
    """A search that is to be gone on from."""

    request: SearchRequest
    """With the reference answer, which goes over to the new search."""
    beginning: Beginning | None
    path: tuple[PathNode, ...]
    """From the first step to the node; empty for the root, and where the node is unknown."""
    is_pruned: bool
    """It is over, and its tree is no longer kept."""


class BranchStore:
    """Reads only. Every method raises StoreUnavailableError when Postgres is away."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @retried
    async def source(self, search_id: UUID, node: str) -> BranchSource | None:
        """The search, and its path to the node; None: unknown search."""
        reference = t.reference_answers.c.answer.label("reference")
        has_tree = exists().where(t.nodes.c.search_id == t.searches.c.id).label("has_tree")
        query = (
            select(t.searches, t.problems.c.text.label("problem"), reference, has_tree)
            .join(t.problems, t.problems.c.id == t.searches.c.problem_id)
            .outerjoin(t.reference_answers, t.reference_answers.c.search_id == t.searches.c.id)
            .where(t.searches.c.id == search_id)
        )
        async with reading(self._engine) as connection:
            row = (await connection.execute(query)).one_or_none()
            if row is None:
                return None
            path = (await connection.execute(_path_to(search_id, node))).all()
        request = read_request(row, row.problem).model_copy(update={"reference_answer": row.reference})
        return BranchSource(
            request=request,
            beginning=read_beginning(row),
            path=tuple(PathNode(each.id, each.text, each.state, each.answer) for each in path),
            is_pruned=is_end(SEARCH_TRANSITIONS, row.state)
            and row.started_at is not None
            and not row.has_tree,
        )


def _path_to(search_id: UUID, node: str) -> Any:
    """The steps from the first to the node; the root has no step."""
    nodes = t.nodes
    columns = (nodes.c.id, nodes.c.parent, nodes.c.depth, nodes.c.text, nodes.c.state, nodes.c.answer)
    of_search = nodes.c.search_id == search_id
    up = select(*columns).where(of_search, nodes.c.id == node).cte("up", recursive=True)
    up = up.union_all(select(*columns).join(up, and_(of_search, nodes.c.id == up.c.parent)))
    return select(up).where(up.c.parent.is_not(None)).order_by(up.c.depth)
