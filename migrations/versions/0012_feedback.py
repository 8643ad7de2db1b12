"""What happens after a provider's 250: events, verdicts, notices, suppression, webhooks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_Number = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    _keys()
    _events()
    _suppression()
    _webhooks()
    _notices()
    _key_generations()


def _text(*names: str, null: bool = False) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text, nullable=null) for name in names]


def _times(*names: str, null: bool = False) -> list[sa.Column[int]]:
    return [sa.Column(name, sa.BigInteger, nullable=null) for name in names]


def _partial_index(name: str, table: str, columns: list[str], where: str) -> None:
    condition = sa.text(where)
    op.create_index(name, table, columns, sqlite_where=condition, postgresql_where=condition)


def _keys() -> None:
    op.create_table(
        "gateway_key",
        sa.Column("name", sa.Text, primary_key=True),
        *_text("value"),
        sqlite_with_rowid=False,
    )


def _events() -> None:
    op.create_table(
        "event_post",
        sa.Column("post_no", _Number, primary_key=True),
        *_text("provider"),
        *_times("received_at_ms", "due_at_ms"),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.create_index("event_post_due", "event_post", ["due_at_ms"])
    op.create_table(
        "event_token",
        sa.Column("provider", sa.Text, primary_key=True),
        sa.Column("token", sa.Text, primary_key=True),
        *_times("expires_at_ms"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "provider_event",
        sa.Column("event_no", _Number, primary_key=True),
        *_text("provider", "event_key", "kind"),
        *_times("at_ms", "received_at_ms"),
        *_text("queue_id", null=True),
        sa.Column("rcpt_no", sa.Integer),
        *_text("address", "provider_id", "dsn", null=True),
        *_text("detail", "raw"),
        sa.UniqueConstraint("provider", "event_key", name="provider_event_key"),
    )
    op.create_index("provider_event_message", "provider_event", ["queue_id", "event_no"])
    _partial_index(
        "provider_event_unmatched", "provider_event", ["received_at_ms"], "queue_id IS NULL"
    )
    op.create_table(
        "verdict",
        sa.Column("queue_id", sa.Text, primary_key=True),
        sa.Column("rcpt_no", sa.Integer, primary_key=True),
        *_text("kind"),
        *_times("at_ms"),
        sqlite_with_rowid=False,
    )
    op.create_index("verdict_kind", "verdict", ["kind", "at_ms", "queue_id"])


def _suppression() -> None:
    op.create_table(
        "suppression",
        sa.Column("address", sa.Text, primary_key=True),
        sa.Column("sender_domain", sa.Text, primary_key=True),
        sa.Column("stream", sa.Text, primary_key=True),
        *_text("cause", "source", "detail"),
        *_text("queue_id", null=True),
        *_times("created_at_ms"),
        *_times("expires_at_ms", null=True),
        sqlite_with_rowid=False,
    )
    newest = ["created_at_ms", "address", "sender_domain", "stream"]
    op.create_index("suppression_newest", "suppression", newest)
    op.create_index("suppression_expiry", "suppression", ["expires_at_ms"])
    op.create_table(
        "refusal",
        sa.Column("address", sa.Text, primary_key=True),
        sa.Column("sender_domain", sa.Text, primary_key=True),
        *_text("queue_id"),
        *_times("refused_at_ms"),
        sqlite_with_rowid=False,
    )


def _webhooks() -> None:
    op.create_table(
        "webhook_event",
        sa.Column("event_no", _Number, primary_key=True),
        *_text("endpoint", "queue_id", "kind"),
        sa.Column("rcpt_no", sa.Integer, nullable=False),
        *_times("at_ms", "queued_at_ms"),
        *_text("verdict", "provider", "reply", "dsn", null=True),
        *_times("sent_at_ms", null=True),
    )
    _partial_index(
        "webhook_event_waiting", "webhook_event", ["endpoint", "event_no"], "sent_at_ms IS NULL"
    )
    op.create_table(
        "webhook_endpoint",
        sa.Column("endpoint", sa.Text, primary_key=True),
        *_times("seen_at_ms"),
        *_text("label"),
        sa.Column("failures", sa.Integer, nullable=False),
        *_times("next_at_ms"),
        *_times("failing_since_ms", "paused_at_ms", "disabled_at_ms", "taken_at_ms", null=True),
        *_text("last_error", "post_id", "post_events", null=True),
        sa.Column("dropped", sa.Integer, nullable=False),
        *_times("dropped_at_ms", null=True),
        sqlite_with_rowid=False,
    )


def _notices() -> None:
    op.create_table(
        "notice",
        sa.Column("queue_id", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("rcpt_no", sa.Integer, primary_key=True),
        *_times("due_at_ms"),
        sa.Column("tries", sa.Integer, nullable=False),
        *_times("made_at_ms", null=True),
        *_text("notice_id", "detail", null=True),
        sqlite_with_rowid=False,
    )
    _partial_index("notice_due", "notice", ["due_at_ms"], "made_at_ms IS NULL")


def _key_generations() -> None:
    op.create_table(
        "key_generation",
        sa.Column("queue_id", sa.Text, primary_key=True),
        sa.Column("rcpt_no", sa.Integer, primary_key=True),
        sa.Column("generation", sa.Integer, nullable=False),
        *_times("since_ms"),
        sqlite_with_rowid=False,
    )
