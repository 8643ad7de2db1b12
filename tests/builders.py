"""Builds the values that tests of several rooms need."""

from __future__ import annotations

from typing import Any

from relaygw.mail.envelope import (
    AcceptedMessage,
    ClaimedDelivery,
    DeliveryUpdate,
    NewDelivery,
    NewRecipient,
    Recipient,
    RecipientUpdate,
    Source,
)
from relaygw.mail.hold import HoldCause
from relaygw.mail.queue_id import QueueIdSource
from relaygw.mail.search import make_term
from relaygw.mail.standing_hold import HoldScope, StandingHold
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.operations.selectors import SELECTORS
from relaygw.store.instances import Instance
from relaygw.store.selection import Selection

NOW_MS = 1_795_600_000_000


def accepted(
    *recipients: str | NewRecipient,
    route: str = "default",
    at_ms: int = NOW_MS,
    content: bytes = b"Subject: x\r\n\r\nhello\r\n",
    holds: tuple[HoldCause, ...] = (),
    **more: Any,
) -> AcceptedMessage:
    """Return a message with one delivery to `recipients`, held for all of `holds`."""
    entries = tuple(
        entry if isinstance(entry, NewRecipient) else NewRecipient(address=entry)
        for entry in recipients or ("b@cust.test",)
    )
    part = NewDelivery(route=route, stream="transactional", recipients=entries, holds=holds)
    values: dict[str, Any] = {
        "queue_id": QueueIdSource().next_id(at_ms),
        "accepted_at_ms": at_ms,
        "sender": "a@shop.test",
        "deliveries": (part,),
        "content": (content,),
        "size_bytes": len(content),
        "subject": "x",
        "message_id": "<1@shop.test>",
        "is_8bit": False,
        "has_long_line": False,
        "smtputf8": False,
        "mode": "production",
        "source": Source(client="127.0.0.1", helo="shop.test"),
        "client_key": "127.0.0.0/24",
    }
    return AcceptedMessage(**values | more)


def part_on(route: str, *addresses: str) -> NewDelivery:
    """Return the part of a message that takes a route."""
    people = tuple(NewRecipient(address=one) for one in addresses)
    return NewDelivery(route=route, stream="transactional", recipients=people)


def selected(**values: Any) -> Selection:
    """Return a selection of conditions, of those that are terms by the names of selectors."""
    fields = {name: selector.field for name, selector in SELECTORS.items()}
    terms = {name: values.pop(name) for name, field in fields.items() if field and name in values}
    made = tuple(make_term(fields[name], value) for name, value in terms.items())
    return Selection(terms=made, **values)


def update_of(queue_id: str, **more: Any) -> DeliveryUpdate:
    """Return the outcome of a delivery that is finished, without recipients."""
    values = {
        "delivery_no": 0,
        "state": DeliveryState.FINISHED,
        "due_at_ms": NOW_MS,
        "provider": "main",
        "reason": None,
        "recipients": (),
    }
    return DeliveryUpdate(queue_id=queue_id, **values | more)


def taken(rcpt_no: int, **more: Any) -> RecipientUpdate:
    """Return the outcome of a recipient that a provider took."""
    values = {"reply": "250 2.0.0 Ok", "dsn": "2.0.0", "provider": "main"}
    return RecipientUpdate(rcpt_no=rcpt_no, state=RecipientState.DELIVERED, **values | more)


def claimed(*recipients: str, **more: Any) -> ClaimedDelivery:
    """Return a claimed delivery to `recipients`."""
    values: dict[str, Any] = {
        "queue_id": QueueIdSource().next_id(NOW_MS),
        "delivery_no": 0,
        "route": "default",
        "stream": "transactional",
        "sender": "a@shop.test",
        "recipients": tuple(
            Recipient(rcpt_no=number, address=address, original=None, attempts=0)
            for number, address in enumerate(recipients or ("b@cust.test",))
        ),
        "content": b"Subject: x\r\n\r\nhello\r\n",
        "chunk_count": 1,
        "size_bytes": 21,
        "subject": "x",
        "is_8bit": False,
        "has_long_line": False,
        "smtputf8": False,
        "mode": "production",
        "accepted_at_ms": NOW_MS,
        "claimed_at_ms": NOW_MS,
        "due_at_ms": NOW_MS - 1,
        "held_ms": 0,
        "attempts": 0,
        "doubts": 0,
        "client_key": "127.0.0.0/24",
    }
    return ClaimedDelivery(**values | more)


def instance(incarnation: str, role: str = "delivery", **more: Any) -> Instance:
    """Return a process to register; by default a worker of the gateway `gw`."""
    values: dict[str, Any] = {"name": "gw", "pid": 1, "version": "1", "fingerprint": "f"}
    return Instance(incarnation=incarnation, role=role, **values | more)


class Clock:
    """What stands for the module `time` where a test moves the clock."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


def standing_hold(scope: HoldScope, value: str, **more: Any) -> StandingHold:
    """Build a standing hold that somebody ends, of long ago."""
    values: dict[str, Any] = {
        "hold_id": "3f2a9c1d",
        "reason": "",
        "by": "ann",
        "since_ms": NOW_MS,
        "until_ms": None,
    }
    return StandingHold(scope=scope, value=value, **values | more)
