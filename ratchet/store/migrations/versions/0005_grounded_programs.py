"""Verification says how often and in how many forms a behaviour was found, and whether the answer depends on the problem.

Of searches that ended before, both numbers are that of programs that differed in more than names, and nobody asked whether
they were grounded.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.alter_column("verifications", "distinct_programs", new_column_name="independent_programs")
    op.add_column("verifications", sa.Column("forms", sa.Integer()))
    op.execute("UPDATE verifications SET forms = independent_programs")
    op.alter_column("verifications", "forms", nullable=False)
    op.add_column("verifications", sa.Column("grounded", sa.Boolean()))


def downgrade() -> None:
    op.drop_column("verifications", "grounded")
    op.drop_column("verifications", "forms")
    op.alter_column("verifications", "independent_programs", new_column_name="distinct_programs")
