"""States of a delivery and of a recipient, and the one table of allowed changes.

The store asks `check_transition` before it writes; docs/states.md is printed from `TRANSITIONS`.
"""

from __future__ import annotations

from enum import StrEnum

from relaygw.errors import InvalidTransition


class DeliveryState(StrEnum):
    """Where one message on one route stands."""

    INCOMING = "incoming"  # never tried; moved on by a claim
    ACTIVE = "active"  # leased by one incarnation of a delivery worker
    DEFERRED = "deferred"  # due again at due_at_ms; moved on by a claim
    HELD = "held"  # no timer; moved on by an operator or a probe
    FINISHED = "finished"  # every recipient has its final state; kept for the retention
    DELETED = "deleted"  # in the trash for seven days; moved on by the janitor


class RecipientState(StrEnum):
    """What became of one recipient."""

    PENDING = "pending"  # still to be delivered
    DELIVERED = "delivered"  # the provider answered 2xx after the final dot
    BOUNCED = "bounced"  # refused for good
    EXPIRED = "expired"  # not delivered within the lifetime, or ended by an operator
    CAPTURED = "captured"  # kept for the sandbox, never sent; a release adds a recipient
    BLOCKED = "blocked"  # on the block list or suppressed, dropped
    CANCELLED = "cancelled"  # deleted by an operator


RESULTS = (
    *(RecipientState.DELIVERED, RecipientState.BOUNCED, RecipientState.EXPIRED),
    *(RecipientState.BLOCKED, RecipientState.CAPTURED, RecipientState.CANCELLED),
)
"""What may become of a recipient in the end, as lists show it."""
WORST_FIRST = (
    *(RecipientState.BOUNCED, RecipientState.EXPIRED, RecipientState.BLOCKED),
    *(RecipientState.CANCELLED, RecipientState.CAPTURED, RecipientState.DELIVERED),
)
"""The same, as a message with several is seen."""
RARE_RESULTS = frozenset(RESULTS) - {RecipientState.DELIVERED, RecipientState.CAPTURED}
"""Those that an index lists by time (see store.queue_tables.HAS_RARE_OUTCOME)."""


class CaptureCode(StrEnum):
    """Why a recipient is captured, or blocked at acceptance; the queue keeps the sentence alone."""

    NO_ROUTE = "no_route"  # there is no sentence
    SANDBOX = "sandbox"
    NOT_ALLOWED = "not_allowed"
    BLOCKED = "blocked"
    SUPPRESSED = "suppressed"
    NO_DOMAIN = "no_domain"
    INVALID_ADDRESS = "invalid_address"  # kept in a readable form, which may be another's
    LOOP = "loop"
    TOO_LARGE = "too_large"
    HEADER_TOO_LONG = "header_too_long"
    BOUNCE_MAIL = "bounce_mail"
    OTHER = "other"

    def sentence(self, more: str = "") -> str:
        """Return the word that people read."""
        return _CAPTURED_FOR[self] + more


_CAPTURED_FOR = {
    CaptureCode.SANDBOX: "sandbox mode",
    CaptureCode.NOT_ALLOWED: "staging: not on the allow list",
    CaptureCode.BLOCKED: "on the block list",
    CaptureCode.SUPPRESSED: "suppressed",
    CaptureCode.NO_DOMAIN: "local recipient without a rule",
    CaptureCode.INVALID_ADDRESS: "invalid address",
    CaptureCode.LOOP: "mail loop",
    CaptureCode.TOO_LARGE: "larger than max_message_size",
    CaptureCode.HEADER_TOO_LONG: "header longer than max_header_size",
    CaptureCode.BOUNCE_MAIL: "bounce mail: read here, sent to nobody",
}
"""How the sentences begin; no beginning is changed, for the queue has older ones."""


def capture_code(sentence: str | None) -> CaptureCode:
    """Return the code of a sentence; NO_ROUTE without one."""
    if not sentence:
        return CaptureCode.NO_ROUTE
    found = (code for code, start in _CAPTURED_FOR.items() if sentence.startswith(start))
    return next(found, CaptureCode.OTHER)


CLAIMABLE = frozenset({DeliveryState.INCOMING, DeliveryState.DEFERRED})
"""States from which a delivery may be claimed."""

OPEN = frozenset(
    {DeliveryState.INCOMING, DeliveryState.ACTIVE, DeliveryState.DEFERRED, DeliveryState.HELD}
)
"""States in which a message counts as queued."""

EXPIRED_BY = "expired by "
"""In front of who ended a delivery by hand, in what is kept of its recipients."""
_D = DeliveryState
TRANSITIONS: dict[DeliveryState, frozenset[DeliveryState]] = {
    # a delivery without pending recipients is FINISHED from the start
    # FINISHED from anything but ACTIVE: an operator lets it expire
    # DEFERRED from INCOMING: an operator makes it due
    _D.INCOMING: frozenset({_D.ACTIVE, _D.DEFERRED, _D.HELD, _D.DELETED, _D.FINISHED}),
    # INCOMING: given back untried; ACTIVE never returns to itself, a claim is exclusive
    _D.ACTIVE: frozenset({_D.INCOMING, _D.DEFERRED, _D.HELD, _D.FINISHED}),
    _D.DEFERRED: frozenset({_D.ACTIVE, _D.DEFERRED, _D.HELD, _D.DELETED, _D.FINISHED}),
    _D.HELD: frozenset({_D.DEFERRED, _D.DELETED, _D.FINISHED}),
    _D.FINISHED: frozenset(),
    _D.DELETED: frozenset({_D.DEFERRED, _D.HELD}),  # what it was before
}


def check_transition(old: DeliveryState, new: DeliveryState) -> None:
    """Raise InvalidTransition unless `old` may become `new`."""
    if new not in TRANSITIONS[old]:
        allowed = ", ".join(sorted(TRANSITIONS[old])) or "nothing, it is final"
        raise InvalidTransition(f"a delivery cannot go from {old} to {new}; allowed: {allowed}")


def sources_of(new: DeliveryState) -> frozenset[DeliveryState]:
    """Return the states that may become `new`: the guard of every UPDATE."""
    return frozenset(old for old, targets in TRANSITIONS.items() if new in targets)
