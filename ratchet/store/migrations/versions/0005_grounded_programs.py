"""Verification says how often a behaviour was found independently, and whether the answer depends on the problem.

Of searches that ended before, the number is that of programs that differed in more than names, and nobody asked whether they
were grounded.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.alter_column("verifications", "distinct_programs", new_column_name="independent_programs")
    op.add_column("verifications", sa.Column("grounded", sa.Boolean()))
