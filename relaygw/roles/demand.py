"""Whether the web role runs always, or while it is wanted: an idle gateway is three processes.

Who connects wants it, and so does the worker when much mail waits to be made findable. Nothing else
depends on it: searches read the newest mail themselves, commands index what they need.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Sequence

from relaygw.roles import hears_of_mail
from relaygw.settings.model import Settings

IDLE_S = 600.0
"""A web role that nobody has wanted for so long ends."""


def is_on_demand(roles: Sequence[str], settings: Settings) -> bool:
    """Return whether the web role ends when nobody wants it.

    Not where programs are expected to ask it all the time (pages or metrics of their own for other
    machines, several instances), and not where it has mail of its own to see to: events, webhooks.
    """
    has_visitors = not settings.web.bind.is_loopback or settings.metrics.bind is not None
    has_work = bool(settings.webhooks) or hears_of_mail(settings)
    is_alone = not settings.queue.is_postgres and {"front", "delivery"} <= set(roles)
    return is_alone and not has_visitors and not has_work


class Demand:
    """Tells the supervisor, from any of its processes, that the web role is wanted."""

    def __init__(self) -> None:
        self._wanted = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        """Return a descriptor that is readable while the role is wanted."""
        return self._wanted

    def want(self) -> None:
        """Want it; whoever still wants it later says so again."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(self._wanted, 1)

    def meet(self) -> None:
        """Forget who wanted it."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wanted)


class Attendance:
    """When the web role had something to do last."""

    def __init__(self) -> None:
        self._at_s = time.monotonic()

    def note(self) -> None:
        """Note that it has."""
        self._at_s = time.monotonic()

    async def end(self, stop: asyncio.Event) -> bool:
        """Return once `stop` is set, or it had nothing to do for `IDLE_S`; True: the latter."""
        while (left_s := self._at_s + IDLE_S - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), left_s)
                return False
        return True
