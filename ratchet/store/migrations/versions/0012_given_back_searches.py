"""A search that a worker gives back says when it is due again, and how often that has happened in a row."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

ATTEMPTS = "Workers that took it up since its journal last grew."


def upgrade() -> None:
    op.add_column(
        "searches",
        sa.Column(
            "not_before",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When one that was given back is due again.",
        ),
    )
    op.add_column(
        "searches",
        sa.Column(
            "given_back",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="How often in a row, for what was away.",
        ),
    )
    op.alter_column("searches", "attempts", comment=ATTEMPTS)


def downgrade() -> None:
    # Older versions know queued searches that nobody began alone; one that was given back is taken up as a lapsed one.
    op.execute(
        "UPDATE searches SET state = 'running', lease_until = now() WHERE state = 'queued' AND started_at IS NOT NULL"
    )
    op.alter_column("searches", "attempts", comment=None)
    op.drop_column("searches", "given_back")
    op.drop_column("searches", "not_before")
