"""API keys, which search was begun by which, and the audit of what callers did."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("scope", sa.String(length=64), nullable=False),
        sa.Column("limits", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False, comment="Of the key, which is kept nowhere."),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("revoked_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.CheckConstraint(sa.column("scope").in_(("solve", "admin")), name=op.f("ck_api_keys_scope")),
    )
    op.create_index(
        "uq_api_keys_name_in_force",
        "api_keys",
        ["name"],
        unique=True,
        postgresql_where=sa.text("revoked_at IS NULL"),
    )
    op.create_table(
        "audited_calls",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Uuid()),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audited_calls")),
    )
    op.add_column(
        "searches",
        sa.Column("key_id", sa.Uuid(), comment="None: begun by the operator, or by a round."),
    )
    op.create_foreign_key(op.f("fk_searches_key_id_api_keys"), "searches", "api_keys", ["key_id"], ["id"])
    op.create_index(
        "ix_searches_key_id_created_at",
        "searches",
        ["key_id", "created_at"],
        postgresql_where=sa.text("key_id IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_searches_key_id_created_at", table_name="searches")
    op.drop_constraint(op.f("fk_searches_key_id_api_keys"), "searches", type_="foreignkey")
    op.drop_column("searches", "key_id")
    op.drop_table("audited_calls")
    op.drop_table("api_keys")
