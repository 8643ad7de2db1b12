"""Lists of mail that an attempt put off, by time."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_PUT_OFF = sa.text("state IN ('deferred', 'throttled', 'held', 'in doubt')")


def upgrade() -> None:
    connection = op.get_bind()
    has_attempts = connection.exec_driver_sql("SELECT 1 FROM attempt LIMIT 1").first()
    if connection.dialect.name == "postgresql" and has_attempts:
        return  # store/migrate.py makes the index beside those who write
    op.create_index(
        "attempt_put_off",
        "attempt",
        ["at_ms", "provider", "queue_id", "state"],
        sqlite_where=_PUT_OFF,
        postgresql_where=_PUT_OFF,
    )
