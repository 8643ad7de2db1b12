"""Content of odd shape: what arrives is what was sent, but for what SMTP demands of lines.

RFC 5322 section 2.1.1, RFC 5321 section 4.5.3.1, RFC 6152.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from email import message_from_bytes

import pytest

from relaygw.mail.drop import MAX_HEADER_BYTES
from tests.e2e.corpus.rig import (
    MAIL,
    MARGIN_KIB,
    QUEUED,
    RCPT,
    START,
    Case,
    Rig,
    added_removed,
    memory_bounded,
    running_rig,
)
from tests.e2e.gateway import RawClient
from tests.fakes.scripted_provider import ReceivedMessage, ThreadedProvider

LIMIT_BYTES = 30 * 2**20
HEADER = b"From: s@ok.test\r\nSubject: t\r\n\r\n"
_END = b".\r\n"
_TOO_BIG = r"552 5\.3\.4"
_HEADER_TOO_LONG = r"552 5\.3\.4 Error: message header too long, at most 4194304 bytes"
_MEMORY_KIB = 16 * 1024  # whatever the size of the message: a few chunks and their copies
_HOP = b"Received: from a.test by b.test; Thu, 1 Jan 2026 00:00:00 +0000\r\n"
RAW_8BIT = HEADER + "Grüße äöü\r\n".encode() + b"\xff\xfe\x80\r\n"
_MULTIPART = b'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="%s"\r\n\r\n'


def _exact(name: str, content: bytes) -> Case:
    """Content that reaches the provider byte for byte."""
    dialogue = (*START, (content + _END, QUEUED))
    return Case(id=name, dialogue=dialogue, messages=1, content=content)


def _folded(name: str, content: bytes) -> Case:
    """Content whose lines are folded on their way out, and nothing else."""

    def check(message: ReceivedMessage) -> None:
        assert max(map(len, message.content.split(b"\r\n"))) <= 998
        unfolded = message.content.replace(b"\r\n ", b"")
        assert unfolded.endswith(content.replace(b"\r\n ", b""))

    return Case(id=name, dialogue=(*START, (content + _END, QUEUED)), messages=1, checks=(check,))


def _added(name: str, content: bytes, *, between: bytes) -> Case:
    """Content that gets `between` in front of it, so that it does not run into the header."""

    def check(message: ReceivedMessage) -> None:
        added_removed(message, content)
        assert message.content.endswith(between + content)

    return Case(id=name, dialogue=(*START, (content + _END, QUEUED)), messages=1, checks=(check,))


def _endless_line(rig: Rig, client: RawClient) -> None:
    with memory_bounded(rig.pid("front"), growth_kib=_MEMORY_KIB):
        for _ in range(40):
            client.send(b"x" * 2**20)
        client.send(b"\r\n" + _END)
        assert re.match(_TOO_BIG, client.read_reply())


def _part(boundary: bytes, *, is_closed: bool) -> bytes:
    end = b"--%s--\r\n" % boundary if is_closed else b""
    part = b"--%s\r\nContent-Type: text/plain\r\n\r\nx\r\n" % boundary
    return _MULTIPART % boundary + part + end


CASES = (
    _exact("M1", HEADER + b"x" * 998 + b"\r\n"),
    _folded("M2", HEADER + b"x" * 5000 + b"\r\n"),
    _folded("M3", HEADER + b"x" * 100_000 + b"\r\n"),
    _folded("M4", b"X-Long: " + b"x" * 150_000 + b"\r\n" + HEADER + b"A\r\n"),
    _exact("M5", b"X-Long: x\r\n" + b" xxxxxxxx\r\n" * 15_000 + HEADER + b"A\r\n"),
    _exact("M6", HEADER + b"a\x00b\r\n\x00\r\n"),
    _exact("M7", RAW_8BIT),
    _exact("M8", b"X-Raw: \xc3\xa4 \xff\r\n" + HEADER + b"A\r\n"),
    _added("M9", b"no header here\r\nat all\r\n", between=b"\r\n\r\n"),
    _added("M10", b"From x@y Mon Jan  1 00:00:00 2026\r\n" + HEADER, between=b"X-Mailbox-Line: "),
    Case(id="M11-60", dialogue=(*START, (_HOP * 60 + HEADER + _END, r"554 5\.4\.0"), MAIL)),
    _exact("M11-49", _HOP * 49 + HEADER + b"A\r\n"),
    _exact("M15", b"Bcc: hidden@other.test\r\n" + HEADER + b"A\r\n"),
    _exact("M16-two-from", b"From: a@x.test\r\nFrom: b@x.test\r\nSubject: t\r\n\r\nA\r\n"),
    _added("M16-novalue", b": novalue\r\n" + HEADER, between=b"\r\n\r\n"),
    _exact("M16-late-novalue", b"Subject: t\r\n: novalue\r\nX without colon\r\n\r\nA\r\n"),
    _added("M16-no-colon", b"X without colon\r\n" + HEADER, between=b"\r\n\r\n"),
    _exact("M17-unclosed", _part(b"b", is_closed=False)),
    _exact("M17-empty", _part(b"", is_closed=True)),
    _folded("M17-5000", _part(b"b" * 5000, is_closed=True)),
    _exact("M17-pattern", _part(b".*(a+)+[^$|\\", is_closed=True)),
    _exact("M18-charset", b"Subject: =?x-unknown?q?a=E4?=\r\n\r\nA\r\n"),
    _exact("M18-truncated", b"Subject: =?utf-8?b?w6T?= =?utf-8?b?w6?=\r\n\r\nA\r\n"),
    _folded("M18-bomb", b"Subject: =?utf-8?b?" + b"w6Tw" * 250_000 + b"?=\r\n\r\nA\r\n"),
    _exact("M18-words", b"Subject:" + b" =?utf-8?b?w6Q=?=\r\n" * 50_000 + b"\r\nA\r\n"),
    Case(id="M14", dialogue=(*START, _endless_line, MAIL, RCPT)),
)


@pytest.fixture(scope="module")
def seven_bit() -> Iterator[ThreadedProvider]:
    with ThreadedProvider(extensions=["PIPELINING", "SIZE 52428800"]) as provider:
        yield provider


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory, seven_bit: ThreadedProvider) -> Iterator[Rig]:
    listeners = [{"bind": "127.0.0.1:0", "max_message_size": LIMIT_BYTES}]
    directory = tmp_path_factory.mktemp("content")
    others = {"seven": (seven_bit, "@seven.test")}
    with running_rig(directory, others=others, listeners=listeners) as rig:
        yield rig


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_content(rig: Rig, case: Case) -> None:
    rig.judge(case)


def test_8bit_for_a_7bit_provider(rig: Rig, seven_bit: ThreadedProvider) -> None:
    """M7: without 8BITMIME upstream the body is encoded, never cut."""
    queue_id = rig.gateway.send("s@ok.test", ["r@seven.test"], RAW_8BIT)
    rig.gateway.wait_until_empty()
    seven_bit.run(seven_bit.note())
    (message,) = seven_bit.messages
    assert queue_id.encode() in message.content
    assert message.content.isascii()
    assert "BODY=8BITMIME" not in message.mail_parameters
    body = message_from_bytes(message.content).get_payload(decode=True)
    assert body == RAW_8BIT.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("excess_bytes", [0, 1], ids=["M12-limit", "M12"])
def test_size_limit(rig: Rig, excess_bytes: int) -> None:
    """The last byte that is one too many is answered at the dot; the session goes on."""
    line = b"x" * 76 + b"\r\n"
    count, rest = divmod(LIMIT_BYTES + excess_bytes - len(HEADER) - 2, len(line))
    content = HEADER + line * count + b"y" * rest + b"\r\n"
    assert len(content) == LIMIT_BYTES + excess_bytes
    start = len(rig.provider.messages)
    rig.play((*START, (content + _END, _TOO_BIG if excess_bytes else QUEUED), MAIL, RCPT))
    messages = rig.settle(start)
    assert len(messages) == 1 - excess_bytes
    for message in messages:
        arrived = hashlib.sha256(added_removed(message, content))
        assert arrived.digest() == hashlib.sha256(content).digest()


def _long_header(size_bytes: int) -> bytes:
    """Return content whose header has so many bytes, its subject at the very end."""
    end = b"Subject: \xc3\xa4\r\n"
    line = b" \xc3\xa4" * 25 + b"\r\n"
    count, rest = divmod(size_bytes - len(end) - len(b"X-Long:\r\n"), len(line))
    return b"X-Long:" + b"x" * rest + b"\r\n" + line * count + end + b"\r\nA\r\n"


@pytest.mark.parametrize(
    "case",
    [
        _exact("M19-limit", _long_header(MAX_HEADER_BYTES)),
        Case(
            id="M19",
            dialogue=(
                *START,
                (_long_header(MAX_HEADER_BYTES + 1) + _END, _HEADER_TOO_LONG),
                *(MAIL, RCPT),
            ),
        ),
    ],
    ids=lambda case: case.id,
)
def test_header_limit(rig: Rig, case: Case) -> None:
    rig.judge(case)


def test_25_mb_of_empty_lines(rig: Rig) -> None:
    """M13: neither process holds the message in memory."""
    content = HEADER + b"\r\n" * (25 * 10**6 // 2)
    start = len(rig.provider.messages)
    with (
        memory_bounded(rig.pid("front"), growth_kib=_MEMORY_KIB),
        memory_bounded(rig.pid("delivery"), growth_kib=_MEMORY_KIB + MARGIN_KIB),
    ):
        rig.play((*START, (content + _END, QUEUED)))
        (message,) = rig.settle(start)
    assert added_removed(message, content) == content
