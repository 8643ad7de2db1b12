"""Events of Postmark: one object a post, not signed; believed by a login in the address or a field.

https://postmarkapp.com/developer/webhooks/bounce-webhook
https://postmarkapp.com/developer/webhooks/subscription-change-webhook

403 stops a post for good, so it is never said.
"""

from __future__ import annotations

from http import HTTPStatus

from relaygw.feedback import document
from relaygw.feedback.document import Members
from relaygw.feedback.format import MARK, Format, Post, Refused, Trust, Verified
from relaygw.feedback.logins import check_login, login_problem
from relaygw.mail.verdict import Event, Kind

_BOUNCES = {  # by Type; what is missing says nothing of a mail, as AutoResponder
    "HardBounce": Kind.HARD,
    "BadEmailAddress": Kind.HARD,
    "Transient": Kind.DEFERRED,
    "DnsError": Kind.DEFERRED,
    "SoftBounce": Kind.SOFT,
    "VirusNotification": Kind.SOFT,
    "SpamNotification": Kind.SOFT,  # "blocked by the user or classified as spam": no complaint
    "Unknown": Kind.SOFT,
    "ManuallyDeactivated": Kind.BLOCKED,
    "Blocked": Kind.BLOCKED,
    "SpamComplaint": Kind.COMPLAINED,
    "Unsubscribe": Kind.UNSUBSCRIBED,
    "SMTPApiError": Kind.REJECTED,
    "DMARCPolicy": Kind.REJECTED,
    "TemplateRenderingFailed": Kind.REJECTED,
}
_CHANGES = {
    "HardBounce": Kind.HARD,
    "SpamComplaint": Kind.COMPLAINED,
    "ManualSuppression": Kind.UNSUBSCRIBED,
}
_TIMES = ("BouncedAt", "DeliveredAt", "ChangedAt")


async def _verify(post: Post, trust: Trust) -> Verified:
    check_login(post, trust.secret)
    if not document.members(document.parse(post.body)):
        raise Refused(HTTPStatus.BAD_REQUEST, "it is not a JSON object")
    return Verified()


def _read(body: bytes) -> list[Event]:
    told = document.members(document.parse(body))
    address = document.address(told.get("Email")) or document.address(told.get("Recipient"))
    at_ms = next(filter(None, (document.iso_ms(told.get(name)) for name in _TIMES)), None)
    kind = _kind(told)
    if kind is None or address is None or at_ms is None:
        return []
    sent_id = document.bare_id(told.get("MessageID"))
    event_id = document.words(told.get("ID"))  # of bounces and complaints only
    record = document.words(told.get("RecordType"))
    is_named = event_id not in ("", "0")
    same = ("id", record, event_id) if is_named else (sent_id, address, kind, at_ms)
    return [
        Event(
            key=document.key_of(*same),
            kind=kind,
            at_ms=at_ms,
            address=address,
            mark=document.mark(_metadata(told)),
            provider_id=sent_id,
            dsn=document.status(told.get("Details")),
            detail=_detail(told),
            raw=document.raw_of(told),
        )
    ]


def _kind(told: Members) -> Kind | None:
    match told.get("RecordType"):
        case "Delivery":
            return Kind.DELIVERED
        case "SpamComplaint":
            return Kind.COMPLAINED
        case "Bounce":
            name = told.get("Type")
            return _BOUNCES.get(name) if isinstance(name, str) else None
        case "SubscriptionChange" if told.get("SuppressSending") is True:
            reason = told.get("SuppressionReason")
            return _CHANGES.get(reason if isinstance(reason, str) else "", Kind.UNSUBSCRIBED)
    return None  # an address was made active again, was opened, clicked …


def _metadata(told: Members) -> object:
    """Return our value; header fields that carry such names may have changed their case."""
    values = document.members(told.get("Metadata"))
    return next((values[name] for name in values if name.lower() == MARK), None)


def _detail(told: Members) -> str:
    said = document.first(told.get("Details"), told.get("Description"))
    kinds = document.first(told.get("Type"), told.get("SuppressionReason"))
    return document.detail_of(kinds, said)


FORMAT = Format(_verify, _read, login_problem)
