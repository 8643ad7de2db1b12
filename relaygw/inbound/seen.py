"""What a front remembers of the last mail to a recipient; tens of thousands are kept, so packed."""

from __future__ import annotations

import struct
from typing import NamedTuple

_NUMBERS = struct.Struct("<qqqB")  # its time, two hashes, flags; its queue id follows


class Seen(NamedTuple):
    """The last mail with a key."""

    queue_id: str
    at_ms: int
    message_id: int  # its hash
    text: int | None  # its hash, of short text and who it is from
    is_counted: bool = False

    def packed(self) -> bytes:
        """Return it as it is remembered: one object instead of five."""
        flags = (self.text is not None) | self.is_counted << 1
        numbers = _NUMBERS.pack(self.at_ms, self.message_id, self.text or 0, flags)
        return numbers + self.queue_id.encode()

    @classmethod
    def of(cls, packed: bytes) -> Seen:
        """Return what was packed."""
        at_ms, message_id, text, flags = _NUMBERS.unpack_from(packed)
        queue_id = packed[_NUMBERS.size :].decode()
        return cls(queue_id, at_ms, message_id, text if flags & 1 else None, flags > 1)
