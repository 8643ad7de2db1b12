"""Posts as providers sign them, with keys of the test: what a provider of this name would send.

    signer = signer_of("sendgrid")
    signed = signer.sign([example.make(sent)], at_ms=clock_ms())
    client.post("/events/main", content=signed.body, headers=signed.headers)

`signer.secret` and `signer.topic` go into the settings; SES signs with a certificate at
`signer.certificate_url`, which `signer.fetch` serves in the place of Amazon.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import json
import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from standardwebhooks import Webhook

from relaygw.feedback.certificates import Certificates, NotFetched
from relaygw.feedback.format import Post, Trust

Payload = dict[str, Any]


@dataclass(frozen=True)
class Signed:
    """Bytes and header fields as they are posted."""

    body: bytes
    headers: dict[str, str]

    def post(self, at_ms: int) -> Post:
        return Post(self.body, {k.lower(): v for k, v in self.headers.items()}, at_ms)


class Signer:
    """A provider with a secret; subclasses sign."""

    preset: str
    secret: str = ""
    topic: str = ""
    is_array = False  # posts hold several events

    @property
    def trust(self) -> Trust:
        return Trust(self.secret)

    def sign(self, payloads: Sequence[Payload], at_ms: int) -> Signed:
        """Return a post of one event; of several where the provider batches."""
        raise NotImplementedError

    def sign_bytes(self, body: bytes, at_ms: int) -> Signed:
        """Return a post of bytes, whatever they are, as sound as the provider could sign it."""
        raise NotImplementedError

    def posts(self, payloads: Sequence[Payload], at_ms: int) -> list[Signed]:
        """Return the posts in which a provider tells of some events."""
        if self.is_array:
            return [self.sign(payloads, at_ms)]
        return [self.sign([payload], at_ms) for payload in payloads]


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


@functools.cache
def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def certificate(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey,
    *,
    days_from: float = -1,
    days_until: float = 365,
) -> bytes:
    """Return a certificate as Amazon has them for SNS."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sns.amazonaws.com")])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=days_from))
        .not_valid_after(now + timedelta(days=days_until))
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )


@dataclass
class Ses(Signer):
    """Amazon SES by SNS."""

    preset = "ses"
    topic: str = "arn:aws:sns:us-east-1:123456789012:ses-events"
    certificate_url: str = (
        "https://sns.us-east-1.amazonaws.com/"
        "SimpleNotificationService-f3ecfb7224c7233fe7bb5f59f96de52f.pem"
    )
    version: str = "1"
    key: rsa.RSAPrivateKey = field(default_factory=rsa_key)
    served: dict[str, bytes] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.served.setdefault(self.certificate_url, certificate(self.key))
        self.certificates = Certificates(self.fetch)

    async def fetch(self, url: str) -> bytes:
        self.fetched.append(url)
        if url not in self.served:
            raise NotFetched("the answer was 404, not 200")
        return self.served[url]

    @property
    def trust(self) -> Trust:
        return Trust(self.secret, frozenset({self.topic}), self.certificates)

    def sign(self, payloads: Sequence[Payload], at_ms: int) -> Signed:
        (payload,) = payloads
        return self.sign_bytes(_json(payload), at_ms)

    def sign_bytes(self, body: bytes, at_ms: int) -> Signed:
        message = body.decode("utf-8", "replace")
        return self.envelope({"Type": "Notification", "Message": message}, at_ms)

    def confirmation(self, at_ms: int, **changes: Any) -> Signed:
        token = secrets.token_hex(64)
        url = (
            "https://sns.us-east-1.amazonaws.com/?Action=ConfirmSubscription"
            f"&TopicArn={changes.get('TopicArn', self.topic)}&Token={token}"
        )
        return self.envelope(
            {
                "Type": "SubscriptionConfirmation",
                "Message": f"You have chosen to subscribe to the topic {self.topic}.",
                "SubscribeURL": url,
                "Token": token,
                **changes,
            },
            at_ms,
        )

    def envelope(self, fields: Payload, at_ms: int) -> Signed:
        """Return a message of SNS, signed as it stands."""
        stamp = datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")
        envelope = {
            "MessageId": str(uuid.uuid4()),
            "TopicArn": self.topic,
            "Timestamp": stamp.replace("+00:00", "Z"),
            "SignatureVersion": self.version,
            "SigningCertURL": self.certificate_url,
            "UnsubscribeURL": "https://sns.us-east-1.amazonaws.com/?Action=Unsubscribe",
            **fields,
        }
        envelope["Signature"] = self.signature(envelope)
        return self.unsigned(envelope)

    def signature(self, envelope: Payload) -> str:
        names = ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"]
        if envelope["Type"] != "Notification":
            names = ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token"]
            names += ["TopicArn", "Type"]
        text = "".join(f"{name}\n{envelope[name]}\n" for name in names if name in envelope)
        kind = hashes.SHA256() if self.version == "2" else hashes.SHA1()
        signed = self.key.sign(text.encode(), padding.PKCS1v15(), kind)
        return base64.b64encode(signed).decode()

    def unsigned(self, envelope: Payload) -> Signed:
        """Return an envelope as it stands, whatever its signature says."""
        return Signed(
            _json(envelope),
            {
                "Content-Type": "text/plain; charset=UTF-8",
                "x-amz-sns-message-type": str(envelope.get("Type")),
                "x-amz-sns-topic-arn": str(envelope.get("TopicArn")),
            },
        )


