"""Tables of what happens after a provider's 250: events, verdicts, notices, suppression, webhooks.

They stand apart from the tables of the queue: mail that nobody reports of has no row in them.
"""

from __future__ import annotations

from sqlalchemy import Index, LargeBinary, UniqueConstraint
from sqlalchemy.types import BigInteger, Integer, Text

from relaygw.store.schema import Number, columns, key, partial_index, table

gateway_key = table(  # secrets that the instances of one queue share
    "gateway_key",
    key("name"),
    *columns(Text, "value"),
    sqlite_with_rowid=False,
)

event_post = table(  # posts of providers as they came, verified; gone once they were read
    "event_post",
    key("post_no", Number),
    *columns(Text, "provider"),
    *columns(BigInteger, "received_at_ms due_at_ms"),
    *columns(Integer, "tries"),
    *columns(LargeBinary, "body"),
)

Index("event_post_due", event_post.c.due_at_ms)

event_token = table(  # what a provider uses once, so that nobody else uses it again
    "event_token",
    key("provider"),
    key("token"),
    *columns(BigInteger, "expires_at_ms"),
    sqlite_with_rowid=False,
)

provider_event = table(  # what providers and bounce mails told, each thing once
    "provider_event",
    key("event_no", Number),
    *columns(Text, "provider event_key"),  # the key is the same however often it is told
    *columns(Text, "kind"),  # see mail.verdict
    *columns(BigInteger, "at_ms received_at_ms"),  # by the provider's clock; by the database's
    *columns(Text, "queue_id", null=True),  # null: no mail of this queue was found for it
    *columns(Integer, "rcpt_no", null=True),  # null: it does not tell which recipient
    *columns(Text, "address provider_id dsn", null=True),
    *columns(Text, "detail raw"),  # in words; as it came
    UniqueConstraint("provider", "event_key", name="provider_event_key"),
)
Index("provider_event_message", provider_event.c.queue_id, provider_event.c.event_no)
partial_index(
    "provider_event_unmatched",
    provider_event.c.received_at_ms,
    where=provider_event.c.queue_id.is_(None),
)

verdict = table(  # the last word on a recipient after the provider's 250
    "verdict",
    key("queue_id"),
    key("rcpt_no", Integer),
    *columns(Text, "kind"),
    *columns(BigInteger, "at_ms"),
    sqlite_with_rowid=False,
)
Index("verdict_kind", verdict.c.kind, verdict.c.at_ms, verdict.c.queue_id)

suppression = table(  # addresses that get no more mail of a sender's domain
    "suppression",
    key("address"),  # as mail.address.mailbox names it
    key("sender_domain"),  # "" is any, "<>" of mail without a sender
    key("stream"),  # "" is any
    *columns(Text, "cause source detail"),
    *columns(Text, "queue_id", null=True),  # the mail that it came of
    *columns(BigInteger, "created_at_ms"),
    *columns(BigInteger, "expires_at_ms", null=True),
    sqlite_with_rowid=False,
)
Index(
    "suppression_newest",
    *suppression.c["created_at_ms", "address", "sender_domain", "stream"],
)
Index("suppression_expiry", suppression.c.expires_at_ms)
refusal = table(  # an address that was refused with 5.1.x once: the second time suppresses it
    "refusal",
    key("address"),
    key("sender_domain"),
    *columns(Text, "queue_id"),
    *columns(BigInteger, "refused_at_ms"),
    sqlite_with_rowid=False,
)

webhook_event = table(  # what receivers of webhooks are told, a row for each of them
    "webhook_event",
    key("event_no", Number),
    *columns(Text, "endpoint"),
    *columns(Text, "queue_id kind"),  # kind: see mail.told
    *columns(Integer, "rcpt_no"),
    *columns(BigInteger, "at_ms"),  # of a verdict: by the provider's clock
    *columns(BigInteger, "queued_at_ms"),  # when it was to be sent, first or once more
    *columns(Text, "verdict", null=True),  # a provider's word: see mail.verdict; null: an outcome
    *columns(Text, "provider reply dsn", null=True),
    *columns(BigInteger, "sent_at_ms", null=True),  # null: not taken by the receiver yet
)
partial_index(
    "webhook_event_waiting",
    webhook_event.c.endpoint,
    webhook_event.c.event_no,
    where=webhook_event.c.sent_at_ms.is_(None),
)
webhook_endpoint = table(  # how a receiver does
    "webhook_endpoint",
    key("endpoint"),
    *columns(BigInteger, "seen_at_ms"),  # when an instance had it in its settings
    *columns(Text, "label"),  # its name and masked URL there
    *columns(Integer, "failures"),
    *columns(BigInteger, "next_at_ms"),
    *columns(BigInteger, "failing_since_ms paused_at_ms disabled_at_ms taken_at_ms", null=True),
    *columns(Text, "last_error", null=True),
    # the post under way, and its events: it is the same however often it is sent
    *columns(Text, "post_id post_events", null=True),
    *columns(Integer, "dropped"),  # events that waited for too long
    *columns(BigInteger, "dropped_at_ms", null=True),
    sqlite_with_rowid=False,
)

notice = table(  # of which recipients a sender is to be told; gone with the message
    "notice",
    key("queue_id"),
    key("kind"),  # failed | delayed | relayed
    key("rcpt_no", Integer),
    *columns(BigInteger, "due_at_ms"),  # at the latest: before, once the message has ended
    *columns(Integer, "tries"),  # in vain
    *columns(BigInteger, "made_at_ms", null=True),
    *columns(Text, "notice_id", null=True),  # the messages that tell it; null: none does
    *columns(Text, "detail", null=True),  # whom they told, or why nobody
    sqlite_with_rowid=False,
)
partial_index("notice_due", notice.c.due_at_ms, where=notice.c.made_at_ms.is_(None))

key_generation = table(  # which idempotency key a recipient's mail has: see mail.sending_key
    "key_generation",
    key("queue_id"),
    key("rcpt_no", Integer),
    *columns(Integer, "generation"),  # how often an operator let go of it in doubt
    *columns(BigInteger, "since_ms"),
    sqlite_with_rowid=False,
)
