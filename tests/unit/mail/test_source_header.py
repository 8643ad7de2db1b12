"""X-Relaygw-Source has one form for each source, and nothing else is read as one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relaygw.mail.content import MAX_LINE_BYTES, SOURCE_FIELD
from relaygw.mail.envelope import Source
from relaygw.mail.source_header import (
    DENIED_FIELD,
    MAX_VALUE_BYTES,
    format_source,
    parse_source,
    rename_late,
    source_line,
)
from tests.tables import each_of

printable = st.characters(exclude_categories=("C", "Z")) | st.just(" ")
texts = st.none() | st.text(printable, max_size=18)  # 12 bytes each at most
words = st.none() | st.text(printable, min_size=1, max_size=18)
anything = st.none() | st.text(max_size=400)
uids = st.none() | st.integers(0, 2**32 - 1)


@given(host=words, uid=uids, user=texts, client=words, script=texts)
def test_what_is_told_is_what_is_read(
    host: str | None, uid: int | None, user: str | None, client: str | None, script: str | None
) -> None:
    source = Source(host=host, uid=uid, user=user, client=client, script=script)
    for is_archived in (False, True):
        told = parse_source(format_source(source, is_archived=is_archived))
        assert told == (source, is_archived)


@given(
    host=anything, uid=st.none() | st.integers(), user=anything, client=anything, script=anything
)
def test_whatever_it_is_it_fits_one_line_and_is_read(
    host: str | None, uid: int | None, user: str | None, client: str | None, script: str | None
) -> None:
    source = Source(host=host, uid=uid, user=user, client=client, script=script)
    value = format_source(source, is_archived=True)
    line = source_line(source, is_archived=True)
    assert len(value) <= MAX_VALUE_BYTES and len(line) - 2 <= MAX_LINE_BYTES
    assert line.count(b"\r") == line.count(b"\n") == 1
    told = parse_source(value)
    assert told is not None and format_source(told.source, is_archived=True) == value


def test_its_form() -> None:
    source = Source(host="web1", uid=33, user='a"b', client="2001:db8::1", script="60:in dex.php")
    expected = b'v=1; host=web1; uid=33; user="a%22b"; client=2001:db8::1; script="60:in%20dex.php"'
    assert format_source(source) == expected
    told = parse_source(b" " + expected.replace(b"; c", b";\r\n\tc").replace(b"\t", b" "))
    assert told == (source, False)
    assert parse_source(expected + b"; archived") == (source, True)


@each_of(
    "raw",
    [
        b"",
        b"v=2; uid=33",
        b"uid=33",
        b"v=1;uid=33",
        b"v=1; uid=033",
        b"v=1; uid=-1",
        b"v=1; uid=4294967296",
        b"v=1; uid=33; uid=0",
        b"v=1; uid=33; host=web1",
        b"v=1; host=",
        b"v=1; host=web1; x=y",
        b"v=1; host=web1;",
        b"v=1; archived; host=web1",
        b"v=1; host=web1; archived=1",
        b'v=1; script="a\r\nb"',
        b'v=1; script="a%0Ab"',
        b'v=1; script="%61"',
        b'v=1; script="%c3%bc"',
        b'v=1; script="%FF"',
        b'v=1; script="a"b"',
        b'v=1; script="a" (comment)',
        b"v=1; host=\xc3\xbc",
        b'v=1; script="%s"' % (b"a" * 300),
        b"v=1; host=" + b"a" * 5000,
    ],
)
def test_nothing_else_is_read(raw: bytes) -> None:
    assert parse_source(raw) is None


def test_late_fields_are_renamed_in_place() -> None:
    block = b"ue\r\nx-RELAYGW-source : 1\r\n a\r\nX-Relaygw-Sources: 2\r\n X-Relaygw-Source: 3\r\n"
    renamed = rename_late(block)
    assert len(renamed) == len(block)
    assert renamed == block.replace(b"x-RELAYGW-source", DENIED_FIELD.encode())
    assert len(DENIED_FIELD) == len(SOURCE_FIELD)
