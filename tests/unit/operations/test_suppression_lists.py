"""Lists of suppressed addresses of others: read line by line, written to be read again."""

from __future__ import annotations

import csv
import gzip
import json
import tracemalloc
from collections.abc import Iterator
from io import BytesIO, RawIOBase
from typing import Any

import pytest

from relaygw.mail.suppression import Cause, Suppression
from relaygw.operations.suppression import Exported, written
from relaygw.operations.suppression.forms import WRITTEN, Defaults, protected, unprotected
from relaygw.operations.suppression.reading import BadLine, UnknownForm, read_list

NOW_MS = 1_795_600_000_000
DEFAULTS = Defaults(now_ms=NOW_MS)
SENDGRID = [
    {"created": 1443651125, "email": "a@x.test", "reason": "550 no such user", "status": "5.1.1"},
    {"created": 1443651154, "email": "b@x.test", "reason": "later", "status": "4.2.2"},
]
POSTMARK = {
    "Suppressions": [
        {
            "EmailAddress": f"{name}@x.test",
            "SuppressionReason": reason,
            "Origin": origin,
            "CreatedAt": "2019-12-10T08:58:33-05:00",
        }
        for name, reason, origin in (
            ("a", "HardBounce", "Recipient"),
            ("b", "SpamComplaint", "Recipient"),
            ("c", "ManualSuppression", "Recipient"),
            ("d", "ManualSuppression", "Customer"),
        )
    ]
}


def read(raw: bytes | str, defaults: Defaults = DEFAULTS) -> tuple[str, list[Any]]:
    """Return the form, and of each line address and reason, or its number."""
    reading = read_list(BytesIO(raw.encode() if isinstance(raw, str) else raw), defaults)
    return reading.form, [
        one.number if isinstance(one, BadLine) else (one.address, one.cause.value)
        for one in reading.found
    ]


A, B, C, D = (f"{name}@x.test" for name in "abcd")


@pytest.mark.parametrize(
    ("raw", "form", "found"),
    [
        ("a@x.test,BOUNCE\nb@x.test,complaint\n", "ses", [(A, "bounce"), (B, "complaint")]),
        (
            '{"emailAddress":"a@x.test","reason":"BOUNCE"}\n'
            '{"emailAddress":"b@x.test","reason":"COMPLAINT"}\n',
            "ses",
            [(A, "bounce"), (B, "complaint")],
        ),
        (json.dumps(SENDGRID), "sendgrid", [(A, "bounce"), 1]),
        (json.dumps(SENDGRID, indent=1), "sendgrid", [(A, "bounce"), 8]),
        ("status,reason,email,created\n5.1.1,x,a@x.test,1443651125\n", "sendgrid", [(A, "bounce")]),
        ("ip,email,created\n10.0.0.1,a@x.test,1443651125\n", "sendgrid", [(A, "complaint")]),
        ("email,created\na@x.test,1443651125\n", "sendgrid", [(A, "manual")]),
        (
            "address,code,error,created_at\n"
            'a@x.test,550,"no such\nuser","Fri, 21 Oct 2011 11:02:55 GMT"\nb@x.test,450,x,\n',
            "mailgun",
            [(A, "bounce"), 4],
        ),
        ("address,created_at\na@x.test,2020-01-01\n", "mailgun", [(A, "complaint")]),
        ("address,tags,created_at\na@x.test,*,2020-01-01\n", "mailgun", [(A, "unsubscribe")]),
        (
            json.dumps(POSTMARK),
            "postmark",
            [(A, "bounce"), (B, "complaint"), (C, "unsubscribe"), (D, "manual")],
        ),
        (
            "EmailAddress,SuppressionReason,Origin,CreatedAt\na@x.test,HardBounce,Recipient,\n",
            "postmark",
            [(A, "bounce")],
        ),
        ("email,origin,source_id,created_at\na@x.test,complaint,,\n", "resend", [(A, "complaint")]),
        (
            "# a map\na@x.test  REJECT gone\nb@x.test\n  continued\nc@x.test OK\nx.test REJECT\n"
            '"d"@x.test 550 5.1.1 no\nd@x.test 450 later\n',
            "postfix",
            [(A, "manual"), (B, "manual"), 5, 6, (D, "manual"), 8],
        ),
        ("address;reason\na@x.test;bounce\n", "own", [(A, "bounce")]),
        (
            'address;reason;detail\na@x.test;bounce;"no\nsuch, user"\nb@x.test;complaint;x\ry\n',
            "own",
            [(A, "bounce"), 4],
        ),
        ("\ufeffAddress,Reason\r\nA@X.test,Hard Bounce\r\n", "own", [(A, "bounce")]),
        ("", "empty", []),
        ("\n# nothing\n\n", "empty", []),
        ("[]", "empty", []),
    ],
)
def test_forms_of_others_are_recognised(raw: str, form: str, found: list[Any]) -> None:
    assert read(raw) == (form, found)


