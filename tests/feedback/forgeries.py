"""Posts that must have no effect: forged, stale, unsigned, of another topic, with other bytes.

`FORGERIES` are made for a signer whose secret the gateway has, and for a mail that was sent; each
tells of a bounce, a complaint or the like of that mail. Whoever posts them all finds no event.
`stolen` is what can be done with a genuine post that was seen on its way.
"""

from __future__ import annotations

import base64
import itertools
import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from relaygw.mail.verdict import Kind
from tests.feedback.documented import Example, Sent, examples
from tests.feedback.signers import SIGNERS, Mailgun, Ses, Signed, certificate, signer_of

Change = Callable[[Signed], Signed]
HOUR_MS = 3_600_000
_TELLING = (Kind.HARD, Kind.COMPLAINED, Kind.DELIVERED)


@dataclass(frozen=True)
class Forgery:
    """A post that looks like one of a provider; `make` takes its signer, a mail and the time."""

    preset: str
    name: str
    make: Callable[[Any, Sent, int], Signed]

    def __str__(self) -> str:
        return f"{self.preset}-{self.name}"


def _telling(preset: str) -> list[Example]:
    """Return an example for each kind that would matter."""
    found = examples(preset)
    return [next(each for each in found if each.kind is kind) for kind in _TELLING]


def _body(signed: Signed, change: Callable[[bytes], bytes]) -> Signed:
    return replace(signed, body=change(signed.body))


def _headers(signed: Signed, **changes: str | None) -> Signed:
    headers = dict(signed.headers)
    for name, value in changes.items():
        name = name.replace("_", "-")
        headers = {key: held for key, held in headers.items() if key.lower() != name}
        if value is not None:
            headers[name] = value
    return Signed(signed.body, headers)


def _of(preset: str, name: str, change: Change, *, at_ms: int = 0) -> Iterator[Forgery]:
    """Yield a forgery for each kind: signed soundly, then changed."""
    for example in _telling(preset):

        def make(signer: Any, sent: Sent, now_ms: int, example: Example = example) -> Signed:
            return change(signer.sign([example.make(sent)], now_ms + at_ms))

        yield Forgery(preset, f"{example.name}-{name}", make)


def _by(preset: str, name: str, other: Callable[[Any], Any]) -> Iterator[Forgery]:
    """Yield forgeries that another signer made."""
    for example in _telling(preset):

        def make(signer: Any, sent: Sent, now_ms: int, example: Example = example) -> Signed:
            return other(signer).sign([example.make(sent)], now_ms)

        yield Forgery(preset, f"{example.name}-{name}", make)


def _same(signed: Signed) -> Signed:
    return signed


# --- where the bytes are signed -----------------------------------------------------------------

_OTHER_BYTES: dict[str, Callable[[bytes], bytes]] = {
    "another address": lambda body: body.replace(b"cust.test", b"cost.test"),
    "line added": lambda body: body + b"\n",
    "space before": lambda body: b" " + body,
    "written anew": lambda body: json.dumps(json.loads(body), indent=1).encode(),
    "last byte cut": lambda body: body[:-1],
    "BOM": lambda body: b"\xef\xbb\xbf" + body,
    "empty": lambda body: b"",
    "another time": lambda body: body.replace(b"17", b"18").replace(b"20", b"21"),
}


def _bytes_signed(preset: str) -> Iterator[Forgery]:
    for name, change in _OTHER_BYTES.items():
        yield from _of(preset, name, lambda signed, change=change: _body(signed, change))


def _flipped(value: str) -> str:
    octets = bytearray(base64.b64decode(value))
    octets[-1] ^= 1
    return base64.b64encode(bytes(octets)).decode()


# --- SendGrid ------------------------------------------------------------------------------------

_SG_SIGNATURE = "x-twilio-email-event-webhook-signature"
_SG_TIME = "x-twilio-email-event-webhook-timestamp"
_NULL_DER = base64.b64encode(b"\x30\x06\x02\x01\x00\x02\x01\x00").decode()


