"""What attempts said, what is wrong and who was told, and counts of the last days."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_Number = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "attempt",
        sa.Column("attempt_id", _Number, primary_key=True),
        sa.Column("queue_id", sa.Text, nullable=False),
        sa.Column("delivery_no", sa.Integer, nullable=False),
        sa.Column("rcpt_no", sa.Integer),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("since_ms", sa.BigInteger, nullable=False),
        sa.Column("times", sa.Integer, nullable=False),
        sa.Column("provider", sa.Text),
        sa.Column("relay", sa.Text),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reply", sa.Text, nullable=False),
        sa.Column("dsn", sa.Text),
        sa.Column("next_at_ms", sa.BigInteger),
    )
    op.create_index("attempt_message", "attempt", ["queue_id", "attempt_id"])
    op.create_table(
        "incident",
        sa.Column("incident_id", sa.Text, primary_key=True),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("summary", sa.Text, nullable=False),
        sa.Column("remedy", sa.Text, nullable=False),
        sa.Column("since_ms", sa.BigInteger, nullable=False),
        sa.Column("told", sa.Text, nullable=False),
        sa.Column("recovered_at_ms", sa.BigInteger),
        sa.Column("recovery_told", sa.Text, nullable=False),
    )
    op.create_index(
        "incident_open",
        "incident",
        ["rule", "key"],
        unique=True,
        sqlite_where=sa.text("recovered_at_ms IS NULL"),
        postgresql_where=sa.text("recovered_at_ms IS NULL"),
    )
    op.create_table(
        "duty",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("incarnation", sa.Text, nullable=False),
        sa.Column("renewed_at_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "history",
        sa.Column("slice_at_ms", sa.BigInteger, primary_key=True),
        sa.Column("series", sa.Text, primary_key=True),
        sa.Column("label", sa.Text, primary_key=True),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
