"""Exported mail comes back byte for byte, in both forms; foreign mbox files give their envelope."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaygw.mail.content import normalise_line_ends
from relaygw.mail.exported import (
    Exported,
    NotExported,
    as_entry,
    as_line,
    exported,
    from_line,
    read_entries,
)
from tests.tables import each_of

LIMIT = 10_000


def mail(content: bytes, *recipients: str, sender: str | None = "a@shop.test") -> Exported:
    return Exported(
        sender=sender,
        recipients=recipients or ("b@cust.test",),
        content=content,
        queue_id="1M89BZ88N46GD3SE7",
        mode="staging",
    )


def read_mbox(text: bytes, *, limit_bytes: int = LIMIT) -> list[Exported]:
    return [exported(one) for one in read_entries(io.BytesIO(text), limit_bytes=limit_bytes)]


HOSTILE = [
    b"",
    b"\r\n",
    b"Subject: x\r\n\r\nhello\r\n",
    b"Subject: x\r\n\r\nno line end",
    b"Subject: x\r\n\r\nFrom here\r\n>From there\r\n\r\nFrom a blank line\r\n\r\n\r\n",
    b"X-Original-To: not@the.envelope\r\nReturn-Path: <neither>\r\n\r\nx\r\n",
    b"X-Relaygw-Export: 1M89BZ88N46GD3SE7 1 1 sandbox\r\n\r\nx\r\n",
    b"From a@b Mon\r\nSubject: x\r\n\r\n\xff\x00\xfe\r\n",
]


@each_of("content", HOSTILE)
def test_content_comes_back_byte_for_byte(content: bytes) -> None:
    one = mail(content, "b@cust.test", "jürgen@münchen.test", sender="")
    two = mail(b"Subject: next\r\n\r\nx\r\n")
    text = as_entry(one, at_ms=0) + as_entry(two, at_ms=0)
    assert read_mbox(text) == [one, two]
    assert [from_line(as_line(each, {})) for each in (one, two)] == [one, two]


@given(
    st.lists(st.sampled_from([b"From ", b">", b"\n", b"\r\n", b"x", b":", b"\xff"]), max_size=30)
)
def test_no_content_breaks_an_mbox(parts: list[bytes]) -> None:
    one, two = mail(normalise_line_ends(b"".join(parts))), mail(b"Subject: x\r\n\r\n")
    assert read_mbox(as_entry(one, at_ms=0) + as_entry(two, at_ms=0)) == [one, two]


def test_a_foreign_mbox_tells_its_envelope() -> None:
    (one, two, three) = read_mbox(
        b"From a@x.test Mon Nov 25 10:00:00 2026\n"
        b"Return-Path: <real@x.test>\nX-Original-To: b@y.test\nDelivered-To: c@y.test\n"
        b"Subject: one\n\n>From me\nX-Original-To: text@y.test\n\n"
        b"From MAILER-DAEMON Mon Nov 25 10:00:00 2026\r\n"
        b"Delivered-To: d@y.test\r\nDelivered-To: e@y.test\r\n\r\nx\r\n\r\n"
        b"From nobody\n\njust text"
    )
    assert (one.sender, one.recipients) == ("real@x.test", ("b@y.test",))
    assert one.content == b"Subject: one\r\n\r\nFrom me\r\nX-Original-To: text@y.test\r\n"
    assert (two.sender, two.recipients) == ("", ("d@y.test", "e@y.test"))
    assert (three.sender, three.recipients) == ("nobody", ())


def test_what_is_too_large_is_named_and_the_rest_is_read() -> None:
    text = as_entry(mail(b"x" * 200), at_ms=0) + as_entry(mail(b"small\r\n"), at_ms=0)
    first, second = read_entries(io.BytesIO(text), limit_bytes=150)
    with pytest.raises(NotExported, match="larger than max_message_size"):
        exported(first)
    assert exported(second).content == b"small\r\n"


def test_a_cut_entry_is_damaged() -> None:
    text = as_entry(mail(b"Subject: x\r\n\r\nhello\r\n"), at_ms=0)
    with pytest.raises(NotExported, match="damaged"):
        read_mbox(text[:-5])


@each_of(("sender", "shown"), [("a@shop.test", b"a@shop.test"), ("", b"MAILER-DAEMON")])
def test_an_entry_begins_with_its_sender_and_the_time(sender: str, shown: bytes) -> None:
    first, _, _ = as_entry(mail(b"x", sender=sender), at_ms=1000).partition(b"\n")
    assert first == b"From %b Thu Jan  1 00:00:01 1970" % shown


def test_a_separator_stands_behind_a_blank_line() -> None:
    (one,) = read_mbox(b"From a@x.test today\nFrom b: x\n\ntext\n")
    assert (one.sender, one.content) == ("a@x.test", b"From b: x\r\n\r\ntext\r\n")


def test_what_is_no_mbox_is_refused() -> None:
    with pytest.raises(NotExported, match="not an mbox"):
        read_mbox(b"Subject: x\n\nFrom here\n")
    assert read_mbox(b"") == []


@each_of(
    ("line", "why"),
    [
        (b"{", "no JSON"),
        (b"[]", "no object"),
        (b'{"sender":"a"}', "no object"),
        (b'{"relaygw_export":1,"sender":5,"recipients":[],"content":""}', "sender"),
        (b'{"relaygw_export":1,"sender":"","recipients":"b","content":""}', "recipients"),
        (b'{"relaygw_export":1,"sender":"","recipients":["b"],"content":"*"}', "base64"),
        (b'{"relaygw_export":1,"sender":"","recipients":["b"]}', "content"),
        (b'{"relaygw_export":1,"sender":"","recipients":["b"],"content":""}', "mode"),
        (
            b'{"relaygw_export":1,"sender":"","recipients":["\\u0000"],"content":""}',
            "recipients has",
        ),
    ],
)
def test_a_line_that_is_no_message(line: bytes, why: str) -> None:
    with pytest.raises(NotExported, match=why):
        from_line(line)


def test_the_key_is_of_envelope_and_content() -> None:
    one = mail(b"x")
    assert one.key() == mail(b"x").key()
    others = [mail(b"y"), mail(b"x", "c@cust.test"), mail(b"x", sender="")]
    assert one.key() not in {other.key() for other in others}
