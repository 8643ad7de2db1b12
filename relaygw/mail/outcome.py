"""What a provider's reply means for each recipient.

Verdict and scope are the whole language between `upstream`, `policy` and the store.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from relaygw.mail.reply import SmtpReply


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
