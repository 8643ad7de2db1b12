"""Replies are read strictly, in any cut, and within bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaygw.mail.reply import SmtpReply
from relaygw.upstream.protocol import MAX_REPLY_LINE_BYTES, ReplyInvalid, take_reply
from tests.tables import each_of


def read(octets: bytes) -> tuple[SmtpReply | None, bytes]:
    buffer = bytearray(octets)
    return take_reply(buffer), bytes(buffer)


@each_of(
    ("octets", "code", "lines"),
    [
        (b"250 2.0.0 Ok\r\n", 250, ("2.0.0 Ok",)),
        (b"250-a\r\n250-b\r\n250 c\r\n", 250, ("a", "b", "c")),
        (b"250\r\n", 250, ("",)),  # RFC 5321 4.2: clients must take a code without text
        (b"250 \r\n", 250, ("",)),
        (b"354-\r\n354\r\n", 354, ("", "")),
        (b"550 caf\xc3\xa9\r\n", 550, ("caf\u00e9",)),
        (b"550 \x1b[31mred\x07 \xff\r\n", 550, ("?[31mred? \ufffd",)),  # U7
        ("550 a\u2028b\u202ec\r\n".encode(), 550, ("a?b?c",)),
        (b"550 a\rb\r\n", 550, ("a?b",)),
    ],
)
def test_reads_a_reply(octets: bytes, code: int, lines: tuple[str, ...]) -> None:
    assert read(octets) == (SmtpReply(code, lines), b"")


@each_of(
    ("code", "line", "dsn"),
    [
        (250, "2.1.5 Ok", "2.1.5"),
        (250, "Ok", "2.0.0"),
        (450, "try later", "4.0.0"),
        (550, "5.1.1 no", "5.1.1"),
        (550, "4.1.1 of another class", "5.0.0"),
        (354, "go on", "4.0.0"),
    ],
)
def test_the_status_of_a_reply(code: int, line: str, dsn: str) -> None:
    assert SmtpReply(code, (line,)).dsn == dsn


@each_of(
    ("code", "positive", "temporary", "permanent"),
    [
        (200, True, False, False),
        (299, True, False, False),
        (354, False, False, False),
        (400, False, True, False),
        (499, False, True, False),
        (500, False, False, True),
        (599, False, False, True),
    ],
)
def test_what_a_reply_is(code: int, positive: bool, temporary: bool, permanent: bool) -> None:
    reply = SmtpReply(code)
    assert (reply.is_positive, reply.is_temporary, reply.is_permanent) == (
        positive,
        temporary,
        permanent,
    )


@each_of(
    "octets",
    [
        b"abc\r\n",  # U3
        b"99 x\r\n",  # U4
        b"999 x\r\n",
        b"199 x\r\n",
        b"250_ok\r\n",
        b"2500 ok\r\n",
        b"\r\n",
        b" 250 ok\r\n",
        b"250-a\r\n550 b\r\n",  # U5
        b"250-a\r\n\r\n",
        b"250 ok\n",  # U6
        b"250-a\n250 b\r\n",
        b"250-x\r\n" * 101,  # U1
        b"x" * (MAX_REPLY_LINE_BYTES + 1),  # U2
        b"250 " + b"x" * MAX_REPLY_LINE_BYTES + b"\r\n",
        (b"250-" + b"x" * 4000 + b"\r\n") * 17,
        "\u0662\u0665\u0660 digits of another script\r\n".encode(),
    ],
)
def test_refuses_what_is_no_reply(octets: bytes) -> None:
    buffer = bytearray(octets)
    with pytest.raises(ReplyInvalid):
        take_reply(buffer)
    assert buffer == octets


@pytest.mark.parametrize("octets", [b"", b"2", b"250", b"250 ok", b"250 ok\r", b"250-a\r\n250"])
def test_waits_for_the_rest(octets: bytes) -> None:
    assert read(octets) == (None, octets)


def test_leaves_the_next_reply_alone() -> None:
    assert read(b"250 a\r\n550 b\r\n") == (SmtpReply(250, ("a",)), b"550 b\r\n")


LINES = st.lists(st.text(st.characters(codec="ascii", categories=["L", "N"])), min_size=1)


@given(st.lists(st.tuples(st.integers(200, 599), LINES), max_size=4), st.data())
def test_any_cut_gives_the_same_replies(
    replies: list[tuple[int, list[str]]], data: st.DataObject
) -> None:
    octets = b"".join(
        b"%d%b%b\r\n" % (code, b" " if number == len(lines) else b"-", line.encode())
        for code, lines in replies
        for number, line in enumerate(lines, start=1)
    )
    buffer, found = bytearray(), []
    while octets:
        cut = data.draw(st.integers(1, len(octets)))
        buffer += octets[:cut]
        octets = octets[cut:]
        while (reply := take_reply(buffer)) is not None:
            found.append(reply)
    assert found == [SmtpReply(code, tuple(lines)) for code, lines in replies]
    assert not buffer
