"""How times are written."""

from __future__ import annotations

from relaygw.mail.clock import rfc3339, rfc3339_or_none
from relaygw.mail.words import span, took, two_units, wait, wait_span
from tests.tables import each_of


@each_of(
    ("at_ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_795_600_000_007, "2026-11-25T09:46:40.007Z"),
        (1_795_600_000_999, "2026-11-25T09:46:40.999Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (253_402_300_799_000, "9999-12-31T23:59:59.000Z"),
        (-62_135_596_800_000, "0001-01-01T00:00:00.000Z"),
    ],
)
def test_programs_read_times_to_the_millisecond(at_ms: int, text: str) -> None:
    assert rfc3339(at_ms) == rfc3339_or_none(at_ms) == text
    assert rfc3339_or_none(None) is None


@each_of(
    ("seconds", "text"),
    [
        (0, "1 ms"),
        (0.007, "7 ms"),
        (0.9994, "999 ms"),
        (0.9995, "1 s"),
        (1.53, "1.5 s"),
        (12.3, "12 s"),
        (60, "1 min"),
        (299, "4 min"),
        (7200, "2 h"),
    ],
)
def test_how_long_something_took(seconds: float, text: str) -> None:
    assert took(seconds) == text


@each_of(
    ("duration_ms", "in_words", "in_two"),
    [
        (0, "less than a second", "0s"),
        (1000, "1 second", "1s"),
        (40_999, "40 seconds", "40s"),
        (61_000, "1 minute", "1m 1s"),
        (7_500_000, "2 hours", "2h 5m"),
        (259_800_000, "3 days", "3d 10m"),
    ],
)
def test_durations(duration_ms: int, in_words: str, in_two: str) -> None:
    assert span(duration_ms) == in_words
    assert two_units(duration_ms) == in_two


@each_of(
    ("duration_ms", "short", "in_words"),
    [
        (-5, "0s", "less than a second"),
        (999, "0s", "less than a second"),
        (1499, "1s", "1 second"),
        (1500, "2s", "2 seconds"),
        (59_499, "59s", "59 seconds"),
        (59_500, "1m", "1 minute"),
        (89_999, "1m", "1 minute"),
        (299_950, "5m", "5 minutes"),
        (3_569_999, "59m", "59 minutes"),
        (3_570_000, "1h", "1 hour"),
        (84_600_000, "1d", "1 day"),
        (431_999_999, "5d", "5 days"),
    ],
)
def test_a_time_to_come_is_not_rounded_down(duration_ms: int, short: str, in_words: str) -> None:
    assert wait(duration_ms) == short
    assert wait_span(duration_ms) == in_words