def _sendgrid() -> Iterator[Forgery]:
    yield from _bytes_signed("sendgrid")
    values = {
        "no signature": {_SG_SIGNATURE: None},
        "empty signature": {_SG_SIGNATURE: ""},
        "no base64": {_SG_SIGNATURE: "%%%"},
        "null signature": {_SG_SIGNATURE: _NULL_DER},
        "no time": {_SG_TIME: None},
        "time of words": {_SG_TIME: "now"},
        "another time of it": {_SG_TIME: "1790000001"},
    }
    for name, fields in values.items():
        yield from _of("sendgrid", name, lambda signed, fields=fields: _headers(signed, **fields))
    yield from _of("sendgrid", "stale", _same, at_ms=-26 * HOUR_MS)
    yield from _of("sendgrid", "years ago", _same, at_ms=-20_000 * HOUR_MS)
    yield from _of("sendgrid", "to come", _same, at_ms=HOUR_MS)
    key = ec.generate_private_key(ec.SECP256R1())
    yield from _by("sendgrid", "another key", lambda signer: replace(signer, key=key))

    def moved(signed: Signed) -> Signed:  # the first byte of the body signed as part of the time
        stamp = next(v for k, v in signed.headers.items() if k.lower() == _SG_TIME)
        return _headers(_body(signed, lambda body: body[1:]), **{_SG_TIME: f"{stamp}["})

    yield from _of("sendgrid", "a byte moved", moved)


# --- Resend --------------------------------------------------------------------------------------


def _resend() -> Iterator[Forgery]:
    yield from _bytes_signed("resend")
    values = {
        "no signature": {"svix_signature": None},
        "empty signature": {"svix_signature": ""},
        "another version": {"svix_signature": "v1a,AAAA"},
        "no version": {"svix_signature": "AAAA"},
        "no base64": {"svix_signature": "v1,%"},
        "empty value": {"svix_signature": "v1,"},
        "non-ASCII": {"svix_signature": "v1,\u00e4\u00f6"},
        "no id": {"svix_id": None},
        "another id": {"svix_id": "msg_2"},
        "no time": {"svix_timestamp": None},
        "no number": {"svix_timestamp": "nan"},
        "endless": {"svix_timestamp": "inf"},
        "another stamp": {"svix_timestamp": "1790000001"},
    }
    for name, fields in values.items():
        yield from _of("resend", name, lambda signed, fields=fields: _headers(signed, **fields))
    yield from _of("resend", "stale", _same, at_ms=-400_000)
    yield from _of("resend", "to come", _same, at_ms=400_000)
    for name, secret in (("another key", "whsec_" + "QUJD" * 8), ("key of zeros", "AAAA" * 8)):
        yield from _by("resend", name, lambda signer, secret=secret: replace(signer, secret=secret))


# --- Mailgun -------------------------------------------------------------------------------------


def _mailgun() -> Iterator[Forgery]:
    def signature(**changes: Any) -> Change:
        def change(signed: Signed) -> Signed:
            body = json.loads(signed.body)
            body["signature"].update(changes)
            held = {k: v for k, v in body["signature"].items() if v is not None}
            return Signed(json.dumps({**body, "signature": held}).encode(), signed.headers)

        return change

    def moved(signed: Signed) -> Signed:
        """Move a digit from the time to the token: the text that is signed stays the same."""
        body = json.loads(signed.body)
        triple = body["signature"]
        triple["token"] = triple["timestamp"][-1] + triple["token"]
        triple["timestamp"] = triple["timestamp"][:-1]
        return Signed(json.dumps(body).encode(), signed.headers)

    changes = {
        "no signature": signature(signature=None),
        "empty signature": signature(signature=""),
        "another": signature(signature="0" * 64),
        "null": signature(signature=[]),
        "true": signature(signature=True),
        "non-ASCII": signature(signature="\u00e4" * 64),
        "another token": signature(token="f" * 50),
        "no token": signature(token=None),
        "empty token": signature(token=""),
        "another time": signature(timestamp="1790000001"),
        "no time": signature(timestamp=None),
        "time with a sign": signature(timestamp="+179000000"),
        "a digit moved": moved,
        "no triple": lambda signed: _body(
            signed, lambda body: json.dumps({**json.loads(body), "signature": None}).encode()
        ),
    }
    for name, change in changes.items():
        yield from _of("mailgun", name, change)
    yield from _of("mailgun", "stale", _same, at_ms=-10 * HOUR_MS)
    yield from _of("mailgun", "to come", _same, at_ms=HOUR_MS)
    for name, secret in (("another key", "key-" + "f" * 32), ("no key", "")):
        yield from _by(
            "mailgun", name, lambda signer, secret=secret: replace(signer, secret=secret)
        )


