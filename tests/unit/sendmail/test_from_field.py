"""The From field that is added, and what a mail program reads out of it."""

from __future__ import annotations

from email.header import decode_header, make_header

import pytest

from relaygw.sendmail.content import compose_from


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (None, b"From: a@x.test"),
        (b"", b"From: a@x.test"),
        (b"Shop Name", b'From: "Shop Name" <a@x.test>'),
        (rb'a "b" \c', rb'From: "a \"b\" \\c" <a@x.test>'),
    ],
)
def test_lines(name: bytes | None, line: bytes) -> None:
    assert compose_from(b"a@x.test", name, b"\n") == line


def test_the_null_sender() -> None:
    assert compose_from(b"", b"Shop", b"\n") == b'From: "Shop" <MAILER-DAEMON>'


@pytest.mark.parametrize(
    "name", ["Käserei Müller, <GmbH>", "ä" * 60, "日本" * 30, "a\N{BELL}b=?_ c"]
)
def test_names_beyond_ascii_come_back(name: str) -> None:
    line = compose_from(b"a@x.test", name.encode(), b"\r\n")
    assert line.isascii()
    assert all(len(part) <= 90 for part in line.split(b"\r\n"))
    words, _, address = line.removeprefix(b"From: ").rpartition(b" ")
    assert address == b"<a@x.test>"
    assert str(make_header(decode_header(words.decode()))) == name
