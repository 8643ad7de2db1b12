"""Tables beside the queue: what followed a 250, what is counted and noted, people, alerts."""

from __future__ import annotations

from sqlalchemy import BigInteger, Index, Integer, LargeBinary, Text, UniqueConstraint

from relaygw.store.schema import Number, columns, key, partial_index, table

# --- after a provider's 250: mail that nobody reports of has no row in these ----------------

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
    *columns(Text, "queue_id kind"),  # kind: see mail.verdict
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

key_generation = table(  # which idempotency key a recipient's mail has: see delivery.sending_once
    "key_generation",
    key("queue_id"),
    key("rcpt_no", Integer),
    *columns(Integer, "generation"),  # how often an operator let go of it in doubt
    *columns(BigInteger, "since_ms"),
    sqlite_with_rowid=False,
)

# --- sources: classes of mail, and their counts by hour -----------------------------------

mail_class = table(  # see mail.mail_class
    "mail_class",
    key("class_id"),
    *columns(Text, "source_id host listener user_name script sender_domain template stream"),
    *columns(BigInteger, "uid", null=True),
    *columns(BigInteger, "first_seen_ms last_seen_ms"),  # without an index: it changes all the time
    *columns(BigInteger, "messages"),  # ever
    sqlite_with_rowid=False,
)
Index("mail_class_source", mail_class.c.source_id)

class_hour = table(
    "class_hour",
    key("class_id"),
    key("hour", Integer),  # since the epoch, by the database's clock
    *columns(Integer, "messages recipients"),
    *columns(Integer, "refused"),  # of the recipients, at acceptance
    *columns(BigInteger, "gap_ms"),  # the longest wait for one of these; 0 before the first ever
    sqlite_with_rowid=False,
)
Index("class_hour_hour", class_hour.c.hour)

# --- guard ----------------------------------------------------------------------------------

guard_entry = table(  # what is held, and what may come: see store.guard
    "guard_entry",
    key("target"),  # a class or a source
    *columns(Text, "source_id action label reason actor"),
    *columns(BigInteger, "per_hour new_since_ms", null=True),
    *columns(BigInteger, "at_ms"),
    sqlite_with_rowid=False,
)

# --- silence: kinds of mail, see policy.silence, and their counts by hour -------------------

mail_kind = table(
    "mail_kind",
    key("kind_id"),
    *columns(Text, "sender_domain stream"),
    *columns(Text, "template", null=True),  # null: all of that domain and stream
    *columns(BigInteger, "first_seen_ms last_seen_ms"),
    *columns(BigInteger, "messages"),  # ever
    sqlite_with_rowid=False,
)

kind_hour = table(
    "kind_hour",
    key("kind_id"),
    key("hour", Integer),  # since the epoch, by the database's clock
    *columns(Integer, "messages"),
    *columns(BigInteger, "gap_ms"),  # the longest wait for one of these; 0 before the first ever
    sqlite_with_rowid=False,
)
Index("kind_hour_hour", kind_hour.c.hour)

# --- storms ---------------------------------------------------------------------------------

storm = table(  # the same mail to one recipient, counted from the second one on
    "storm",
    key("storm_id"),
    key("slice_at_ms", BigInteger),  # of the window, by the database's clock
    key("front"),  # each has rows of its own
    *columns(Integer, "messages held same_ids"),
    *columns(Text, "host script template recipient_domain first_id last_id"),
    *columns(BigInteger, "first_ms"),
    sqlite_with_rowid=False,
)
Index("storm_slice", storm.c.slice_at_ms)

repeated_mail = table(  # what a story tells of it
    "repeated_mail",
    key("queue_id"),
    *columns(Integer, "number"),  # which one of the same mail it was; 0: the only one
    *columns(Text, "first_id"),
    *columns(Text, "earlier_id", null=True),  # had the same Message-ID
    *columns(Integer, "again"),  # times it came again and was not taken
    *columns(BigInteger, "again_ms", null=True),
    sqlite_with_rowid=False,
)

recent_mail = table(  # what was taken within the last minute, for `duplicates: once`
    "recent_mail",
    key("mail_key"),
    *columns(Text, "queue_id"),
    *columns(BigInteger, "at_ms"),
    sqlite_with_rowid=False,
)
Index("recent_mail_at", recent_mail.c.at_ms)

# --- the gateway itself ---------------------------------------------------------------------

home = table(  # one row, of SQLite: the machine that the queue belongs to, see store.home
    "home",
    key("name"),
    *columns(Text, "mark hostname"),
    *columns(BigInteger, "since_ms"),
    sqlite_with_rowid=False,
)

token_use = table(  # what tokens of the API were used with: user agents and networks
    "token_use",
    *(key(name) for name in ("token", "kind", "value")),
    *columns(BigInteger, "first_seen_ms last_seen_ms"),
    sqlite_with_rowid=False,
)

throttled = table(  # clients that a listener answered 450 or 421 for coming too often
    "throttled",
    *(key(name) for name in ("listener", "client", "cause")),
    *columns(BigInteger, "first_seen_ms last_seen_ms"),
    *columns(BigInteger, "times"),
    sqlite_with_rowid=False,
)

# --- people and programs that log in ------------------------------------------------------

web_session = table(
    "web_session",
    key("token_hash"),
    *columns(Text, "user_name"),
    *columns(BigInteger, "created_at_ms seen_at_ms expires_at_ms"),
)

login = table(  # who may log in, or could once
    "login",
    *(key(name) for name in ("kind", "name")),
    *columns(Text, "mark"),  # another one with another password; "": not known yet
    *columns(BigInteger, "since_ms"),  # when it was seen first
    *columns(BigInteger, "used_at_ms", null=True),
    sqlite_with_rowid=False,
)

audit = table(
    "audit",
    key("audit_id"),
    *columns(BigInteger, "at_ms"),
    *columns(Text, "actor action target detail"),
    *columns(Integer, "affected"),
)

# --- alerts -------------------------------------------------------------------------------

incident = table(  # what is or was wrong with sending, and who was told
    "incident",
    key("incident_id"),
    *columns(Text, "rule summary remedy"),
    *columns(Text, "key"),  # whom it concerns: a provider, a directory, nothing
    *columns(BigInteger, "since_ms"),
    *columns(Text, "told"),  # JSON: names of the channels that took it
    *columns(BigInteger, "recovered_at_ms", null=True),
    *columns(Text, "recovery_told"),
)
partial_index(
    "incident_open",
    incident.c.rule,
    incident.c.key,
    unique=True,
    where=incident.c.recovered_at_ms.is_(None),
)

duty = table(  # what one instance does for all
    "duty",
    key("name"),
    *columns(Text, "incarnation"),
    *columns(BigInteger, "renewed_at_ms"),  # the database's clock
)

history = table(  # counts in slices of five minutes
    "history",
    key("slice_at_ms", BigInteger),
    key("series"),
    key("label"),
    *columns(BigInteger, "amount"),
    sqlite_with_rowid=False,
)

digest = table(  # which were sent: see store.watch
    "digest",
    key("way"),
    *columns(BigInteger, "until_ms again_at_ms"),  # by the database's clock
    *columns(Integer, "tries"),
    sqlite_with_rowid=False,
)
