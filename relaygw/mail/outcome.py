"""What an attempt came to: verdict and scope per recipient, the report, what is written down.

A verdict says what to do, a scope says whom it concerns; together they are the whole
language between the wire (`upstream`), the decisions (`policy`) and the store.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from relaygw.mail.reply import SmtpReply
from relaygw.mail.state import DeliveryState, RecipientState


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
    ones. `explanation` and `remedy` are for people, `source` says where the reply is documented,
    `rule` where the row stands that decided; "none" when no row knows the reply.
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
    """What the provider said for one recipient, and what that means.

    `reply` is None when no reply came (connection lost, time out); `detail` then says what
    happened, in words for the log.
    """

    rcpt_no: int
    meaning: Meaning
    stage: Stage
    reply: SmtpReply | None = None
    detail: str = ""
    dsn: str = "4.0.0"

    @property
    def verdict(self) -> Verdict:
        """What to do."""
        return self.meaning.verdict

    @property
    def scope(self) -> Scope:
        """Whom it concerns."""
        return self.meaning.scope


class AttemptDelays(NamedTuple):
    """Postfix's delays=a/b/c/d in seconds: before the queue, in it, connecting, sending."""

    intake_s: float = 0.0
    queue_s: float = 0.0
    connect_s: float = 0.0
    transmit_s: float = 0.0


NO_DELAYS = AttemptDelays()


NO_RELAY = "none"
"""Stands for the relay of an attempt that made no connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptReport:
    """All that one attempt to send one delivery found out."""

    provider: str
    relay: str  # "host[address]:port", or NO_RELAY
    outcomes: tuple[RecipientOutcome, ...]
    delays: AttemptDelays = NO_DELAYS
    session_uses: int = 1


# --- what is written down of it --------------------------------------------------------------


class AttemptState(StrEnum):
    """What an attempt brought a recipient, in a word."""

    DELIVERED = "delivered"
    DEFERRED = "deferred"
    THROTTLED = "throttled"  # the provider asked to slow down; not counted
    HELD = "held"  # the provider, its key or the sender is refused, or it was held here
    IN_DOUBT = "in doubt"  # nobody knows whether the provider has taken it
    INTERRUPTED = "interrupted"  # the worker that was sending it died
    BOUNCED = "bounced"
    EXPIRED = "expired"
    BLOCKED = "blocked"


REPEATED = frozenset({AttemptState.THROTTLED, AttemptState.HELD})
"""States without a charge: they may come again and again, and are counted in one place."""
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
