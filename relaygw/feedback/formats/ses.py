"""Events of Amazon SES, brought by Amazon SNS: signed by Amazon, for the topics we know.

https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html
https://docs.aws.amazon.com/ses/latest/dg/event-publishing-retrieving-sns-contents.html

SNS tries again after 5xx only. A signature proves Amazon, not whose topic it is: anybody can
subscribe our address to a topic of theirs, so the topic is compared first. The last line of the
signed text is the type and the one before the topic; both are compared in full, so no content of
another topic can be cut up into a post of ours.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

from relaygw.feedback import document
from relaygw.feedback.certificates import is_subscribe_url
from relaygw.feedback.document import Members
from relaygw.feedback.format import MARK, Format, Post, Refused, Trust, Verified
from relaygw.feedback.logins import check_login, login_problem
from relaygw.mail.verdict import Event, Kind

_SIGNED = {  # in this order; a subject only where there is one
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": (
        *("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
    ),
    "UnsubscribeConfirmation": (
        *("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
    ),
}
_HASHES = {"1": hashes.SHA1, "2": hashes.SHA256}
_PAST_MS = 2 * 3_600_000  # a delivery policy may span an hour
_FUTURE_MS = 15 * 60_000
_MAX_RECIPIENTS = 100  # SES sends to 50 at once

_PARTS = {  # by type: its kind, the part that tells of it, and where that names recipients
    "Send": (Kind.ACCEPTED, "send", None),
    "Delivery": (Kind.DELIVERED, "delivery", "recipients"),
    "DeliveryDelay": (Kind.DEFERRED, "deliveryDelay", "delayedRecipients"),
    "Bounce": (Kind.SOFT, "bounce", "bouncedRecipients"),
    "Complaint": (Kind.COMPLAINED, "complaint", "complainedRecipients"),
    "Subscription": (Kind.UNSUBSCRIBED, "subscription", None),
    "Reject": (Kind.REJECTED, "reject", None),
    "Rendering Failure": (Kind.REJECTED, "failure", None),
}
_LISTED = frozenset({"Suppressed", "OnAccountSuppressionList", "UnsubscribedRecipient"})
_DEAD_DOMAIN = "5.4.4"  # no such domain: reported as passing, and never works


async def _verify(post: Post, trust: Trust) -> Verified:
    if trust.secret:
        check_login(post, trust.secret)
    envelope = document.members(document.parse(post.body))
    kind = envelope.get("Type")
    names = _SIGNED.get(kind) if isinstance(kind, str) else None
    if names is None:
        raw = post.headers.get("x-amz-sns-rawdelivery", "").lower() == "true"
        hint = "; turn off raw message delivery of the subscription" if raw else ""
        raise Refused(HTTPStatus.BAD_REQUEST, f"not a message of Amazon SNS{hint}")
    topic = envelope.get("TopicArn")
    if not isinstance(topic, str) or topic not in trust.topics:
        named = document.words(topic, 100)
        raise Refused(HTTPStatus.FORBIDDEN, f"the topic {named!r} is not the configured one")
    _check_time(envelope, post.received_at_ms)
    await _check_signature(envelope, names, post, trust)
    return _what_it_asks(envelope)


def _check_time(envelope: Members, now_ms: int) -> None:
    at_ms = document.iso_ms(envelope.get("Timestamp"))
    if at_ms is None or not now_ms - _PAST_MS <= at_ms <= now_ms + _FUTURE_MS:
        raise Refused(HTTPStatus.FORBIDDEN, "its Timestamp is too old, in the future or none")


async def _check_signature(
    envelope: Members, names: tuple[str, ...], post: Post, trust: Trust
) -> None:
    text = _signed_text(envelope, names)
    version, signature = envelope.get("SignatureVersion"), envelope.get("Signature")
    url = envelope.get("SigningCertURL")
    if not isinstance(version, str) or version not in _HASHES:
        raise Refused(HTTPStatus.FORBIDDEN, "it has no SignatureVersion 1 or 2")
    if not isinstance(signature, str) or not isinstance(url, str) or trust.keys is None:
        raise Refused(HTTPStatus.FORBIDDEN, "it is not signed")
    key = await trust.keys.public_key(url, post.received_at_ms)
    try:
        octets = base64.b64decode(signature, validate=True)
        key.verify(octets, text, PKCS1v15(), _HASHES[version]())
    except (InvalidSignature, binascii.Error, ValueError):
        raise Refused(HTTPStatus.FORBIDDEN, "its signature is wrong") from None


def _signed_text(envelope: Members, names: tuple[str, ...]) -> bytes:
    lines = []
    for name in names:
        value = envelope.get(name)
        if name == "Subject" and value is None:
            continue
        if not isinstance(value, str):
            raise Refused(HTTPStatus.BAD_REQUEST, f"{name} is not text")
        lines.append(f"{name}\n{value}\n")
    try:
        return "".join(lines).encode()
    except UnicodeEncodeError:
        raise Refused(HTTPStatus.BAD_REQUEST, "it holds half a character") from None


def _what_it_asks(envelope: Members) -> Verified:
    topic = envelope["TopicArn"]
    if envelope["Type"] == "Notification":
        return Verified(is_events=bool(document.members(document.parse(envelope["Message"]))))
    if envelope["Type"] == "UnsubscribeConfirmation":
        return Verified(
            is_events=False,
            told=f"the subscription to {topic} ended: no events come any more; subscribe it again",
        )
    url = envelope["SubscribeURL"]
    if not is_subscribe_url(url) or not _confirms(url, topic, envelope["Token"]):
        raise Refused(HTTPStatus.FORBIDDEN, "SubscribeURL does not confirm anything at Amazon SNS")
    return Verified(confirm_url=url, is_events=False, told=f"subscribed to {topic}")


def _confirms(url: str, topic: str, token: str) -> bool:
    asked = parse_qs(urlsplit(url).query)
    wanted = {"Action": ["ConfirmSubscription"], "TopicArn": [topic], "Token": [token]}
    return asked == wanted


def _read(body: bytes) -> list[Event]:
    envelope = document.members(document.parse(body))
    message = envelope.get("Message")
    event = document.members(document.parse(message) if isinstance(message, str) else None)
    name = event.get("eventType", event.get("notificationType"))
    if not isinstance(name, str) or name not in _PARTS:
        return []
    kind, part_name, recipients = _PARTS[name]
    part, mail = document.members(event.get(part_name)), document.members(event.get("mail"))
    at_ms = document.iso_ms(part.get("timestamp")) or document.iso_ms(mail.get("timestamp"))
    if at_ms is None or not _counts(kind, part):
        return []
    people = list(_people(part.get(recipients) if recipients else mail.get("destination")))
    return list(_events(event, kind, part_name, at_ms, people))


def _counts(kind: Kind, part: Members) -> bool:
    """Return False for what only looks like bad news."""
    if kind is Kind.COMPLAINED:
        return part.get("complaintFeedbackType") != "not-spam"
    if kind is Kind.UNSUBSCRIBED:
        return _is_left(document.members(part.get("newTopicPreferences")))
    return True


def _is_left(preferences: Members) -> bool:
    topics = map(document.members, document.listed(preferences.get("topicSubscriptionStatus")))
    return preferences.get("unsubscribeAll") is True or any(
        document.words(topic.get("subscriptionStatus")).lower() == "optout" for topic in topics
    )


def _people(values: object) -> Iterator[tuple[str, Members]]:
    """Yield addresses and what is told of each, each address once."""
    seen: set[str] = set()
    for each in document.listed(values)[:_MAX_RECIPIENTS]:
        about = document.members(each)
        found = document.address(about.get("emailAddress") if about else each)
        if found and found not in seen:
            seen.add(found)
            yield found, about


def _events(
    event: Members, kind: Kind, part_name: str, at_ms: int, people: list[tuple[str, Members]]
) -> Iterator[Event]:
    part, mail = document.members(event.get(part_name)), document.members(event.get("mail"))
    # most receivers hide who complained: SES names all that the mail had at their domain
    others = len(people) - 1 if kind in (Kind.COMPLAINED, Kind.UNSUBSCRIBED) else 0
    for address, about in people:
        its_kind = _kind(kind, part, about)
        yield Event(
            key=document.key_of(mail.get("messageId"), address, its_kind, at_ms),
            kind=its_kind,
            at_ms=at_ms,
            address=address,
            others=others,
            mark=_mark(mail),
            provider_id=document.bare_id(mail.get("messageId")),
            message_id=_message_id(mail),
            dsn=_dsn(part, about),
            detail=_detail(part, about),
            raw=document.raw_of(_piece(event, part_name, about or {"emailAddress": address})),
        )


def _piece(event: Members, part_name: str, about: Members) -> Members:
    """Return an event about one recipient, without the header and the other recipients."""
    part, mail = document.members(event.get(part_name)), document.members(event.get("mail"))
    return {
        **{name: event[name] for name in event if name not in ("mail", part_name)},
        "mail": {name: mail[name] for name in mail if name in _KEPT_OF_MAIL},
        part_name: {name: part[name] for name in part if not name.endswith("ecipients")},
        "recipient": about,
    }


_KEPT_OF_MAIL = ("timestamp", "messageId", "source", "sendingAccountId", "tags")


def _kind(kind: Kind, part: Members, about: Members) -> Kind:
    if kind is Kind.COMPLAINED and part.get("complaintSubType") == "OnAccountSuppressionList":
        return Kind.BLOCKED
    if part.get("bounceType") == "Permanent" and kind is Kind.SOFT:
        is_listed = document.words(part.get("bounceSubType")) in _LISTED
        return Kind.BLOCKED if is_listed else Kind.HARD
    if kind is Kind.SOFT and _dsn(part, about) == _DEAD_DOMAIN:
        return Kind.HARD
    return kind


def _dsn(part: Members, about: Members) -> str | None:
    return document.status(
        about.get("status"), about.get("diagnosticCode"), part.get("smtpResponse")
    )


def _detail(part: Members, about: Members) -> str:
    said = document.first(
        *(about.get("diagnosticCode"), part.get("smtpResponse"), part.get("reason")),
        *(part.get("errorMessage"), part.get("complaintFeedbackType")),
    )
    types = [
        document.words(part.get(name)) for name in ("bounceType", "bounceSubType", "delayType")
    ]
    types += [document.words(part.get("complaintSubType"))]
    kinds = ", ".join(filter(None, types))
    return document.detail_of(kinds, said)


def _mark(mail: Members) -> str | None:
    values = document.listed(document.members(mail.get("tags")).get(MARK))
    own = document.mark(values[0]) if values else None
    return own or document.marked_field(mail.get("headers"))


def _message_id(mail: Members) -> str | None:
    """Return the Message-ID that the mail came with: SES gives it another one."""
    field = document.field_of(mail.get("headers"), "message-id")
    usual = document.members(mail.get("commonHeaders")).get("messageId")
    return document.bare_id(usual if field is None else field)


def _problem(secret: str) -> str:
    return login_problem(secret) if secret else ""


FORMAT = Format(_verify, _read, _problem, needs_topic=True)
