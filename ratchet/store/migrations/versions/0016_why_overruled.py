"""Why a person trusts the reference answer of a problem that was set aside."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.add_column(
        "quarantine",
        sa.Column("overruled_because", sa.Text(), nullable=True, comment="In the words of who overruled."),
    )


def downgrade() -> None:
    op.drop_column("quarantine", "overruled_because")
