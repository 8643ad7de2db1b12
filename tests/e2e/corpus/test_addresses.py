"""Addresses that two parsers would read differently: refused, or taken exactly as they stand.

RFC 5321 section 4.1.2, RFC 6531, RFC 3463.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.corpus.rig import (
    ALIVE,
    CLOSED,
    DATA,
    EHLO,
    MAIL,
    QUEUED,
    RCPT,
    Case,
    Rig,
    running_rig,
)

_CONTENT = b"Subject: t\r\n\r\nA\r\n.\r\n"
_UTF8 = "jürgen@ok.test".encode()

# id, path of RCPT TO, reply
REFUSED = (
    ("A13", b"<x@[]>", r"501 5\.1\.3"),
    ("A14", b"<r@rd.test,x@other.test>", r"501 5\.1\.3"),
    ("A15", b"<r@rd.test;x@other.test>", "501"),
    ("A16", b"<r@rd.test><x@other.test>", "501"),
    ("A17", b'"n" <r@rd.test>', "501|555"),
    ("A18", b"<>", r"501 5\.1\.3"),
    ("A19", b"<r@rd.test\x00.other.test>", "501"),
    ("A20-control", b"<r\x01@rd.test>", "501"),
    ("A20-tab", b"<r\t@rd.test>", "501"),
    ("A20-delete", b"<r\x7f@rd.test>", "501"),
    ("A22", b"<r@rd.test", "501"),
    ("A23", b"<-oX@rd.test>", r"501 5\.1\.3"),
    ("A24", b"<x@=?utf-8?q?rd=2Etest?=>", "501"),
    ("A25", b"<=?utf-8?q?a=0d=0aRCPT?=@rd.test>", "501"),
    ("A26", b"<j\xff@ok.test>", r"500 5\.5\.2|501"),
    ("A27", b"<%s>" % _UTF8, r"553 5\.6\.7"),
    ("A28-label", b"<r@%s.test>" % (b"a" * 64), r"501 5\.1\.7"),
    ("A28-domain", b"<r@%s.test>" % b".".join([b"a" * 50] * 5), r"501 5\.1\.7"),
)


def _refused(name: str, path: bytes, reply: str) -> Case:
    rcpt = (b"RCPT TO:%s\r\n" % path, reply)
    return Case(id=name, dialogue=(EHLO, MAIL, rcpt, (DATA[0], r"554 5\.5\.1"), ALIVE))


CASES = (
    *(_refused(*row) for row in REFUSED),
    # a bare LF ends no command: the session is over before the second half could be one
    Case(id="A21", dialogue=(EHLO, MAIL, (b"RCPT TO:<r\n@rd.test>\r\n", "501", CLOSED))),
    Case(
        id="A26-sender",
        dialogue=(EHLO, (b"MAIL FROM:<j\xff@ok.test>\r\n", r"500 5\.5\.2|501"), ALIVE),
    ),
    Case(
        id="A27-sender",
        dialogue=(EHLO, (b"MAIL FROM:<%s>\r\n" % _UTF8, r"553 5\.6\.7"), ALIVE),
    ),
    Case(
        id="A29",
        dialogue=(EHLO, (b"MAIL FROM:<>\r\n", "250"), RCPT, DATA, (_CONTENT, QUEUED)),
        messages=1,
    ),
    Case(
        id="A30",
        dialogue=(
            EHLO,
            MAIL,
            (b"RCPT TO:<postmaster>\r\n", "250"),
            DATA,
            (_CONTENT, QUEUED),
        ),
    ),
)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with running_rig(tmp_path_factory.mktemp("addresses")) as rig:
        yield rig


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_addresses(rig: Rig, case: Case) -> None:
    rig.judge(case)


def test_null_sender_upstream(rig: Rig) -> None:
    """A29: the provider reads `<>`, not an address made of it."""
    start = len(rig.provider.messages)
    rig.play((EHLO, (b"MAIL FROM:<>\r\n", "250"), RCPT, DATA, (_CONTENT, QUEUED)))
    (message,) = rig.settle(start)
    assert message.sender == ""
    commands = rig.provider.connections[message.connection_no].commands
    assert any(command.startswith(b"MAIL FROM:<> ") for command in commands)
