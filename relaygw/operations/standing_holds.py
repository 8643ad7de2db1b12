"""Standing holds in the hands of operators: set, ended and listed; see mail.standing_hold."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

from relaygw.mail.address import folded
from relaygw.mail.clock import rfc3339, rfc3339_or_none, utc_text
from relaygw.mail.search import Field, make_term
from relaygw.mail.standing_hold import HoldScope, StandingHold
from relaygw.mail.state import CLAIMABLE, DeliveryState, RecipientState
from relaygw.mail.suppression import NULL_SENDER
from relaygw.mail.words import counted
from relaygw.operations.queue_actions import found_batches
from relaygw.operations.readers import read_domain, read_line, read_mailbox
from relaygw.operations.selectors import read_end
from relaygw.operations.verb import Asked, Done, Mistake, Parameter, Verb
from relaygw.policy.standing_holds import StandingHolds
from relaygw.policy.untended import known_routes
from relaygw.store.holds import ended_entry
from relaygw.store.queue_entry import DeliveryEntry, QueueEntry
from relaygw.store.queue_tables import Key
from relaygw.store.selection import Selection
from relaygw.store.store import Store

NO_END = "none"
"""Given as the end: the hold lasts until somebody ends it."""
_S = HoldScope
_BEING_SENT = frozenset({DeliveryState.ACTIVE})
# by which most of the waiting mail is found; workers hold what is spelled otherwise
_FIELDS = {
    _S.RECIPIENT: Field.TO,
    _S.RECIPIENT_DOMAIN: Field.DOMAIN,
    _S.SENDER: Field.FROM,
    _S.SENDER_DOMAIN: Field.SENDER_DOMAIN,
    _S.SUBJECT: Field.SUBJECT,
    _S.ROUTE: Field.ROUTE,
}


def waiting_of(store: Store) -> list[tuple[StandingHold, int]]:
    """Return the standing holds in force, oldest first, each with how much waits for it."""
    holds = store.holds.standing()
    waiting: Counter[str | None] = Counter()
    for group in store.holds.held_mail() if holds else ():
        waiting[group.cause.hold_id] += group.deliveries
    return [(hold, waiting[hold.hold_id]) for hold in holds]


def hold_object(hold: StandingHold, waiting: int) -> dict[str, Any]:
    """Return a standing hold for JSON."""
    return {
        "id": hold.hold_id,
        "scope": hold.scope.value,
        "value": hold.value or NULL_SENDER,
        "since": rfc3339(hold.since_ms),
        "until": rfc3339_or_none(hold.until_ms),
        "reason": hold.reason,
        "by": hold.by,
        "waiting": waiting,
    }


# --- what is given ------------------------------------------------------------------------


def _address(text: str) -> str:
    return folded(read_mailbox(text))


def _sender(text: str) -> str:
    return "" if text == NULL_SENDER else _address(text)


def _route(text: str, asked: Asked) -> str:
    routes = known_routes(asked.settings)
    if text not in routes:
        raise ValueError(f"is not a route; there are {', '.join(sorted(routes))}")
    return text


def _network(text: str) -> str:
    try:
        return str(ip_network(text, strict=False))
    except ValueError:
        raise ValueError("is not an IP address or network") from None


def _end(text: str, asked: Asked) -> int | None:
    return None if text == NO_END else read_end(text, now_ms=asked.now_ms)


def _hold(text: str, asked: Asked) -> StandingHold:
    holds = {hold.hold_id: hold for hold in asked.store.holds.standing()}
    if text not in holds:
        raise ValueError("is not the id of a standing hold in force")
    return holds[text]


_SCOPES = (
    Parameter(name=_S.RECIPIENT_DOMAIN, help="All mail to recipients at DOMAIN.",
              metavar="DOMAIN", example="gmx.example", read=read_domain),
    Parameter(name=_S.RECIPIENT, help="All mail to ADDRESS.",
              metavar="ADDRESS", example="ann@gmx.example", read=_address),
    Parameter(name=_S.SENDER, help="All mail of the envelope sender ADDRESS, or <>.",
              metavar="ADDRESS", example="shop@shop.example", read=_sender),
    Parameter(name=_S.SENDER_DOMAIN, help="All mail of envelope senders at DOMAIN.",
              metavar="DOMAIN", example="shop.example", read=read_domain),
    Parameter(name=_S.SUBJECT, help="All mail whose subject contains TEXT, in any case.",
              metavar="TEXT", example="invoice", read=read_line),
    Parameter(name=_S.ROUTE, help="All mail of the route NAME.",
              metavar="NAME", example="one as relaygw status shows it", look_up=_route),
    Parameter(name=_S.CLIENT, help="All mail that came from the address or network NETWORK.",
              metavar="NETWORK", example="10.0.0.7 or 10.0.0.0/24", read=_network),
)  # fmt: skip


# --- verbs --------------------------------------------------------------------------------


def _add(asked: Asked, given: Mapping[str, Any]) -> Done:
    named = [hold_scope for hold_scope in HoldScope if hold_scope in given]
    if len(named) != 1:
        what = " and ".join(hold_scope.replace("_", "-") for hold_scope in named) or "nothing"
        expected = ", ".join(hold_scope.replace("_", "-") for hold_scope in HoldScope)
        raise Mistake(f"the hold is about {what}", f"one of {expected}")
    scope, store = named[0], asked.store
    while True:  # until what it renews has not ended meanwhile
        hold = _renewed(asked, scope, given)
        until = f"until {rfc3339(hold.until_ms)}" if hold.until_ms else ""
        detail = "; ".join(filter(None, (until, hold.reason)))
        entry = asked.audited("hold.add", f"{hold.hold_id} {hold.words}", detail=detail)
        if store.holds.put_standing(hold, entry=entry):
            break
    _hold_waiting(store, hold)
    waiting = {standing.hold_id: number for standing, number in waiting_of(store)}
    number = waiting.get(hold.hold_id, 0)
    in_hand = sum(map(len, _kept(store, hold, _BEING_SENT, any)))
    return Done(
        answer={**hold_object(hold, number), "being_sent": in_hand},
        lines=[_added_words(hold, number, in_hand)],
        number=number,
    )


def _renewed(asked: Asked, scope: HoldScope, given: Mapping[str, Any]) -> StandingHold:
    """Return the hold that is asked for: the same in force with what is given, or a new one."""
    new = StandingHold(
        hold_id=secrets.token_hex(4),
        scope=scope,
        value=given[scope],
        reason="",
        by=asked.actor,
        since_ms=asked.now_ms,
        until_ms=None,
    )
    holds = {(known.scope, known.value): known for known in asked.store.holds.standing()}
    known = holds.get((scope, given[scope]), new)
    # no worker may have ended yet what is over
    kept_ms = None if known.is_over(asked.now_ms) else known.until_ms
    return replace(
        known,
        reason=given.get("reason", known.reason),
        by=asked.actor,
        until_ms=given.get("until", kept_ms),
    )


def _added_words(hold: StandingHold, waiting: int, in_hand: int) -> str:
    end = f"it is ended: relaygw hold end {hold.hold_id}"
    if hold.until_ms:
        end = utc_text(hold.until_ms)
    what = f"{hold.scope.replace('_', ' ')} {hold.value or NULL_SENDER}"
    begun = f"; at most {counted(in_hand, 'message')} already being sent" if in_hand else ""
    return (
        f"{hold.hold_id}: {what}, {counted(waiting, 'message')} waiting; held until {end}; "
        f"in force{begun}"
    )


def _hold_waiting(store: Store, hold: StandingHold) -> None:
    """Hold the waiting mail; what has other recipients as well waits for a worker."""
    for keys in _kept(store, hold, CLAIMABLE, all):
        store.holds.park(keys, hold.cause)


def _kept(
    store: Store,
    hold: StandingHold,
    states: frozenset[DeliveryState],
    of_recipients: Callable[[Iterable[bool]], bool],
) -> Iterator[list[Key]]:
    """Yield deliveries in these states that a hold keeps from all or any of their recipients."""
    holds = StandingHolds([hold])
    is_found = hold.scope in _FIELDS and hold.value
    terms = (make_term(_FIELDS[hold.scope], hold.value),) if is_found else ()
    for ids in found_batches(store, Selection(states=states, terms=terms)):
        keys = [
            (entry.queue_id, part.delivery_no)
            for entry in store.queue.entries(ids)
            for part in entry.deliveries
            if part.state in states and of_recipients(_are_kept(entry, part, holds))
        ]
        if keys:
            yield keys


def _are_kept(entry: QueueEntry, part: DeliveryEntry, holds: StandingHolds) -> list[bool]:
    waiting = (
        recipient.address
        for recipient in entry.recipients
        if recipient.delivery_no == part.delivery_no and recipient.state is RecipientState.PENDING
    )
    kept = holds.of_each(
        waiting,
        route=part.route,
        sender=entry.sender,
        subject=entry.subject,
        client=entry.source.client,
    )
    return [hold is not None for hold in kept]


def _end_hold(asked: Asked, given: Mapping[str, Any]) -> Done:
    hold: StandingHold = given["id"]
    entry = ended_entry(hold, asked.actor, asked.now_ms, hold.reason)
    asked.store.holds.drop_hold(hold.scope.value, hold.value, entry=entry)
    released = asked.store.holds.release_standing({hold.hold_id})
    due = f"{counted(released.due, 'message')} due, unless another hold keeps them"
    return Done(
        answer={
            "id": hold.hold_id,
            "released": released.due,
            "still_held": released.ended - released.due,
            "held_for": sorted(cause.sentence for cause in released.others),
        },
        lines=[f"{hold.hold_id}: ended; {due}{released.left_words}"],
        number=released.due,
    )


ADD = Verb(
    name="add",
    help="Hold all mail that has something in common: what waits, and what comes.",
    parameters=(
        *_SCOPES,
        Parameter(name="until", metavar="T", look_up=_end,
                  help=f"End it by itself at T: 18:00, 2h, or a date; {NO_END}: by hand only.",
                  example=f"18:00, 2h, 2026-12-24 or {NO_END}"),
        Parameter(name="reason", help="The reason, shown with the hold and its mail.",
                  metavar="TEXT", example="their server is down", read=read_line),
    ),
    run=_add,
)  # fmt: skip
END = Verb(
    name="end",
    help="End a standing hold: its mail is due, unless something else holds it, too.",
    parameters=(
        Parameter(name="id", help="Of the hold.", metavar="ID", look_up=_hold, is_target=True,
                  example="an id of: relaygw hold list"),
    ),
    run=_end_hold,
)  # fmt: skip
VERBS = (ADD, END)
