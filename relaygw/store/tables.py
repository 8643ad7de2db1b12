"""The schema as SQLAlchemy tables; migrations/ builds the same (a test compares them).

Content lies in chunks beside the message, so that scans of the queue stay narrow. Indexes over the
queue are partial: finished messages, nearly all, cost a look-up nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
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
    func,
    text,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.schema import SchemaItem

SCHEMA_REVISION = "0011"  # the alembic revision that this code reads and writes

metadata = MetaData()


def _table(name: str, *items: SchemaItem, **options: Any) -> Table:
    return Table(name, metadata, *items, **options)


def _key(name: str, kind: Any = Text) -> Column[Any]:
    return Column(name, kind, primary_key=True)


def _columns(kind: Any, names: str, *, null: bool = False) -> list[Column[Any]]:
    """Return columns of one kind; `null`: they may be."""
    return [Column(name, kind, nullable=null) for name in names.split()]


_partial_indexes: list[Callable[[], Index]] = []


def _partial_index(
    name: str, *columns: Column[Any], where: ColumnElement[bool] | TextClause, unique: bool = False
) -> None:
    """Note an index over the rows for which a condition holds, on both databases."""
    if isinstance(where, TextClause):  # without the table's name, as SQLite wants it
        where = text(where.text.replace(f"{columns[0].table.name}.", ""))
    make = partial(Index, name, *columns, unique=unique)
    _partial_indexes.append(partial(make, sqlite_where=where, postgresql_where=where))


def whole_metadata() -> MetaData:
    """Return `metadata` with its partial indexes, whose dialects cost 3 MiB: to compare schemas."""
    while _partial_indexes:
        _partial_indexes.pop()()
    return metadata


_Number = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers INTEGER keys only

message = _table(
    "message",
    _key("queue_id"),
    *_columns(BigInteger, "accepted_at_ms size_bytes"),
    *_columns(Text, "sender subject message_id mode client_key"),
    *_columns(Integer, "chunk_count"),  # 0 when the content is gone
    *_columns(Boolean, "is_8bit has_long_line smtputf8"),
    *_columns(Text, "source_client source_helo source_user source_listener", null=True),
    *_columns(Text, "source_script", null=True),
    *_columns(Text, "source_cwd", null=True),  # where the sendmail command was started
    *_columns(Text, "source_host", null=True),  # the machine that a trusted relaygw took it on
    *_columns(Text, "drop_id", null=True),  # the maildrop file it came from: taken exactly once
    *_columns(Text, "dsn_ret dsn_envid", null=True),  # RFC 3461 RET and ENVID
    *_columns(BigInteger, "source_uid finished_at_ms", null=True),
    *_columns(BigInteger, "captured_at_ms", null=True),  # null: nothing of it is in the sandbox
    *_columns(BigInteger, "read_at_ms", null=True),  # when somebody opened it in the sandbox
    *_columns(BigInteger, "indexed_at_ms", null=True),  # when its row of captured_index was written
    *_columns(Text, "link_value", null=True),  # of its web.link_header
    UniqueConstraint("drop_id", name="message_drop_id"),
    sqlite_with_rowid=False,
)
# SQLite takes a partial index only when the query repeats its condition word for word,
# so these are used by the indexes and by every query that needs them
IS_UNREAD = text("message.captured_at_ms IS NOT NULL AND message.read_at_ms IS NULL")
IS_UNINDEXED = text("message.captured_at_ms IS NOT NULL AND message.indexed_at_ms IS NULL")
HAS_KEPT_CONTENT = text("message.chunk_count > 0 AND message.finished_at_ms IS NOT NULL")
_partial_index(
    "message_captured", message.c.captured_at_ms, where=message.c.captured_at_ms.is_not(None)
)
# read_at_ms is always null: SQLite counts without a look at the rows
_partial_index("message_unread", message.c.captured_at_ms, message.c.read_at_ms, where=IS_UNREAD)
_partial_index("message_unindexed", message.c.captured_at_ms, where=IS_UNINDEXED)
_partial_index("message_kept_content", message.c.finished_at_ms, where=HAS_KEPT_CONTENT)

delivery = _table(
    "delivery",
    _key("queue_id"),
    _key("delivery_no", Integer),
    *_columns(Text, "route stream state client_key"),
    *_columns(BigInteger, "due_at_ms changed_at_ms"),
    *_columns(Integer, "attempts doubts"),
    *_columns(Integer, "reclaims"),  # times its worker died with it
    *_columns(BigInteger, "held_at_ms", null=True),
    *_columns(BigInteger, "held_ms"),  # time spent held so far
    *_columns(Text, "lease", null=True),  # the incarnation that works on it
    *_columns(Text, "provider", null=True),  # the last one tried
    *_columns(Text, "reason", null=True),  # why deferred or held
    # null | allowed | anyone: captured mail that is sent all the same
    *_columns(Text, "released", null=True),
    *_columns(Text, "hold_code hold_key", null=True),  # why held or put off; see mail.hold
    sqlite_with_rowid=False,
)
IS_CLAIMABLE = text("delivery.state IN ('incoming', 'deferred')")
IS_OPEN = text("delivery.state IN ('incoming', 'active', 'deferred', 'held')")
# client_key before due_at_ms: clients take turns, each by age
_partial_index(
    "delivery_due",
    delivery.c.route,
    delivery.c.state,
    delivery.c.client_key,
    delivery.c.due_at_ms,
    where=IS_CLAIMABLE,
)
_partial_index("delivery_open", delivery.c.queue_id, delivery.c.state, where=IS_OPEN)
_partial_index("delivery_lease", delivery.c.lease, where=delivery.c.lease.is_not(None))

recipient = _table(
    "recipient",
    _key("queue_id"),
    _key("rcpt_no", Integer),
    *_columns(Integer, "delivery_no attempts"),
    *_columns(Text, "address state"),
    *_columns(BigInteger, "changed_at_ms"),
    *_columns(Text, "original provider reply dsn", null=True),
    *_columns(Text, "dsn_notify dsn_orcpt", null=True),  # RFC 3461 NOTIFY and ORCPT
    sqlite_with_rowid=False,
)

# outcomes that are rare: of mail that is delivered the index has nothing
HAS_RARE_OUTCOME = text("recipient.state IN ('bounced', 'expired', 'blocked', 'cancelled')")
_partial_index(
    "recipient_outcome",
    recipient.c.state,
    recipient.c.changed_at_ms,
    recipient.c.queue_id,
    where=HAS_RARE_OUTCOME,
)

chunk = _table("chunk", _key("queue_id"), _key("chunk_no", Integer), *_columns(LargeBinary, "body"))

instance = _table(
    "instance",
    _key("incarnation"),
    *_columns(Text, "name role version"),
    *_columns(BigInteger, "pid"),
    *_columns(Text, "fingerprint"),  # of its routing and policy settings
    *_columns(Text, "state"),  # running | draining
    *_columns(BigInteger, "started_at_ms heartbeat_at_ms"),  # the database's clock
)

# those that died without a goodbye, and nobody on their host told why: kept for a while
lost_instance = _table(
    "lost_instance",
    _key("incarnation"),
    *_columns(Text, "name role"),
    *_columns(BigInteger, "pid"),
    *_columns(BigInteger, "heartbeat_at_ms"),  # the last one
    *_columns(Integer, "leases"),  # deliveries it was sending
    sqlite_with_rowid=False,
)

hold = _table(
    "hold",
    _key("hold_id"),
    *_columns(Text, "scope"),  # provider | credential | sender domain | route
    *_columns(Text, "key reason remedy"),
    *_columns(BigInteger, "since_ms"),
    *_columns(BigInteger, "probe_at_ms", null=True),  # null: only an operator releases it
    *_columns(BigInteger, "released_at_ms", null=True),  # kept: time held does not count as age
    *_columns(Text, "hold_code hold_key", null=True),  # what the reason says; see mail.hold
)
_partial_index(
    "hold_active", hold.c.scope, hold.c.key, unique=True, where=hold.c.released_at_ms.is_(None)
)

permit = _table(
    "permit",
    _key("limit_group"),
    _key("slot", Integer),
    *_columns(Text, "incarnation"),
    *_columns(BigInteger, "leased_at_ms"),
)

account = _table(  # what is known of the limits of a limit group
    "account",
    _key("limit_group"),
    *_columns(BigInteger, "next_slot_us"),  # when its rate allows the next one
    *_columns(Float, "ceiling_per_s", null=True),  # the rate at which it said "slower"
    *_columns(Integer, "ceiling_connections", null=True),  # how many it had: "too many"
    *_columns(BigInteger, "ceiling_at_ms connections_at_ms", null=True),  # when it said so
    # when a worker last found all permits taken
    *_columns(BigInteger, "wanted_at_ms", null=True),
)

usage = _table(  # what was sent by a limit group, in slices of ten minutes
    "usage", _key("limit_group"), _key("slice_at_ms", BigInteger), *_columns(BigInteger, "used")
)

sender_seen = _table(  # what each provider said of a sender address
    "sender_seen",
    _key("provider"),
    _key("sender"),
    *_columns(BigInteger, "accepted_at_ms refused_at_ms", null=True),
    *_columns(Text, "reply", null=True),  # the last refusal
)

captured_index = _table(  # what searches look at; a row once the content was read
    "captured_index",
    _key("index_no", _Number),  # grows: newer mail has a greater one
    *_columns(Text, "queue_id"),
    *_columns(BigInteger, "captured_at_ms size_bytes"),
    *_columns(Boolean, "is_unread"),
    *_columns(Integer, "attachments inlines"),
    # the rest as mail.search.searchable returns it
    *_columns(Text, "from_text to_text cc_text bcc_text reply_to_text subject_text"),
    *_columns(Text, "message_id_text"),
    *_columns(Text, "reason_text"),  # why captured
    UniqueConstraint("queue_id", name="captured_index_queue_id"),
)
# long texts apart, so that a scan of any of these three reads what it needs
captured_text = _table(
    "captured_text",
    Column("index_no", _Number, primary_key=True, autoincrement=False),
    *_columns(Text, "search_text"),
)
captured_facts = _table(
    "captured_facts",
    Column("index_no", _Number, primary_key=True, autoincrement=False),
    *_columns(Text, "facts"),  # JSON: mail.content.ContentFacts without the words
)
captured_tag = _table(
    "captured_tag",
    _key("queue_id"),
    _key("tag"),
    *_columns(Text, "tag_key"),  # the tag without regard to case
    sqlite_with_rowid=False,
)
Index("captured_tag_key", captured_tag.c.tag_key)

mail_search = _table(  # the words of all mail; what is found in it is in mail_fts or an index, too
    "mail_search",
    # greater for newer mail, about; negative for what was there before this table
    _key("search_no", _Number),
    *_columns(Text, "queue_id words"),  # as mail.search.words_of returns them
    UniqueConstraint("queue_id", name="mail_search_queue_id"),
)
# messages whose words are to be written: by triggers, when one is accepted and when a recipient is
# delivered later than at once (its reply has the provider's id); rows are added, never changed
search_todo = _table(
    "search_todo",
    _key("todo_no", _Number),
    *_columns(Text, "queue_id"),
    *_columns(BigInteger, "since_ms"),
)
search_backfill = _table(  # one row as long as older mail is not in mail_search
    "search_backfill",
    _key("search_no", _Number),  # the number that the next message gets
    *_columns(Text, "before_id"),  # messages with a smaller id are still to be looked at
)

link_backfill = _table(  # one row: how far web.link_header of older mail was read
    "link_backfill",
    _key("header"),
    *_columns(Text, "before_id"),  # messages with a smaller id are still to be looked at
)

web_session = _table(
    "web_session",
    _key("token_hash"),
    *_columns(Text, "user_name"),
    *_columns(BigInteger, "created_at_ms seen_at_ms expires_at_ms"),
)

login = _table(  # who may log in, or could once
    "login",
    *(_key(name) for name in ("kind", "name")),
    *_columns(Text, "mark"),  # another one with another password; "": not known yet
    *_columns(BigInteger, "since_ms"),  # when it was seen first
    *_columns(BigInteger, "used_at_ms", null=True),
    sqlite_with_rowid=False,
)

audit = _table(
    "audit",
    _key("audit_id"),
    *_columns(BigInteger, "at_ms"),
    *_columns(Text, "actor action target detail"),
    *_columns(Integer, "affected"),
)

attempt = _table(  # what tries to send came to, but for a first one that was taken
    "attempt",
    _key("attempt_id", _Number),  # grows: a later try has a greater one
    *_columns(Text, "queue_id"),
    *_columns(Integer, "delivery_no"),
    *_columns(Integer, "rcpt_no", null=True),  # null: all that the delivery had left
    *_columns(BigInteger, "at_ms since_ms"),  # the last, and the first, of those that were alike
    *_columns(Integer, "times"),  # how many were alike
    *_columns(Text, "provider relay dsn", null=True),
    *_columns(Text, "stage state"),  # see mail.outcome
    *_columns(Text, "reply"),  # or what happened, where no reply came
    *_columns(BigInteger, "next_at_ms", null=True),  # when it is due again
)
Index("attempt_message", attempt.c.queue_id, attempt.c.attempt_id)
HAS_PUT_OFF = text("attempt.state IN ('deferred', 'throttled', 'held', 'in doubt')")
_partial_index(
    "attempt_put_off",
    attempt.c.at_ms,
    attempt.c.provider,
    attempt.c.queue_id,
    attempt.c.state,  # SQLite looks at it all the same
    where=HAS_PUT_OFF,
)

incident = _table(  # what is or was wrong with sending, and who was told
    "incident",
    _key("incident_id"),
    *_columns(Text, "rule summary remedy"),
    *_columns(Text, "key"),  # whom it concerns: a provider, a directory, nothing
    *_columns(BigInteger, "since_ms"),
    *_columns(Text, "told"),  # JSON: names of the channels that took it
    *_columns(BigInteger, "recovered_at_ms", null=True),
    *_columns(Text, "recovery_told"),
)
_partial_index(
    "incident_open",
    incident.c.rule,
    incident.c.key,
    unique=True,
    where=incident.c.recovered_at_ms.is_(None),
)

duty = _table(  # what one instance does for all
    "duty",
    _key("name"),
    *_columns(Text, "incarnation"),
    *_columns(BigInteger, "renewed_at_ms"),  # the database's clock
)

history = _table(  # counts in slices of five minutes
    "history",
    _key("slice_at_ms", BigInteger),
    _key("series"),
    _key("label"),
    *_columns(BigInteger, "amount"),
    sqlite_with_rowid=False,
)


# --- texts in any case --------------------------------------------------------------------

SQLITE_LOWER = "relaygw_lower"  # by Python: SQLite's own knows the case of ASCII alone


class _Lower(FunctionElement[str]):
    """A text in small letters of every alphabet."""

    type = Text()
    inherit_cache = True
    name = "lower"


@compiles(_Lower)
def _lower(element: _Lower, compiler: SQLCompiler, **more: Any) -> str:
    name = SQLITE_LOWER if compiler.dialect.name == "sqlite" else "lower"
    return f"{name}({compiler.process(element.clauses, **more)})"


def has_text(column: ColumnElement[Any], part: str) -> ColumnElement[bool]:
    """Return that `part` stands somewhere in a column of text, whatever the case of its letters.

    ASCII text does not wait for Python, which takes some tenths of a second for 100,000 subjects.
    """
    lowered = func.lower(column) if part.isascii() else _Lower(column)
    return lowered.contains(part.lower(), autoescape=True)
