"""Times and sizes as people write them in searches."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo

_EPOCH = datetime.fromtimestamp(0, UTC)
_UNIX_S = re.compile(r"[0-9]{9,10}")
_UNIX_MS = re.compile(r"[0-9]{12,13}")
_FORMATS = (
    "%Y",
    "%Y-%m",
    "%Y/%m/%d",
    "%m/%d/%Y",  # as Mailpit reads it
    "%d.%m.%Y",
    "%d %b %Y",
    "%d %B %Y",
    "%b %d %Y",
    "%B %d %Y",
)
_SIZE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?(?:([kmg])(?:i?b)?|b)?", re.IGNORECASE)
_FACTORS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}


def read_time_ms(text: str, tz: tzinfo) -> int | None:
    """Return a date or an epoch in ms, of `tz` if it names no zone; None if it is none."""
    if _UNIX_S.fullmatch(text):
        return int(text) * 1000
    if _UNIX_MS.fullmatch(text):
        return int(text)
    at = _read_date(text)
    if at is None:
        return None
    try:
        return ((at if at.tzinfo is not None else at.replace(tzinfo=tz)) - _EPOCH) // timedelta(
            milliseconds=1
        )
    except (OverflowError, ValueError):  # the first or the last day that there is
        return None


def _read_date(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        words = " ".join(text.replace(",", " ").split())
    for form in _FORMATS:
        try:
            return datetime.strptime(words, form)
        except ValueError:
            continue
    return None


def read_size_bytes(text: str) -> int | None:
    """Return a size such as `100k` or `1.5 MB` in bytes; None if it is none, or nothing."""
    match = _SIZE.fullmatch(text)
    if match is None:
        return None
    return int(float(match[1]) * _FACTORS[(match[2] or "").lower()]) or None
