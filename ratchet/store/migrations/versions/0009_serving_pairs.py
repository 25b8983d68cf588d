"""Which pairs of policy and PRM were made to serve, one after the other.

What serves now is the first row. What served before it is not known as pairs, so nothing can be rolled back to yet.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

_WHY = ("round", "person", "rollback", "settings")


def upgrade() -> None:
    op.create_table(
        "serving_pairs",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("prm", sa.Text(), nullable=False),
        sa.Column("round_id", sa.Uuid(), nullable=True),
        sa.Column("why", sa.String(64), nullable=False),
        sa.Column("before", sa.BigInteger(), nullable=True, comment="What a rollback goes to."),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint(sa.column("why").in_(_WHY), name=op.f("ck_serving_pairs_why")),
        sa.ForeignKeyConstraint(["policy"], ["models.version"], name=op.f("fk_serving_pairs_policy")),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.id"], name=op.f("fk_serving_pairs_round_id")),
        sa.ForeignKeyConstraint(["before"], ["serving_pairs.id"], name=op.f("fk_serving_pairs_before")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_serving_pairs")),
    )
    # A version that a round has made was promoted by it, as far as can be told.
    op.execute(
        """
        INSERT INTO serving_pairs (policy, prm, round_id, why)
        SELECT policy.version,
               coalesce((SELECT version FROM models WHERE kind = 'prm' AND state = 'serving'), 'prm1-likelihood'),
               datasets.round_id,
               CASE WHEN datasets.round_id IS NULL THEN 'settings' ELSE 'round' END
        FROM models AS policy LEFT JOIN datasets ON datasets.id = policy.dataset
        WHERE policy.kind = 'policy' AND policy.state = 'serving'
        """
    )


def downgrade() -> None:
    op.drop_table("serving_pairs")
