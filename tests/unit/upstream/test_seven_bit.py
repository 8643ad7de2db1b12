"""8-bit mail for providers without 8BITMIME: same meaning, ASCII only, or a clear refusal."""

from __future__ import annotations

from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaygw.errors import ContentInvalid
from relaygw.upstream.seven_bit import to_seven_bit


def parsed(content: bytes) -> EmailMessage:
    message = message_from_bytes(to_seven_bit(content), policy=default)
    assert isinstance(message, EmailMessage)
    return message


def test_header_fields_in_utf8_become_encoded_words() -> None:
    message = parsed(
        'From: Jörg Müller <joerg@x.test>, "Ä, B" <b@x.test>\r\n'
        "Subject: Bestellung über 5 €\r\n\r\nhi\r\n".encode()
    )
    assert message["subject"] == "Bestellung über 5 €"
    assert [(a.display_name, a.addr_spec) for a in message["from"].addresses] == [
        ("Jörg Müller", "joerg@x.test"),
        ("Ä, B", "b@x.test"),
    ]


@pytest.mark.parametrize("encoding", ["8bit", "binary", "7bit"])
def test_text_keeps_its_bytes(encoding: str) -> None:
    head = f"Content-Type: text/plain; charset=koi8-r\r\nContent-Transfer-Encoding: {encoding}\r\n"
    message = parsed(head.encode() + b"\r\n\xf0\xd2\r\n.\xc9 =\r\n")
    assert message.get_payload(decode=True) == b"\xf0\xd2\r\n.\xc9 =\r\n"
    assert message.get_content_charset() == "koi8-r"


def test_mail_without_mime_gets_the_fields_it_needs() -> None:
    message = parsed("Subject: x\r\n\r\nGrüße\r\n".encode())
    assert message["mime-version"] == "1.0"
    assert message.get_content() == "Grüße\r\n"


MULTIPART = (
    b"Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    b"--b\r\nContent-Type: text/html; charset=utf-8\r\n\r\n\xc3\xa4\r\n"
    b"--b\r\nContent-Type: application/x\r\nContent-Transfer-Encoding: binary\r\n\r\n\xff\x80\r\n"
    b"--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: \xc3\xb6\r\n\r\n\xc3\xb6\r\n"
    b"--b\r\nContent-Type: text/plain\r\n\r\nplain = as it was\r\n"
    b"--b--\r\n"
)


def test_parts_are_converted_each_by_its_kind() -> None:
    message = parsed(MULTIPART)
    bodies = [part.get_payload(decode=True) for part in message.walk() if not part.is_multipart()]
    assert bodies == [b"\xc3\xa4", b"\xff\x80", b"\xc3\xb6", b"plain = as it was"]
    assert message["content-transfer-encoding"] is None
    assert message.get_payload()[2].get_payload()[0]["subject"] == "ö"


@pytest.mark.parametrize(
    "content",
    [
        b"From: j\xc3\xb6@x.test\r\n\r\nx\r\n",
        b"Content-Type: multipart/mixed\r\n\r\n\xff\r\n",
        b"Content-Transfer-Encoding: base64\r\n\r\n\xff\r\n",
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\npre\xff\r\n--b\r\n\r\nx\r\n--b--\r\n",
    ],
)
def test_refuses_what_cannot_be_said_in_ascii(content: bytes) -> None:
    with pytest.raises(ContentInvalid):
        to_seven_bit(content)


def test_deep_nesting_is_refused() -> None:
    opening = b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n)
        for n in range(3000)
    )
    with pytest.raises(ContentInvalid):
        to_seven_bit(opening + b"\r\n\xff\r\n")


@given(st.binary(max_size=400))
def test_any_bytes_become_ascii_or_are_refused(body: bytes) -> None:
    try:
        converted = to_seven_bit(body + b"\r\n\r\n" + body)
    except ContentInvalid:
        return
    assert converted.isascii()
