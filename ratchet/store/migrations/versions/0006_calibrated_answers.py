"""How probable an answer is: calibrations of policy and PRM, and the probability that a search asks for.

What was said of answers before came from a formula that was fitted to one model, so it goes. Strategies and node states have
new members, and the use of a PRM has one less.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"

_ENUMS = {
    ("searches", "strategy"): ("mcts", "best_of_n", "majority", "greedy", "beam", "dvts", "rebase"),
    ("nodes", "state"): ("open", "terminal", "exhausted", "abandoned", "failed"),
}
_NEW = ("beam", "dvts", "rebase", "abandoned")
_USES_OF_PRM = (("searches", "parameters", "prm"), ("rounds", "config", "label,prm"))


def upgrade() -> None:
    op.create_table(
        "calibrations",
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("prm", sa.Text(), nullable=False),
        sa.Column("calibration", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("policy", "prm", name=op.f("pk_calibrations")),
    )
    op.add_column("searches", sa.Column("min_confidence", sa.Double()))
    op.alter_column("verifications", "confidence", nullable=True)
    op.add_column("verifications", sa.Column("min_confidence", sa.Double()))
    op.execute("UPDATE verifications SET confidence = NULL WHERE level <> 'reference'")
    for (table, column), members in _ENUMS.items():
        op.drop_constraint(op.f(f"ck_{table}_{column}"), table, type_="check")
        op.create_check_constraint(op.f(f"ck_{table}_{column}"), table, sa.column(column).in_(members))
    for table, column, path in _USES_OF_PRM:
        op.execute(
            f"UPDATE {table} SET {column} = jsonb_set({column}, '{{{path}}}', '\"value\"') "  # noqa: S608 - names from above
            f"WHERE {column} #>> '{{{path}}}' = 'order'"
        )


def downgrade() -> None:
    # What the version before does not know becomes what is nearest to it.
    op.execute("UPDATE searches SET strategy = 'mcts' WHERE strategy IN ('beam', 'dvts', 'rebase')")
    op.execute("UPDATE nodes SET state = 'open' WHERE state = 'abandoned'")
    for (table, column), members in _ENUMS.items():
        op.drop_constraint(op.f(f"ck_{table}_{column}"), table, type_="check")
        known = [each for each in members if each not in _NEW]
        op.create_check_constraint(op.f(f"ck_{table}_{column}"), table, sa.column(column).in_(known))
    op.execute("UPDATE verifications SET confidence = 0 WHERE confidence IS NULL")
    op.alter_column("verifications", "confidence", nullable=False)
    op.drop_column("verifications", "min_confidence")
    op.drop_column("searches", "min_confidence")
    op.drop_table("calibrations")
