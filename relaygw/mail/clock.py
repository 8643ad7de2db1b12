"""The time of this machine, in milliseconds since the epoch, UTC, and how times are written."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
_EPOCH = datetime.fromtimestamp(0, UTC)
_TICK_NS = 100_000_000


def clock_ms() -> int:
    """Return the time of this machine."""
    return time.time_ns() // 1_000_000


awake_s = partial(time.clock_gettime, time.CLOCK_BOOTTIME)  # no call of ours: looked at often
"""Return a clock that nobody sets, and that goes on while the machine is suspended."""


def is_settled(changed_at_ns: int) -> bool:
    """Return whether a file's next change will have another time: those are coarser than clocks."""
    return time.time_ns() - changed_at_ns > _TICK_NS


def utc_time(at_ms: int) -> datetime:
    """Return a time as an aware datetime."""
    return _EPOCH + timedelta(milliseconds=at_ms)


def local_time(at_ms: int) -> datetime:
    """Return a time in this machine's zone, as its mail log has it."""
    return utc_time(at_ms).astimezone()


def rfc3339(at_ms: int) -> str:
    """Return a time as programs read it: `2026-01-31T12:00:00.000Z`."""
    return f"{_second(at_ms // 1000)}.{at_ms % 1000:03}Z"


@lru_cache(maxsize=64)
def _second(at_s: int) -> str:  # many events share one
    return utc_time(at_s * 1000).isoformat()[:19]


def rfc3339_or_none(at_ms: int | None) -> str | None:
    """Return the same of a time that there may not be."""
    return None if at_ms is None else rfc3339(at_ms)


def utc_text(at_ms: int, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """Return a time to the second, for people: `2026-01-31 12:00:00 UTC`."""
    return f"{utc_time(at_ms):{form}} UTC"
