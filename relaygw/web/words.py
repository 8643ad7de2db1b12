"""Sizes, numbers, reasons and times as a page says them."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

from markupsafe import Markup, escape

from relaygw.mail import words
from relaygw.mail.clock import DAY_MS, clock_ms, rfc3339, utc_text, utc_time
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
    CaptureCode.HEADER_TOO_LONG: "Header longer than max_header_size",
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
    captured = (
        recipient for recipient in entry.recipients if recipient.state is RecipientState.CAPTURED
    )
    reasons = (
        reason_words(recipient_entry.reply, routes.get(recipient_entry.delivery_no, ""))
        for recipient_entry in captured
    )
    return list(dict.fromkeys(reasons))


def given_as(recipient: RecipientEntry) -> str:
    """Return a recipient's address as the client gave it, "" when that is the same."""
    return (
        recipient.original if recipient.original and recipient.original != recipient.address else ""
    )


# --- times ------------------------------------------------------------------------------
# Times on pages: one element for all, its text UTC; scripts write it in the browser's zone.


_SAID = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC")  # as `utc_text` writes it


def _date(at_ms: int) -> str:
    return f"{utc_time(at_ms).day} {utc_time(at_ms):%b %Y}"


def _short_date(at_ms: int, now: int) -> str:
    return _date(at_ms).removesuffix(f" {utc_time(now).year}")


def _day(at_ms: int) -> str:
    at = utc_time(at_ms)
    return f"{at:%A}, {at.day} {at:%B %Y}, UTC"


def _clock(at_ms: int) -> str:
    return utc_text(at_ms, "%H:%M")


def _seconds(at_ms: int) -> str:
    return utc_text(at_ms, "%H:%M:%S")


def exact(at_ms: int) -> str:
    """Return a time to the second: `25 Nov 2025, 10:04:03 UTC`."""
    return f"{_date(at_ms)}, {_seconds(at_ms)}"


def age(at_ms: int, now: int) -> str:
    """Return how long ago a time was, at most a week, else the day: `3 h`."""
    if now - at_ms < 10_000:
        return "now"
    if now - at_ms < 7 * DAY_MS:
        return words.age(now - at_ms, words.SPACED)
    return _short_date(at_ms, now)


def ago(at_ms: int, now: int) -> str:
    """Return how long ago a time was in a sentence: `just now`, `4 min ago`, `on 12 Nov`."""
    shown = age(at_ms, now)
    if shown == "now":
        return "just now"
    return f"{shown} ago" if now - at_ms < 7 * DAY_MS else f"on {shown}"


def until(at_ms: int, now: int) -> str:
    """Return how long until a time: `now`, `in 40 s`, `in 4 min`, `in 3 h`."""
    left_ms = at_ms - now
    return "now" if left_ms < 1000 else f"in {words.wait(left_ms, words.SPACED)}"


FORMS: dict[str, Callable[[int, int], str]] = {  # relaygw.js has the same ones
    "clock": lambda at_ms, _: _clock(at_ms),  # below the head of a day
    "minute": lambda at_ms, now: f"{_short_date(at_ms, now)}, {_clock(at_ms)}",
    "second": lambda at_ms, now: f"{_short_date(at_ms, now)}, {_seconds(at_ms)}",
    "exact": lambda at_ms, _: exact(at_ms),
    "date": lambda at_ms, _: _date(at_ms),
    "day": lambda at_ms, _: _day(at_ms),
    "age": age,
    "ago": ago,
    "until": until,
    "due": lambda at_ms, now: until(at_ms, now).replace("now", "due now"),
}


def time_tag(
    at_ms: int | None, form: str = "minute", *, label: str = "", css: str = "", tag: str = "time"
) -> Markup:
    """Return a time as an element, in one of FORMS, with the whole of it on hover; "" for None."""
    if at_ms is None:
        return Markup("")
    return Markup('<{0}{1} data-time="{2}" datetime="{3}" title="{4}">{5}</{0}>').format(
        *(tag, Markup(' class="{}"').format(css) if css else "", form, rfc3339(at_ms)),
        *(f"{label} {exact(at_ms)}".strip(), FORMS[form](at_ms, clock_ms())),
    )


def span_tag(start_ms: int, end_ms: int, text: str) -> Markup:
    """Return the text on hover of a step of a drawing: when it was, and `text`."""
    day = _short_date(start_ms, clock_ms())
    times = f"{day}, {utc_time(start_ms):%H:%M}–{_clock(end_ms)}"
    return Markup('<title data-span="{} {}">{}: {}</title>').format(
        rfc3339(start_ms), rfc3339(end_ms), times, text
    )


def with_times(text: str) -> Markup:
    """Return a text, escaped, with an element for each time that it tells in UTC."""

    def tagged(found: re.Match[str]) -> str:
        try:
            at = datetime.strptime(found[0], "%Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC)
        except ValueError:  # somebody else wrote it
            return found[0]
        return time_tag(int(at.timestamp() * 1000), "second")

    return Markup(_SAID.sub(tagged, escape(text)))


def utc_day(at_ms: int) -> int:
    """Return the number of the day of a time."""
    return at_ms // DAY_MS
