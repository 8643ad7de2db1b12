"""The schema as SQLAlchemy tables; migrations/ builds the same (a test compares them).

Times are milliseconds since the epoch, UTC. Content lies in chunks beside the message, so
that scans of the queue stay narrow. Indexes over the queue are partial: finished messages,
which are nearly all of them, cost nothing when the next due delivery is looked up.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TextClause,
    UniqueConstraint,
    text,
)
from sqlalchemy.sql.elements import ColumnElement

from relaygw.mail.hold import HoldCause

SCHEMA_REVISION = "0007"
"""The alembic revision that this code reads and writes."""

metadata = MetaData()


def _partial_index(
    name: str, *columns: Column[Any], where: ColumnElement[bool] | TextClause, unique: bool = False
) -> None:
    """Make an index over the rows for which a condition holds, on both databases."""
    Index(name, *columns, unique=unique, sqlite_where=where, postgresql_where=where)


_Number = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers INTEGER keys only

message = Table(
    "message",
    metadata,
    Column("queue_id", Text, primary_key=True),
    Column("accepted_at_ms", BigInteger, nullable=False),
    Column("sender", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("message_id", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("chunk_count", Integer, nullable=False),  # 0 when the content is gone
    Column("is_8bit", Boolean, nullable=False),
    Column("has_long_line", Boolean, nullable=False),
    Column("smtputf8", Boolean, nullable=False),
    Column("mode", Text, nullable=False),
    Column("client_key", Text, nullable=False),
    Column("source_client", Text),
    Column("source_helo", Text),
    Column("source_user", Text),
    Column("source_listener", Text),
    Column("source_uid", BigInteger),
    Column("source_script", Text),
    Column("source_cwd", Text),  # where the sendmail command was started
    Column("source_host", Text),  # the machine that a trusted relaygw took it on
    Column("drop_id", Text),  # the maildrop file it came from: taken exactly once
    Column("dsn_ret", Text),  # RFC 3461 RET and ENVID
    Column("dsn_envid", Text),
    Column("finished_at_ms", BigInteger),
    Column("captured_at_ms", BigInteger),  # null: nothing of it is in the sandbox
    Column("read_at_ms", BigInteger),  # when somebody opened it in the sandbox
    Column("indexed_at_ms", BigInteger),  # when its row of captured_index was written
    UniqueConstraint("drop_id", name="message_drop_id"),
    sqlite_with_rowid=False,
)
# word for word in every query that needs their indexes, as with those below
IS_UNREAD = text("message.captured_at_ms IS NOT NULL AND message.read_at_ms IS NULL")
_UNREAD = text("captured_at_ms IS NOT NULL AND read_at_ms IS NULL")
IS_UNINDEXED = text("message.captured_at_ms IS NOT NULL AND message.indexed_at_ms IS NULL")
_UNINDEXED = text("captured_at_ms IS NOT NULL AND indexed_at_ms IS NULL")
_partial_index(
    "message_captured", message.c.captured_at_ms, where=message.c.captured_at_ms.is_not(None)
)

_partial_index(
    "message_unread",
    message.c.captured_at_ms,
    message.c.read_at_ms,  # always null: SQLite counts without a look at the rows
    where=_UNREAD,
)
_partial_index("message_unindexed", message.c.captured_at_ms, where=_UNINDEXED)

HAS_KEPT_CONTENT = text("message.chunk_count > 0 AND message.finished_at_ms IS NOT NULL")
_KEPT_CONTENT = text("chunk_count > 0 AND finished_at_ms IS NOT NULL")
_partial_index("message_kept_content", message.c.finished_at_ms, where=_KEPT_CONTENT)

delivery = Table(
    "delivery",
    metadata,
    Column("queue_id", Text, primary_key=True),
    Column("delivery_no", Integer, primary_key=True),
    Column("route", Text, nullable=False),
    Column("stream", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("due_at_ms", BigInteger, nullable=False),
    Column("changed_at_ms", BigInteger, nullable=False),
    Column("client_key", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("doubts", Integer, nullable=False),
    Column("reclaims", Integer, nullable=False),  # times its worker died with it
    Column("held_at_ms", BigInteger),
    Column("held_ms", BigInteger, nullable=False),  # time spent held so far
    Column("lease", Text),  # the incarnation that works on it
    Column("provider", Text),  # the last one tried
    Column("reason", Text),  # why deferred or held
    Column("released", Text),  # null | allowed | anyone: captured mail that is sent all the same
    Column("hold_code", Text),  # why held or put off; see mail.hold
    Column("hold_key", Text),
    sqlite_with_rowid=False,
)
# SQLite takes a partial index only when the query repeats its condition word for word,
# so these two are used by the indexes and by every query that needs them.
IS_CLAIMABLE = text("delivery.state IN ('incoming', 'deferred')")
IS_OPEN = text("delivery.state IN ('incoming', 'active', 'deferred', 'held')")
_CLAIMABLE = text("state IN ('incoming', 'deferred')")
_OPEN = text("state IN ('incoming', 'active', 'deferred', 'held')")
# client_key before due_at_ms: clients take turns, each by age
_partial_index(
    "delivery_due",
    delivery.c.route,
    delivery.c.state,
    delivery.c.client_key,
    delivery.c.due_at_ms,
    where=_CLAIMABLE,
)
_partial_index("delivery_open", delivery.c.queue_id, delivery.c.state, where=_OPEN)
_partial_index("delivery_lease", delivery.c.lease, where=delivery.c.lease.is_not(None))

recipient = Table(
    "recipient",
    metadata,
    Column("queue_id", Text, primary_key=True),
    Column("rcpt_no", Integer, primary_key=True),
    Column("delivery_no", Integer, nullable=False),
    Column("address", Text, nullable=False),
    Column("original", Text),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("changed_at_ms", BigInteger, nullable=False),
    Column("provider", Text),
    Column("reply", Text),
    Column("dsn", Text),
    Column("dsn_notify", Text),  # RFC 3461 NOTIFY and ORCPT
    Column("dsn_orcpt", Text),
    sqlite_with_rowid=False,
)

chunk = Table(
    "chunk",
    metadata,
    Column("queue_id", Text, primary_key=True),
    Column("chunk_no", Integer, primary_key=True),
    Column("body", LargeBinary, nullable=False),
)

instance = Table(
    "instance",
    metadata,
    Column("incarnation", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("pid", BigInteger, nullable=False),
    Column("version", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),  # of its routing and policy settings
    Column("state", Text, nullable=False),  # running | draining
    Column("started_at_ms", BigInteger, nullable=False),
    Column("heartbeat_at_ms", BigInteger, nullable=False),  # the database's clock
)

# those that died without a goodbye, and nobody on their host told why: kept for a while
lost_instance = Table(
    "lost_instance",
    metadata,
    Column("incarnation", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("pid", BigInteger, nullable=False),
    Column("heartbeat_at_ms", BigInteger, nullable=False),  # the last one
    Column("leases", Integer, nullable=False),  # deliveries it had in hand
    sqlite_with_rowid=False,
)

hold = Table(
    "hold",
    metadata,
    Column("hold_id", Text, primary_key=True),
    Column("scope", Text, nullable=False),  # provider | credential | sender domain | route
    Column("key", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("remedy", Text, nullable=False),
    Column("since_ms", BigInteger, nullable=False),
    Column("probe_at_ms", BigInteger),  # null: only an operator releases it
    Column("released_at_ms", BigInteger),  # kept: time held does not count as age
    Column("hold_code", Text),  # what the reason says; see mail.hold
    Column("hold_key", Text),
)
_partial_index(
    "hold_active", hold.c.scope, hold.c.key, unique=True, where=hold.c.released_at_ms.is_(None)
)

permit = Table(
    "permit",
    metadata,
    Column("limit_group", Text, primary_key=True),
    Column("slot", Integer, primary_key=True),
    Column("incarnation", Text, nullable=False),
    Column("leased_at_ms", BigInteger, nullable=False),
)

account = Table(  # what is known of the limits of a limit group
    "account",
    metadata,
    Column("limit_group", Text, primary_key=True),
    Column("next_slot_us", BigInteger, nullable=False),  # when its rate allows the next one
    Column("ceiling_per_s", Float),  # the rate at which it said "slower"
    Column("ceiling_at_ms", BigInteger),
    Column("ceiling_connections", Integer),  # how many it had when it said "too many"
    Column("connections_at_ms", BigInteger),
    Column("wanted_at_ms", BigInteger),  # when a worker last found all permits taken
)

usage = Table(  # what was sent by a limit group, in slices of ten minutes
    "usage",
    metadata,
    Column("limit_group", Text, primary_key=True),
    Column("slice_at_ms", BigInteger, primary_key=True),
    Column("used", BigInteger, nullable=False),
)

sender_seen = Table(  # what each provider said of a sender address
    "sender_seen",
    metadata,
    Column("provider", Text, primary_key=True),
    Column("sender", Text, primary_key=True),
    Column("accepted_at_ms", BigInteger),
    Column("refused_at_ms", BigInteger),
    Column("reply", Text),  # the last refusal
)

captured_index = Table(  # what searches look at; a row once the content was read
    "captured_index",
    metadata,
    Column("index_no", _Number, primary_key=True),  # grows: newer mail has a greater one
    Column("queue_id", Text, nullable=False),
    Column("captured_at_ms", BigInteger, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("is_unread", Boolean, nullable=False),
    Column("attachments", Integer, nullable=False),
    Column("inlines", Integer, nullable=False),
    # the rest as mail.search.searchable returns it
    Column("from_text", Text, nullable=False),
    Column("to_text", Text, nullable=False),
    Column("cc_text", Text, nullable=False),
    Column("bcc_text", Text, nullable=False),
    Column("reply_to_text", Text, nullable=False),
    Column("subject_text", Text, nullable=False),
    Column("message_id_text", Text, nullable=False),
    Column("reason_text", Text, nullable=False),  # why captured
    UniqueConstraint("queue_id", name="captured_index_queue_id"),
)
# long texts apart, so that a scan of any of these three reads what it needs
captured_text = Table(
    "captured_text",
    metadata,
    Column("index_no", _Number, primary_key=True, autoincrement=False),
    Column("search_text", Text, nullable=False),
)
captured_facts = Table(
    "captured_facts",
    metadata,
    Column("index_no", _Number, primary_key=True, autoincrement=False),
    Column("facts", Text, nullable=False),  # JSON: mail.content.ContentFacts without the words
)
captured_tag = Table(
    "captured_tag",
    metadata,
    Column("queue_id", Text, primary_key=True),
    Column("tag", Text, primary_key=True),
    Column("tag_key", Text, nullable=False),  # the tag without regard to case
    sqlite_with_rowid=False,
)
Index("captured_tag_key", captured_tag.c.tag_key)

web_session = Table(
    "web_session",
    metadata,
    Column("token_hash", Text, primary_key=True),
    Column("user_name", Text, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("seen_at_ms", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("audit_id", Text, primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("affected", Integer, nullable=False),
    Column("detail", Text, nullable=False),
)

attempt = Table(  # what tries to send came to, but for a first one that was taken
    "attempt",
    metadata,
    Column("attempt_id", _Number, primary_key=True),  # grows: a later try has a greater one
    Column("queue_id", Text, nullable=False),
    Column("delivery_no", Integer, nullable=False),
    Column("rcpt_no", Integer),  # null: all that the delivery had left
    Column("at_ms", BigInteger, nullable=False),
    Column("since_ms", BigInteger, nullable=False),  # the first of several that were alike
    Column("times", Integer, nullable=False),  # how many were alike
    Column("provider", Text),
    Column("relay", Text),
    Column("stage", Text, nullable=False),
    Column("state", Text, nullable=False),  # see mail.outcome
    Column("reply", Text, nullable=False),  # or what happened, where no reply came
    Column("dsn", Text),
    Column("next_at_ms", BigInteger),  # when it is due again
)
Index("attempt_message", attempt.c.queue_id, attempt.c.attempt_id)

incident = Table(  # what is or was wrong with sending, and who was told
    "incident",
    metadata,
    Column("incident_id", Text, primary_key=True),
    Column("rule", Text, nullable=False),
    Column("key", Text, nullable=False),  # whom it concerns: a provider, a directory, nothing
    Column("summary", Text, nullable=False),
    Column("remedy", Text, nullable=False),
    Column("since_ms", BigInteger, nullable=False),
    Column("told", Text, nullable=False),  # JSON: names of the channels that took it
    Column("recovered_at_ms", BigInteger),
    Column("recovery_told", Text, nullable=False),
)
_partial_index(
    "incident_open",
    incident.c.rule,
    incident.c.key,
    unique=True,
    where=incident.c.recovered_at_ms.is_(None),
)

duty = Table(  # what one instance does for all
    "duty",
    metadata,
    Column("name", Text, primary_key=True),
    Column("incarnation", Text, nullable=False),
    Column("renewed_at_ms", BigInteger, nullable=False),  # the database's clock
)

history = Table(  # counts in slices of five minutes
    "history",
    metadata,
    Column("slice_at_ms", BigInteger, primary_key=True),
    Column("series", Text, primary_key=True),
    Column("label", Text, primary_key=True),
    Column("amount", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)


def hold_columns(cause: HoldCause | None) -> dict[str, str | None]:
    """Return the values of `delivery` that say why one is held or put off; None: it is not."""
    if cause is None:
        return {"reason": None, "hold_code": None, "hold_key": None}
    return {"reason": cause.sentence, "hold_code": cause.code.value, "hold_key": cause.key}
