"""What a search that goes on after its end has generated on another day."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"

INDEX = "ix_searches_key_id_queued_again_at"


def upgrade() -> None:
    op.add_column(
        "searches",
        sa.Column(
            "queued_again_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When a person last had it go on after its end.",
        ),
    )
    op.add_column(
        "searches",
        sa.Column(
            "tokens_before",
            sa.BigInteger(),
            nullable=False,
            server_default=sa.text("0"),
            comment="What it had generated before the day of that (UTC).",
        ),
    )
    op.create_index(
        INDEX,
        "searches",
        ["key_id", "queued_again_at"],
        postgresql_where=sa.text("key_id IS NOT NULL AND queued_again_at IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index(INDEX, table_name="searches")
    op.drop_column("searches", "tokens_before")
    op.drop_column("searches", "queued_again_at")
