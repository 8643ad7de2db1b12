"""Events as the providers document them, each with the kind that it means.

`EXAMPLES` has one for each event that a provider's documentation lists; an example makes the event
for a mail, so a test posts it for a mail that it sent. See `signers` for how they are signed.

    https://docs.aws.amazon.com/ses/latest/dg/event-publishing-retrieving-sns-examples.html
    https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event
    https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/webhook-payloads
    https://postmarkapp.com/developer/webhooks/webhooks-overview
    https://developers.brevo.com/docs/transactional-webhooks
    https://resend.com/docs/dashboard/webhooks/event-types
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from relaygw.mail.verdict import Kind

Payload = dict[str, Any]


def _id() -> str:
    return uuid.uuid4().hex


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A mail that a provider has, and when something happened to it."""

    address: str = "bob@cust.test"
    others: tuple[str, ...] = ()  # more recipients of the same transaction
    mark: str | None = "m4rk-0123456789"
    provider_id: str = field(default_factory=_id)
    message_id: str = "order-1@shop.test"
    at_ms: int = 1_790_000_000_000
    event_id: str = field(default_factory=_id)

    @property
    def everybody(self) -> list[str]:
        return [self.address, *self.others]

    @property
    def iso(self) -> str:
        at = datetime.fromtimestamp(self.at_ms / 1000, UTC)
        return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True)
class Example:
    """A documented event: what it is called, what it means (None: nothing), how it is made."""

    preset: str
    name: str
    kind: Kind | None
    make: Callable[[Sent], Payload]

    def __str__(self) -> str:
        return f"{self.preset}-{self.name}"


# --- SES ---------------------------------------------------------------------------------------


def ses(kind: str, about: Payload | None = None, *, named: str = "eventType") -> Any:
    def make(sent: Sent) -> Payload:
        part = "failure" if kind == "Rendering Failure" else kind[0].lower() + kind[1:]
        fields: Payload = {} if part in ("send", "reject", "failure") else {"timestamp": sent.iso}
        people = [{"emailAddress": address} for address in sent.everybody]
        told = dict(about or {})
        each = told.pop("each", {})
        match kind:
            case "Bounce":
                fields["bouncedRecipients"] = [{**one, **each} for one in people]
                fields["feedbackId"] = f"{sent.event_id}-000000"
            case "Complaint":
                fields["complainedRecipients"] = people
                fields["feedbackId"] = f"{sent.event_id}-000000"
            case "Delivery":
                fields["recipients"] = sent.everybody
            case "DeliveryDelay":
                fields["delayedRecipients"] = [{**one, **each} for one in people]
        tags = {"ses:configuration-set": ["ConfigSet"], "ses:from-domain": ["shop.test"]}
        return {
            named: kind,
            "mail": {
                "timestamp": sent.iso,
                "source": "sender@shop.test",
                "sourceArn": "arn:aws:ses:us-east-1:123456789012:identity/shop.test",
                "sendingAccountId": "123456789012",
                "messageId": sent.provider_id,
                "destination": sent.everybody,
                "headersTruncated": False,
                "headers": [
                    {"name": "From", "value": "sender@shop.test"},
                    {"name": "To", "value": ", ".join(sent.everybody)},
                    {"name": "Subject", "value": "Message sent using Amazon SES"},
                    {"name": "Message-ID", "value": f"<{sent.message_id}>"},
                ],
                "commonHeaders": {
                    "from": ["sender@shop.test"],
                    "to": sent.everybody,
                    "messageId": sent.provider_id,
                    "subject": "Message sent using Amazon SES",
                },
                "tags": {**tags, **({"relaygw": [sent.mark]} if sent.mark else {})},
            },
            part: {**fields, **told},
        }

    return make


def _bounce(kind: str, sub: str = "General", status: str = "5.1.1") -> Payload:
    said = f"smtp; 550 {status} user unknown"
    each = {"action": "failed", "status": status, "diagnosticCode": said}
    return {
        "bounceType": kind,
        "bounceSubType": sub,
        "reportingMTA": "dsn; mta.example.com",
        "each": each,
    }


