"""One ledger of the problems that were set aside, which every training reads; a person may overrule an entry.

What rounds have set aside so far comes along: where several rounds of a run did, the first of them counts.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.create_table(
        "quarantine",
        sa.Column("run", sa.Text(), nullable=False),
        sa.Column("problem_id", sa.Uuid(), nullable=False),
        sa.Column("round_id", sa.Uuid(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=False, comment="The answer that is not trusted."),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("disagreement", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("overruled_at", sa.DateTime(timezone=True)),
        sa.ForeignKeyConstraint(
            ["problem_id"], ["problems.id"], name=op.f("fk_quarantine_problem_id_problems")
        ),
        sa.ForeignKeyConstraint(
            ["round_id"], ["rounds.id"], name=op.f("fk_quarantine_round_id_rounds"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run", "problem_id", name=op.f("pk_quarantine")),
    )
    op.create_index(op.f("ix_quarantine_round_id"), "quarantine", ["round_id"])
    op.execute(
        """
        INSERT INTO quarantine (run, problem_id, round_id, reference, source, disagreement, created_at)
        SELECT DISTINCT ON (r.run, p.problem_id)
               r.run, p.problem_id, p.round_id, p.answer, p.source, p.quarantine, coalesce(r.ended_at, r.created_at)
        FROM round_problems AS p JOIN rounds AS r ON r.id = p.round_id
        WHERE p.quarantine IS NOT NULL AND p.split = 'train'
        ORDER BY r.run, p.problem_id, r.number
        """
    )
    op.drop_column("round_problems", "quarantine")


def downgrade() -> None:
    op.add_column("round_problems", sa.Column("quarantine", postgresql.JSONB(astext_type=sa.Text())))
    op.execute(
        """
        UPDATE round_problems AS p SET quarantine = q.disagreement
        FROM quarantine AS q
        WHERE q.round_id = p.round_id AND q.problem_id = p.problem_id AND p.split = 'train' AND q.overruled_at IS NULL
        """
    )
    op.drop_table("quarantine")
