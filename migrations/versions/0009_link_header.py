"""The value of the header field by which another program's page links to its mail."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("message", sa.Column("link_value", sa.Text))
    op.create_table(
        "link_backfill",
        sa.Column("header", sa.Text, primary_key=True),
        sa.Column("before_id", sa.Text, nullable=False),
    )
