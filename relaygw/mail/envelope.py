"""Messages on their way: as accepted, as claimed, and the outcome written back.

A *message* is content and source, a *delivery* is that message on one named route, a
*recipient* belongs to a delivery. All times are milliseconds since the epoch, UTC.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from relaygw.mail.hold import HoldCause
from relaygw.mail.outcome import Stage, Verdict
from relaygw.mail.state import DeliveryState, RecipientState


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Who handed the message in, as far as is known."""

    client: str | None = None  # IP address of the SMTP client
    helo: str | None = None
    user: str | None = None  # authenticated user
    listener: str | None = None
    uid: int | None = None  # local user of the sendmail command
    script: str | None = None  # X-PHP-Originating-Script
    cwd: str | None = None  # where the sendmail command was started
    host: str | None = None  # where a trusted relaygw took it; uid, user, script are of there


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRecipient:
    """A recipient as accepted: PENDING, or final already (CAPTURED, BLOCKED)."""

    address: str
    original: str | None = None  # the address as given, when rewritten or redirected
    state: RecipientState = RecipientState.PENDING
    reason: str | None = None  # why captured or blocked
    dsn_notify: str | None = None  # RFC 3461 NOTIFY; see mail.dsn


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDelivery:
    """The part of a new message that takes one route."""

    route: str
    stream: str
    recipients: tuple[NewRecipient, ...]


class Released(StrEnum):
    """Whom captured mail may reach that somebody let go; looked at again at each attempt."""

    ALLOWED = "allowed"  # whoever is on the allow list, or permitted by the mode, at that time
    ANYONE = "anyone"  # an admin confirmed the very addresses: the allow list is not asked


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedDelivery:
    """A new delivery of a captured message: see policy.releases."""

    released: Released
    route: str
    stream: str
    recipients: tuple[NewRecipient, ...]  # PENDING


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedMessage:
    """A message ready to be stored.

    `content` holds the whole message in chunks of at most 1 MiB, or is empty when
    `stored_chunks` chunks were written before (large messages).
    """

    queue_id: str
    accepted_at_ms: int
    sender: str  # "" is the null sender
    deliveries: tuple[NewDelivery, ...]
    content: tuple[bytes, ...]
    stored_chunks: int = 0
    size_bytes: int
    subject: str
    message_id: str  # the Message-ID header, for logs and searches
    is_8bit: bool
    has_long_line: bool
    smtputf8: bool
    mode: str  # the mode it was accepted under; see policy.recipients
    source: Source
    client_key: str  # whose turn it is: user, else network
    drop_id: str | None = None  # of its file in the maildrop: no two messages have the same
    given_sender: str = ""  # before rewriting; for the log, not stored
    has_denied_source: bool = False  # told where it came from and was not believed; not stored
    dsn_ret: str | None = None  # RFC 3461 RET and ENVID; see mail.dsn
    dsn_envid: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipient:
    """A pending recipient of a claimed delivery."""

    rcpt_no: int
    address: str
    original: str | None
    attempts: int
    dsn_notify: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedDelivery:
    """A leased delivery with all that an attempt needs.

    `content` is the whole message when it is small, else None: read it by chunks.
    """

    queue_id: str
    delivery_no: int
    route: str
    stream: str
    sender: str
    recipients: tuple[Recipient, ...]
    content: bytes | None
    chunk_count: int
    size_bytes: int
    subject: str
    is_8bit: bool
    has_long_line: bool
    smtputf8: bool
    mode: str
    accepted_at_ms: int
    claimed_at_ms: int
    held_ms: int  # time spent held; does not count against the lifetime
    attempts: int
    doubts: int
    reclaims: int = 0  # times a worker died while sending it
    provider: str | None = None  # the last one tried
    client_key: str
    source: Source = Source()
    released: str | None = None  # None: never captured; else a Released, else as strict as ALLOWED
    dsn_ret: str | None = None
    dsn_envid: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipientUpdate:
    """The new state of one recipient, with the words that explain it."""

    rcpt_no: int
    state: RecipientState
    reply: str | None
    dsn: str | None
    provider: str | None
    charged: bool = True  # counts as an attempt
    stage: Stage = Stage.LOCAL  # what the reply answers
    verdict: Verdict | None = None  # None: decided here


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryUpdate:
    """What to write for one delivery after an attempt.

    `hold` says why it is held or put off, `reason` the same in words, or what the provider said.
    `held_apart` names recipients that are moved to a held delivery of their own, because
    they may not be sent now while the others go on. `is_first_try`: no provider was asked before.
    With the state ACTIVE it tells of a part of an attempt that goes on: the lease stays.
    """

    queue_id: str
    delivery_no: int
    state: DeliveryState
    due_at_ms: int
    provider: str | None
    reason: str | None
    recipients: tuple[RecipientUpdate, ...]
    hold: HoldCause | None = None
    charged: bool = True
    doubted: bool = False
    held_apart: tuple[int, ...] = ()
    held_apart_for: HoldCause | None = None
    relay: str | None = None  # "host[address]:port" that was spoken to
    is_first_try: bool = False

    @property
    def is_partial(self) -> bool:
        """True when more recipients follow under the same lease."""
        return self.state is DeliveryState.ACTIVE

    @property
    def tells_of_sending(self) -> bool:
        """True unless it only gives a delivery back: then nothing of it was sent."""
        return self.charged or self.doubted or bool(self.recipients)


# --- mail that stands still, as the queue counts it -------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldMail:
    """The deliveries of one route that are held for one cause."""

    route: str
    cause: HoldCause
    deliveries: int
    since_ms: int  # the longest of them
    examples: tuple[str, ...]  # queue ids: the oldest, and the newest


@dataclass(frozen=True, slots=True, kw_only=True)
class MailInHand:
    """A delivery that a living worker has in hand."""

    queue_id: str
    delivery_no: int
    route: str
    recipients: int  # that still wait
    since_ms: int
    worker: str  # the name of its host
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteWay:
    """The route that some recipients of a delivery take by the rules of now."""

    route: str
    stream: str
    rcpt_nos: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerouting:
    """A delivery on its way to other routes: it takes the first, new ones take the others."""

    queue_id: str
    delivery_no: int
    route: str  # the one it was on
    ways: tuple[RouteWay, ...]
