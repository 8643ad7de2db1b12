"""What a provider said, what that means for each recipient, and what is written down of it.

Verdict and scope are the whole language between `upstream`, `policy` and the store.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from relaygw.mail.state import DeliveryState, RecipientState

# --- replies (RFC 5321, RFC 3463) -------------------------------------------------------------

_ENHANCED = re.compile(r"([245])\.(\d{1,3})\.(\d{1,3})(?=\s|$)")


class EnhancedStatus(NamedTuple):
    """An enhanced status code, class.subject.detail."""

    klass: int
    subject: int
    detail: int

    def __str__(self) -> str:
        return f"{self.klass}.{self.subject}.{self.detail}"


class SmtpReply(NamedTuple):
    """One complete reply: its code and its text lines, without the code in front."""

    code: int
    lines: tuple[str, ...] = ("",)

    @property
    def text(self) -> str:
        """The lines joined by a space, as log lines and reports show them."""
        return " ".join(filter(None, self.lines))

    @property
    def status(self) -> EnhancedStatus | None:
        """The enhanced status of the first line, if its class fits the code (RFC 2034)."""
        match = _ENHANCED.match(self.lines[0]) if self.lines else None
        if match is None or int(match[1]) != self.code // 100:
            return None
        return EnhancedStatus(int(match[1]), int(match[2]), int(match[3]))

    @property
    def dsn(self) -> str:
        """The enhanced status, or the generic one of the reply's class (x.0.0)."""
        status = self.status
        if status is not None:
            return str(status)
        klass = self.code // 100
        return f"{klass if klass in (2, 4, 5) else 4}.0.0"

    @property
    def is_positive(self) -> bool:
        """True for 2xx."""
        return 200 <= self.code < 300

    @property
    def is_temporary(self) -> bool:
        """True for 4xx."""
        return 400 <= self.code < 500

    @property
    def is_permanent(self) -> bool:
        """True for 5xx."""
        return 500 <= self.code < 600

    def __str__(self) -> str:
        return f"{self.code} {self.text}".rstrip()


_ID = r"<?([!-;=?-~]*[A-Za-z0-9])>?"
_FORMS = tuple(
    re.compile(form, re.IGNORECASE)
    for form in (
        rf"\bqueued as {_ID}",  # Postfix and who talks like it: SendGrid, Mailjet, relaygw
        rf"\bids?={_ID}",  # Exim (SMTP2GO), KumoMTA
        r"\[InternalId=(\d+)",  # Exchange
        r"\bOK +\d{9,} +(\S+) +- +gsmtp\b",  # Gmail: the time, then the id
        rf"^{_ID} +message accepted for delivery",  # sendmail, OpenSMTPD
        r"\bqp +(\d+)$",  # qmail
        # the text is the id: SES, SparkPost; a word of letters alone is none
        r"^(?:message +)?OK:? +<?((?=\S*\d)[!-;=?-~]{8,})>?(?: +\[\S+)?$",
    )
)


def provider_id(reply: str) -> str | None:
    """Return the id that a provider gave a message, None when its 2xx reply names none.

    RFC 5321 section 4.2 leaves the text free; these are the forms in use. An id is what the
    provider's support and its own log ask for. `reply` is the reply to the content on one line.
    """
    text = re.sub(r"^2\d\d(?: |$)", "", reply.strip())
    text = re.sub(r"^2\.\d{1,3}\.\d{1,3}(?: |$)", "", text).strip()
    for form in _FORMS:
        match = form.search(text)
        if match is not None:
            return match[1]
    return None


# --- what they mean --------------------------------------------------------------------------


class Verdict(StrEnum):
    """What to do about a reply."""

    DELIVERED = "delivered"
    RETRY = "retry"  # this delivery waits its turn
    THROTTLE = "throttle"  # the provider slows down; no attempt is charged to the message
    HOLD = "hold"  # stop, keep the mail, tell someone
    BOUNCE = "bounce"  # refused for good
    DOUBT = "doubt"  # the connection was lost after the final dot: nobody knows


class Scope(StrEnum):
    """Whom a verdict concerns."""

    RECIPIENT = "recipient"
    MESSAGE = "message"
    SENDER_DOMAIN = "sender domain"
    CREDENTIAL = "credential"
    PROVIDER = "provider"


