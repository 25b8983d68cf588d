"""What those who follow searches ask of Postgres: for many searches at once, or a tree a page at a time."""

from collections.abc import AsyncIterator, Collection
from dataclasses import fields
from uuid import UUID

from sqlalchemy import func, literal, select, tuple_
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet.contracts.search import NodeView, TreeView
from ratchet.states import SearchState
from ratchet.store import tables as t
from ratchet.store.engine import reading, retried
from ratchet.store.nodes import NodeRecord
from ratchet.store.search_tasks import NodePlace, ToldTask, read_told

_COLUMNS = tuple(each.name for each in fields(NodeRecord))
CURSOR_PATTERN = r"^[0-9]{1,9}\.-?[0-9]{1,18}$"
PAGE_BYTES = 4 * 2**20
"""A page ends before its texts are larger than this, unless it has one node only."""


class FollowedSearches:
    """Reads only. Every method raises StoreUnavailableError when Postgres is away."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @retried
    async def states(self, search_ids: Collection[UUID]) -> dict[UUID, SearchState]:
        """The states of those that are known, in one query."""
        async with reading(self._engine) as connection:
            rows = await connection.execute(
                select(t.searches.c.id, t.searches.c.state).where(t.searches.c.id.in_(search_ids))
            )
            return {row.id: row.state for row in rows}

    @retried
    async def tree_page(self, search_id: UUID, limit: int, cursor: str | None = None) -> TreeView | None:
        """At most `limit` nodes, parents before children; `cursor` is the `next` of the page before. None: unknown search."""
        place = tuple_(t.nodes.c.depth, t.nodes.c.ordinal)
        texts = sum((func.octet_length(t.nodes.c[name]) for name in ("text", "stdout", "stderr")), literal(0))
        some = (
            select(
                *(t.nodes.c[name] for name in _COLUMNS),
                func.sum(texts).over(order_by=(t.nodes.c.depth, t.nodes.c.ordinal)).label("bytes"),
                func.row_number().over(order_by=(t.nodes.c.depth, t.nodes.c.ordinal)).label("number"),
            )
            .where(t.nodes.c.search_id == search_id)
            .order_by(t.nodes.c.depth, t.nodes.c.ordinal)
            # One more, to know whether another page follows.
            .limit(limit + 1)
        )
        if cursor is not None:
            # Depth and ordinal of the last node before it, as CURSOR_PATTERN has them.
            some = some.where(place > tuple_(*(literal(int(part)) for part in cursor.split("."))))
        nodes = some.subquery()
        async with reading(self._engine) as connection:
            known = await connection.execute(select(t.searches.c.id).where(t.searches.c.id == search_id))
            if known.one_or_none() is None:
                return None
            rows = (
                (
                    await connection.execute(
                        select(nodes)
                        .where((nodes.c.bytes <= PAGE_BYTES) | (nodes.c.number == 1))
                        .order_by(nodes.c.number)
                    )
                )
                .mappings()
                .all()
            )
            more = await connection.scalar(select(func.count()).select_from(nodes)) or 0
        shown = rows[:limit]
        records = [NodeRecord(**{name: row[name] for name in _COLUMNS}) for row in shown]
        views: list[NodeView] = [record.view() for record in records]
        following = f"{records[-1].depth}.{records[-1].ordinal}" if more > len(shown) else None
        return TreeView(search=str(search_id), nodes=views, next=following)

    @retried
    async def told(
        self, search_id: UUID, after: int, limit: int
    ) -> tuple[dict[str, NodePlace], list[ToldTask]] | None:
        """Places of all nodes, and all tasks that the strategy was told of; why, of the `limit` ones after `after` alone. None:
        unknown search."""
        async with reading(self._engine) as connection:
            known = await connection.execute(select(t.searches.c.id).where(t.searches.c.id == search_id))
            if known.one_or_none() is None:
                return None
            return await read_told(connection, search_id, after, limit)

    async def tree_pages(
        self, search_id: UUID, limit: int = 500, page: TreeView | None = None
    ) -> AsyncIterator[TreeView]:
        """`page`, or the first one, and all that follow it; none of an unknown search."""
        page = page or await self.tree_page(search_id, limit)
        while page is not None:
            yield page
            page = None if page.next is None else await self.tree_page(search_id, limit, page.next)

    async def tree(self, search_id: UUID) -> TreeView | None:
        """The whole tree, for those who can hold it; None: unknown search."""
        pages = [page async for page in self.tree_pages(search_id)]
        nodes = [node for page in pages for node in page.nodes]
        return TreeView(search=str(search_id), nodes=nodes) if pages else None
