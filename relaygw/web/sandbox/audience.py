"""Whom a captured message was for: what became of each, and who would have got it, and how.

By the configuration of now, as a release would be decided; see policy.releasing.
"""

from __future__ import annotations

from dataclasses import dataclass

from relaygw.mail.envelope import Released
from relaygw.mail.state import RecipientState
from relaygw.operations.captured import plan_release
from relaygw.operations.release_plan import Copy, RefusedCopy, ReleaseResult, Wish
from relaygw.policy.releasing import Refusal
from relaygw.settings.model import Settings
from relaygw.store.protocol import DeliveryEntry, QueueEntry, RecipientEntry, Store
from relaygw.web.words import reason_words

MAX_RECIPIENTS = 100

_STATES = {
    RecipientState.PENDING: "On its way",
    RecipientState.DELIVERED: "Delivered",
    RecipientState.BOUNCED: "Bounced",
    RecipientState.EXPIRED: "Expired",
    RecipientState.CAPTURED: "Captured",
    RecipientState.BLOCKED: "Blocked",
    RecipientState.CANCELLED: "Cancelled",
}
_OUTLOOKS = {
    Refusal.INVALID: "Could not be sent: this is no valid address.",
    Refusal.BLOCKED: "Is never sent to: on the block list.",
    Refusal.OUTSIDE: "Only an admin may release it.",
    Refusal.WAITING: "Is on its way there already.",
    Refusal.NO_ROUTE: "Could not be sent: no route and provider for it is configured.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """One recipient of the envelope."""

    address: str
    original: str  # "" when it is the same
    state: str
    tone: str  # captured, sent, waiting or failed
    story: str  # why it was captured, or what the provider said
    outlook: str  # what would happen to it now, "" when it has happened
    route: str
    providers: tuple[str, ...]


def audience(store: Store, settings: Settings, entry: QueueEntry) -> list[Reader]:
    """Return the recipients of a message, at most MAX_RECIPIENTS."""
    planned = plan_release(store, settings, [entry.queue_id], Wish(is_admin=True, anyone=True))
    outlooks = _by_address(planned)
    deliveries = {part.delivery_no: part for part in entry.deliveries}
    return [
        _reader(one, deliveries.get(one.delivery_no), outlooks.get(one.address), settings)
        for one in entry.recipients[:MAX_RECIPIENTS]
    ]


def _by_address(planned: ReleaseResult) -> dict[str, Copy | RefusedCopy]:
    refused = {one.captured: one for one in planned.refused}
    return refused | {one.captured: one for one in planned.copies}


def _reader(
    one: RecipientEntry,
    delivery: DeliveryEntry | None,
    outlook: Copy | RefusedCopy | None,
    settings: Settings,
) -> Reader:
    is_captured = one.state is RecipientState.CAPTURED
    filed_under = delivery.route if delivery is not None else ""
    copy = outlook if is_captured and isinstance(outlook, Copy) else None
    route = copy.route if copy is not None else ("" if is_captured else filed_under)
    return Reader(
        address=one.address,
        original=one.original if one.original and one.original != one.address else "",
        state=_state(one, delivery),
        tone=_TONES[one.state],
        story=reason_words(one.reply, filed_under) if is_captured else one.reply or "",
        outlook=_outlook(outlook) if is_captured else "",
        route=route,
        providers=_providers(settings, route, one),
    )


_TONES = {
    RecipientState.PENDING: "waiting",
    RecipientState.DELIVERED: "sent",
    RecipientState.BOUNCED: "failed",
    RecipientState.EXPIRED: "failed",
    RecipientState.CAPTURED: "captured",
    RecipientState.BLOCKED: "failed",
    RecipientState.CANCELLED: "failed",
}


def _state(one: RecipientEntry, delivery: DeliveryEntry | None) -> str:
    is_released = delivery is not None and delivery.released is not None
    return f"Released: {_STATES[one.state].lower()}" if is_released else _STATES[one.state]


def _outlook(outlook: Copy | RefusedCopy | None) -> str:
    if outlook is None:
        return ""
    if isinstance(outlook, RefusedCopy):
        return _OUTLOOKS[outlook.refusal]
    if outlook.released is Released.ANYONE:
        return _OUTLOOKS[Refusal.OUTSIDE]
    return "May be released: the lists of now allow it."


def _providers(settings: Settings, route: str, one: RecipientEntry) -> tuple[str, ...]:
    if one.provider:
        return (one.provider,)
    return next((tuple(each.providers) for each in settings.routes if each.name == route), ())