class Stage(StrEnum):
    """The step of an SMTP session that a reply or failure belongs to."""

    CONNECT = "connect"
    GREETING = "greeting"
    EHLO = "EHLO"
    STARTTLS = "STARTTLS"
    TLS = "TLS handshake"
    AUTH = "AUTH"
    MAIL = "MAIL FROM"
    RCPT = "RCPT TO"
    DATA = "DATA"
    CONTENT = "end of DATA"
    LOCAL = "local"  # decided here without asking the provider


BEFORE_MAIL = frozenset(
    {Stage.CONNECT, Stage.GREETING, Stage.EHLO, Stage.STARTTLS, Stage.TLS, Stage.AUTH}
)
"""Stages that say nothing about a message: a refusal there never bounces one."""


class Limit(StrEnum):
    """What a throttled sender had too much of."""

    RATE = "rate"
    CONNECTIONS = "connections"


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What a reply means: a row of the catalogue, or a generic rule.

    `wait_s` are the waits before the next tries, the last one again and again; empty: the usual
    ones. `source` says where the reply is documented, `rule` where the row stands; "none": no row.
    """

    verdict: Verdict
    scope: Scope
    limit: Limit | None = None  # of a throttle
    wait_s: tuple[float, ...] = ()
    explanation: str = ""
    remedy: str = ""
    source: str = ""
    rule: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipientOutcome:
    """What the provider said for one recipient; without a `reply`, `detail` has what happened."""

    rcpt_no: int
    meaning: Meaning
    stage: Stage
    reply: SmtpReply | None = None
    detail: str = ""
    dsn: str = "4.0.0"
    is_passed_on: bool = False  # the provider itself tells the sender what it wants to hear

    @property
    def verdict(self) -> Verdict:
        """What to do."""
        return self.meaning.verdict

    @property
    def scope(self) -> Scope:
        """Whom it concerns."""
        return self.meaning.scope

    @property
    def words(self) -> str:
        """What was said, or happened instead."""
        return str(self.reply) if self.reply is not None else self.detail


class AttemptDelays(NamedTuple):
    """Postfix's delays=a/b/c/d in seconds: before the queue, in it, connecting, sending."""

    intake_s: float = 0.0
    queue_s: float = 0.0
    connect_s: float = 0.0
    transmit_s: float = 0.0


NO_DELAYS = AttemptDelays()


NO_RELAY = "none"  # stands for the relay of an attempt that made no connection


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptReport:
    """All that one attempt to send one delivery found out."""

    provider: str
    relay: str  # "host[address]:port", or NO_RELAY
    outcomes: tuple[RecipientOutcome, ...]
    delays: AttemptDelays = NO_DELAYS
    session_uses: int = 1


NOBODY_ASKED = AttemptReport(provider="", relay=NO_RELAY, outcomes=())


# --- what is written down of it --------------------------------------------------------------


class AttemptState(StrEnum):
    """What an attempt brought a recipient, in a word."""

    DELIVERED = "delivered"
    DEFERRED = "deferred"
    THROTTLED = "throttled"  # the provider asked to slow down; not counted
    HELD = "held"  # the provider, its key or the sender is refused, or it was held here
    IN_DOUBT = "in doubt"  # it is not known whether the provider has taken it
    INTERRUPTED = "interrupted"  # the worker that was sending it died
    BOUNCED = "bounced"
    EXPIRED = "expired"
    BLOCKED = "blocked"
    WARNED = "warned"  # it is suppressed, and sent to all the same: stands before what that came to


REPEATED = frozenset({AttemptState.THROTTLED, AttemptState.HELD})
"""States without a charge: they may come again and again, and are counted in one place."""
PUT_OFF = (
    *(AttemptState.DEFERRED, AttemptState.THROTTLED),
    *(AttemptState.HELD, AttemptState.IN_DOUBT),
)
"""States after which a recipient waits."""
_WAITING = {
    Verdict.RETRY: AttemptState.DEFERRED,
    Verdict.THROTTLE: AttemptState.THROTTLED,
    Verdict.HOLD: AttemptState.HELD,
    Verdict.DOUBT: AttemptState.IN_DOUBT,
}


def attempt_state(
    recipient: RecipientState, delivery: DeliveryState, verdict: Verdict | None
) -> AttemptState:
    """Return what to write down of a recipient after an attempt."""
    if recipient is not RecipientState.PENDING:
        return AttemptState(recipient.value)
    return waiting_state(delivery) if verdict is None else _WAITING[verdict]


def waiting_state(delivery: DeliveryState) -> AttemptState:
    """Return what to write down of a delivery that nobody was asked about."""
    return AttemptState.HELD if delivery is DeliveryState.HELD else AttemptState.DEFERRED
