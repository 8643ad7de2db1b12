"""Limits of accounts, senders seen, and more of where a message came from."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("message", sa.Column("source_cwd", sa.Text))
    op.add_column("message", sa.Column("source_host", sa.Text))
    op.create_table(
        "account",
        sa.Column("limit_group", sa.Text, primary_key=True),
        sa.Column("next_slot_us", sa.BigInteger, nullable=False),
        sa.Column("ceiling_per_s", sa.Float),
        sa.Column("ceiling_at_ms", sa.BigInteger),
        sa.Column("ceiling_connections", sa.Integer),
        sa.Column("connections_at_ms", sa.BigInteger),
        sa.Column("wanted_at_ms", sa.BigInteger),
    )
    op.create_table(
        "usage",
        sa.Column("limit_group", sa.Text, primary_key=True),
        sa.Column("slice_at_ms", sa.BigInteger, primary_key=True),
        sa.Column("used", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "sender_seen",
        sa.Column("provider", sa.Text, primary_key=True),
        sa.Column("sender", sa.Text, primary_key=True),
        sa.Column("accepted_at_ms", sa.BigInteger),
        sa.Column("refused_at_ms", sa.BigInteger),
        sa.Column("reply", sa.Text),
    )
