"""Messages on their way: as accepted, as claimed, and the outcome written back."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from relaygw.mail.content import author_domain
from relaygw.mail.hold import HoldCause, sender_domain
from relaygw.mail.mail_class import MailClass
from relaygw.mail.outcome import Stage, Verdict
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.mail.suppression import Listed


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
class Envelope:
    """What is known of a message without its content, wherever it is on its way."""

    queue_id: str
    accepted_at_ms: int
    sender: str  # "" is the null sender
    size_bytes: int
    subject: str
    smtputf8: bool
    mode: str  # the mode it was accepted under; see policy.recipients


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageInHand(Envelope):
    """A message that is being taken or sent, with what that depends on."""

    is_8bit: bool
    has_long_line: bool
    client_key: str  # whose turn it is: user, else network
    dsn_ret: str | None = None  # RFC 3461 RET and ENVID
    dsn_envid: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipientRecord:
    """A recipient and how it stands."""

    rcpt_no: int
    delivery_no: int
    address: str
    original: str | None
    state: RecipientState
    provider: str | None
    reply: str | None
    dsn: str | None
    changed_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRecipient:
    """A recipient as accepted: PENDING, or final already (CAPTURED, BLOCKED)."""

    address: str
    original: str | None = None  # the address as given, when rewritten or redirected
    state: RecipientState = RecipientState.PENDING
    reason: str | None = None  # why captured or blocked
    dsn_notify: str | None = None  # RFC 3461 NOTIFY and ORCPT: see mail.address
    dsn_orcpt: str | None = None

    @property
    def given(self) -> str:
        """The address that its client named."""
        return self.original or self.address


class Released(StrEnum):
    """Whom mail may reach that an operator sends; looked at again at each attempt."""

    # captured mail that was let go
    ALLOWED = "allowed"  # whoever is on the allow list, or permitted by the mode, at that time
    ANYONE = "anyone"  # an admin confirmed the very addresses: the allow list is not asked
    # a copy of a message that was sent before
    RESENT = "resent"  # whom the stricter one permits of the modes of that time and of now


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDelivery:
    """The part of a message that takes one route; `released`: an operator made it."""

    route: str
    stream: str
    recipients: tuple[NewRecipient, ...]
    released: Released | None = None  # see policy.recipients
    holds: tuple[HoldCause, ...] = ()  # held from the start; captured recipients stay captured


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedMessage(MessageInHand):
    """A message ready to be stored; `content` in chunks of 1 MiB, or empty: see `stored_chunks`."""

    deliveries: tuple[NewDelivery, ...]
    content: tuple[bytes, ...]
    stored_chunks: int = 0
    message_id: str  # the Message-ID header, for logs and searches
    source: Source
    drop_id: str | None = None  # of its file in the maildrop: no two messages have the same
    given_sender: str = ""  # before rewriting; for the log, not stored
    has_denied_source: bool = False  # told where it came from and was not believed; not stored
    link_value: str | None = None  # of its web.link_header
    is_bounce_mail: bool = False  # to bounces.inbound: it is read, see feedback.bounce_mail
    mail_class: MailClass | None = None  # what it is counted as; not stored. None: not counted
    refused_recipients: int = 0  # that its client named and was refused; not stored
    mail_key: str | None = None  # of client, envelope and content: taken once; None: each time
    handed_over_ms: int | None = None  # to the maildrop, see `came_at_ms`; not stored

    @property
    def came_at_ms(self) -> int:
        """When its client handed it over: mail may lie in a maildrop for hours."""
        return self.accepted_at_ms if self.handed_over_ms is None else self.handed_over_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipient:
    """A pending recipient of a claimed delivery."""

    rcpt_no: int
    address: str
    original: str | None
    attempts: int
    dsn_notify: str | None = None
    listed: Listed | None = None  # it is suppressed, as the claim found
    dsn_orcpt: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedDelivery(MessageInHand):
    """A leased delivery with all that an attempt needs; `content` only when it is small."""

    delivery_no: int
    route: str
    stream: str
    recipients: tuple[Recipient, ...]
    content: bytes | None
    chunk_count: int
    claimed_at_ms: int
    due_at_ms: int  # as the queue has it: no outcome of this lease may have the same
    held_ms: int  # time spent held; does not count against the lifetime
    attempts: int
    doubts: int
    reclaims: int = 0  # times a worker died while sending it
    provider: str | None = None  # the last one tried
    source: Source = Source()
    released: str | None = None  # a Released, else as strict as ALLOWED; None: as it came in
    probes: str | None = None  # the provider that may take its sender again: it finds out
    standing: frozenset[str] = frozenset()  # the standing holds in force when it was claimed

    @property
    def may_be_taken(self) -> bool:
        """True when its provider may have it already."""
        return self.doubts > 0 or self.reclaims > 0

    @property
    def sender_domains(self) -> tuple[str, ...]:
        """Domains for which a provider may refuse it: of its sender; of From, if that is at hand.

        From is of the header that comes with the claim, which large content does not.
        """
        author = "" if self.content is None else author_domain(self.content)
        return tuple(dict.fromkeys((sender_domain(self.sender), *([author] if author else []))))

    @property
    def is_untried(self) -> bool:
        """True when nothing is to be known of earlier tries, and no provider has it."""
        return not (self.attempts or self.doubts or self.reclaims) and self.provider is None


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
    is_dead_address: bool = False  # the reply says that the address does not work
    is_relayed: bool = False  # delivered, and only we can tell its sender, who asked to hear it


class Warned(NamedTuple):
    """A recipient that is sent to although it is suppressed: told once."""

    rcpt_no: int
    address: str
    listed: Listed


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryUpdate:
    """What to write for one delivery after an attempt.

    `hold` says why it is held or put off, `reason` the same in words, or what the provider said.
    `held_apart`: recipients moved to a held delivery of their own. `is_first_try`: no provider was
    asked before. With the state ACTIVE it tells of a part: the lease stays.
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
    warned: tuple[Warned, ...] = ()

    @property
    def tells_of_sending(self) -> bool:
        """True unless it only gives a delivery back: then nothing of it was sent."""
        return self.charged or self.doubted or bool(self.recipients)
