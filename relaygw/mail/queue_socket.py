"""The socket on which the front tells any local user what is queued, as Postfix's mailq does.

Whoever connects is sent the whole report and then the end of the stream; nothing is read from
him. A report that stops before its last line is not complete. The sendmail command starts once
for each mail, so nothing is imported here.
"""

from __future__ import annotations

NAME = "queue"
"""Name of the stream socket in the maildrop."""

EMPTY = b"Mail queue is empty\n"
CLOSING = b"-- "
"""How the last line of a report begins when something is queued."""

LONGEST_CLOSING_BYTES = 100


def is_complete(end: bytes) -> bool:
    """True if a report that ends with `end` (LONGEST_CLOSING_BYTES of it, or all) is whole."""
    return end == EMPTY or (end.endswith(b"\n") and end[end[:-1].rfind(b"\n") + 1 :][:3] == CLOSING)
