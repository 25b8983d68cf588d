"""The round machine: leases, runs of rounds, their problems and searches; model versions that a search is pinned to."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column(
        "searches",
        sa.Column(
            "pinned",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
    )
    op.drop_constraint(op.f("uq_rounds_number"), "rounds", type_="unique")
    op.add_column("rounds", sa.Column("run", sa.Text(), server_default="default", nullable=False))
    op.create_unique_constraint(op.f("uq_rounds_run_number"), "rounds", ["run", "number"])
    for flag in ("paused", "cancel_requested"):
        op.add_column(
            "rounds", sa.Column(flag, sa.Boolean(), server_default=sa.text("false"), nullable=False)
        )
    op.add_column("rounds", sa.Column("owner", sa.Text(), comment="The trainer that holds the lease."))
    op.add_column("rounds", sa.Column("lease_until", sa.DateTime(timezone=True)))
    op.add_column(
        "rounds",
        sa.Column(
            "fence",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Grows with each claim.",
        ),
    )
    op.add_column(
        "rounds",
        sa.Column(
            "progress",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
    )
    op.create_table(
        "round_problems",
        sa.Column("round_id", sa.Uuid(), nullable=False),
        sa.Column("split", sa.Text(), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("problem_id", sa.Uuid(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("family", sa.Text(), nullable=False),
        sa.Column("difficulty", sa.Integer()),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("quarantine", postgresql.JSONB(astext_type=sa.Text())),
        sa.ForeignKeyConstraint(["problem_id"], ["problems.id"], name=op.f("fk_round_problems_problem_id")),
        sa.ForeignKeyConstraint(
            ["round_id"], ["rounds.id"], name=op.f("fk_round_problems_round_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("round_id", "split", "place", name=op.f("pk_round_problems")),
    )
    op.create_index(op.f("ix_round_problems_problem_id"), "round_problems", ["problem_id"])
    op.create_table(
        "round_searches",
        sa.Column("round_id", sa.Uuid(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("search_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["round_id"], ["rounds.id"], name=op.f("fk_round_searches_round_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["search_id"], ["searches.id"], name=op.f("fk_round_searches_search_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("round_id", "purpose", "place", "attempt", name=op.f("pk_round_searches")),
    )
    op.create_index(op.f("ix_round_searches_search_id"), "round_searches", ["search_id"])
