"""Sizes, numbers and reasons as a page says them."""

from __future__ import annotations

from functools import partial

from relaygw.mail import words
from relaygw.mail.result import ARRIVED, SHOWN
from relaygw.mail.state import CaptureCode, DeliveryState, RecipientState, capture_code
from relaygw.policy.router import CAPTURE_ROUTE
from relaygw.store.queue_entry import QueueEntry, RecipientEntry

STATES = {
    DeliveryState.DEFERRED: "Deferred",
    DeliveryState.HELD: "Held",
    DeliveryState.INCOMING: "Incoming",
    DeliveryState.ACTIVE: "Being sent",
    DeliveryState.FINISHED: "Finished",
    DeliveryState.DELETED: "In the trash",
}
RESULT_LABELS = {word: word.capitalize() for word in (*SHOWN, ARRIVED)}
_REASONS = {
    CaptureCode.SANDBOX: "Sandbox mode",
    CaptureCode.NOT_ALLOWED: "Not on the allow list",
    CaptureCode.BLOCKED: "On the block list",
    CaptureCode.SUPPRESSED: "Suppressed",
    CaptureCode.NO_DOMAIN: "No domain in the address",
    CaptureCode.INVALID_ADDRESS: "Not a valid address",
    CaptureCode.TOO_LARGE: "Larger than max_message_size",
    CaptureCode.BOUNCE_MAIL: "Bounce mail, read here",
}


took = words.took
size = partial(words.size, units=words.SIZES)  # of three digits at most: 812 B, 4.1 kB, 25 MB
counted = partial(words.counted, form=",")  # 1 message, 1,234 messages


def reason_words(reason: str | None, route: str = "") -> str:
    """Return in plain words why a recipient was captured."""
    if not reason:
        return "No route matches" if route == CAPTURE_ROUTE else "Nothing may be sent there"
    return _REASONS.get(capture_code(reason), reason[:1].upper() + reason[1:])


USUAL_REASONS = {  # of captures in a mode: not worth a word in a list
    "sandbox": _REASONS[CaptureCode.SANDBOX],
    "staging": _REASONS[CaptureCode.NOT_ALLOWED],
}


def capture_reasons(entry: QueueEntry) -> list[str]:
    """Return why a message was captured, each reason once."""
    routes = {part.delivery_no: part.route for part in entry.deliveries}
    captured = (one for one in entry.recipients if one.state is RecipientState.CAPTURED)
    reasons = (reason_words(one.reply, routes.get(one.delivery_no, "")) for one in captured)
    return list(dict.fromkeys(reasons))


def given_as(one: RecipientEntry) -> str:
    """Return a recipient's address as the client gave it, "" when that is the same."""
    return one.original if one.original and one.original != one.address else ""
