"""Rounds know the stage that failed, so that they can be retried."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column(
        "rounds",
        sa.Column(
            "failed_in",
            sa.Enum(
                "created",
                "searching",
                "selecting",
                "training_policy",
                "training_prm",
                "evaluating",
                "promoted",
                "rejected",
                "failed",
                name="failed_in",
                native_enum=False,
                create_constraint=True,
                length=64,
            ),
        ),
    )
