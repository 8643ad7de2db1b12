"""What is written down of an attempt."""

from __future__ import annotations

from enum import StrEnum

from relaygw.mail.outcome import Verdict
from relaygw.mail.state import DeliveryState, RecipientState


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
    """Return the state to record of a recipient after an attempt."""
    if recipient is not RecipientState.PENDING:
        return AttemptState(recipient.value)
    return waiting_state(delivery) if verdict is None else _WAITING[verdict]


def waiting_state(delivery: DeliveryState) -> AttemptState:
    """Return the state to record of a delivery that nobody was asked about."""
    return AttemptState.HELD if delivery is DeliveryState.HELD else AttemptState.DEFERRED