_PREFERENCES = {
    "unsubscribeAll": False,
    "topicSubscriptionStatus": [{"topicName": "news", "subscriptionStatus": "OptOut"}],
}
_STAYS = {
    "unsubscribeAll": False,
    "topicSubscriptionStatus": [{"topicName": "news", "subscriptionStatus": "OptIn"}],
}
_SMTP = {"smtpResponse": "250 2.6.0 Message received", "processingTimeMillis": 546}
_SES: list[tuple[str, Kind | None, Any]] = [
    ("send", Kind.ACCEPTED, ses("Send")),
    ("delivery", Kind.DELIVERED, ses("Delivery", {**_SMTP, "reportingMTA": "a8-70.smtp.test"})),
    (
        "delay",
        Kind.DEFERRED,
        ses(
            "DeliveryDelay",
            {
                "delayType": "TransientCommunicationFailure",
                "expirationTime": "2030-01-01T00:00:00.000Z",
                "each": {"status": "4.4.1", "diagnosticCode": "smtp; 421 4.4.1 Unable to connect"},
            },
        ),
    ),
    ("bounce", Kind.HARD, ses("Bounce", _bounce("Permanent"))),
    ("bounce-notified", Kind.HARD, ses("Bounce", _bounce("Permanent"), named="notificationType")),
    ("bounce-soft", Kind.SOFT, ses("Bounce", _bounce("Transient", "MailboxFull", "4.2.2"))),
    ("bounce-undetermined", Kind.SOFT, ses("Bounce", _bounce("Undetermined", status="4.0.0"))),
    ("bounce-dead-domain", Kind.HARD, ses("Bounce", _bounce("Transient", status="5.4.4"))),
    ("bounce-suppressed", Kind.BLOCKED, ses("Bounce", _bounce("Permanent", "Suppressed"))),
    (
        "bounce-listed",
        Kind.BLOCKED,
        ses("Bounce", _bounce("Permanent", "OnAccountSuppressionList")),
    ),
    ("complaint", Kind.COMPLAINED, ses("Complaint", {"complaintFeedbackType": "abuse"})),
    (
        "complaint-notified",
        Kind.COMPLAINED,
        ses("Complaint", {"userAgent": "FBL/1.0"}, named="notificationType"),
    ),
    ("not-spam", None, ses("Complaint", {"complaintFeedbackType": "not-spam"})),
    (
        "complaint-listed",
        Kind.BLOCKED,
        ses("Complaint", {"complaintSubType": "OnAccountSuppressionList"}),
    ),
    (
        "subscription",
        Kind.UNSUBSCRIBED,
        ses("Subscription", {"contactList": "C", "newTopicPreferences": _PREFERENCES}),
    ),
    ("subscribed", None, ses("Subscription", {"newTopicPreferences": _STAYS})),
    ("reject", Kind.REJECTED, ses("Reject", {"reason": "Bad content"})),
    (
        "rendering",
        Kind.REJECTED,
        ses("Rendering Failure", {"errorMessage": "Attribute 'x' is missing", "templateName": "T"}),
    ),
    ("open", None, ses("Open", {"ipAddress": "192.0.2.1"})),
    ("click", None, ses("Click", {"link": "https://shop.test/"})),
]

# --- SendGrid ----------------------------------------------------------------------------------


def sendgrid(event: str, **about: Any) -> Any:
    def make(sent: Sent) -> Payload:
        return {
            "email": sent.address,
            "timestamp": sent.at_ms // 1000,
            "smtp-id": f"<{sent.message_id}>",
            "event": event,
            "category": ["cat facts"],
            "sg_event_id": sent.event_id,
            "sg_message_id": f"{sent.provider_id}.filter0001.16648.5515E0B88.0",
            **({"relaygw": sent.mark} if sent.mark else {}),
            **about,
        }

    return make


