"""Causes of held mail: all of them where there are several, and those that a person lifted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "held_cause",
        sa.Column("queue_id", sa.Text, primary_key=True),
        sa.Column("delivery_no", sa.Integer, primary_key=True),
        sa.Column("cause_no", sa.Integer, primary_key=True),
        sa.Column("hold_code", sa.Text, nullable=False),
        sa.Column("hold_key", sa.Text, nullable=False),
        sa.Column("since_ms", sa.BigInteger, nullable=False),
        sa.Column("lifted_at_ms", sa.BigInteger, nullable=True),
        sa.Column("lifted_by", sa.Text, nullable=True),
        sqlite_with_rowid=False,
    )
    where = sa.text("lifted_at_ms IS NULL")
    op.create_index(
        "held_cause_in_force",
        "held_cause",
        ["hold_code", "queue_id"],
        sqlite_where=where,
        postgresql_where=where,
    )
