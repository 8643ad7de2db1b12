"""The message: where it ends, its header, its recipients, and what stays byte by byte."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaygw.mail.content import normalise_line_ends
from relaygw.sendmail import content as module
from relaygw.sendmail.arguments import EX_NOINPUT, EX_UNAVAILABLE, Failure
from relaygw.sendmail.content import Message, read_input
from tests.tables import each_of


@contextmanager
def stdin(data: bytes, *, step: int = 1 << 20) -> Iterator[None]:
    """Let fd 0 be a pipe that brings `data` in steps."""
    kept = os.dup(0)
    reader, writer = os.pipe()
    os.dup2(reader, 0)
    os.close(reader)

    def write() -> None:
        for at in range(0, len(data), step):
            os.write(writer, data[at : at + step])
        os.close(writer)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        os.dup2(kept, 0)
        os.close(kept)


@each_of(
    ("text", "expected"),
    [
        (b"a\n.\nb\n", b"a\n"),
        (b"a\r\n.\r\nb\r\n", b"a\r\n"),
        (b".\na\n", b""),
        (b"a\n.", b"a\n"),
        (b"a\n.b\n..\n...c\n", b"a\n.b\n.\n..c\n"),
        (b"..a\n", b".a\n"),
        (b"a.\nb\n", b"a.\nb\n"),
        (b"a\r.\rb\n", b"a\r.\rb\n"),
        (b"a\n. \nb", b"a\n. \nb"),
        (b"", b""),
    ],
)
@each_of("step", [1, 3, 1000])
def test_a_lone_dot_ends_the_message(text: bytes, expected: bytes, step: int) -> None:
    with stdin(text, step=step):
        assert read_input(stops_at_dot=True) == expected


@pytest.mark.parametrize("text", [b"a\n.\n..b\n", b".\n", b"\n", b"x" * 300_000, b""])
def test_with_i_a_dot_is_a_dot(text: bytes) -> None:
    with stdin(text):
        assert read_input(stops_at_dot=False) == text


def test_too_big(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CONTENT_BYTES", 1000)
    with stdin(b"x" * 1000):
        assert len(read_input(stops_at_dot=False)) == 1000
    with stdin(b"x" * 1001), pytest.raises(Failure) as caught:
        read_input(stops_at_dot=False)
    assert caught.value.exit_code == EX_UNAVAILABLE


def test_stdin_that_cannot_be_read(tmp_path: object) -> None:
    kept = os.dup(0)
    directory = os.open("/", os.O_RDONLY)
    os.dup2(directory, 0)
    try:
        with pytest.raises(Failure) as caught:
            read_input(stops_at_dot=False)
    finally:
        os.dup2(kept, 0)
        os.close(kept)
        os.close(directory)
    assert caught.value.exit_code == EX_NOINPUT


@each_of(
    ("header", "expected"),
    [
        (b"To: a@x\nCc: b@x\nBcc: c@x\n", [b"a@x", b"b@x", b"c@x"]),
        (b"TO : a@x\r\nbCC:b@x\r\n", [b"a@x", b"b@x"]),
        (b"To: a@x,\n b@x,\n\tc@x\n", [b"a@x", b"b@x", b"c@x"]),
        (b"To: a@x\nTo: b@x\n", [b"a@x", b"b@x"]),
        (b"To: a@x\nResent-Cc: r@x\nResent-Bcc: s@x\n", [b"r@x", b"s@x"]),
        (b"To: a@x\nResent-From: r@x\n", [b"a@x"]),
        (b"Subject: x\n", []),
        (b"Subject: To: a@x\nX-To: b@x\n", []),
    ],
)
def test_recipients_of_a_header(header: bytes, expected: list[bytes]) -> None:
    assert Message(header + b"\nTo: body@x\n").recipients() == expected


@each_of(
    ("text", "expected"),
    [
        (b"A: 1\nBcc: x@y,\n z@y\nB: 2\n\nBcc: body\n", b"A: 1\nB: 2\n\nBcc: body\n"),
        (b"Resent-Bcc: x@y\r\nA:  1 \r\n\r\nb", b"A:  1 \r\n\r\nb"),
        (b"A: 1\rBcc: x@y\rB: 2\n\nb", b"A: 1\r\nB: 2\n\nb"),
        (b"A: 1\rBcc: x@y\n\nbody", b"A: 1\r\n\nbody"),
        (b"A: 1\r:\r\nBcc: body", b"A: 1\r\n\n:\r\nBcc: body"),
        (b"BCC : x@y", b""),
        (b"A: 1\n b\n\tc\n\nbody", b"A: 1\n b\n\tc\n\nbody"),
        (b"A: 1\n", b"A: 1\n"),
        (b"A: 1\nno field\nbody", b"A: 1\n\nno field\nbody"),
        (b"no field: x\n", b"\nno field: x\n"),
        (b"\nBcc: body", b"\nBcc: body"),
        (b" x: y\n", b"\n x: y\n"),
        (b"From a@x Mon Jan 1\n>From b\nA: 1\n\nFrom c\n", b"A: 1\n\nFrom c\n"),
        (b"From: a@x\n\n", b"From: a@x\n\n"),
        (b"", b""),
    ],
)
def test_what_is_left_out_and_what_stays(text: bytes, expected: bytes) -> None:
    assert b"".join(Message(text).parts()) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"A: 1\r\n\r\nb", b"From: me\r\nA: 1\r\n\r\nb"),
        (b"body only\n", b"From: me\n\nbody only\n"),
        (b"\nbody\n", b"From: me\n\nbody\n"),
        (b"", b"From: me\n"),
    ],
)
def test_a_field_is_added_in_front(text: bytes, expected: bytes) -> None:
    assert b"".join(Message(text).parts(b"From: me")) == expected


def test_a_huge_folded_field_takes_no_time() -> None:
    header = b"To: a@x" + b",\n a@x" * 100_000 + b"\n"
    assert b"".join(Message(header + b"\nbody").parts()) == header + b"\nbody"


_PIECES = st.sampled_from(
    [b"Bcc: h@x", b"bcc :h@x", b"Resent-Bcc:h@x", b"To: a@x", b"X", b" ", b"\t", b":", b"\r\n",
     b"\n", b"\r", b"\n\n", b">From a", b"From a", b"\x00", b"\xff"]
)  # fmt: skip


@given(st.lists(_PIECES, max_size=20).map(b"".join))
def test_no_hidden_recipient_is_in_what_the_front_reads(text: bytes) -> None:
    left = normalise_line_ends(b"".join(Message(text).parts(b"From: me")))
    for line in left.partition(b"\r\n\r\n")[0].split(b"\r\n"):
        name, colon, _ = line.partition(b":")
        assert (
            not colon
            or name.strip(b" \t").lower() not in (b"bcc", b"resent-bcc")
            or (
                line.startswith((b" ", b"\t"))  # part of the field above
            )
        )
