"""Replies as they are seen on the wire, and the id in them."""

from __future__ import annotations

from relaygw.mail.reply import provider_id
from tests.tables import each_of


@each_of(
    ("reply", "queue_id"),
    [
        ("250 2.0.0 Ok: queued as 4F9D195432C", "4F9D195432C"),  # Postfix
        ("250 2.0.0 Ok: queued as 4bXk2S0QzTz9s1x", "4bXk2S0QzTz9s1x"),  # Postfix, long ids
        (
            "250 Ok 0102018f4c1d2a3b-6c0e2a4d-0b1e-4f7a-9d3c-5e8f7a6b4c2d-000000",  # SES
            "0102018f4c1d2a3b-6c0e2a4d-0b1e-4f7a-9d3c-5e8f7a6b4c2d-000000",
        ),
        ("250 Ok: queued as zQ1vJ0RtQ6-2bXm0aW9r3A", "zQ1vJ0RtQ6-2bXm0aW9r3A"),  # SendGrid
        ("250 2.0.0 OK  1461783492 g84si11519689ioj.33 - gsmtp", "g84si11519689ioj.33"),  # Gmail
        ("250 2.0.0 OK: queued as <202611251702.1@relay.test>", "202611251702.1@relay.test"),
        ("250 OK queued as 20547674933128000", "20547674933128000"),  # Mailjet
        ("250 2.0.0 OK 7C/5F-12345-ABCDEF06", "7C/5F-12345-ABCDEF06"),  # Momentum
        ("250 OK id=1tFz8K-000000003xY-2abc", "1tFz8K-000000003xY-2abc"),  # Exim
        ("250 OK ids=d7ef132b5d7711eea8c8000c29c33806", "d7ef132b5d7711eea8c8000c29c33806"),
        ("250 2.0.0 3APH2Fx1012345 Message accepted for delivery", "3APH2Fx1012345"),  # sendmail
        ("250 ok 1732554135 qp 12345", "12345"),  # qmail
        (
            "250 2.6.0 <a@b.test> [InternalId=7696581394433, Hostname=X.PROD.OUTLOOK.COM] "
            "8150 bytes in 0.1, 50 KB/sec Queued mail for delivery",
            "7696581394433",
        ),
        (
            "250 2.0.0 OK <DB9PR0401.1@DB9PR.eurprd.prod.outlook.com> "
            "[Hostname=DB9PR.eurprd.prod.outlook.com]",
            "DB9PR0401.1@DB9PR.eurprd.prod.outlook.com",
        ),
        ("250 2.0.0 Ok: queued as 01JDHXQ2A3B4C5D6", "01JDHXQ2A3B4C5D6"),  # relaygw
    ],
)
def test_the_id_is_found(reply: str, queue_id: str) -> None:
    assert provider_id(reply) == queue_id


@each_of(
    "reply",
    [
        "250 Great success",
        "250 2.0.0 Ok: queued",
        "250 OK",
        "250",
        "250 ",
        "250 Ok delivered",
        "250 2.0.0 Ok thank you for your mail",
        "",
        "250 queued as ",
    ],
)
def test_there_is_none(reply: str) -> None:
    assert provider_id(reply) is None
