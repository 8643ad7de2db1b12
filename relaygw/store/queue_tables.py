"""Tables of mail: the queue, who sends it and within which limits, what searches look at.

Content lies in chunks beside the message, so that scans of the queue stay narrow. Indexes over the
queue are partial: finished messages, nearly all, cost a look-up nothing.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    Text,
    UniqueConstraint,
    text,
)

from relaygw.store.schema import Number, columns, key, partial_index, table

Key = tuple[str, int]  # of a delivery: queue id and delivery number

message = table(
    "message",
    key("queue_id"),
    *columns(BigInteger, "accepted_at_ms size_bytes"),
    *columns(Text, "sender subject message_id mode client_key"),
    *columns(Integer, "chunk_count"),  # 0 when the content is gone
    *columns(Boolean, "is_8bit has_long_line smtputf8"),
    *columns(Text, "source_client source_helo source_user source_listener", null=True),
    *columns(Text, "source_script", null=True),
    *columns(Text, "source_cwd", null=True),  # where the sendmail command was started
    *columns(Text, "source_host", null=True),  # the machine that a trusted relaygw took it on
    *columns(Text, "drop_id", null=True),  # the maildrop file it came from: taken exactly once
    *columns(Text, "dsn_ret dsn_envid", null=True),  # RFC 3461 RET and ENVID
    *columns(BigInteger, "source_uid finished_at_ms", null=True),
    *columns(BigInteger, "captured_at_ms", null=True),  # null: nothing of it is in the sandbox
    *columns(BigInteger, "read_at_ms", null=True),  # when somebody opened it in the sandbox
    *columns(BigInteger, "indexed_at_ms", null=True),  # when its row of captured_index was written
    *columns(Text, "link_value", null=True),  # of its web.link_header
    UniqueConstraint("drop_id", name="message_drop_id"),
    sqlite_with_rowid=False,
)
# SQLite takes a partial index only when the query repeats its condition word for word,
# so these are used by the indexes and by every query that needs them
IS_UNREAD = text("message.captured_at_ms IS NOT NULL AND message.read_at_ms IS NULL")
IS_UNINDEXED = text("message.captured_at_ms IS NOT NULL AND message.indexed_at_ms IS NULL")
HAS_KEPT_CONTENT = text("message.chunk_count > 0 AND message.finished_at_ms IS NOT NULL")
HAS_NO_NOTICE_DUE = text(
    "NOT EXISTS (SELECT 1 FROM notice WHERE notice.queue_id = message.queue_id"
    " AND notice.made_at_ms IS NULL)"
)
"""Nothing of it is still to be told to its sender, which takes its content."""
partial_index(
    "message_captured", message.c.captured_at_ms, where=message.c.captured_at_ms.is_not(None)
)
# read_at_ms is always null: SQLite counts without a look at the rows
partial_index("message_unread", message.c.captured_at_ms, message.c.read_at_ms, where=IS_UNREAD)
partial_index("message_unindexed", message.c.captured_at_ms, where=IS_UNINDEXED)
partial_index("message_kept_content", message.c.finished_at_ms, where=HAS_KEPT_CONTENT)

delivery = table(
    "delivery",
    key("queue_id"),
    key("delivery_no", Integer),
    *columns(Text, "route stream state client_key"),
    *columns(BigInteger, "due_at_ms changed_at_ms"),
    *columns(Integer, "attempts doubts"),
    *columns(Integer, "reclaims"),  # times its worker died with it
    *columns(BigInteger, "held_at_ms", null=True),
    *columns(BigInteger, "held_ms"),  # time spent held so far
    *columns(Text, "lease", null=True),  # the incarnation that works on it
    *columns(Text, "provider", null=True),  # the last one tried
    *columns(Text, "reason", null=True),  # why deferred or held
    # null | allowed | anyone: captured mail that is sent all the same
    *columns(Text, "released", null=True),
    *columns(Text, "hold_code hold_key", null=True),  # why held or put off; see mail.hold
    sqlite_with_rowid=False,
)
IS_CLAIMABLE = text("delivery.state IN ('incoming', 'deferred')")
IS_OPEN = text("delivery.state IN ('incoming', 'active', 'deferred', 'held')")
# client_key before due_at_ms: clients take turns, each by age
partial_index(
    "delivery_due",
    delivery.c.route,
    delivery.c.state,
    delivery.c.client_key,
    delivery.c.due_at_ms,
    where=IS_CLAIMABLE,
)
partial_index("delivery_open", delivery.c.queue_id, delivery.c.state, where=IS_OPEN)
partial_index("delivery_lease", delivery.c.lease, where=delivery.c.lease.is_not(None))

# of a delivery that is held for several causes each of them, and what a person lifted
held_cause = table(
    "held_cause",
    key("queue_id"),
    key("delivery_no", Integer),
    key("cause_no", Integer),
    *columns(Text, "hold_code hold_key"),
    *columns(BigInteger, "since_ms"),
    *columns(BigInteger, "lifted_at_ms", null=True),  # null: in force
    *columns(Text, "lifted_by", null=True),
    sqlite_with_rowid=False,
)
partial_index(
    "held_cause_in_force",
    held_cause.c.hold_code,
    held_cause.c.queue_id,
    where=held_cause.c.lifted_at_ms.is_(None),
)

recipient = table(
    "recipient",
    key("queue_id"),
    key("rcpt_no", Integer),
    *columns(Integer, "delivery_no attempts"),
    *columns(Text, "address state"),
    *columns(BigInteger, "changed_at_ms"),
    *columns(Text, "original provider reply dsn", null=True),
    *columns(Text, "dsn_notify dsn_orcpt", null=True),  # RFC 3461 NOTIFY and ORCPT
    sqlite_with_rowid=False,
)

# outcomes that are rare: of mail that is delivered the index has nothing
HAS_RARE_OUTCOME = text("recipient.state IN ('bounced', 'expired', 'blocked', 'cancelled')")
partial_index(
    "recipient_outcome",
    recipient.c.state,
    recipient.c.changed_at_ms,
    recipient.c.queue_id,
    where=HAS_RARE_OUTCOME,
)

chunk = table("chunk", key("queue_id"), key("chunk_no", Integer), *columns(LargeBinary, "body"))

instance = table(
    "instance",
    key("incarnation"),
    *columns(Text, "name role version"),
    *columns(BigInteger, "pid"),
    *columns(Text, "fingerprint"),  # of its routing and policy settings
    *columns(Text, "state"),  # running | draining
    *columns(BigInteger, "started_at_ms heartbeat_at_ms"),  # the database's clock
)

# those that died without a goodbye, and nobody on their host told why: kept for a while
lost_instance = table(
    "lost_instance",
    key("incarnation"),
    *columns(Text, "name role"),
    *columns(BigInteger, "pid"),
    *columns(BigInteger, "heartbeat_at_ms"),  # the last one
    *columns(Integer, "leases"),  # deliveries it was sending
    sqlite_with_rowid=False,
)

hold = table(
    "hold",
    key("hold_id"),
    *columns(Text, "scope"),  # provider | credential | sender domain | route | mail.standing_hold's
    *columns(Text, "key reason remedy"),
    *columns(BigInteger, "since_ms"),
    *columns(BigInteger, "probe_at_ms", null=True),  # null: only an operator releases it
    *columns(BigInteger, "released_at_ms", null=True),  # kept: time held does not count as age
    *columns(Text, "hold_code hold_key", null=True),  # what the reason says; see mail.hold
    *columns(BigInteger, "until_ms", null=True),  # when a standing hold ends by itself
    *columns(Text, "actor", null=True),  # who set it; null: no standing hold
)
partial_index(
    "hold_active", hold.c.scope, hold.c.key, unique=True, where=hold.c.released_at_ms.is_(None)
)

permit = table(
    "permit",
    key("limit_group"),
    key("slot", Integer),
    *columns(Text, "incarnation"),
    *columns(BigInteger, "leased_at_ms"),
)

account = table(  # what is known of the limits of a limit group
    "account",
    key("limit_group"),
    *columns(BigInteger, "next_slot_us"),  # when its rate allows the next one
    *columns(Float, "ceiling_per_s", null=True),  # the rate at which it said "slower"
    *columns(Integer, "ceiling_connections", null=True),  # how many it had: "too many"
    *columns(BigInteger, "ceiling_at_ms connections_at_ms", null=True),  # when it said so
    # when a worker last found all permits taken
    *columns(BigInteger, "wanted_at_ms", null=True),
)

usage = table(  # what was sent by a limit group, in slices of ten minutes
    "usage", key("limit_group"), key("slice_at_ms", BigInteger), *columns(BigInteger, "used")
)

sender_seen = table(  # what each provider said of a sender address
    "sender_seen",
    key("provider"),
    key("sender"),
    *columns(BigInteger, "accepted_at_ms refused_at_ms", null=True),
    *columns(Text, "reply", null=True),  # the last refusal
)

captured_index = table(  # what searches look at; a row once the content was read
    "captured_index",
    key("index_no", Number),  # grows: newer mail has a greater one
    *columns(Text, "queue_id"),
    *columns(BigInteger, "captured_at_ms size_bytes"),
    *columns(Boolean, "is_unread"),
    *columns(Integer, "attachments inlines"),
    # the rest as mail.search.searchable returns it
    *columns(Text, "from_text to_text cc_text bcc_text reply_to_text subject_text"),
    *columns(Text, "message_id_text"),
    *columns(Text, "reason_text"),  # why captured
    UniqueConstraint("queue_id", name="captured_index_queue_id"),
)
# long texts apart, so that a scan of any of these three reads what it needs
captured_text = table(
    "captured_text",
    Column("index_no", Number, primary_key=True, autoincrement=False),
    *columns(Text, "search_text"),
)
captured_facts = table(
    "captured_facts",
    Column("index_no", Number, primary_key=True, autoincrement=False),
    *columns(Text, "facts"),  # JSON: mail.content.ContentFacts without the words
)
captured_tag = table(
    "captured_tag",
    key("queue_id"),
    key("tag"),
    *columns(Text, "tag_key"),  # the tag without regard to case
    sqlite_with_rowid=False,
)
Index("captured_tag_key", captured_tag.c.tag_key)

mail_search = table(  # the words of all mail; what is found in it is in mail_fts or an index, too
    "mail_search",
    # greater for newer mail, about; negative for what was there before this table
    key("search_no", Number),
    *columns(Text, "queue_id words"),  # as mail.search.words_of returns them
    UniqueConstraint("queue_id", name="mail_search_queue_id"),
)
# messages whose words are to be written: by triggers, when one is accepted and when a recipient is
# delivered later than at once (its reply has the provider's id); rows are added, never changed
search_todo = table(
    "search_todo",
    key("todo_no", Number),
    *columns(Text, "queue_id"),
    *columns(BigInteger, "since_ms"),
)
search_backfill = table(  # one row as long as older mail is not in mail_search
    "search_backfill",
    key("search_no", Number),  # the number that the next message gets
    *columns(Text, "before_id"),  # messages with a smaller id are still to be looked at
)

link_backfill = table(  # one row: how far web.link_header of older mail was read
    "link_backfill",
    key("header"),
    *columns(Text, "before_id"),  # messages with a smaller id are still to be looked at
)

attempt = table(  # what tries to send came to, but for a first one that was taken
    "attempt",
    key("attempt_id", Number),  # grows: a later try has a greater one
    *columns(Text, "queue_id"),
    *columns(Integer, "delivery_no"),
    *columns(Integer, "rcpt_no", null=True),  # null: all that the delivery had left
    *columns(BigInteger, "at_ms since_ms"),  # the last, and the first, of those that were alike
    *columns(Integer, "times"),  # how many were alike
    *columns(Text, "provider relay dsn", null=True),
    *columns(Text, "stage state"),  # see mail.outcome
    *columns(Text, "reply"),  # or what happened, where no reply came
    *columns(BigInteger, "next_at_ms", null=True),  # when it is due again
)
Index("attempt_message", attempt.c.queue_id, attempt.c.attempt_id)
HAS_PUT_OFF = text("attempt.state IN ('deferred', 'throttled', 'held', 'in doubt')")
partial_index(
    "attempt_put_off",
    attempt.c.at_ms,
    attempt.c.provider,
    attempt.c.queue_id,
    attempt.c.state,  # SQLite looks at it all the same
    where=HAS_PUT_OFF,
)
