"""What a line of a log may hold."""

from __future__ import annotations

import pytest

from relaygw.mail.words import escape
from relaygw.observe.postfix_form import MAX_TEXT_CHARACTERS, cut
from tests.tables import each_of
from tests.unit.observe.events import HOSTILE


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\r\nb", "a\\r\\nb"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\u2028b", "a\\u2028b"),
        ("a\x85b", "a\\x85b"),
        ("a\u202eb", "a\\u202eb"),
        ("a\udcffb", "a\\udcffb"),
        ("Größe 注文 🎉", "Größe 注文 🎉"),
    ],
)
def test_what_is_not_to_be_seen_is_spelled_out(text: str, shown: str) -> None:
    assert escape(text) == shown


@each_of("text", HOSTILE)
def test_nothing_from_outside_starts_a_new_line(text: str) -> None:
    assert escape(text).isprintable()
    escape(text).encode()


def test_a_long_text_is_cut() -> None:
    assert cut("x" * 5000) == "x" * MAX_TEXT_CHARACTERS + "..."
