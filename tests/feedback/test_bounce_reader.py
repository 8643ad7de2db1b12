"""The process that reads bounce mails: what it tells, and how hostile mail ends it alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from relaygw.feedback import bounce_mail, bounce_report
from relaygw.feedback.bounce_mail import CHILD, MAX_BYTES, BounceReader, NotRead, TooExpensive
from tests.feedback import bounces
from tests.feedback.bounces import FORMS, HOSTNAME, Mail
from tests.tables import each_of

AT_MS = 1_795_430_000_000
MAIL = Mail()
# it answers a mail, so that the library looks for who failed
HEAD = b"From: <>\r\nTo: bounces@shop.test\r\nIn-Reply-To: <1@shop.test>\r\nMIME-Version: 1.0\r\n"


def parameters(size_bytes: int) -> bytes:
    """A mail whose parameters Python's library reads in time by the square of their number."""
    return HEAD + b'Content-Type: multipart/report; x="' + b";" * size_bytes + b"\r\n\r\nhello\r\n"


def nested(size_bytes: int) -> bytes:
    """A mail of 400 parts in each other, whose lines are compared with each boundary."""
    parts = b"".join(
        b"--b%d\r\nContent-Type: multipart/mixed; boundary=b%d\r\n\r\n" % (depth, depth + 1)
        for depth in range(400)
    )
    start = HEAD + b"Content-Type: multipart/mixed; boundary=b0\r\n\r\n" + parts
    return start + b"\n" * (size_bytes - len(start))


@pytest.fixture
def reader() -> Iterator[BounceReader]:
    """A reader that a busy machine may keep waiting."""
    reader = BounceReader(HOSTNAME, patience_s=300.0)
    yield reader
    reader.close()


def test_each_form_as_without_a_process(reader: BounceReader) -> None:
    for form in FORMS.values():
        content = form(MAIL)
        mentions = bounce_report.read(content, received_at_ms=AT_MS, hostname=HOSTNAME)
        here = [event for mention in mentions for event in mention.events]
        assert here and reader.read(content, received_at_ms=AT_MS) == here
    assert reader.read(b"Subject: hello\r\n\r\nhello\r\n", received_at_ms=AT_MS) == []


@each_of("make", [parameters, nested])
def test_what_takes_too_long_ends_its_process_alone(
    reader: BounceReader, make: Callable[[int], bytes]
) -> None:
    reader.read(bounces.qmail(MAIL), received_at_ms=AT_MS)
    began = time.process_time()
    with pytest.raises(TooExpensive, match="too much processor time"):
        reader.read(make(MAX_BYTES), received_at_ms=AT_MS)
    # others go on: neither the processor nor the interpreter of this process was needed for it
    assert time.process_time() - began < 0.5
    assert reader.read(bounces.qmail(MAIL), received_at_ms=AT_MS)


def test_each_mail_has_its_own_time(reader: BounceReader) -> None:
    """A process that reads for long is not ended by what all mails took together."""
    content = bounces.qmail(MAIL) + b"\n" * 200_000
    reader.read(content, received_at_ms=AT_MS)
    process = reader._process
    assert process is not None
    while _cpu_s(process.pid) < 2.5:
        reader.read(content, received_at_ms=AT_MS)
    assert reader._process is process


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def test_a_busy_machine_sets_nothing_aside() -> None:
    reader = BounceReader(HOSTNAME, patience_s=0.0)
    with pytest.raises(NotRead, match="ended with signal 9") as caught:
        reader.read(parameters(MAX_BYTES), received_at_ms=AT_MS)
    assert not isinstance(caught.value, TooExpensive)


def test_a_process_that_cannot_start() -> None:
    reader = BounceReader(HOSTNAME, child=CHILD.with_name("missing.py"))
    with pytest.raises(NotRead, match="ended with exit code 2") as caught:
        reader.read(bounces.qmail(MAIL), received_at_ms=AT_MS)
    assert not isinstance(caught.value, TooExpensive)


def test_memory_has_a_limit(reader: BounceReader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounce_mail, "MAX_BYTES", 2**32 - 1)
    with pytest.raises(TooExpensive, match="too much memory"):
        reader.read(b"x" * 600 * 2**20, received_at_ms=AT_MS)