def test_what_a_file_does_not_tell_is_said_for_all_of_it() -> None:
    defaults = Defaults(
        now_ms=NOW_MS,
        sender_domain="shop.test",
        stream="promotional",
        cause=Cause.COMPLAINT,
        expires_at_ms=lambda _cause: NOW_MS + 5,
    )
    (one,) = read_list(BytesIO(b"a@x.test\n"), defaults).found
    assert one == Suppression(
        address=A,
        sender_domain="shop.test",
        stream="promotional",
        cause=Cause.COMPLAINT,
        source="import postfix",
        created_at_ms=NOW_MS,
        expires_at_ms=NOW_MS + 5,
    )


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("nobody,bounce", "'nobody' is not an address"),
        ("<a@x.test>,manual,,both", "stream 'both' is none; expected transactional"),
        ("a@x.test,foo", "reason 'foo' is not known; expected one of bounce, "),
        ("a@x.test,bounce,,,yesterday", "'yesterday' is not a time"),
        ("a@x.test,bounce,,,,,a b", "sender_domain 'a b' is not a domain"),
        ("a@x.test,1,2,3,4,5,6,7,8", "has 9 fields; expected 7"),
        (",,,", "is empty; expected an address"),
        ('"a@x.test', "its quotes do not fit"),
        ("a\0@x.test,bounce", "a sign that cannot be stored"),
        ("a@x.test\u202e,bounce", "invisible character"),
        ("a@x.test,bounce,\ud800", "not UTF-8"),
        ("x" * 70_000, "longer than 65536 bytes"),
        (f"{'a' * 999}@{'b.' * 40}test,bounce", "is not an address"),
    ],
)
def test_a_line_that_is_not_understood_stops_no_other(line: str, problem: str) -> None:
    heading = "address,reason,source,stream,created_at,expires_at,sender_domain\n"
    raw = f"{heading}a@x.test,bounce\n{line}\nb@x.test,complaint\n"
    first, bad, last = read_list(BytesIO(raw.encode("utf-8", "surrogatepass")), DEFAULTS).found
    assert isinstance(first, Suppression)
    assert isinstance(bad, BadLine)
    assert bad.number == 3
    assert problem in bad.problem, bad.problem
    assert isinstance(last, Suppression)
    assert last.address == B


@pytest.mark.parametrize(
    "raw",
    [
        b"garbage\n",
        b"\xff\xfea\0@\0",
        b'{"a": 1}\n',
        b'[{"a": 1}]',
        b"name,street\nx,y\n",
        b"\x89PNG\r\n\x1a\n",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        gzip.compress(b"a@x.test\n", mtime=0),
        b"PK\x03\x04@\n" + b"a@x.test\n",
        b"a\0@x.test\nb@x.test\n",
        b"\x9c\xfe\x80\n\x93@\xff\n",
        b"address,caf\xe9,reason\na@x.test,BOUNCE\n",
        b"address," + b"x" * 70_000 + b",reason\na@x.test,BOUNCE\n",
        b"\xe9@x.test\n" * 200,
        b'{"email":"\xe9@x.test","origin":"bounce"}\n' * 200,
    ],
)
def test_what_is_no_list_is_refused_as_a_whole(raw: bytes) -> None:
    with pytest.raises(UnknownForm):
        read(raw)


@pytest.mark.parametrize(
    ("raw", "form", "found"),
    [
        (b"m\xfcller@x.test\na@x.test\n", "postfix", [1, (A, "manual")]),
        (b"m\xfcller@x.test\n", "unknown", [1]),
        (b"x" * 70_000 + b"@x.test\na@x.test\n", "postfix", [1, (A, "manual")]),
        (b"@x.test" * 10_000 + b"\naddress,reason\na@x.test,bounce\n", "own", [1, (A, "bounce")]),
        (b"# \xfc\na@x.test\n# \xfc\n", "postfix", [(A, "manual")]),
        (
            b'{"email":"\xfc@x.test","origin":"bounce"}\n{"email":"a@x.test","origin":"bounce"}\n',
            "resend",
            [1, (A, "bounce")],
        ),
    ],
)
def test_a_first_line_that_cannot_be_read_is_told(raw: bytes, form: str, found: list[Any]) -> None:
    assert read(raw) == (form, found)


