"""Events of Mailgun: one object a post, with an HMAC over a time and a token beside the event.

https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/securing-webhooks

The event itself is not signed: who learns one triple could sign any event with it, so each token
counts once for as long as its time is believed. 406 stops a post, all else but 200 has it tried
again for eight hours.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from http import HTTPStatus

from relaygw.feedback import document
from relaygw.feedback.document import Members
from relaygw.feedback.format import MARK, Format, Post, Refused, Trust, Verified
from relaygw.mail.verdict import Event, Kind

_PAST_MS = 9 * 3_600_000
_FUTURE_MS = 5 * 60_000
_TOKEN = re.compile(r"[!-~]{16,100}")
_SHORTEST = 16

_KINDS = {
    "accepted": Kind.ACCEPTED,
    "delivered": Kind.DELIVERED,
    "failed": Kind.SOFT,
    "complained": Kind.COMPLAINED,
    "unsubscribed": Kind.UNSUBSCRIBED,
    "rejected": Kind.REJECTED,
}


async def _verify(post: Post, trust: Trust) -> Verified:
    held = document.members(document.parse(post.body))
    signature = document.members(held.get("signature"))
    # ten digits, no more or less: else one could move digits between time and token
    timestamp, token, given = (
        document.words(signature.get(name)) for name in ("timestamp", "token", "signature")
    )
    if not re.fullmatch(r"[0-9]{10}", timestamp, re.ASCII) or not _TOKEN.fullmatch(token):
        raise Refused(HTTPStatus.NOT_ACCEPTABLE, "it is not signed")
    signed = f"{timestamp}{token}".encode()
    wanted = hmac.new(trust.secret.encode("utf-8", "replace"), signed, hashlib.sha256).hexdigest()
    if not trust.secret or not hmac.compare_digest(given.encode(), wanted.encode()):
        # 401: with the right key it is welcome when it is tried again
        raise Refused(HTTPStatus.UNAUTHORIZED, "its signature is wrong")
    age_ms = post.received_at_ms - int(timestamp) * 1000
    if not -_FUTURE_MS <= age_ms <= _PAST_MS:
        raise Refused(HTTPStatus.NOT_ACCEPTABLE, "its time is too old or in the future")
    return Verified(once=token, once_until_ms=int(timestamp) * 1000 + _PAST_MS + _FUTURE_MS)


def _read(body: bytes) -> list[Event]:
    told = document.members(document.members(document.parse(body)).get("event-data"))
    name, address = told.get("event"), document.address(told.get("recipient"))
    kind = _KINDS.get(name) if isinstance(name, str) else None
    at_ms = document.seconds_ms(told.get("timestamp"))
    if kind is None or address is None or at_ms is None:
        return []
    status = document.members(told.get("delivery-status"))
    dsn = document.status(
        *(status.get(name) for name in ("enhanced-code", "bounce-code", "message", "description"))
    )
    message_id = document.members(document.members(told.get("message")).get("headers"))
    kind = _exact(kind, told, dsn)
    event_id = document.words(told.get("id"))  # unique within a day only
    return [
        Event(
            key=document.key_of(
                *(event_id, document.words(message_id.get("message-id")), address, kind, at_ms)
            ),
            kind=kind,
            at_ms=at_ms,
            address=address,
            mark=document.mark(document.members(told.get("user-variables")).get(MARK)),
            message_id=document.bare_id(message_id.get("message-id")),
            dsn=dsn,
            detail=_detail(told, status),
            raw=document.raw_of(told),
        )
    ]


def _exact(kind: Kind, told: Members, dsn: str | None) -> Kind:
    """Permanent is also what was tried for too long, and who is listed."""
    if kind is not Kind.SOFT:
        return kind
    reason = document.words(told.get("reason"))
    if told.get("severity") == "temporary":
        return Kind.DEFERRED
    if reason.startswith("suppress-"):
        return Kind.BLOCKED
    return Kind.HARD if document.says_no_address(dsn) and reason != "old" else Kind.SOFT


def _detail(told: Members, status: Members) -> str:
    said = document.first(
        *(status.get("message"), status.get("description")),
        document.members(told.get("reject")).get("reason"),
    )
    reason = document.words(told.get("reason"))
    return document.detail_of(reason, said)


def _problem(secret: str) -> str:
    if len(secret) < _SHORTEST:
        return "is too short; use the HTTP webhook signing key of the account"
    return ""


FORMAT = Format(_verify, _read, _problem)
