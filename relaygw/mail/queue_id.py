"""Queue ids: `[A-Z0-9]{17}`, unique across a fleet and ordered in time.

45 bits of milliseconds and 40 bits of chance in Crockford's base32, so that the text sorts as the
time does. Within a process the chance part counts up inside one millisecond; across processes a
clash needs the same millisecond and the same 40 bits, and then the second writer's transaction
fails and its client is told to come back.
"""

from __future__ import annotations

import secrets

_CHANCE_BITS = 40
_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [a + b for a in _DIGITS for b in _DIGITS]  # two characters at a time
_FIRST_SHIFT = 80  # of 17 digits of five bits
_LAST_MS = 2**45 - 1  # that an id can tell
CLOCKS_MS = 3_600_000  # an id says when its message was accepted, by another clock


def _encode(number: int) -> str:
    digits = [_PAIRS[(number >> shift) & 0x3FF] for shift in range(_FIRST_SHIFT - 10, -1, -10)]
    return _DIGITS[number >> _FIRST_SHIFT] + "".join(digits)


def first_id_at(at_ms: int) -> str:
    """Return the smallest id of a millisecond: ids of older messages sort before it.

    For times that no id can tell it is the first or the last that one can.
    """
    return _encode(min(max(at_ms, 0), _LAST_MS) << _CHANCE_BITS)


def time_of_id(queue_id: str) -> int:
    """Return the millisecond in which an id was made, 0 for what is none."""
    number = 0
    for digit in queue_id:
        if digit not in _DIGITS:
            return 0
        number = number << 5 | _DIGITS.index(digit)
    return number >> _CHANCE_BITS


class QueueIdSource:
    """Hands out ids that grow; one per process."""

    def __init__(self) -> None:
        self._last = 0

    def next_id(self, now_ms: int) -> str:
        """Return a new id for `now_ms`; ids stay ordered even if the clock steps back."""
        if now_ms <= self._last >> _CHANCE_BITS:
            number = self._last + 1
        else:
            number = (now_ms << _CHANCE_BITS) | secrets.randbits(_CHANCE_BITS - 1)
        self._last = number
        return _encode(number)
