"""What a strategy was told, and when: with it a search can be run again from its journal."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "search_tasks",
        sa.Column("search_id", sa.Uuid(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False, comment="Of the worker that did it."),
        sa.Column(
            "place", sa.Integer(), nullable=False, comment="Counts what this worker told the strategy."
        ),
        sa.Column("first", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("asked", sa.Integer(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("draw", sa.Text(), nullable=False),
        sa.Column("prm", sa.Text()),
        sa.Column("ends", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("value", sa.Double()),
        sa.ForeignKeyConstraint(
            ["search_id"],
            ["searches.id"],
            name=op.f("fk_search_tasks_search_id_searches"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("search_id", "fence", "place", name=op.f("pk_search_tasks")),
    )


def downgrade() -> None:
    op.drop_table("search_tasks")
