"""Who sends what, as this front counts it in memory, written to the queue every few seconds.

What a kill loses are the counts of the last seconds, never mail.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from relaygw.errors import StoreUnavailable, Unstorable
from relaygw.inbound.mail_classes import Known, MailClasses
from relaygw.mail.clock import HOUR_MS
from relaygw.mail.envelope import AcceptedMessage
from relaygw.mail.mail_class import ClassCount
from relaygw.mail.state import RecipientState
from relaygw.store.batch_writer import written_each
from relaygw.store.store import Store

WRITE_EACH_S = 5.0
MAX_COUNTS = 20_000  # that wait to be written while the store is away; more are not counted
_WRITTEN_AT_ONCE = 200  # classes of a transaction: mail waits for it
_FOLLOW_EACH_S = 600.0  # what the queue knows is read again: it forgets old classes
_START_S = 2.0  # how long the first look may hold up a front


class SourceCounts:
    """What was accepted, by class and hour, until it is written."""

    def __init__(self, most: int = MAX_COUNTS) -> None:
        self._most = most
        self._counts: dict[tuple[str, int], ClassCount] = {}
        self.uncounted = 0  # messages there was no room for

    def add(self, messages: Sequence[AcceptedMessage]) -> None:
        """Count messages that are durable."""
        for message in messages:
            mail_class = message.mail_class
            if mail_class is None or message.is_bounce_mail:
                continue
            at_ms = message.accepted_at_ms
            key = (mail_class.class_id, at_ms // HOUR_MS)
            count = self._counts.get(key)
            if count is None:
                if len(self._counts) >= self._most:
                    self.uncounted += 1
                    continue
                count = self._counts[key] = ClassCount(mail_class, at_ms)
            recipients = refused = 0
            for part in message.deliveries:
                recipients += len(part.recipients)
                for recipient in part.recipients:
                    refused += recipient.state is RecipientState.BLOCKED
            refused += message.refused_recipients
            count.add(at_ms, recipients + message.refused_recipients, refused)

    def take(self) -> list[ClassCount]:
        """Return the counts, and begin anew."""
        taken, self._counts = self._counts, {}
        return list(taken.values())

    def put_back(self, counts: Sequence[ClassCount]) -> None:
        """Take back what could not be written."""
        for count in counts:
            key = (count.mail_class.class_id, count.first_ms // HOUR_MS)
            newer = self._counts.get(key)
            if newer is not None:
                newer.join(count)
            elif len(self._counts) < self._most:
                self._counts[key] = count
            else:
                self.uncounted += count.messages


@asynccontextmanager
async def counts_kept(
    counts: SourceCounts,
    classes: MailClasses | None,
    store: Store,
    *,
    told: Callable[[str], None] = lambda _line: None,
    each_s: float = WRITE_EACH_S,
) -> AsyncIterator[None]:
    """Write the counts within a with block, the last ones at its end; `told` what is lost.

    Before it begins, what the queue knows is read, if that takes no longer than two seconds.
    """
    if classes is None:
        yield
        return
    lost, follow_at_s = 0, 0.0

    async def follow() -> None:
        nonlocal follow_at_s
        if time.monotonic() >= follow_at_s and await follow_queue(classes, store):
            follow_at_s = time.monotonic() + _FOLLOW_EACH_S

    async def write() -> None:
        nonlocal lost
        await write_counts(counts, classes, store)
        if counts.uncounted > lost:
            told(f"warning: {counts.uncounted - lost} messages are missing in relaygw sources")
            lost = counts.uncounted
        await follow()

    await asyncio.wait({asyncio.ensure_future(follow())}, timeout=_START_S)
    async with written_each(each_s, write, name="sources"):
        yield


async def follow_queue(classes: MailClasses, store: Store) -> bool:
    """Take what the queue knows of classes; False if it does not answer."""
    try:
        classes.follow(await asyncio.to_thread(lambda: Known(store.sources.class_ids())))
    except StoreUnavailable:
        return False
    return True


async def write_counts(counts: SourceCounts, classes: MailClasses, store: Store) -> None:
    """Write what was counted; what cannot be written waits, its size is bounded."""
    taken = counts.take()
    while taken:
        part = taken[:_WRITTEN_AT_ONCE]
        try:
            folded = await asyncio.to_thread(_write, store, part)
            classes.fold(folded)
        except Unstorable:  # it would be so again
            counts.uncounted += sum(count.messages for count in part)
        except StoreUnavailable:
            break
        del taken[:_WRITTEN_AT_ONCE]
    counts.put_back(taken)


def _write(store: Store, counts: Sequence[ClassCount]) -> set[str]:
    folded = store.sources.count_mail(counts)
    with contextlib.suppress(StoreUnavailable, Unstorable):  # again would count the classes twice
        apart = [count for count in counts if count.mail_class.class_id not in folded]
        store.rhythms.count_kinds(apart)
    return folded