_REFUSED = "550 5.7.1 blocked by policy"
_SENDGRID: list[tuple[str, Kind | None, Any]] = [
    ("processed", Kind.ACCEPTED, sendgrid("processed")),
    ("deferred", Kind.DEFERRED, sendgrid("deferred", response="400 try again", attempt="5")),
    ("delivered", Kind.DELIVERED, sendgrid("delivered", response="250 OK")),
    (
        "bounce",
        Kind.HARD,
        sendgrid("bounce", type="bounce", status="5.1.1", reason="500 unknown recipient"),
    ),
    ("blocked", Kind.SOFT, sendgrid("bounce", type="blocked", status="5.7.1", reason=_REFUSED)),
    ("untyped", Kind.HARD, sendgrid("bounce", status="5.1.1", reason="550 5.1.1 unknown")),
    ("untyped-soft", Kind.SOFT, sendgrid("bounce", status="5.0.0", reason="500 no")),
    ("dropped", Kind.BLOCKED, sendgrid("dropped", reason="Bounced Address", status="5.0.0")),
    ("dropped-spam", Kind.BLOCKED, sendgrid("dropped", reason="Spam Reporting Address")),
    ("dropped-left", Kind.BLOCKED, sendgrid("dropped", reason="Unsubscribed Address")),
    ("dropped-invalid", Kind.REJECTED, sendgrid("dropped", reason="Invalid")),
    ("dropped-header", Kind.REJECTED, sendgrid("dropped", reason="Invalid SMTPAPI header")),
    (
        "dropped-content",
        Kind.REJECTED,
        sendgrid("dropped", reason="Spam Content (if spam checker app enabled)"),
    ),
    (
        "dropped-quota",
        Kind.REJECTED,
        sendgrid("dropped", reason="Recipient List over Package Quota"),
    ),
    ("spamreport", Kind.COMPLAINED, sendgrid("spamreport")),
    ("unsubscribe", Kind.UNSUBSCRIBED, sendgrid("unsubscribe")),
    ("group_unsubscribe", Kind.UNSUBSCRIBED, sendgrid("group_unsubscribe", asm_group_id=10)),
    ("group_resubscribe", None, sendgrid("group_resubscribe", asm_group_id=10)),
    ("open", None, sendgrid("open", useragent="Mozilla/4.0")),
    ("click", None, sendgrid("click", url="http://www.sendgrid.com/")),
]

# --- Mailgun -----------------------------------------------------------------------------------


def mailgun(event: str, **about: Any) -> Any:
    def make(sent: Sent) -> Payload:
        return {
            "event": event,
            "id": sent.event_id,
            "timestamp": sent.at_ms / 1000,
            "log-level": "info",
            "recipient": sent.address,
            "recipient-domain": sent.address.rpartition("@")[2],
            "tags": ["my_tag_1"],
            "flags": {"is-routed": False, "is-authenticated": True, "is-test-mode": False},
            "message": {
                "headers": {
                    "to": f"Bob <{sent.address}>",
                    "message-id": sent.message_id,
                    "from": "Shop <shop@shop.test>",
                    "subject": "Test",
                },
                "attachments": [],
                "size": 111,
            },
            "user-variables": {"relaygw": sent.mark} if sent.mark else {},
            **{name.replace("_", "-"): value for name, value in about.items()},
        }

    return make


def _failed(severity: str, reason: str, message: str, code: int = 550, enhanced: str = "") -> Any:
    status = {
        "attempt-no": 1,
        "code": code,
        "message": message,
        "description": "",
        **({"enhanced-code": enhanced} if enhanced else {}),
    }
    return mailgun("failed", severity=severity, reason=reason, delivery_status=status)


_UNKNOWN = "5.1.1 The email account that you tried to reach does not exist"
_MAILGUN: list[tuple[str, Kind | None, Any]] = [
    ("accepted", Kind.ACCEPTED, mailgun("accepted", method="smtp")),
    ("delivered", Kind.DELIVERED, mailgun("delivered", delivery_status={"code": 250})),
    ("temporary", Kind.DEFERRED, _failed("temporary", "generic", "greylisted", 451)),
    ("permanent", Kind.HARD, _failed("permanent", "bounce", _UNKNOWN)),
    ("permanent-code", Kind.HARD, _failed("permanent", "bounce", "gone", 550, "5.1.1")),
    ("permanent-policy", Kind.SOFT, _failed("permanent", "espblock", "5.7.1 blocked")),
    ("permanent-plain", Kind.SOFT, _failed("permanent", "generic", "no")),
    ("permanent-old", Kind.SOFT, _failed("permanent", "old", "Too old", 602)),
    (
        "permanent-listed",
        Kind.BLOCKED,
        _failed(
            "permanent", "suppress-bounce", "Not delivering to previously bounced address", 605
        ),
    ),
    (
        "permanent-left",
        Kind.BLOCKED,
        _failed("permanent", "suppress-unsubscribe", "Not delivering to unsubscribed", 606),
    ),
    ("complained", Kind.COMPLAINED, mailgun("complained")),
    ("unsubscribed", Kind.UNSUBSCRIBED, mailgun("unsubscribed")),
    ("rejected", Kind.REJECTED, mailgun("rejected", reject={"reason": "virus"})),
    ("opened", None, mailgun("opened")),
    ("clicked", None, mailgun("clicked", url="http://mailgun.com")),
]

# --- Postmark ----------------------------------------------------------------------------------


def _postmark_id(sent: Sent) -> int:
    return int(sent.event_id[:12], 16) + 1


