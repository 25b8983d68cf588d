"""Where a search stands beside its tree, so that whoever takes it up goes on as the worker before would have gone on."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.add_column("nodes", sa.Column("ended_by", sa.Text(), nullable=True))
    op.add_column("search_tasks", sa.Column("ended_by", sa.Text(), nullable=True))
    op.add_column(
        "search_tasks",
        sa.Column(
            "taken_over",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            nullable=True,
            comment="Numbers of the tasks that this worker found under way.",
        ),
    )
    op.create_table(
        "search_progress",
        sa.Column("search_id", sa.Uuid(), nullable=False),
        sa.Column("asked", sa.Integer(), nullable=False),
        sa.Column(
            "tasks",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="Asked for and not told yet.",
        ),
        sa.ForeignKeyConstraint(
            ["search_id"],
            ["searches.id"],
            name=op.f("fk_search_progress_search_id_searches"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("search_id", name=op.f("pk_search_progress")),
    )


def downgrade() -> None:
    op.drop_table("search_progress")
    op.drop_column("search_tasks", "taken_over")
    op.drop_column("search_tasks", "ended_by")
    op.drop_column("nodes", "ended_by")
