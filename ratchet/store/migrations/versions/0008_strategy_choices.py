"""The strategy that measured best for a policy with its PRM, and the strategy `auto`, which takes it."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"

_STRATEGIES = ("mcts", "best_of_n", "majority", "greedy", "beam", "dvts", "rebase", "auto")


def upgrade() -> None:
    op.create_table(
        "strategy_choices",
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("prm", sa.Text(), nullable=False),
        sa.Column("choice", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("policy", "prm", name=op.f("pk_strategy_choices")),
    )
    op.drop_constraint(op.f("ck_searches_strategy"), "searches", type_="check")
    op.create_check_constraint(
        op.f("ck_searches_strategy"), "searches", sa.column("strategy").in_(_STRATEGIES)
    )


def downgrade() -> None:
    op.execute("UPDATE searches SET strategy = 'mcts' WHERE strategy = 'auto'")
    op.drop_constraint(op.f("ck_searches_strategy"), "searches", type_="check")
    op.create_check_constraint(
        op.f("ck_searches_strategy"), "searches", sa.column("strategy").in_(_STRATEGIES[:-1])
    )
    op.drop_table("strategy_choices")
