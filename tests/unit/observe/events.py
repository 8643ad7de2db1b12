"""Events of every kind, harmless ones and hostile ones."""

from __future__ import annotations

from typing import Any

from relaygw.mail.envelope import (
    ClaimedDelivery,
    DeliveryUpdate,
    NewRecipient,
    Recipient,
    RecipientUpdate,
    Source,
)
from relaygw.mail.outcome import AttemptDelays, AttemptReport
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.mail.verdict import Kind
from relaygw.observe.events import Accepted, Attempted, Event, Judged, Note, Rejected
from tests.builders import NOW_MS, accepted, claimed

REPORT = AttemptReport(
    provider="p",
    relay="mx.test[1.2.3.4]:587",
    outcomes=(),
    delays=AttemptDelays(queue_s=0.014, connect_s=12.3),
)
HOSTILE = [
    "a\r\nNov 25 08:45:19 gw relaygw/smtp[1]: X: to=<b@x>, relay=x, delay=0, status=sent (ok)",
    "from=<a@b>, size=99999, nrcpt=1",
    "to=<a@b>, relay=x, delay=1, delays=0/0/0/0, dsn=2.0.0, status=sent (ok)",
    "[1]: ABC: client=unknown[1.2.3.4], x",
    ": uid=0 from=<root>",
    "reject: RCPT from x[1]: 550 5.7.1 no; from=<a>",
    "warning: header Subject: x",
    "it was forwarded as you asked",
    "\x1b[31mred\x1b[0m\x07",
    "a\x00b\x7fc\x85d\u2028e\u2029f",
    "\u202egnp.exe\u200b\ufeff",
    "half \ud800 of one, \udcff of a byte",
    '"quoted", {"ts": 1}\\',
    ")) ((",
    "",
    "=?utf-8?q?=0d=0aRCPT?=",
    "名前 ünïcödé 🎉",
    "x" * 10_000,
    "\U000e0001" * 3000,
]


def outcome(
    state: RecipientState = RecipientState.DELIVERED,
    reply: str | None = "250 2.0.0 Ok",
    *,
    address: str = "b@cust.test",
    original: str | None = None,
    charged: bool = True,
    provider: str | None = "p",
    **more: Any,
) -> Attempted:
    """Return what came of one recipient, a second and a half after acceptance; others follow."""
    recipient = Recipient(rcpt_no=0, address=address, original=original, attempts=2)
    change = RecipientUpdate(
        rcpt_no=0, state=state, reply=reply, dsn="2.0.0", provider=provider, charged=charged
    )
    return attempted(claimed(recipients=(recipient,), **more), DeliveryState.ACTIVE, change)


def judged(kind: Kind, **more: Any) -> Judged:
    """Return what a provider reported of a recipient, a minute after acceptance."""
    given = {
        "queue_id": "1M8AH60XP5YKE8QBH",
        "address": "b@cust.test",
        "provider": "p",
        "kind": kind,
        "at_ms": NOW_MS + 60_000,
        "dsn": None,
        "detail": "",
        "sender": "a@shop.test",
        "subject": "x",
        "accepted_at_ms": NOW_MS,
    }
    return Judged(**{**given, **more})


def attempted(
    delivery: ClaimedDelivery,
    state: DeliveryState,
    *changes: RecipientUpdate,
    reason: str | None = None,
) -> Attempted:
    """Return the end of an attempt."""
    update = DeliveryUpdate(
        queue_id=delivery.queue_id,
        delivery_no=delivery.delivery_no,
        state=state,
        due_at_ms=NOW_MS,
        provider="p",
        reason=reason,
        recipients=changes,
    )
    return Attempted(delivery, update, REPORT, NOW_MS + 1500)


def events_with(text: str) -> list[Event]:
    """Return an event of every kind that has `text` wherever a stranger may put one."""
    address = text or "x"
    source = Source(client="10.0.0.5", user=text, script=text, host=text, uid=33)
    entry = NewRecipient(
        address=address, original=address, state=RecipientState.CAPTURED, reason=f"because {text}"
    )
    message = accepted(entry, sender=address, subject=text, message_id=text, source=source)
    local = accepted(
        sender="a@shop.test",
        subject=text,
        given_sender=address,
        source=Source(uid=33, script=text, cwd=text),
    )
    delivery = claimed(sender=address, subject=text, source=source)
    return [
        Accepted(message),
        Accepted(local),
        *(
            outcome(
                state, f"451 {text}", address=address, original=address, subject=text, source=source
            )
            for state in (
                RecipientState.DELIVERED,
                RecipientState.PENDING,
                RecipientState.BOUNCED,
                RecipientState.EXPIRED,
            )
        ),
        attempted(delivery, DeliveryState.FINISHED),
        attempted(delivery, DeliveryState.HELD, reason=text),
        *(
            judged(kind, address=address, sender=address, subject=text, detail=text, dsn=text)
            for kind in (Kind.DELIVERED, Kind.HARD, Kind.COMPLAINED)
        ),
        Rejected(
            stage="RCPT",
            peer="unknown[10.0.0.5]",
            reply="550 5.7.1 no",
            sender=address,
            protocol="ESMTP",
            helo=text,
            command=text,
        ),
        Note("qmgr", f"provider main: {text}"),
        Note("smtpd", f"warning: {text}"),
    ]