# --- Postmark and Brevo --------------------------------------------------------------------------


def _login(preset: str) -> Iterator[Forgery]:
    def basic(text: bytes) -> str:
        return "Basic " + base64.b64encode(text).decode()

    fields: dict[str, dict[str, str | None]] = {
        "no login": {"authorization": None},
        "empty login": {"authorization": ""},
        "another password": {"authorization": basic(b"events:wrong horse battery")},
        "no password": {"authorization": basic(b"events:")},
        "user only": {"authorization": basic(b"events")},
        "cut": {"authorization": basic(b"events:correct horse batter")},
        "longer": {"authorization": basic(b"events:correct horse battery ")},
        "other case": {"authorization": basic(b"Events:correct horse battery")},
        "NUL": {"authorization": basic(b"events:correct horse battery\0")},
        "no base64": {"authorization": "Basic %%%%"},
        "password as bearer": {"authorization": "Bearer correct horse battery"},
        "plain": {"authorization": "events:correct horse battery"},
        "digest": {"authorization": 'Digest username="events"'},
        "header": {"authorization": None, "x_relaygw_secret": "guess"},
        "non-ASCII": {"authorization": None, "x_relaygw_secret": "\u00e4" * 8},
    }
    for name, changes in fields.items():
        yield from _of(preset, name, lambda signed, changes=changes: _headers(signed, **changes))


# --- SES -----------------------------------------------------------------------------------------

_HEX = "f3ecfb7224c7233fe7bb5f59f96de52f"
_OTHER_URLS = (
    f"http://sns.us-east-1.amazonaws.com/SimpleNotificationService-{_HEX}.pem",
    f"https://sns.us-east-1.amazonaws.com.evil.test/SimpleNotificationService-{_HEX}.pem",
    f"https://evil.test/sns.us-east-1.amazonaws.com/SimpleNotificationService-{_HEX}.pem",
    f"https://evil.test/SimpleNotificationService-{_HEX}.pem",
    f"https://sns.us-east-1.amazonaws.com@evil.test/SimpleNotificationService-{_HEX}.pem",
    f"https://sns.us-east-1.amazonaws.com:8443/SimpleNotificationService-{_HEX}.pem",
    f"https://user@sns.us-east-1.amazonaws.com/SimpleNotificationService-{_HEX}.pem",
    f"https://sns.us-east-1.amazonaws.com/SimpleNotificationService-{_HEX}.pem?x=1",
    f"https://sns.us-east-1.amazonaws.com/SimpleNotificationService-{_HEX}.pem#x",
    f"https://sns.us-east-1.amazonaws.com/SimpleNotificationService-{_HEX}.pem\n",
    f"https://sns.us-east-1.amazonaws.com/x/../SimpleNotificationService-{_HEX}.pem",
    f"https://sns.us-east-1.amazonaws.com//SimpleNotificationService-{_HEX}.pem",
    f"https://sns.us-east-1.amazonaws.com/SimpleNotificationService-{_HEX}.pem/",
    "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-../../bucket/key.pem",
    "https://sns.us-east-1.amazonaws.com/other.pem",
    f"https://s3.us-east-1.amazonaws.com/SimpleNotificationService-{_HEX}.pem",
    f"https://bucket.s3.amazonaws.com/sns.us-east-1/SimpleNotificationService-{_HEX}.pem",
    f"https://sns.us-east-1.evil.amazonaws.com/SimpleNotificationService-{_HEX}.pem",
    f"https://sns.us-east-1.amazonaws.com.cn.evil.test/SimpleNotificationService-{_HEX}.pem",
    f"https://sns.us-east-1.amazonaws.org/SimpleNotificationService-{_HEX}.pem",
    f"https://xsns.us-east-1.amazonaws.com/SimpleNotificationService-{_HEX}.pem",
    f"https://sns.us-east-1xamazonaws.com/SimpleNotificationService-{_HEX}.pem",
    f"https://sns.127.0.0.1.amazonaws.com/SimpleNotificationService-{_HEX}.pem",
    f"https://sns.\u0443s-east-1.amazonaws.com/SimpleNotificationService-{_HEX}.pem",
    f"https:\\\\sns.us-east-1.amazonaws.com/SimpleNotificationService-{_HEX}.pem",
    f"file:///etc/SimpleNotificationService-{_HEX}.pem",
    "",
)


