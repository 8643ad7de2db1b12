"""The screen: what looks at a message that is about to be accepted, and may hold it.

Each check looks at every message, and the first hold counts. A check never refuses mail: when it
fails, the mail goes on and the log tells.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from relaygw.inbound.content import ReceivedContent
from relaygw.mail.content import HeaderFacts
from relaygw.mail.envelope import AcceptedMessage
from relaygw.mail.hold import HoldCause, HoldCode

REFRESH_EACH_S = 2.0
_TELL_AGAIN_S = 60.0


class ScreenHold(NamedTuple):
    """Why a message is held; mail that is held alike has the same `key` and the same `reason`."""

    code: HoldCode  # one of mail.hold.SCREENED
    key: str  # a word: the class of mail, the storm, what was found
    reason: str  # the end of a sentence, for people
    only: frozenset[str] | None = None  # given addresses, in lower case: only these are held

    @property
    def cause(self) -> HoldCause:
        """The cause as the queue keeps it."""
        return HoldCause(self.code, f"{self.key} {self.reason}")


class Check:
    """One check; those of a front run in its event loop."""

    name = ""  # in the log

    def look(
        self, message: AcceptedMessage, facts: HeaderFacts, content: ReceivedContent
    ) -> ScreenHold | None:
        """Return why a message is held, None to let it go; takes microseconds.

        Nothing of it is stored yet; its `mail_class` is set if it is counted. `content.head` is all
        of it, or the first 256 KiB of large content.
        """
        raise NotImplementedError

    def committed(self, messages: Sequence[AcceptedMessage]) -> None:
        """Hear of messages that are durable."""

    def withdrawn(self, message: AcceptedMessage) -> None:
        """Hear of one it looked at that was not accepted."""

    def refresh(self) -> None:
        """Read what it goes by, and write what it knows; every two seconds in a thread."""


class Screen:
    """The checks of a front, in order."""

    def __init__(self, checks: Sequence[Check], *, told: Callable[[str], None]) -> None:
        self.checks = tuple(checks)
        self._told = told  # a line for the log
        self._told_at_s: dict[str, float] = {}

    def hold_of(
        self, message: AcceptedMessage, facts: HeaderFacts, content: ReceivedContent
    ) -> ScreenHold | None:
        """Return the first hold of a message; one of all recipients goes before one of some."""
        found: ScreenHold | None = None
        for check in self.checks:
            try:
                held = check.look(message, facts, content)
            except Exception as error:
                self._tell(check, "failed, and the mail was let through", error)
                continue
            if held is not None and (found is None or (found.only and not held.only)):
                found = held
        return found

    def committed(self, messages: Sequence[AcceptedMessage]) -> None:
        """Tell the checks what is durable."""
        for check in self.checks:
            try:
                check.committed(messages)
            except Exception as error:
                self._tell(check, "did not count mail", error)

    def withdrawn(self, message: AcceptedMessage) -> None:
        """Tell the checks what was not accepted."""
        for check in self.checks:
            check.withdrawn(message)

    def refresh(self) -> None:
        """Let all checks read what they go by; what fails is told, and goes by what it has."""
        for check in self.checks:
            try:
                check.refresh()
            except Exception as error:
                self._tell(check, "goes by what it read before", error)

    def _tell(self, check: Check, what: str, error: Exception) -> None:
        now_s = time.monotonic()
        if now_s - self._told_at_s.get(check.name, float("-inf")) >= _TELL_AGAIN_S:
            self._told_at_s[check.name] = now_s
            self._told(f"warning: check {check.name} {what}: {type(error).__name__}: {error}")


@asynccontextmanager
async def refreshed(
    screen: Screen | None, *, each_s: float = REFRESH_EACH_S
) -> AsyncIterator[None]:
    """Refresh the checks before a with block begins, if that takes no longer, and within it.

    Once more at its end: what they know is written.
    """
    if screen is None:
        yield
        return
    is_read, stop = asyncio.Event(), asyncio.Event()
    keeping = asyncio.create_task(_keep_refreshing(screen, each_s, is_read, stop), name="screen")
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(is_read.wait(), each_s)
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait({keeping}, timeout=each_s)  # for a read that was begun
        last = asyncio.create_task(asyncio.to_thread(screen.refresh))
        await asyncio.wait({last}, timeout=each_s)


async def _keep_refreshing(
    screen: Screen, each_s: float, is_read: asyncio.Event, stop: asyncio.Event
) -> None:
    while not stop.is_set():
        await asyncio.to_thread(screen.refresh)
        is_read.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), each_s)
