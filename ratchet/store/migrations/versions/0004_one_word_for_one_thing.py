"""Version 0.2 renames what had several names, and drops the table of events, which nobody read."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

# Column, path to the object inside it, old key, new key.
_RENAMED = (
    ("searches", "usage", "{}", "simulations", "rollouts"),
    ("searches", "parameters", "{}", "candidates", "branching_factor"),
    ("searches", "parameters", "{}", "together", "batch_rollouts"),
    ("rounds", "config", "{label}", "candidates", "branching_factor"),
    ("rounds", "config", "{label}", "together", "batch_rollouts"),
    ("rounds", "config", "{evaluation}", "candidates", "branching_factor"),
    ("rounds", "config", "{evaluation}", "together", "batch_rollouts"),
    ("rounds", "metrics", "{label}", "simulations", "rollouts"),
)


def upgrade() -> None:
    op.alter_column("verifications", "trajectories", new_column_name="total_votes")
    for table, column, path, old, new in _RENAMED:
        _rename(table, column, path, old, new)
    op.drop_table("events")


def downgrade() -> None:
    op.alter_column("verifications", "total_votes", new_column_name="trajectories")
    for table, column, path, old, new in _RENAMED:
        _rename(table, column, path, new, old)
    # What was in it is gone; nobody read it.
    op.create_table(
        "events",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("search_id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.String(64), nullable=False),
        sa.Column("owner", sa.Text()),
        sa.Column("reason", sa.Text()),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["search_id"], ["searches.id"], name=op.f("fk_events_search_id_searches"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
    )
    op.create_index("ix_events_search_id_created_at", "events", ["search_id", "created_at"])


def _rename(table: str, column: str, path: str, old: str, new: str) -> None:
    """Rename a key of the object at a path of a JSON column."""
    # `#> '{}'` is the whole value, but jsonb_set does not take an empty path.
    inner = f"{column} #> '{path}'"
    renamed = f"({inner}) - '{old}' || jsonb_build_object('{new}', {inner} -> '{old}')"
    changed = renamed if path == "{}" else f"jsonb_set({column}, '{path}', {renamed})"
    op.execute(
        sa.text(
            f"UPDATE {table} SET {column} = {changed} "  # noqa: S608 - names from the table above
            f"WHERE jsonb_typeof({inner}) = 'object' AND jsonb_exists({inner}, '{old}')"
        )
    )