def postmark_bounce(type_: str, *, record: str = "Bounce") -> Any:
    def make(sent: Sent) -> Payload:
        return {
            "RecordType": record,
            "MessageStream": "outbound",
            "ID": _postmark_id(sent),
            "Type": type_,
            "TypeCode": 1,
            "Name": type_,
            "Tag": "Test",
            "MessageID": sent.provider_id,
            "Metadata": {"relaygw": sent.mark} if sent.mark else {},
            "ServerID": 23,
            "Description": "The server was unable to deliver your message.",
            "Details": "smtp;550 5.1.1 The email account that you tried to reach does not exist",
            "Email": sent.address,
            "From": "sender@shop.test",
            "BouncedAt": sent.iso,
            "DumpAvailable": True,
            "Inactive": True,
            "CanActivate": True,
            "Subject": "Test subject",
            "Content": "<Full dump of bounce>",
        }

    return make


def postmark_delivery(sent: Sent) -> Payload:
    return {
        "RecordType": "Delivery",
        "ServerID": 23,
        "MessageStream": "outbound",
        "MessageID": sent.provider_id,
        "Recipient": sent.address,
        "Tag": "welcome-email",
        "DeliveredAt": sent.iso,
        "Details": "Test delivery webhook details",
        "Metadata": {"relaygw": sent.mark} if sent.mark else {},
    }


def postmark_change(*, suppress: bool, reason: str | None) -> Any:
    def make(sent: Sent) -> Payload:
        return {
            "RecordType": "SubscriptionChange",
            "MessageID": sent.provider_id,
            "ServerID": 23,
            "MessageStream": "outbound",
            "ChangedAt": sent.iso,
            "Recipient": sent.address,
            "Origin": "Recipient",
            "SuppressSending": suppress,
            "SuppressionReason": reason,
            "Tag": "welcome-email",
            "Metadata": {"relaygw": sent.mark} if sent.mark else {},
        }

    return make


_POSTMARK_TYPES: dict[str, Kind | None] = {
    "HardBounce": Kind.HARD,
    "BadEmailAddress": Kind.HARD,
    "Transient": Kind.DEFERRED,
    "DnsError": Kind.DEFERRED,
    "SoftBounce": Kind.SOFT,
    "VirusNotification": Kind.SOFT,
    "SpamNotification": Kind.SOFT,
    "Unknown": Kind.SOFT,
    "ManuallyDeactivated": Kind.BLOCKED,
    "Blocked": Kind.BLOCKED,
    "Unsubscribe": Kind.UNSUBSCRIBED,
    "SMTPApiError": Kind.REJECTED,
    "DMARCPolicy": Kind.REJECTED,
    "TemplateRenderingFailed": Kind.REJECTED,
    "AutoResponder": None,
    "AddressChange": None,
    "ChallengeVerification": None,
    "OpenRelayTest": None,
    "Subscribe": None,
    "Unconfirmed": None,
    "InboundError": None,
}
_POSTMARK: list[tuple[str, Kind | None, Any]] = [
    ("Delivery", Kind.DELIVERED, postmark_delivery),
    *((name, kind, postmark_bounce(name)) for name, kind in _POSTMARK_TYPES.items()),
    ("Complaint", Kind.COMPLAINED, postmark_bounce("SpamComplaint", record="SpamComplaint")),
    ("left", Kind.UNSUBSCRIBED, postmark_change(suppress=True, reason="ManualSuppression")),
    ("changed-hard", Kind.HARD, postmark_change(suppress=True, reason="HardBounce")),
    ("changed-spam", Kind.COMPLAINED, postmark_change(suppress=True, reason="SpamComplaint")),
    ("reactivated", None, postmark_change(suppress=False, reason=None)),
    ("Open", None, lambda sent: {**postmark_delivery(sent), "RecordType": "Open"}),
    ("Click", None, lambda sent: {**postmark_delivery(sent), "RecordType": "Click"}),
]

# --- Brevo -------------------------------------------------------------------------------------


def brevo(event: str, **about: Any) -> Any:
    def make(sent: Sent) -> Payload:
        return {
            "event": event,
            "email": sent.address,
            "id": 26224,
            "date": "2026-10-09 00:00:00",
            "ts": sent.at_ms // 1000,
            "message-id": f"<{sent.message_id}>",
            "ts_event": sent.at_ms // 1000,
            "subject": "My first Transactional",
            "X-Mailin-custom": f"relaygw={sent.mark}" if sent.mark else "some_custom_header",
            "sending_ip": "192.0.2.1",
            "template_id": 22,
            "tags": ["transac_messages"],
            "ts_epoch": sent.at_ms,
            **about,
        }

    return make


