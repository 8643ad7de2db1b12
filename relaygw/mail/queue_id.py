"""Queue ids: `[A-Z0-9]{17}`, unique across a fleet and ordered in time.

45 bits of milliseconds and 40 bits of chance in Crockford's base32, so that the text sorts
as the time does. Within a process the chance part counts up inside one millisecond; across
processes a clash needs the same millisecond and the same 40 bits, and then the second
writer's transaction fails and its client is told to come back.
"""

from __future__ import annotations

import secrets

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
LENGTH = 17
_CHANCE_BITS = 40
_PAIRS = [a + b for a in ALPHABET for b in ALPHABET]  # two characters at a time


def _encode(number: int) -> str:
    digits = [_PAIRS[(number >> shift) & 0x3FF] for shift in range(5 * (LENGTH - 1) - 10, -1, -10)]
    return ALPHABET[number >> (5 * (LENGTH - 1))] + "".join(digits)


def first_id_at(at_ms: int) -> str:
    """Return the smallest id of a millisecond: ids of older messages sort before it."""
    return _encode(at_ms << _CHANCE_BITS)


class QueueIdSource:
    """Hands out ids that grow; one per process."""

    def __init__(self) -> None:
        self._last = 0

    def next_id(self, now_ms: int) -> str:
        """Return a new id for `now_ms`; ids stay ordered even if the clock steps back."""
        number = (now_ms << _CHANCE_BITS) | secrets.randbits(_CHANCE_BITS - 1)
        if number <= self._last or number >> _CHANCE_BITS == self._last >> _CHANCE_BITS:
            number = self._last + 1
        self._last = number
        return _encode(number)
