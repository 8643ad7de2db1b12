"""Queue files of Postfix, record by record: what is read, and what is no whole file."""

from __future__ import annotations

import pytest

from relaygw.mail.dsn_request import DsnRequest
from relaygw_postfix.queue_file import DamagedQueueFile, QueuedMail, read_queue_file
from tests.tables import each_of

Record = tuple[str, bytes]
ARRIVED: Record = ("T", b"1795792735  33158")
SENDER: Record = ("S", b"a@shop.test")
LINES: tuple[Record, ...] = (("N", b"Subject: x"), ("N", b""), ("N", b"hello"))


def encoded(record: Record) -> bytes:
    kind, body = record
    length, octets = len(body), b""
    while length > 0x7F:
        octets += bytes([length & 0x7F | 0x80])
        length >>= 7
    return kind.encode() + octets + bytes([length]) + body


def built(
    *envelope: Record,
    content: tuple[Record, ...] = LINES,
    extracted: tuple[Record, ...] = (),
    count: int | None = None,
) -> bytes:
    """Return a file with a right first record."""
    records = [ARRIVED, SENDER, *envelope]
    kinds = [kind for kind, _ in (*records, *extracted)]
    before = b"".join(map(encoded, (*records, ("M", b""))))
    text = b"".join(map(encoded, content))
    after = b"".join(map(encoded, (("X", b""), *extracted, ("E", b""))))
    number = kinds.count("R") + kinds.count("D") if count is None else count
    first_bytes = len(encoded(("C", b"x" * 95)))
    sizes = (len(text), first_bytes + len(before), number, 0, 0, 0)
    return encoded(("C", b" ".join(b"%15d" % one for one in sizes))) + before + text + after


def read(*envelope: Record, **more: tuple[Record, ...]) -> QueuedMail:
    return read_queue_file(built(*envelope, **more))  # type: ignore[arg-type]


def test_who_waits_and_the_content() -> None:
    mail = read(("R", b"b@cust.test"), ("D", b"had@cust.test"), ("R", b"c@cust.test"))
    assert (mail.sender, mail.waiting) == ("a@shop.test", ("b@cust.test", "c@cust.test"))
    assert mail.content == b"Subject: x\r\n\r\nhello\r\n"
    assert mail.arrived == "1795792735  33158"


def test_recipients_of_the_header_and_long_lines() -> None:
    pieces: tuple[Record, ...] = (("L", b"x" * 300), ("L", b"y" * 300), ("N", b"z"))
    mail = read(content=(*LINES, *pieces), extracted=(("R", b"b@cust.test"),))
    assert mail.waiting == ("b@cust.test",)
    assert mail.content.endswith(b"hello\r\n" + b"x" * 300 + b"y" * 300 + b"z\r\n")


@each_of(
    ("written", "address"),
    [
        (b"john doe@x.test", '"john doe"@x.test'),
        (b'a"b\\c@x.test', '"a\\"b\\\\c"@x.test'),
        (b"a@b@x.test", '"a@b"@x.test'),
        (b"a..b@x.test", '"a..b"@x.test'),
        (b"root", "root"),
        ("ä@x.test".encode(), "ä@x.test"),
        (b"\xff@x.test", "\\xff@x.test"),
    ],
)
def test_addresses_are_quoted_again(written: bytes, address: str) -> None:
    assert read(("R", written)).waiting == (address,)


def test_the_null_sender() -> None:
    data = built(("R", b"b@x.test")).replace(
        encoded(SENDER), encoded(("S", b"")) + encoded(("w", b"x" * 9))
    )
    assert read_queue_file(data).sender == ""


def test_wishes_for_notices() -> None:
    wishes: tuple[Record, ...] = (("A", b"envelope_id=abc"), ("A", b"ret_flags=2"))
    asked: Record = ("A", b"notify_flags=12")
    mail = read(*wishes, asked, ("R", b"b@x.test"), asked, ("R", b"c@x.test"))
    assert mail.dsn == DsnRequest(notify="FAILURE,DELAY", ret="HDRS", envid="abc")
    assert read(asked, ("R", b"b@x.test"), ("R", b"c@x.test")).dsn.notify is None
    assert read(asked, ("D", b"b@x.test"), ("R", b"c@x.test")).dsn.notify is None


