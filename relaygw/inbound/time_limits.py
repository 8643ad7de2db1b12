"""How long a client may take (RFC 5321 section 4.5.3.2).

What dribbles in byte by byte is cut earlier, and nobody stays for ever.
"""

from __future__ import annotations

from dataclasses import dataclass

MIN_BYTES_PER_S = 500.0  # as Postfix's smtpd_min_data_rate; counted from 354 once the grace is over


@dataclass(frozen=True, kw_only=True)
class TimeLimits:
    """Limits of each client of a front, in seconds."""

    idle_s: float = 300.0  # from a reply to the next command
    command_s: float = 60.0  # from the first byte of a command to its end
    session_s: float = 3600.0  # from the beginning, or the last message, to the next one
    handshake_s: float = 30.0
    proxy_header_s: float = 10.0
    content_silence_s: float = 180.0  # how long nothing may come of content
    content_grace_s: float = 90.0  # before the rate counts that content must have on average
    content_s: float = 3600.0  # from 354 to the final dot
    check_each_s: float = (
        1.0  # how often sessions are counted, and asked whether they take too long
    )


USUAL = TimeLimits()
