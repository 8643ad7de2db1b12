"""Content as bytes: line ends, long lines, header facts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaygw.mail.content import (
    has_long_line,
    header_end,
    header_fields,
    normalise_line_ends,
    read_header,
)
from relaygw.sendmail.content import Message

LINES = st.lists(st.sampled_from([b"a", b"\r", b"\n", b"\r\n", b".", b"xyz"]), max_size=40)


@given(LINES)
def test_no_bare_line_end_is_left(parts: list[bytes]) -> None:
    fixed = normalise_line_ends(b"".join(parts))
    bare = fixed.replace(b"\r\n", b"")
    assert b"\r" not in bare
    assert b"\n" not in bare
    assert normalise_line_ends(fixed) == fixed


@given(st.lists(st.integers(0, 1100), max_size=6), st.integers(1, 3000))
def test_long_lines_are_found_in_any_pieces(lengths: list[int], cut: int) -> None:
    data = b"".join(b"x" * length + b"\r\n" for length in lengths)
    expected = any(length > 998 for length in lengths)
    assert has_long_line(data) == expected
    first, second = data[:cut], data[cut:]
    carried = len(first) - (first.rfind(b"\n") + 1)
    found = has_long_line(first) or has_long_line(second, carried_bytes=carried)
    assert found == expected


def test_a_line_may_end_with_the_first_byte_of_a_piece() -> None:
    assert not has_long_line(b"\n" + b"x" * 900, carried_bytes=900)


def names_and_values(
    content: bytes, names: frozenset[str] | None = None
) -> list[tuple[str, bytes]]:
    end = header_end(content)
    return [
        (found.name.decode(), content[found.value_start : found.value_end])
        for found in header_fields(content, 0, end, names=names)
    ]


def test_what_a_header_field_is() -> None:
    content = (
        b"From x Mon Jan 1\r\nA: 1\r\n"
        b"B \t : 2\r\n\tfolded\r\n \r\n \xc3\xa4\r\nno field\r\n: nameless\r\n"
        b" of no field\r\nC\xc3:9\r\nd:\x0bE: 5\x1c\x85F: 6\r\n\r\nG: body\r\n"
    )
    expected = [
        ("A", b" 1"),
        ("B", b" 2\r\n\tfolded\r\n \r\n \xc3\xa4"),
        ("d", b"\x0bE: 5\x1c\x85F: 6"),
    ]
    assert names_and_values(content) == expected
    assert names_and_values(content, frozenset({"b"})) == expected[1:2]
    first, *_ = header_fields(content)
    assert content[first.start : first.end] == b"A: 1\r\n"


@pytest.mark.parametrize(
    ("content", "end"), [(b"\r\nx", 0), (b"", 0), (b"A: b", 4), (b"A: b\r\n\r\nx\r\n\r\n", 6)]
)
def test_where_a_header_ends(content: bytes, end: int) -> None:
    assert header_end(content) == end


HEADER_LINES = st.lists(
    st.sampled_from([b"A: 1", b"b \t:2", b" folded", b"\t", b"C:", b"x\x0b: y", b"d: \x85e: 1"]),
    max_size=8,
)


@given(HEADER_LINES)
def test_the_sendmail_command_sees_the_same_fields(lines: list[bytes]) -> None:
    content = b"".join(line + b"\r\n" for line in [b"First: 0", *lines])
    seen = Message(content)
    for name in ("first", "a", "b", "c", "d", "x"):
        if b"x\x0b: y" not in lines:  # text ends a header there, and is passed over here
            found = any(field.name.lower() == name.encode() for field in header_fields(content))
            assert seen.has_field(name.encode()) is found


def test_header_facts() -> None:
    facts = read_header(
        b"Received: one\r\nReceived: two\r\n\tfolded\r\n"
        b"SUBJECT: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n folded\r\nMessage-ID: <1@x>\r\n"
        b"X-Campaign: Summer\r\nX-PHP-Originating-Script: 33:mail.php\r\n"
        b"\r\nSubject: not this\r\nReceived: nor this\r\n",
        frozenset({"x-campaign"}),
    )
    assert (facts.hops, facts.subject, facts.message_id) == (2, "Grüße folded", "<1@x>")
    assert (facts.has_date, facts.script) == (False, "33:mail.php")
    assert facts.values == {"x-campaign": "Summer"}


@pytest.mark.parametrize(
    ("content", "has_header"),
    [
        (b"just text\r\n", False),
        (b"\r\nbody\r\n", True),
        (b"", False),
        (b": novalue\r\n\r\n", False),
        (b"Subject: x\r\n", True),
    ],
)
def test_content_without_a_header(content: bytes, has_header: bool) -> None:
    assert read_header(content).has_header is has_header


@pytest.mark.parametrize(
    "subject",
    [b"=?x-unknown?q?a?=", b"=?utf-8?b?" + b"QUJD" * 300_000 + b"?=", b"=?utf-8?b?!!?=", b"\xff"],
)
def test_hostile_subjects_are_survived(subject: bytes) -> None:
    assert len(read_header(b"Subject: " + subject + b"\r\n\r\n").subject) <= 5000


def test_a_subject_never_holds_what_a_database_cannot_store() -> None:
    read_header(b"Subject: =?utf-7?q?+2AA-?= x\r\n\r\n").subject.encode("utf-8")
