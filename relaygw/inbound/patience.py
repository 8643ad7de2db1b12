"""How long a client may take, and who looks: one task for all sessions of a front.

RFC 5321 section 4.5.3.2 gives a client five minutes for a command and three for a part of the
content. What dribbles in byte by byte is cut earlier, and nobody stays for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

LOOK_S = 1.0
IDLE_S = 300.0
"""From a reply to the next command."""
COMMAND_S = 60.0
"""From the first byte of a command to its end."""
HANDSHAKE_S = 30.0
PROXY_HEADER_S = 10.0
SESSION_S = 3600.0
"""From the beginning, or the last message, to the next one."""
CONTENT_SILENCE_S = 180.0
CONTENT_S = 3600.0
"""From 354 to the final dot."""
CONTENT_GRACE_S = 90.0
MIN_CONTENT_BYTES_PER_S = 500.0
"""As Postfix's smtpd_min_data_rate; counted from 354 once the grace is over."""


class Timed(Protocol):
    """What the task looks at."""

    def check_time(self, now_s: float) -> None:
        """End the session if it took longer than it may."""


async def watch(sessions: Callable[[], Iterable[Timed]]) -> None:
    """Look at every session, again and again, until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(LOOK_S)
        for session in tuple(sessions()):
            session.check_time(loop.time())


def content_deadline_s(began_s: float, last_s: float, received_bytes: int) -> float:
    """Return until when content must have gone on; times are of the event loop."""
    return min(
        began_s + CONTENT_S,
        last_s + CONTENT_SILENCE_S,
        began_s + CONTENT_GRACE_S + received_bytes / MIN_CONTENT_BYTES_PER_S,
    )
