"""Content as bytes: line ends, long lines, header facts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaygw.mail.content import has_long_line, normalise_line_ends, read_header

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
