"""Content that outlived its message's delivery is found without a look at every message."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

KEPT = sa.text("chunk_count > 0 AND finished_at_ms IS NOT NULL")


def upgrade() -> None:
    op.create_index(
        "message_kept_content",
        "message",
        ["finished_at_ms"],
        sqlite_where=KEPT,
        postgresql_where=KEPT,
    )