def _ses() -> Iterator[Forgery]:
    def fields(**changes: Any) -> Change:
        """Change an envelope after it was signed."""

        def change(signed: Signed) -> Signed:
            envelope = {**json.loads(signed.body), **changes}
            held = {k: v for k, v in envelope.items() if v is not None}
            return Signed(json.dumps(held).encode(), signed.headers)

        return change

    def message(signed: Signed) -> Signed:
        text = json.loads(signed.body)["Message"]
        return fields(Message=text.replace("cust.test", "cost.test"))(signed)

    def signature(signed: Signed) -> Signed:
        return fields(Signature=_flipped(json.loads(signed.body)["Signature"]))(signed)

    def unwrapped(signed: Signed) -> Signed:
        headers = {**signed.headers, "x-amz-sns-rawdelivery": "true"}
        return Signed(json.loads(signed.body)["Message"].encode(), headers)

    changes: dict[str, Change] = {
        "another message": message,
        "another id": fields(MessageId="00000000-0000-0000-0000-000000000000"),
        "another subject": fields(Subject="x"),
        "another type": fields(Type="Notification "),
        "type in small letters": fields(Type="notification"),
        "no type": fields(Type=None),
        "type of many": fields(Type=["Notification"]),
        "no topic": fields(TopicArn=None),
        "topics": fields(TopicArn=["arn:aws:sns:us-east-1:123456789012:ses-events"]),
        "no signature": fields(Signature=None),
        "empty signature": fields(Signature=""),
        "no base64": fields(Signature="%%"),
        "flipped": signature,
        "version 2 claimed": fields(SignatureVersion="2"),
        "version 3": fields(SignatureVersion="3"),
        "version as a number": fields(SignatureVersion=1),
        "no version": fields(SignatureVersion=None),
        "no certificate": fields(SigningCertURL=None),
        "certificates": fields(SigningCertURL=[""]),
        "unwrapped": unwrapped,
        "message no text": fields(Message={"eventType": "Bounce"}),
        "another time": fields(Timestamp="2020-01-01T00:00:00.000Z"),
    }
    for name, change in changes.items():
        yield from _of("ses", name, change)
    yield from _of("ses", "stale", _same, at_ms=-3 * HOUR_MS)
    yield from _of("ses", "to come", _same, at_ms=HOUR_MS)
    for topic in (
        "arn:aws:sns:us-east-1:999999999999:ses-events",
        "arn:aws:sns:us-east-1:123456789012:SES-events",
        "arn:aws:sns:us-east-1:123456789012:ses-events\n",
        "arn:aws:sns:us-east-1:123456789012:ses-events2",
        "",
    ):
        yield from _by("ses", f"topic {topic!r}", lambda s, topic=topic: _subscriber(s, topic))


def _ses_by_others() -> Iterator[Forgery]:
    attacker = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    theirs = certificate(attacker)

    def attackers(signer: Ses, url: str) -> Ses:
        signer.served[url] = theirs if url != signer.certificate_url else signer.served[url]
        return replace(signer, key=attacker, certificate_url=url, served=signer.served)

    yield from _by("ses", "another key", lambda signer: attackers(signer, signer.certificate_url))
    example = _telling("ses")[0]
    for number, url in enumerate(_OTHER_URLS):

        def make(signer: Ses, sent: Sent, now_ms: int, url: str = url) -> Signed:
            return attackers(signer, url).sign([example.make(sent)], now_ms)

        yield Forgery("ses", f"certificate elsewhere {number}", make)
    yield from _ses_cut_up(example)


