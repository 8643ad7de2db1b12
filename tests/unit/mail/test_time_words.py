"""How times are written."""

from __future__ import annotations

from relaygw.mail.clock import rfc3339
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
    assert rfc3339(at_ms) == text
