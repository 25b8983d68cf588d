"""How often a round was taken up since it last got further: one that kills its trainers ends."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

_COLUMNS = {
    "attempts": "Trainers that took it up since it last got further.",
    "furthest": "Most that an attempt at this stage has done.",
}


def upgrade() -> None:
    for name, comment in _COLUMNS.items():
        op.add_column(
            "rounds",
            sa.Column(name, sa.Integer(), server_default=sa.text("0"), nullable=False, comment=comment),
        )


def downgrade() -> None:
    for name in reversed(_COLUMNS):
        op.drop_column("rounds", name)