def _subscriber(signer: Ses, topic: str) -> Ses:
    """Return Amazon, as it signs for a topic of somebody else."""
    return replace(signer, topic=topic)


def _ses_cut_up(example: Example) -> Iterator[Forgery]:
    """Yield genuine posts of another topic, whose content is cut up into one of ours."""

    def make(signer: Ses, sent: Sent, now_ms: int, part: str) -> Signed:
        other = _subscriber(signer, "arn:aws:sns:us-east-1:999999999999:evil")
        text = json.dumps(example.make(sent))
        stamp = json.loads(signer.sign([{}], now_ms).body)["Timestamp"]
        inner = f"MessageId\n1\nTimestamp\n{stamp}\nTopicArn\n{signer.topic}\nType\nNotification\n"
        signed = json.loads(other.sign_bytes(f"{text}\n{inner}".encode(), now_ms).body)
        rest = (
            f"MessageId\n{signed['MessageId']}\nTimestamp\n{signed['Timestamp']}\n"
            f"TopicArn\n{other.topic}\nType\nNotification"
        )
        fields = {"MessageId": "1", "Timestamp": stamp, "TopicArn": signer.topic, "Message": text}
        end = {
            "Type": f"Notification\n{rest}",
            "TopicArn": f"{signer.topic}\nType\nNotification\n{rest}".removesuffix(
                "\nType\nNotification"
            ),
        }
        return signer.unsigned({**signed, **fields, part: end[part]})

    for part in ("Type", "TopicArn"):
        yield Forgery("ses", f"cut up by {part}", lambda s, m, n, part=part: make(s, m, n, part))


# --- all of them ---------------------------------------------------------------------------------

_ODD_BODIES: dict[str, bytes] = {
    "nothing": b"",
    "null": b"null",
    "number": b"1",
    "text": b'"x"',
    "deep": b"[" * 100_000,
    "deep objects": b'{"a":' * 50_000,
    "NUL": b"\0" * 100,
    "no UTF-8": b'{"event":"\xff\xfe"}',
    "UTF-16": '{"event":"bounce"}'.encode("utf-16"),
    "huge number": b'{"event":' + b"9" * 5000 + b"}",
    "not a number": b'{"event":NaN}',
    "a picture": b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13),
    "form": b"event=bounce&email=bob%40cust.test",
}


def _any_provider(preset: str) -> Iterator[Forgery]:
    for name, body in _ODD_BODIES.items():
        yield Forgery(preset, name, lambda s, m, n, body=body: Signed(body, {}))
        if preset != "mailgun" or name != "nothing":
            yield Forgery(
                preset, f"signed {name}", lambda s, m, n, body=body: s.sign_bytes(body, n)
            )
    for other in SIGNERS:
        if other != preset and {other, preset} != {"postmark", "brevo"}:
            yield from _by(preset, f"as {other} signs", lambda s, other=other: signer_of(other))
    yield from (
        _of(preset, "bare", lambda signed: Signed(signed.body, {}))
        if preset
        not in (
            "ses",
            "mailgun",
        )
        else ()
    )


FORGERIES: list[Forgery] = [
    *itertools.chain.from_iterable(_any_provider(preset) for preset in SIGNERS),
    *_sendgrid(),
    *_resend(),
    *_mailgun(),
    *_login("postmark"),
    *_login("brevo"),
    *_ses(),
    *_ses_by_others(),
]


def stolen(signer: Mailgun, genuine: Signed, sent: Sent) -> list[Signed]:
    """Return posts that sign other events with the triple of a genuine one; it counts once."""
    triple = json.loads(genuine.body)["signature"]
    return [
        signer.unsigned({"signature": triple, "event-data": example.make(sent)})
        for example in _telling("mailgun")
    ]