def test_what_cannot_be_read_is_told_with_its_line_and_what_is_expected() -> None:
    with pytest.raises(UnknownForm, match=r"line 1: byte 0xe9 at 11 is not UTF-8; .*expected a he"):
        read(b"address,caf\xe9,reason\na@x.test,BOUNCE\n")
    with pytest.raises(UnknownForm, match="it is a gzip file; unpack it; expected a heading"):
        read(gzip.compress(b"a@x.test\n", mtime=0))


def test_a_broken_object_ends_an_array_and_a_line_of_objects_goes_on() -> None:
    assert read(b'[{"email":"a@x.test","origin":"bounce"},{"email":')[1] == [(A, "bounce"), 1]
    lines = b'{"email":"a@x.test","origin":"bounce"}\n{"email\n[1]\n{"email":"b@x.test"}\n'
    assert read(lines)[1] == [(A, "bounce"), 2, 3, (B, "manual")]


class _Endless(RawIOBase):
    """Lines that are made as they are read."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        self._lines, self._rest = lines, b""

    def readline(self, size: int | None = -1, /) -> bytes:
        return next(self._lines, b"")

    def read(self, size: int = -1, /) -> bytes:
        return next(self._lines, b"")


@pytest.mark.parametrize("line", [b"u%d@x.test,BOUNCE\n", b'"u%d@x.test,BOUNCE\n', b"u%d,,,\n"])
def test_a_long_file_takes_no_memory(line: bytes) -> None:
    number = 12_000
    lines = (b"a@x.test,BOUNCE\n", *(line % n if b"%d" in line else line for n in range(number)))
    source: Any = _Endless(iter(lines))
    tracemalloc.start()
    read_count = sum(1 for _ in read_list(source, DEFAULTS).found)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert read_count >= number
    assert peak < 1_000_000


# --- written ------------------------------------------------------------------------------

HOSTILE = ("=cmd|' /C calc'!A0", "+1", "-1", "@x", "\tx", "'=1", "a,b", 'a"b', "a\nb", "’", "")
ENTRIES = [
    Suppression(
        address=address,
        sender_domain=domain,
        stream="promotional" if cause is Cause.UNSUBSCRIBE else "",
        cause=cause,
        source="ses",
        detail=" ".join(detail.split()),
        created_at_ms=1_764_064_800_000,
        expires_at_ms=end,
    )
    for cause in Cause
    for (address, domain, end), detail in zip(
        (
            (A, "", None),
            ("=1+1@x.test", "shop.test", NOW_MS),
            ("+49@x.test", "<>", None),
            ("'q@x.test", "", None),
            ('"a b"@x.test', "", None),
            ("jörg@xn--strae-oqa.test", "xn--strae-oqa.test", NOW_MS),
        ),
        HOSTILE,
        strict=False,
    )
]


def test_what_is_written_is_read_again_as_it_was() -> None:
    text = "".join(written(ENTRIES, "own", Exported()))
    found = list(read_list(BytesIO(text.encode()), DEFAULTS).found)
    assert found == ENTRIES


@pytest.mark.parametrize("form", WRITTEN)
def test_forms_of_others_are_read_again_with_their_reason(form: str) -> None:
    done = Exported()
    text = "".join(written(ENTRIES, form, done))
    reading = read_list(BytesIO(text.encode()), DEFAULTS)
    found = list(reading.found)
    assert not [one for one in found if isinstance(one, BadLine)]
    assert len(found) == done.written
    assert done.written + done.left_out == len(ENTRIES)
    assert done.written
    said = {Cause.REFUSED: Cause.BOUNCE} if form not in ("own", "postfix") else {}
    if form == "resend":
        said[Cause.UNSUBSCRIBE] = Cause.MANUAL
    wanted = {(one.address, said.get(one.cause, one.cause)) for one in ENTRIES}
    for one in found:
        assert isinstance(one, Suppression)
        if form != "postfix":
            assert (one.address, one.cause) in wanted


@pytest.mark.parametrize("form", WRITTEN)
def test_no_field_begins_a_formula(form: str) -> None:
    entries = [
        Suppression(address=one.address, cause=one.cause, source=text, detail=text, created_at_ms=1)
        for one in ENTRIES
        for text in HOSTILE
    ]
    rows = csv.reader("".join(written(entries, form, Exported())).splitlines(keepends=True))
    for row in rows:
        assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in row), row


@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_protected_comes_back(text: str) -> None:
    assert unprotected(protected(text)) == text
