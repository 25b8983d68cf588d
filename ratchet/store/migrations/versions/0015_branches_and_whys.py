"""Searches that go on from a step of another one, and why a strategy asked for a task."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.add_column(
        "searches",
        sa.Column(
            "beginning",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            nullable=True,
            comment="Where it was branched from, and the steps that it was given.",
        ),
    )
    op.add_column(
        "search_tasks",
        sa.Column(
            "why",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            nullable=True,
            comment="The terms of the strategy's rule when it asked; none where nobody watched.",
        ),
    )


def downgrade() -> None:
    op.drop_column("search_tasks", "why")
    op.drop_column("searches", "beginning")