@functools.cache
def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def public_base64(key: ec.EllipticCurvePrivateKey) -> str:
    der = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return base64.b64encode(der).decode()


@dataclass
class SendGrid(Signer):
    """Twilio SendGrid."""

    preset = "sendgrid"
    is_array = True
    key: ec.EllipticCurvePrivateKey = field(default_factory=ec_key)

    def __post_init__(self) -> None:
        self.secret = public_base64(self.key)

    def sign(self, payloads: Sequence[Payload], at_ms: int) -> Signed:
        return self.sign_bytes(_json(list(payloads)), at_ms)

    def sign_bytes(self, body: bytes, at_ms: int) -> Signed:
        stamp = str(at_ms // 1000)
        signature = self.key.sign(stamp.encode() + body, ec.ECDSA(hashes.SHA256()))
        return Signed(
            body,
            {
                "Content-Type": "application/json",
                "X-Twilio-Email-Event-Webhook-Signature": base64.b64encode(signature).decode(),
                "X-Twilio-Email-Event-Webhook-Timestamp": stamp,
            },
        )


@dataclass
class Mailgun(Signer):
    """Mailgun."""

    preset = "mailgun"
    secret: str = "key-0123456789abcdef0123456789abcdef"

    def triple(self, at_ms: int, token: str | None = None) -> dict[str, str]:
        token = token or secrets.token_hex(25)
        stamp = str(at_ms // 1000)
        signed = hmac.new(self.secret.encode(), (stamp + token).encode(), hashlib.sha256)
        return {"token": token, "timestamp": stamp, "signature": signed.hexdigest()}

    def sign(self, payloads: Sequence[Payload], at_ms: int) -> Signed:
        (payload,) = payloads
        return self.unsigned({"signature": self.triple(at_ms), "event-data": payload})

    def sign_bytes(self, body: bytes, at_ms: int) -> Signed:
        triple = _json(self.triple(at_ms))
        return Signed(
            b'{"signature":' + triple + b',"event-data":' + body + b"}",
            {"Content-Type": "application/json"},
        )

    def unsigned(self, body: Payload) -> Signed:
        return Signed(_json(body), {"Content-Type": "application/json"})


@dataclass
class Basic(Signer):
    """Postmark and Brevo: a login with each post."""

    secret: str = "events:correct horse battery"

    def sign(self, payloads: Sequence[Payload], at_ms: int) -> Signed:
        (payload,) = payloads
        return self.sign_bytes(_json(payload), at_ms)

    def sign_bytes(self, body: bytes, at_ms: int) -> Signed:
        login = base64.b64encode(self.secret.encode()).decode()
        headers = {"Content-Type": "application/json", "Authorization": f"Basic {login}"}
        return Signed(body, headers)


@dataclass
class Postmark(Basic):
    preset = "postmark"


@dataclass
class Brevo(Basic):
    preset = "brevo"


@dataclass
class Resend(Signer):
    """Resend."""

    preset = "resend"
    secret: str = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()

    def sign(self, payloads: Sequence[Payload], at_ms: int) -> Signed:
        (payload,) = payloads
        return self.sign_bytes(_json(payload), at_ms)

    def sign_bytes(self, body: bytes, at_ms: int) -> Signed:
        message_id = f"msg_{uuid.uuid4().hex}"
        at = datetime.fromtimestamp(at_ms // 1000, UTC).replace(tzinfo=None)
        signature = Webhook(self.secret).sign(message_id, at, body.decode("utf-8", "replace"))
        return Signed(
            body,
            {
                "Content-Type": "application/json",
                "svix-id": message_id,
                "svix-timestamp": str(at_ms // 1000),
                "svix-signature": signature,
            },
        )


SIGNERS: dict[str, type[Signer]] = {
    kind.preset: kind for kind in (Ses, SendGrid, Mailgun, Postmark, Brevo, Resend)
}


def signer_of(preset: str) -> Any:
    """Return a new signer of a provider."""
    return SIGNERS[preset]()
