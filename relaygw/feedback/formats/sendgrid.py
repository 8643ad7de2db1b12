"""Events of Twilio SendGrid: arrays, signed by ECDSA over a time and the bytes of the post.

https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event
https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/getting-started-event-webhook-security-features

Any 2xx takes a post; it is tried again for 24 hours. Whether a retry has a new time is not said,
so one is refused only after that.
"""

from __future__ import annotations

import base64
import binascii
import re
from http import HTTPStatus

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from relaygw.feedback import document
from relaygw.feedback.document import Members
from relaygw.feedback.format import MARK, Format, Post, Refused, Trust, Verified
from relaygw.mail.verdict import Event, Kind

SIGNATURE = "x-twilio-email-event-webhook-signature"
TIMESTAMP = "x-twilio-email-event-webhook-timestamp"
_PAST_MS = 25 * 3_600_000
_FUTURE_MS = 5 * 60_000

_KINDS = {
    "processed": Kind.ACCEPTED,
    "deferred": Kind.DEFERRED,
    "delivered": Kind.DELIVERED,
    "bounce": Kind.SOFT,
    "dropped": Kind.REJECTED,
    "spamreport": Kind.COMPLAINED,
    "unsubscribe": Kind.UNSUBSCRIBED,
    "group_unsubscribe": Kind.UNSUBSCRIBED,
}
_LISTED = ("bounced address", "spam reporting address", "unsubscribed address")
# what follows the id of the 250 in the id of an event
_SUFFIX = re.compile(r"^([A-Za-z0-9_-]{22})\..*|^(.+?)\.(?:filter|recvd).*", re.DOTALL)


async def _verify(post: Post, trust: Trust) -> Verified:
    timestamp = post.headers.get(TIMESTAMP, "")
    if not re.fullmatch(r"[0-9]{10}", timestamp) or SIGNATURE not in post.headers:
        raise Refused(HTTPStatus.UNAUTHORIZED, "it is not signed: turn on signature verification")
    age_ms = post.received_at_ms - int(timestamp) * 1000
    if not -_FUTURE_MS <= age_ms <= _PAST_MS:
        raise Refused(HTTPStatus.UNAUTHORIZED, "its time is too old or in the future")
    try:
        signature = base64.b64decode(post.headers[SIGNATURE], validate=True)
        signed = timestamp.encode() + post.body
        _key(trust.secret).verify(signature, signed, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, binascii.Error, ValueError):
        raise Refused(HTTPStatus.UNAUTHORIZED, "its signature is wrong") from None
    if not isinstance(document.parse(post.body), list | dict):
        raise Refused(HTTPStatus.BAD_REQUEST, "it is not a JSON array")
    return Verified()


def _key(secret: str) -> ec.EllipticCurvePublicKey:
    """Return the public key that the provider shows. Raises ValueError."""
    try:
        key = load_der_public_key(base64.b64decode(secret, validate=True))
    except (UnsupportedAlgorithm, binascii.Error) as error:
        raise ValueError(str(error)) from None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("not a key of an elliptic curve")
    return key


def _read(body: bytes) -> list[Event]:
    return [event for event in map(_event, document.objects(body)) if event is not None]


def _event(told: Members) -> Event | None:
    name, address = told.get("event"), document.address(told.get("email"))
    kind = _KINDS.get(name) if isinstance(name, str) else None
    at_ms = document.seconds_ms(told.get("timestamp"))
    if kind is None or address is None or at_ms is None:
        return None
    dsn = document.status(told.get("status"), told.get("response"), told.get("reason"))
    kind = _exact(kind, told, dsn)
    event_id = document.words(told.get("sg_event_id"))
    sent_id = document.bare_id(told.get("sg_message_id"))
    same = ("id", event_id) if event_id else (sent_id, address, kind, at_ms)
    return Event(
        key=document.key_of(*same),
        kind=kind,
        at_ms=at_ms,
        address=address,
        mark=document.mark(told.get(MARK)),
        provider_id=_id_of_reply(sent_id),
        message_id=document.bare_id(told.get("smtp-id")),
        dsn=dsn,
        detail=document.first(told.get("reason"), told.get("response"), told.get("type")),
        raw=document.raw_of(told),
    )


def _exact(kind: Kind, told: Members, dsn: str | None) -> Kind:
    if kind is Kind.SOFT:  # without a type, only what the receiver says of the address counts
        is_hard = told.get("type", "") == "bounce"
        is_hard |= "type" not in told and document.says_no_address(dsn)
        return Kind.HARD if is_hard else Kind.SOFT
    if kind is Kind.REJECTED:
        reason = document.words(told.get("reason")).lower()
        return Kind.BLOCKED if reason.startswith(_LISTED) else Kind.REJECTED
    return kind


def _id_of_reply(sent_id: str | None) -> str | None:
    """Return the id that the reply to the mail had."""
    match = _SUFFIX.match(sent_id or "")
    return (match[1] or match[2]) if match else sent_id


def _problem(secret: str) -> str:
    try:
        _key(secret)
    except ValueError:
        return (
            "is not a public key; copy the verification key of the signed event webhook, which is"
            " one line of base64"
        )
    return ""


FORMAT = Format(_verify, _read, _problem)
