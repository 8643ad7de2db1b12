"""Events of Brevo: one object a post, or an array; not signed, believed by a login or a field.

https://developers.brevo.com/docs/transactional-webhooks
https://developers.brevo.com/docs/username-and-password-authentication

Every status but 2xx and 429 has a post discarded for good: 429 is said whenever it may be right
later, and for a wrong login, so that a mistake in the settings costs no events.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone, tzinfo
from http import HTTPStatus
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from relaygw.feedback import document
from relaygw.feedback.document import Members
from relaygw.feedback.format import Format, Post, Refused, Trust, Verified
from relaygw.feedback.logins import check_login, login_problem
from relaygw.mail.verdict import Event, Kind

_KINDS = {
    "request": Kind.ACCEPTED,
    "delivered": Kind.DELIVERED,
    "deferred": Kind.DEFERRED,
    "hard_bounce": Kind.HARD,
    "invalid_email": Kind.HARD,
    "soft_bounce": Kind.SOFT,
    "blocked": Kind.BLOCKED,
    "spam": Kind.COMPLAINED,
    "complaint": Kind.COMPLAINED,
    "unsubscribe": Kind.UNSUBSCRIBED,
    "unsubscribed": Kind.UNSUBSCRIBED,
    "error": Kind.REJECTED,
}
_DATE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", re.ASCII)


async def _verify(post: Post, trust: Trust) -> Verified:
    check_login(post, trust.secret, status=HTTPStatus.TOO_MANY_REQUESTS)
    if not isinstance(document.parse(post.body), dict | list):
        raise Refused(HTTPStatus.BAD_REQUEST, "it is not a JSON object")
    return Verified()


def _read(body: bytes) -> list[Event]:
    return [event for event in map(_event, document.objects(body)) if event is not None]


def _event(told: Members) -> Event | None:
    name, address = told.get("event"), document.address(told.get("email"))
    kind = _KINDS.get(name) if isinstance(name, str) else None
    at_ms = _at_ms(told)
    if kind is None or address is None or at_ms is None:
        return None
    message_id = document.bare_id(told.get("message-id"))
    return Event(  # its `id` is that of the webhook, the same for all events
        key=document.key_of(message_id, address, kind, at_ms),
        kind=kind,
        at_ms=at_ms,
        address=address,
        mark=document.mark_within(told.get("X-Mailin-custom")),
        provider_id=message_id,
        message_id=message_id,
        dsn=document.status(told.get("reason")),
        detail=document.words(told.get("reason")),
        raw=document.raw_of(told),
    )


def _at_ms(told: Members) -> int | None:
    """Return when it happened; `ts_epoch` is in milliseconds, in examples in seconds."""
    for name in ("ts_epoch", "ts_event", "ts"):
        at_ms = document.seconds_ms(told.get(name))
        if at_ms is not None:
            return at_ms
    date = told.get("date")
    if not isinstance(date, str) or not _DATE.fullmatch(date):
        return None
    try:
        at = datetime.fromisoformat(date).replace(tzinfo=_paris())
        return document.iso_ms(at.isoformat())
    except (ValueError, OverflowError):
        return None


def _paris() -> tzinfo:
    """Return the zone of dates, which is written nowhere in them."""
    try:
        return ZoneInfo("Europe/Paris")
    except (ZoneInfoNotFoundError, OSError):  # a machine without the tables
        return timezone(timedelta(hours=1))


FORMAT = Format(_verify, _read, login_problem, busy=HTTPStatus.TOO_MANY_REQUESTS)
