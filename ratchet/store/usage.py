"""How large the tables are."""

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet.store.engine import reading, retried
from ratchet.store.tables import metadata

_SIZES = text(
    "SELECT c.relname, greatest(c.reltuples, s.n_live_tup, 0)::bigint AS rows, pg_total_relation_size(c.oid) AS bytes "
    "FROM pg_class AS c LEFT JOIN pg_stat_user_tables AS s ON s.relid = c.oid "
    "WHERE c.relname = ANY(:names) AND c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace "
    "ORDER BY bytes DESC, c.relname"
)


@dataclass(frozen=True, slots=True)
class TableSize:
    """A table with its indexes and long texts."""

    table: str
    rows: int
    """As Postgres estimates."""
    bytes: int


@retried
async def table_sizes(engine: AsyncEngine) -> list[TableSize]:
    """All tables, the largest first. Raises StoreUnavailableError."""
    async with reading(engine) as connection:
        rows = await connection.execute(_SIZES, {"names": list(metadata.tables)})
        return [TableSize(row.relname, row.rows, row.bytes) for row in rows]
