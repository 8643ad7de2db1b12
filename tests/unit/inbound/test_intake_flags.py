"""What is recorded of a message's bytes holds for all that is sent, our own fields included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from relaygw.inbound.content import MEMORY_BYTES, ReceivedContent
from relaygw.inbound.intake import Intake, Origin
from relaygw.mail.content import has_long_line
from relaygw.mail.envelope import AcceptedMessage, Source
from relaygw.settings.model import Settings

LONG = b"Subject: x\r\n\r\n" + b"plain text\r\n" * (MEMORY_BYTES // 12 + 1)


def compose(
    tmp_path: Path,
    content: bytes,
    recipient: str = "b@cust.test",
    protocol: str = "UTF8SMTP",
    **more: Any,
) -> tuple[AcceptedMessage, bytes]:
    """Return what is stored of a message, and its whole content."""
    settings = {"mode": "sandbox", "hostname": "gw.test", **more}
    into = Intake(Settings.model_validate(settings), state_dir=tmp_path)
    received = ReceivedContent(tmp_path)
    received.add(content)
    received.read_head()
    source = Source(client="127.0.0.1", helo="web1")
    message, chunks = into.compose(
        sender="a@shop.test",
        recipients=into.resolve_recipients(recipient),
        content=received,
        header=into.header_of(received, may_be_bare=protocol == "local"),
        origin=Origin(source=source, client_key="", protocol=protocol, smtputf8=True),
    )
    stored = b"".join(message.content or chunks)
    received.close()
    return message, stored


@pytest.mark.parametrize("content", [b"Subject: x\r\n\r\nhello\r\n", LONG], ids=["small", "large"])
@pytest.mark.parametrize("recipient", ["jürgen@müller.test", "b@müller.test"])
def test_our_own_trace_never_makes_a_message_8_bit(
    tmp_path: Path, recipient: str, content: bytes
) -> None:
    message, stored = compose(tmp_path, content, recipient)
    assert stored.isascii() and not message.is_8bit
    assert b"UTF8SMTP id" in stored and b"for <" not in stored


def test_the_from_field_of_the_sendmail_command_gets_a_domain(tmp_path: Path) -> None:
    content, named = b"From: www-data\r\nTo: b@x.test\r\n\r\nhi\r\n", b"\r\nFrom: www-data"
    message, stored = compose(tmp_path, content, protocol="local")
    assert named + b"@gw.test\r\nTo: b@x.test\r\n\r\nhi\r\n" in stored
    assert message.size_bytes == len(stored)
    senders = {"senders": {"www-data@gw.test": "shop@x.test"}}
    assert (
        b"\r\nFrom: shop@x.test\r\n"
        in compose(tmp_path, content, protocol="local", rewrite=senders)[1]
    )
    assert named + b"\r\n" in compose(tmp_path, content)[1]  # by SMTP it stays as it came


def test_an_ascii_recipient_stands_in_the_trace(tmp_path: Path) -> None:
    _, stored = compose(tmp_path, b"Subject: x\r\n\r\nhello\r\n")
    assert b"\r\n\tfor <b@cust.test>;\r\n" in stored


@pytest.mark.parametrize(
    ("content", "more"),
    [
        (b"From: a@x.test\r\n\r\nhi\r\n", {"rewrite": {"senders": {"a@x.test": "ä@x.test"}}}),
        (b"From: a@x.test\r\n" + LONG, {"rewrite": {"senders": {"a@x.test": "ä@x.test"}}}),
        (b"From " + b"x" * 990 + b"\r\nSubject: x\r\n\r\nhi\r\n", {}),
        (
            b"To: " + b"b@x.test, " * 98 + b"b@x.test\r\n\r\nhi\r\n",
            {"rewrite": {"recipients": {"b@x.test": "somebody.else@x.test"}}},
        ),
        (b"just text, " + b"x" * 990 + b"\r\n", {}),
        (b"Subject: x\r\n\r\n\xc3\xbc\r\n", {}),
        (b"Subject: x\r\n\r\nhi\r\n", {}),
    ],
    ids=["rewritten", "large", "mbox", "longer", "long", "body", "plain"],
)
def test_flags_and_size_are_those_of_what_is_stored(
    tmp_path: Path, content: bytes, more: dict[str, Any]
) -> None:
    message, stored = compose(tmp_path, content, **more)
    assert message.is_8bit is not stored.isascii()
    assert message.has_long_line is has_long_line(stored)
    assert message.size_bytes == len(stored)


@pytest.mark.parametrize(
    ("field", "kept"),
    [
        (b"x-order-id:\r\n  W-100000123 \r\nX-Order-Id: second\r\n", "W-100000123"),
        (b"X-Order-Id: =?utf-8?q?=C3=84_1?=\r\n", "Ä 1"),
        (b"X-Order-Id: \r\n", None),
        (b"X-Order-Id: " + b"1" * 201 + b"\r\n", None),
        (b"", None),
    ],
)
def test_the_number_of_an_order_is_read_at_acceptance(
    tmp_path: Path, field: bytes, kept: str | None
) -> None:
    content = field + b"Subject: x\r\n\r\nX-Order-Id: of the body\r\n"
    for more in ({"web": {"link_header": "X-Order-Id"}}, {}):
        message, stored = compose(tmp_path, content, **more)
        assert message.link_value == (kept if more else None)
        assert field in stored