_BREVO: list[tuple[str, Kind | None, Any]] = [
    ("request", Kind.ACCEPTED, brevo("request")),
    ("delivered", Kind.DELIVERED, brevo("delivered")),
    ("deferred", Kind.DEFERRED, brevo("deferred", reason="spam")),
    ("hard_bounce", Kind.HARD, brevo("hard_bounce", reason="550 5.1.1 user unknown")),
    ("invalid_email", Kind.HARD, brevo("invalid_email")),
    ("soft_bounce", Kind.SOFT, brevo("soft_bounce", reason="server is down")),
    ("blocked", Kind.BLOCKED, brevo("blocked")),
    ("spam", Kind.COMPLAINED, brevo("spam")),
    ("complaint", Kind.COMPLAINED, brevo("complaint")),
    ("unsubscribe", Kind.UNSUBSCRIBED, brevo("unsubscribe")),
    ("unsubscribed", Kind.UNSUBSCRIBED, brevo("unsubscribed")),
    ("error", Kind.REJECTED, brevo("error", reason="Error")),
    ("opened", None, brevo("opened")),
    ("unique_opened", None, brevo("unique_opened")),
    ("proxy_open", None, brevo("proxy_open")),
    ("click", None, brevo("click", link="https://shop.test/")),
]

# --- Resend ------------------------------------------------------------------------------------


def resend(type_: str, **about: Any) -> Any:
    def make(sent: Sent) -> Payload:
        marked = [{"name": "X-Relaygw-Mark", "value": sent.mark}] if sent.mark else []
        return {
            "type": f"email.{type_}",
            "created_at": sent.iso,
            "data": {
                "broadcast_id": "8b146471-e88e-4322-86af-016cd36fd216",
                "created_at": "2026-02-22T23:41:11.894719+00:00",
                "email_id": sent.provider_id,
                "from": "Acme <onboarding@shop.test>",
                "to": sent.everybody,
                "subject": "Sending this example",
                "headers": [{"name": "Message-ID", "value": f"<{sent.message_id}>"}, *marked],
                "tags": {"category": "confirm_email"},
                **about,
            },
        }

    return make


def _resend_bounce(type_: str, message: str = "mailbox unknown", sub: str = "General") -> Any:
    return resend("bounced", bounce={"message": message, "subType": sub, "type": type_})


_OLD_SUPPRESSED = (
    "Amazon SES has suppressed sending to this address because it has a recent history of bouncing"
)
_RESEND: list[tuple[str, Kind | None, Any]] = [
    ("sent", Kind.ACCEPTED, resend("sent")),
    ("delivered", Kind.DELIVERED, resend("delivered")),
    ("delivery_delayed", Kind.DEFERRED, resend("delivery_delayed")),
    ("bounced", Kind.HARD, _resend_bounce("Permanent")),
    ("bounced-transient", Kind.SOFT, _resend_bounce("Transient", sub="MailboxFull")),
    ("bounced-undetermined", Kind.SOFT, _resend_bounce("Undetermined")),
    ("bounced-suppressed", Kind.BLOCKED, _resend_bounce("Permanent", _OLD_SUPPRESSED)),
    ("bounced-sub", Kind.BLOCKED, _resend_bounce("Permanent", sub="Suppressed")),
    ("suppressed", Kind.BLOCKED, resend("suppressed", suppressed={"type": "OnAccountList"})),
    ("complained", Kind.COMPLAINED, resend("complained")),
    ("failed", Kind.REJECTED, resend("failed", failed={"reason": "reached_daily_quota"})),
    ("scheduled", None, resend("scheduled")),
    ("opened", None, resend("opened")),
    ("clicked", None, resend("clicked", click={"link": "https://resend.com"})),
]

EXAMPLES = [
    Example(preset, name, kind, make)
    for preset, examples in (
        ("ses", _SES),
        ("sendgrid", _SENDGRID),
        ("mailgun", _MAILGUN),
        ("postmark", _POSTMARK),
        ("brevo", _BREVO),
        ("resend", _RESEND),
    )
    for name, kind, make in examples
]


def examples(preset: str) -> list[Example]:
    """Return those of one provider."""
    return [example for example in EXAMPLES if example.preset == preset]


def example(preset: str, kind: Kind) -> Example:
    """Return the first example of a provider that means a kind."""
    return next(each for each in examples(preset) if each.kind is kind)
