"""Holds of mail by what it has in common: who set one, and when it ends by itself."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("hold", sa.Column("until_ms", sa.BigInteger, nullable=True))
    op.add_column("hold", sa.Column("actor", sa.Text, nullable=True))
