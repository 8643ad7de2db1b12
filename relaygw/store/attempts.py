"""What was done with one message, try by try and by operators: part of the store.

A first try that was taken at once leaves no attempt: the recipient itself tells of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from relaygw.mail.attempt import AttemptState

if TYPE_CHECKING:  # protocol.Store inherits from here
    from relaygw.store.protocol import AuditEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptEntry:
    """What an attempt came to; attempts without a charge that were alike are one entry."""

    delivery_no: int
    rcpt_no: int | None  # None: all that the delivery had left
    at_ms: int  # the last one
    since_ms: int  # the first one
    times: int
    provider: str | None
    relay: str | None  # "host[address]:port"
    stage: str  # a mail.outcome.Stage
    state: AttemptState
    reply: str  # or what happened, where no reply came
    dsn: str | None
    next_at_ms: int | None  # when it is due again


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryCircumstances:
    """What only the store knows of a delivery; times in ms."""

    delivery_no: int
    changed_at_ms: int
    held_at_ms: int | None
    held_ms: int  # time spent held so far, which does not count as age
    doubts: int
    reclaims: int  # workers that died with it
    lease: str | None  # the incarnation that has it in hand


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageRecord:
    """What was done with a message so far, of one moment."""

    attempts: tuple[AttemptEntry, ...] = ()  # oldest first
    actions: tuple[AuditEntry, ...] = ()  # of operators, oldest first
    deliveries: tuple[DeliveryCircumstances, ...] = ()
    finished_at_ms: int | None = None


MOST_ATTEMPTS = 200
"""Of one message: the newest are kept."""
_COUNTED = frozenset({AttemptState.DEFERRED, AttemptState.IN_DOUBT})


def tried_since_ms(attempts: Iterable[AttemptEntry], delivery_no: int) -> int | None:
    """Return when a provider was first asked to take a delivery, in an attempt that counts.

    None when none is written down; of a history that was cut it is the oldest that is left.
    """
    asked = (
        one.since_ms
        for one in attempts
        if one.delivery_no == delivery_no and one.provider is not None and one.state in _COUNTED
    )
    return min(asked, default=None)


class Attempts(Protocol):
    """Attempts and actions in a database; `protocol.Store` says what holds for all methods."""

    def attempts(self, queue_id: str) -> list[AttemptEntry]:
        """Return the attempts to send a message, oldest first: the newest MOST_ATTEMPTS."""

    def record_of(self, queue_id: str) -> MessageRecord:
        """Return all that was done with a message; of an unknown one, what operators did."""
