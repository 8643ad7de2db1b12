"""Times (of this machine's zone), sizes, numbers and reasons as a page says them."""

from __future__ import annotations

from functools import partial

from relaygw.mail import words
from relaygw.mail.clock import local_time, utc_text, utc_time
from relaygw.mail.state import RESULTS, CaptureCode, DeliveryState, RecipientState, capture_code
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
RESULT_LABELS = {result: result.value.capitalize() for result in RESULTS}
_REASONS = {
    CaptureCode.SANDBOX: "Sandbox mode",
    CaptureCode.NOT_ALLOWED: "Not on the allow list",
    CaptureCode.BLOCKED: "On the block list",
    CaptureCode.NO_DOMAIN: "No domain in the address",
    CaptureCode.INVALID_ADDRESS: "Not a valid address",
    CaptureCode.TOO_LARGE: "Larger than max_message_size",
}


def exact_time(at_ms: int) -> str:
    """Return a time to the second with its zone: `25 Nov 2025, 10:04:03 +0100`."""
    at = local_time(at_ms)
    return f"{at.day} {at:%b %Y, %H:%M:%S %z}"


def clock_time(at_ms: int, now: int) -> str:
    """Return a time to the second, with its day unless that is today."""
    at = local_time(at_ms)
    is_today = at.date() == local_time(now).date()
    return f"{at:%H:%M:%S}" if is_today else f"{at.day} {at:%b %H:%M:%S}"


def utc_clock(at_ms: int) -> str:
    """Return a time of a day for who has no scripts: `10:04 UTC`."""
    return utc_text(at_ms, "%H:%M")


def utc_exact(at_ms: int) -> str:
    """Return a time to the second: `25 Nov 2025, 10:04:03 UTC`."""
    return f"{utc_time(at_ms).day} {utc_text(at_ms, '%b %Y, %H:%M:%S')}"


def day_of(at_ms: int) -> str:
    """Return the day of a time for who has no scripts: `Friday, 27 November 2026`."""
    at = utc_time(at_ms)
    return f"{at:%A}, {at.day} {at:%B %Y}"


def iso_time(at_ms: int) -> str:
    """Return a time as a machine reads it, UTC."""
    return utc_time(at_ms).isoformat(timespec="milliseconds")


def age(at_ms: int | None, now: int) -> str:
    """Return how long ago a time was, at most a week; else the day; "" for no time: `3 h`."""
    if at_ms is None:
        return ""
    seconds = max(0, now - at_ms) // 1000
    if seconds < 10:
        return "now"
    if seconds < 7 * 86_400:
        return words.age(now - at_ms, words.SPACED)
    at, today = local_time(at_ms), local_time(now)
    return f"{at.day} {at:%b}" if at.year == today.year else f"{at:%b %Y}"


def ago(at_ms: int, now: int) -> str:
    """Return how long ago a time was in a sentence: `just now`, `4 min ago`, `on 12 Nov`."""
    shown = age(at_ms, now)
    if shown == "now":
        return "just now"
    return f"{shown} ago" if now - at_ms < 7 * 86_400_000 else f"on {shown}"


def until(at_ms: int | None, now: int) -> str:
    """Return how long until a time: `now`, `in 40 s`, `in 4 min`, `in 3 h`; "" for no time."""
    if at_ms is None:
        return ""
    left_ms = at_ms - now
    return "now" if left_ms < 1000 else f"in {words.age(left_ms, words.SPACED)}"


size = partial(words.size, units=words.SIZES)  # of three digits at most: 812 B, 4.1 kB, 25 MB
counted = partial(words.counted, form=",")  # 1 message, 1,234 messages


def reason_words(reason: str | None, route: str = "") -> str:
    """Return in plain words why a recipient was captured."""
    if not reason:
        return "No route matches" if route == CAPTURE_ROUTE else "Nothing may be sent there"
    return _REASONS.get(capture_code(reason), reason[:1].upper() + reason[1:])


def capture_reasons(entry: QueueEntry) -> list[str]:
    """Return why a message was captured, each reason once."""
    routes = {part.delivery_no: part.route for part in entry.deliveries}
    captured = (one for one in entry.recipients if one.state is RecipientState.CAPTURED)
    reasons = (reason_words(one.reply, routes.get(one.delivery_no, "")) for one in captured)
    return list(dict.fromkeys(reasons))


def given_as(one: RecipientEntry) -> str:
    """Return a recipient's address as the client gave it, "" when that is the same."""
    return one.original if one.original and one.original != one.address else ""
