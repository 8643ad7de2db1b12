"""Events of Resend: one object a post, signed as Standard Webhooks under the names of Svix.

https://resend.com/docs/dashboard/webhooks/verify-webhooks-requests
https://resend.com/docs/dashboard/webhooks/retries-and-replays

A time is believed for five minutes, as each try has its own. Which of several recipients an event
is about is not said.
"""

from __future__ import annotations

import base64
import binascii
from http import HTTPStatus

from standardwebhooks import Webhook

from relaygw.feedback import document
from relaygw.feedback.document import Members
from relaygw.feedback.format import Format, Post, Refused, Trust, Verified
from relaygw.mail.verdict import Event, Kind

_FIELDS = ("id", "timestamp", "signature")
_SHORTEST = 16  # bytes of a key; the specification has 24
_PREFIX = "whsec_"

_KINDS = {
    "email.sent": Kind.ACCEPTED,
    "email.delivered": Kind.DELIVERED,
    "email.delivery_delayed": Kind.DEFERRED,
    "email.bounced": Kind.SOFT,
    "email.suppressed": Kind.BLOCKED,
    "email.complained": Kind.COMPLAINED,
    "email.failed": Kind.REJECTED,
}
_TOLD_BY = ("bounce", "suppressed", "failed", "delivery_delayed", "complaint")


async def _verify(post: Post, trust: Trust) -> Verified:
    fields = {f"webhook-{name}": post.headers.get(f"svix-{name}", "") for name in _FIELDS}
    if not all(fields.values()):
        raise Refused(HTTPStatus.UNAUTHORIZED, "it is not signed")
    try:
        Webhook(trust.secret).verify(post.body, fields, json_parse=False)
    except Exception as error:  # malformed ones raise whatever their decoding raises
        reason = f"its signature or time is wrong ({type(error).__name__})"
        raise Refused(HTTPStatus.UNAUTHORIZED, reason) from None
    if not document.members(document.parse(post.body)):
        raise Refused(HTTPStatus.BAD_REQUEST, "it is not a JSON object")
    return Verified()


def _read(body: bytes) -> list[Event]:
    told = document.members(document.parse(body))
    data, name = document.members(told.get("data")), told.get("type")
    kind = _KINDS.get(name) if isinstance(name, str) else None
    at_ms = document.iso_ms(told.get("created_at")) or document.iso_ms(data.get("created_at"))
    people = document.addresses(data.get("to"))
    if kind is None or at_ms is None or not people:
        return []
    about = _about(data)
    kind = _exact(kind, about)
    sent_id = document.bare_id(data.get("email_id"))
    said = document.first(*(about.get(name) for name in ("message", "reason")))
    types = ", ".join(
        filter(None, (document.words(about.get(name)) for name in ("type", "subType")))
    )
    return [
        Event(
            key=document.key_of(sent_id, *sorted(people), kind, at_ms),
            kind=kind,
            at_ms=at_ms,
            address=people[0] if len(people) == 1 else None,
            others=len(people) - 1,
            mark=document.marked_field(data.get("headers")),
            provider_id=sent_id,
            message_id=_message_id(data),
            dsn=document.status(*document.listed(about.get("diagnosticCode")), said),
            detail=document.detail_of(types, said),
            raw=document.raw_of(told),
        )
    ]


def _about(data: Members) -> Members:
    return next(filter(None, (document.members(data.get(name)) for name in _TOLD_BY)), {})


def _exact(kind: Kind, about: Members) -> Kind:
    if kind is not Kind.SOFT:
        return kind
    said = document.words(about.get("message")).lower()
    if "suppressed sending" in said or "suppress" in document.words(about.get("subType")).lower():
        return Kind.BLOCKED
    return Kind.HARD if about.get("type") == "Permanent" else Kind.SOFT


def _message_id(data: Members) -> str | None:
    field = document.field_of(data.get("headers"), "message-id")
    return document.bare_id(data.get("message_id") if field is None else field)


def _problem(secret: str) -> str:
    try:
        octets = base64.b64decode(secret.removeprefix(_PREFIX) + "==")
    except (binascii.Error, ValueError):
        octets = b""
    if len(octets) < _SHORTEST:
        return f"is not a signing secret; copy that of the webhook, which begins with {_PREFIX}"
    return ""


FORMAT = Format(_verify, _read, _problem)
