"""Sizes, ages and counts as people read them; which texts can be shown, or stored, at all."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

_SECONDS = (86_400, 3600, 60, 1)
LETTERS = ("d", "h", "m", "s")
SPACED = (" d", " h", " min", " s")
_NOUNS = ("day", "hour", "minute", "second")
SHORT_SIZES = ("", "k", "M", "G", "T")
SIZES = (" B", " kB", " MB", " GB")
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def printable(text: str) -> str:
    """Return `text` on one line without control, formatting and bidirectional signs."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def escape(text: str) -> str:
    """Return `text` on one line, with everything spelled out that is not printable."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def counted(number: int, noun: str, nouns: str = "", *, form: str = "") -> str:
    """Return `1 message`, `3 messages`; `nouns`: an irregular plural, `form`: as of `format`."""
    return f"{number:{form}} {noun if number == 1 else nouns or noun + 's'}"


def age(duration_ms: int, units: Sequence[str] = LETTERS) -> str:
    """Return a duration in its largest whole unit: `12s`, `5m`, `3h`, `7d`."""
    number, unit = _largest_unit(duration_ms)
    return f"{number}{units[unit]}"


def wait(duration_ms: int, units: Sequence[str] = LETTERS) -> str:
    """Return how long it is until something as `age` does, but to the nearest number."""
    number, unit = _nearest_unit(duration_ms)
    return f"{number}{units[unit]}"


def took(seconds: float) -> str:
    """Return how long something took: `7 ms`, to two digits `1.5 s`, `12 s`, then `4 min`."""
    if seconds < 0.9995:
        return f"{max(1, round(seconds * 1000))} ms"
    if seconds < 60:
        return f"{seconds:.2g} s"
    return age(int(seconds * 1000), SPACED)


def span(duration_ms: int) -> str:
    """Return a duration in its largest whole unit, in words: `5 minutes`."""
    number, unit = _largest_unit(duration_ms)
    return counted(number, _NOUNS[unit]) if number else "less than a second"


def wait_span(duration_ms: int) -> str:
    """Return how long it is until something as `span` does, but to the nearest number."""
    number, unit = _nearest_unit(duration_ms)
    return counted(number, _NOUNS[unit]) if number else "less than a second"


def two_units(duration_ms: int) -> str:
    """Return a duration in its two largest units: `2h 5m`, `3d 10m`, `40s`."""
    seconds = duration_ms // 1000
    days, hours, minutes = seconds // 86_400, seconds // 3600 % 24, seconds // 60 % 60
    parts = [
        f"{number}{unit}"
        for number, unit in zip((days, hours, minutes), "dhm", strict=True)
        if number
    ]
    return " ".join([*parts, f"{seconds % 60}s"][:2])


def _largest_unit(duration_ms: int) -> tuple[int, int]:
    seconds = max(0, duration_ms) // 1000
    unit = next((n for n, length in enumerate(_SECONDS) if seconds >= length), len(_SECONDS) - 1)
    return seconds // _SECONDS[unit], unit


def _nearest_unit(duration_ms: int) -> tuple[int, int]:
    """Return the nearest number of units: five minutes that began just now are not four."""
    if duration_ms < 1000:
        return 0, len(_SECONDS) - 1
    _, unit = _largest_unit(duration_ms)
    unit_ms = _SECONDS[unit] * 1000
    number = (duration_ms + unit_ms // 2) // unit_ms
    if unit and number * _SECONDS[unit] >= _SECONDS[unit - 1]:
        return 1, unit - 1
    return number, unit


def size(size_bytes: int, units: Sequence[str] = SHORT_SIZES) -> str:
    """Return a size of three digits at most: `812`, `4.2k`, `25M`."""
    if size_bytes < 1000:
        return f"{size_bytes}{units[0]}"
    power = 1
    while size_bytes >= 999.5 * 1000**power and power < len(units) - 1:
        power += 1
    amount = size_bytes / 1000**power
    if amount >= 999.5 and units is SHORT_SIZES:
        return "huge"  # a column has five cells
    return f"{amount:.1f}{units[power]}" if amount < 9.95 else f"{amount:.0f}{units[power]}"


def unstorable_sign(text: str) -> str | None:
    """Return the first sign that PostgreSQL (NUL) or UTF-8 (half of a pair) lacks, if any."""
    found = _UNSTORABLE.search(text)
    return None if found is None else found[0]


def some_of(texts: Sequence[str], most: int = 5) -> str:
    """Return texts on one line, the first few where they are many."""
    more = len(texts) - most
    return ", ".join(texts[:most]) + (f" and {more} more" if more > 0 else "")


def fields(record: object, *names: str) -> dict[str, Any]:
    """Return attributes by their names, for JSON."""
    return {name: getattr(record, name) for name in names}
