"""The queue: messages, deliveries, recipients, content, instances, holds, permits, audit."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

CLAIMABLE = sa.text("state IN ('incoming', 'deferred')")
OPEN = sa.text("state IN ('incoming', 'active', 'deferred', 'held')")


def partial(where: sa.TextClause) -> dict[str, sa.TextClause]:
    return {"sqlite_where": where, "postgresql_where": where}


def upgrade() -> None:
    op.create_table(
        "message",
        sa.Column("queue_id", sa.Text, primary_key=True),
        sa.Column("accepted_at_ms", sa.BigInteger, nullable=False),
        sa.Column("sender", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("message_id", sa.Text, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("chunk_count", sa.Integer, nullable=False),
        sa.Column("is_8bit", sa.Boolean, nullable=False),
        sa.Column("has_long_line", sa.Boolean, nullable=False),
        sa.Column("smtputf8", sa.Boolean, nullable=False),
        sa.Column("mode", sa.Text, nullable=False),
        sa.Column("client_key", sa.Text, nullable=False),
        sa.Column("source_client", sa.Text),
        sa.Column("source_helo", sa.Text),
        sa.Column("source_user", sa.Text),
        sa.Column("source_listener", sa.Text),
        sa.Column("source_uid", sa.BigInteger),
        sa.Column("source_script", sa.Text),
        sa.Column("drop_id", sa.Text),
        sa.Column("dsn_ret", sa.Text),
        sa.Column("dsn_envid", sa.Text),
        sa.Column("finished_at_ms", sa.BigInteger),
        sa.Column("captured_at_ms", sa.BigInteger),
        sa.Column("read_at_ms", sa.BigInteger),
        sa.UniqueConstraint("drop_id", name="message_drop_id"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "message_captured",
        "message",
        ["captured_at_ms"],
        **partial(sa.text("captured_at_ms IS NOT NULL")),
    )
    op.create_table(
        "delivery",
        sa.Column("queue_id", sa.Text, primary_key=True),
        sa.Column("delivery_no", sa.Integer, primary_key=True),
        sa.Column("route", sa.Text, nullable=False),
        sa.Column("stream", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("due_at_ms", sa.BigInteger, nullable=False),
        sa.Column("changed_at_ms", sa.BigInteger, nullable=False),
        sa.Column("client_key", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("doubts", sa.Integer, nullable=False),
        sa.Column("reclaims", sa.Integer, nullable=False),
        sa.Column("held_at_ms", sa.BigInteger),
        sa.Column("held_ms", sa.BigInteger, nullable=False),
        sa.Column("lease", sa.Text),
        sa.Column("provider", sa.Text),
        sa.Column("reason", sa.Text),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "delivery_due",
        "delivery",
        ["route", "state", "client_key", "due_at_ms"],
        **partial(CLAIMABLE),
    )
    op.create_index("delivery_open", "delivery", ["queue_id", "state"], **partial(OPEN))
    op.create_index(
        "delivery_lease", "delivery", ["lease"], **partial(sa.text("lease IS NOT NULL"))
    )
    op.create_table(
        "recipient",
        sa.Column("queue_id", sa.Text, primary_key=True),
        sa.Column("rcpt_no", sa.Integer, primary_key=True),
        sa.Column("delivery_no", sa.Integer, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("original", sa.Text),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("changed_at_ms", sa.BigInteger, nullable=False),
        sa.Column("provider", sa.Text),
        sa.Column("reply", sa.Text),
        sa.Column("dsn", sa.Text),
        sa.Column("dsn_notify", sa.Text),
        sa.Column("dsn_orcpt", sa.Text),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "chunk",
        sa.Column("queue_id", sa.Text, primary_key=True),
        sa.Column("chunk_no", sa.Integer, primary_key=True),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "instance",
        sa.Column("incarnation", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("pid", sa.BigInteger, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("started_at_ms", sa.BigInteger, nullable=False),
        sa.Column("heartbeat_at_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "hold",
        sa.Column("hold_id", sa.Text, primary_key=True),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("remedy", sa.Text, nullable=False),
        sa.Column("since_ms", sa.BigInteger, nullable=False),
        sa.Column("probe_at_ms", sa.BigInteger),
        sa.Column("released_at_ms", sa.BigInteger),
    )
    op.create_index(
        "hold_active",
        "hold",
        ["scope", "key"],
        unique=True,
        **partial(sa.text("released_at_ms IS NULL")),
    )
    op.create_table(
        "permit",
        sa.Column("limit_group", sa.Text, primary_key=True),
        sa.Column("slot", sa.Integer, primary_key=True),
        sa.Column("incarnation", sa.Text, nullable=False),
        sa.Column("leased_at_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "audit",
        sa.Column("audit_id", sa.Text, primary_key=True),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("affected", sa.Integer, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
    )
