"""The screen: what looks at a message that is about to be accepted, and may hold it.

Each check looks at every message, and each hold counts. A check never refuses mail: when it
fails, the mail goes on and the log tells. The check for storms is in storms.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from relaygw.inbound.content import ReceivedContent
from relaygw.mail.clock import clock_ms
from relaygw.mail.content import HeaderFacts
from relaygw.mail.envelope import AcceptedMessage, NewDelivery
from relaygw.mail.finding import Kind
from relaygw.mail.hold import HoldCause, HoldCode
from relaygw.mail.keys import packed, unpacked
from relaygw.mail.state import RecipientState
from relaygw.policy.content_check import find_in, shown_subject
from relaygw.policy.standing_holds import StandingHolds
from relaygw.settings.content_check import ContentCheck
from relaygw.store.guard import GuardEntry, HeldMailScope
from relaygw.store.store import Store

REFRESH_EACH_S = 2.0
_TELL_AGAIN_S = 60.0


class ScreenHold(NamedTuple):
    """Why a message is held; mail that is held alike has the same `key` and the same `reason`."""

    code: HoldCode  # one of mail.hold.SCREENED, or STANDING
    key: str  # a word: the class of mail, the storm, what was found
    reason: str  # the end of a sentence, for people
    only: frozenset[str] | None = None  # given addresses, in lower case: only these are held

    @property
    def cause(self) -> HoldCause:
        """The cause as the queue keeps it."""
        return HoldCause(self.code, packed(self.key, self.reason))


class Check:
    """One check; those of a front run in its event loop."""

    name = ""  # in the log

    def look(
        self, message: AcceptedMessage, facts: HeaderFacts, content: ReceivedContent
    ) -> Sequence[ScreenHold]:
        """Return why a message is held, nothing to let it go; takes microseconds.

        Nothing of it is stored yet; its `mail_class` is set if it is counted. `content.head` is all
        of it, or of large content the header and some of its text.
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

    def holds_of(
        self, message: AcceptedMessage, facts: HeaderFacts, content: ReceivedContent
    ) -> list[ScreenHold]:
        """Return all holds of a message."""
        found: list[ScreenHold] = []
        for check in self.checks:
            try:
                held = check.look(message, facts, content)
            except Exception as error:
                self._tell(check, "failed, and the mail was let through", error)
                continue
            found += held
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
        async with asyncio.timeout(each_s):
            await is_read.wait()
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
            async with asyncio.timeout(each_s):
                await stop.wait()


_READ_AGAIN_S = 60.0


class HoldCheck(Check):
    """Holds what the queue says is held: by the guard, and all recipients of by standing holds.

    Workers hold what comes while it has not read of a new hold, and some recipients of a message.
    """

    name = "holds"

    def __init__(self, store: Store) -> None:
        self._store = store
        self._held: dict[str, list[HeldMailScope]] = {}  # by source
        self._standing: StandingHolds | None = None
        self._entries: list[GuardEntry] = []
        self._due_s = 0.0

    def look(
        self, message: AcceptedMessage, _facts: HeaderFacts, _content: ReceivedContent
    ) -> Sequence[ScreenHold]:
        """Return the hold of a message's class, and the standing hold of it."""
        mail_class, found = message.mail_class, list[ScreenHold]()
        if self._held and mail_class is not None:
            for scope in self._held.get(mail_class.source_id, ()):
                if scope.holds_mail(mail_class):
                    found.append(ScreenHold(HoldCode.GUARD, scope.target, scope.reason))
                    break
        if self._standing is not None:
            found += _standing_hold(message, self._standing)
        return found

    def refresh(self) -> None:
        """Read what is held; what it covers is read again each minute only."""
        now_ms = clock_ms()
        standing = [hold for hold in self._store.holds.standing() if not hold.is_over(now_ms)]
        self._standing = StandingHolds(standing) if standing else None
        entries = self._store.guard.guard_entries()
        if entries == self._entries and time.monotonic() < self._due_s:
            return
        held: dict[str, list[HeldMailScope]] = defaultdict(list)
        for scope in self._store.guard.held_scopes():
            held[scope.source_id].append(scope)
        self._held, self._entries = dict(held), entries
        self._due_s = time.monotonic() + _READ_AGAIN_S


def _standing_hold(message: AcceptedMessage, standing: StandingHolds) -> Sequence[ScreenHold]:
    holds = [
        hold
        for part in message.deliveries
        for hold in standing.of_each(
            (
                recipient.address
                for recipient in part.recipients
                if recipient.state is RecipientState.PENDING
            ),
            route=part.route,
            sender=message.sender,
            subject=message.subject,
            client=message.source.client,
        )
    ]
    if not holds or holds[0] is None or None in holds:
        return ()
    hold_id, words = unpacked(holds[0].cause.key)
    return (ScreenHold(HoldCode.STANDING, hold_id, words),)


FoundContent = Callable[[str, Mapping[Kind, int], bool], None]
"""Is told of what was found: queue id, how many of each kind, whether the mail is held."""


class Wishes:
    """What the settings want of the mail of each stream that is looked at: warn, or hold."""

    def __init__(self, settings: ContentCheck) -> None:
        wanted = {"transactional": settings.transactional, "promotional": settings.promotional}
        self._wanted = {stream: wish for stream, wish in wanted.items() if wish != "off"}
        self.own_ibans = frozenset(settings.own_ibans)

    def of(self, deliveries: Iterable[NewDelivery]) -> set[str]:
        """Return the wishes for a message, none if nobody looks at it."""
        return {
            self._wanted[delivery.stream]
            for delivery in deliveries
            if delivery.stream in self._wanted
        }

    def shown(self, subject: str, deliveries: Iterable[NewDelivery]) -> str:
        """Return the subject of a message as it is stored and told."""
        if not self._wanted or not self.of(deliveries):
            return subject
        return shown_subject(subject, self.own_ibans)


class ContentLook(Check):
    """Looks for it in the mail of the streams that it is on for."""

    name = "content"

    def __init__(self, settings: ContentCheck, told: FoundContent) -> None:
        self._wishes = Wishes(settings)
        self._told = told

    def look(
        self, message: AcceptedMessage, facts: HeaderFacts, content: ReceivedContent
    ) -> Sequence[ScreenHold]:
        """Return a hold for mail of which one part at least goes by a stream that wants it."""
        wishes = self._wishes.of(message.deliveries)
        if not wishes:
            return ()
        found = find_in(
            content.head,
            header_end=facts.end,
            subject=facts.subject,
            own_ibans=self._wishes.own_ibans,
        )
        if not found:
            return ()
        states = (recipient.state for part in message.deliveries for recipient in part.recipients)
        is_held = "hold" in wishes and RecipientState.PENDING in states
        self._told(message.queue_id, found, is_held)
        if not is_held:
            return ()
        return (ScreenHold(HoldCode.CONTENT_CHECK, "+".join(found), "found in its text"),)
