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
    op.drop_table("events")
