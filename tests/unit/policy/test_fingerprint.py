"""Copies of a mail have one fingerprint; other mail, however alike, has another."""

from __future__ import annotations

import base64
import time

from relaygw.mail.content import read_header
from relaygw.policy.storms import TOKEN_BYTES, fingerprint, opening
from tests.tables import each_of


def of(content: str) -> bytes:
    data = content.replace("\n", "\r\n").encode()
    return fingerprint(data, read_header(data).end).alike


def html(token: str, number: str = "100000123") -> str:
    return (
        f'<p>Order {number}</p><a href="https://shop.test/r/{token}?id=12">x</a>'
        f'<img src="https://t.shop.test/o.gif?u={token}">'
    )


def mail(text: str, more: str = "") -> str:
    return f"{more}Subject: Order\nFrom: a@shop.test\n\n{text}\n"


def encoded(text: str) -> str:
    lines = base64.encodebytes(text.encode() * 3).decode()
    return f"Subject: Order\nContent-Transfer-Encoding: base64\n\n{lines}"


def with_base64_part(token: str) -> str:
    """Return mail with a part whose last line is short, and another one for each length."""
    text = html(token) * 3
    text += "x" * (57 + 3 - (len(html(A)) * 3 + 1) % 57)
    lines = base64.encodebytes(text.encode()).decode()
    return mail(f"--b\nContent-Transfer-Encoding: base64\n\n{lines}--b\n\nhello")


def multipart(boundary: str, picture: str = "picture") -> str:
    return (
        f'Subject: Order\nContent-Type: multipart/related; boundary="{boundary}"\n\n--{boundary}\n'
        f"Content-Type: text/html\n\n<img src=cid:{boundary}@x.test>\n--{boundary}\n"
        f"Content-ID: <{boundary}@x.test>\n\n{picture}\n--{boundary}--\n"
    )


A, B = "8fe1c2b7a90d4e3f", "1b9c7e5d3f2a4c6b8d"
LARGE = "0123456789abcdef\n" * 6000
SAME = [
    (mail("hello"), mail("hello\n\n")),
    (mail("hello"), mail("hello", "Message-ID: <1@x>\nDate: today\nReceived: by x\nX-Id: 7\n")),
    (mail("hello"), "SUBJECT: Order\nFrom:\n a@shop.test\n\nhello\n"),
    (mail(html(A)), mail(html(B))),
    (mail(f"see =\nhttps://x.test/?t=3D{A} now"), mail(f"see https://x.te=\nst/?t=3D{B} now")),
    (mail("a line =\nthat is broken"), mail("a line that =\nis broken")),
    (encoded(html(A)), encoded(html(B + "00"))),
    (with_base64_part(A), with_base64_part(A + "b")),
    (multipart("_=_swift_1"), multipart("b1_" + A)),
    (multipart("_=_swift_1", LARGE), multipart("b1_" + A, LARGE)),
    (mail("id 123e4567-e89b-12d3-a456-426614174000"), mail(f"id {A}")),
]
OTHER = [
    (multipart("_=_swift_1", LARGE), multipart("_=_swift_1", LARGE + "x")),
    (mail("hello"), mail("hello!")),
    (mail("hello"), mail("hello").replace("Order", "Order 2")),
    (mail(html(A)), mail(html(A, "100000124"))),
    (encoded(html(A)), encoded(html(A, "100000124"))),
    (mail("parcel 00340434161094012345"), mail("parcel 00340434161094012346")),
    (mail("https://x.test/lead?id=10000017"), mail("https://x.test/lead?id=10000018")),
    (mail(""), mail("x")),
]


@each_of(
    "one, other, is_same",
    [*[(*pair, True) for pair in SAME], *[(*pair, False) for pair in OTHER]],
)
def test_only_copies_have_one_fingerprint(one: str, other: str, is_same: bool) -> None:
    assert (of(one) == of(other)) is is_same


def test_what_differs_behind_what_is_read_for_tokens_differs() -> None:
    one, other = (mail(LARGE * 11 + last).encode() for last in "ab")
    assert len(one) > TOKEN_BYTES
    assert fingerprint(one, 30).exact != fingerprint(other, 30).exact


ROWS = "<tr><td>1 piece of =\n it</td>\n<td>12.00 EUR, in a shop</td></tr>\n" * 80


def opening_of(content: str) -> int | None:
    data = content.replace("\n", "\r\n").encode()
    return opening(data, read_header(data).end)


@each_of("one, other", SAME)
def test_copies_have_one_opening(one: str, other: str) -> None:
    for long_one, long_other in (
        (one.rstrip() + f" {ROWS}", other.rstrip() + f" {ROWS}"),
        (one.replace("\n\n", f"\n\n{ROWS[:300]}"), other.replace("\n\n", f"\n\n{ROWS[:300]}")),
    ):
        assert opening_of(long_one) == opening_of(long_other)


def test_other_mail_has_another_opening() -> None:
    orders = [mail(f"Order {number}\n{ROWS}") for number in range(100, 120)]
    style = f"<style>{ROWS * 2}</style>"  # of a template
    orders += [mail(f"{style}\n<body bgcolor=x>{number}\n{ROWS}") for number in range(100, 120)]
    assert len({opening_of(order) for order in orders} - {None}) == 40
    for little in ("", "hello\n" * 159, encoded(ROWS), mail("x" * 20_000)):
        assert opening_of(little) is None


@each_of(
    "piece",
    [b"a", b"A\r\n", b"http://", b"-", b"=\r\n", b"\r\n--", b"cid:", b"A" * 60 + b"\r\n"],
)
def test_hostile_content_takes_no_longer_than_other(piece: bytes) -> None:
    data = b"Subject: x\r\n\r\n" + piece * (2**20 // len(piece))
    began_s = time.process_time()
    fingerprint(data, 12)
    assert time.process_time() - began_s < 1.0
