"""Tables of who sends what, and of what is watched for: a block for each subject."""

from __future__ import annotations

from sqlalchemy import Index
from sqlalchemy.types import BigInteger, Integer, Text

from relaygw.store.schema import columns, key, table

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

# --- digest ---------------------------------------------------------------------------------

digest = table(  # which were sent: see store.watch
    "digest",
    key("way"),
    *columns(BigInteger, "until_ms again_at_ms"),  # by the database's clock
    *columns(Integer, "tries"),
    sqlite_with_rowid=False,
)