def test_what_relaygw_does_not_do_is_said() -> None:
    mail = read(("I", b"smtp:[127.0.0.1]:10025"), ("L", b"scan:"), ("R", b"b@x.test"))
    assert mail.left_out == ("content filter smtp:[127.0.0.1]:10025", "filter scan:")


def test_redirected_mail_goes_to_one() -> None:
    mail = read((">", b"qa@x.test"), ("R", b"b@x.test"), ("R", b"c@x.test"))
    assert mail.waiting == ("qa@x.test",)
    assert read((">", b"qa@x.test"), ("D", b"b@x.test")).waiting == ()


def test_the_key_outlives_deliveries() -> None:
    before = read(("R", b"b@x.test"), ("R", b"c@x.test"))
    after = read(("D", b"b@x.test"), ("R", b"c@x.test"))
    other = read(("R", b"b@x.test"), ("R", b"d@x.test"))
    assert before.key() == after.key() != other.key()


def test_what_a_milter_added_is_behind_the_end() -> None:
    end_bytes = len(built(("p", b"%15d" % 0), ("R", b"b@x.test")))
    there = built(("p", b"%15d" % end_bytes), ("R", b"b@x.test"), count=2)
    back = there.index(b"p\x0f") + 17
    data = there + encoded(("R", b"added@x.test")) + encoded(("p", b"%15d" % back))
    assert read_queue_file(data).waiting == ("added@x.test", "b@x.test")


@each_of("cut", range(len(built(("R", b"b@x.test"))) - 1))
def test_a_file_that_is_cut_off_is_damaged(cut: int) -> None:
    data = built(("R", b"b@x.test"))
    with pytest.raises(DamagedQueueFile):
        read_queue_file(data[:cut])
    with pytest.raises(DamagedQueueFile):
        read_queue_file(data[:cut] + b"\0" * (len(data) - cut))


@each_of(
    ("data", "problem"),
    [
        (b"", "cut off"),
        (b"From x\n\nhello\n", "cut off"),
        (built(count=3), "0 recipients, and its first record says 3"),
        (built(("q", b"")), "a record 'q'"),
        (built(content=(("R", b"x"),)), "a record 'R'"),
        (built(("p", b"99999999")), "to an invalid position"),
        (built(("p", b"x")), "to an invalid position"),
        (built(("p", b"97")), "pointer loop"),
        (built(("T", b"yesterday")), "no time"),
        (built(extracted=(("N", b"more"),)), "a record 'N'"),
        (built().replace(b"S\x0ba@shop.test", b"w\x0ba@shop.test"), "no sender"),
        (built().replace(b"T\x11", b"w\x11"), "no time"),
        (built()[97:], "does not begin with the record of its size"),
        (b"C\x03x y" + built()[97:], "does not begin with the record of its size"),
        (built().replace(b"N\x05hello", b"N\x05hello" * 2), "its content ends at byte"),
    ],
)
def test_what_is_no_queue_file_says_why(data: bytes, problem: str) -> None:
    with pytest.raises(DamagedQueueFile, match=problem):
        read_queue_file(data)


def test_files_of_the_maildrop_have_no_sizes() -> None:
    data = built(("R", b"b@x.test"))[97:]
    mail = read_queue_file(data, is_maildrop=True)
    assert mail.waiting == ("b@x.test",)
    assert mail.content.startswith(b"From: a@shop.test\r\nSubject: x\r\n")  # as cleanup adds it
    body = read_queue_file(data.replace(b"Subject: x", b"Subject  x"), is_maildrop=True).content
    assert body.startswith(b"From: a@shop.test\r\n\r\nSubject  x\r\n")
