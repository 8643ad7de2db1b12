"""Who sends what, as this front counts it: in memory, written to the queue every few seconds.

Memory is bounded whatever clients send: so many sources, so many classes of each; what is more is
counted as one. What a kill loses are the counts of the last seconds, never mail.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager

from relaygw.errors import StoreUnavailable, Unstorable
from relaygw.mail.envelope import AcceptedMessage, Source
from relaygw.mail.hold import sender_domain
from relaygw.mail.mail_class import LOCAL_HOST, MailClass, MailSource, elsewhere, others_of
from relaygw.mail.state import RecipientState
from relaygw.mail.words import printable
from relaygw.policy.template import subject_template
from relaygw.store.sources import HOUR_MS, MAX_CLASSES_OF_SOURCE, ClassCount
from relaygw.store.store import Store

WRITE_EACH_S = 5.0
MAX_SOURCES = 2000
MAX_COUNTS = 20_000  # that wait to be written while the store is away; more are not counted
_WRITTEN_AT_ONCE = 500  # classes of a transaction: mail waits for it
_FORGET_MS = 86_400_000  # a class that was not seen for so long makes room
_LOOK_EACH_MS = 60_000
_MAX_TEXT = 200


class _Known:
    """A class, and when it was last seen."""

    __slots__ = ("mail_class", "seen_ms")

    def __init__(self, mail_class: MailClass) -> None:
        self.mail_class = mail_class
        self.seen_ms = 0


class _Classes:
    """The classes of one source."""

    __slots__ = ("known", "looked_ms", "others", "seen_ms", "source")

    def __init__(self, source: MailSource) -> None:
        self.source = source
        self.known: dict[tuple[str, str, str], _Known] = {}
        self.others: dict[str, MailClass] = {}
        self.seen_ms = 0
        self.looked_ms = 0

    def of(self, key: tuple[str, str, str], now_ms: int) -> MailClass:
        found = self.known.get(key) or self._new(key, now_ms)
        if found is None:
            return self._others(key[2])
        found.seen_ms = self.seen_ms = now_ms
        return found.mail_class

    def _new(self, key: tuple[str, str, str], now_ms: int) -> _Known | None:
        if len(self.known) >= MAX_CLASSES_OF_SOURCE and now_ms - self.looked_ms > _LOOK_EACH_MS:
            self.looked_ms = now_ms
            old_ms = now_ms - _FORGET_MS
            self.known = {key: one for key, one in self.known.items() if one.seen_ms > old_ms}
        if len(self.known) >= MAX_CLASSES_OF_SOURCE:
            self.seen_ms = now_ms
            return None
        domain, template, stream = key
        new = MailClass.of(
            self.source,
            sender_domain=_short(domain),
            template=printable(template),
            stream=stream,
        )
        self.known[key] = _Known(new)
        return self.known[key]

    def _others(self, stream: str) -> MailClass:
        if stream not in self.others:
            self.others[stream] = others_of(self.source, stream)
        return self.others[stream]

    def fold(self, class_ids: Collection[str]) -> None:
        """Count these classes with the others from now on."""
        for key, one in self.known.items():
            if one.mail_class.class_id in class_ids:
                one.mail_class = self._others(key[2])


class MailClasses:
    """Which class a message belongs to."""

    def __init__(self) -> None:
        self._sources: dict[MailSource, _Classes] = {}
        self._looked_ms = 0

    def of(self, source: Source, sender: str, subject: str, stream: str, now_ms: int) -> MailClass:
        """Return the class of a message; costs a few microseconds."""
        key = (
            source.host or source.client or LOCAL_HOST,
            source.listener or "",
            source.user or "",
            source.uid,
            source.script or "",
        )
        classes = self._sources.get(key) or self._new(key, now_ms)
        if classes is None:
            return elsewhere(stream)
        return classes.of((sender_domain(sender), subject_template(subject), stream), now_ms)

    def _new(self, key: MailSource, now_ms: int) -> _Classes | None:
        if len(self._sources) >= MAX_SOURCES and now_ms - self._looked_ms > _LOOK_EACH_MS:
            self._looked_ms = now_ms
            old_ms = now_ms - _FORGET_MS
            self._sources = {key: one for key, one in self._sources.items() if one.seen_ms > old_ms}
        if len(self._sources) >= MAX_SOURCES:
            return None
        host, listener, user, uid, script = key
        shown = (_short(host), listener, _short(user), uid, _short(script))
        classes = self._sources[key] = _Classes(shown)
        return classes

    def fold(self, class_ids: Collection[str]) -> None:
        """Count these classes with the others of their source: the queue has too many of it."""
        if class_ids:
            for one in self._sources.values():
                one.fold(class_ids)


def _short(text: str) -> str:
    return printable(text[:_MAX_TEXT])


class SourceCounts:
    """What was accepted, by class and hour, until it is written."""

    def __init__(self) -> None:
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
                if len(self._counts) >= MAX_COUNTS:
                    self.uncounted += 1
                    continue
                count = self._counts[key] = ClassCount(mail_class, at_ms)
            recipients = refused = 0
            for part in message.deliveries:
                recipients += len(part.recipients)
                for one in part.recipients:
                    refused += one.state is RecipientState.BLOCKED
            refused += message.refused_recipients
            count.add(at_ms, recipients + message.refused_recipients, refused)

    def take(self) -> list[ClassCount]:
        """Return what was counted, and begin anew."""
        taken, self._counts = self._counts, {}
        return list(taken.values())

    def put_back(self, counts: Sequence[ClassCount]) -> None:
        """Take back what could not be written."""
        for one in counts:
            key = (one.mail_class.class_id, one.first_ms // HOUR_MS)
            newer = self._counts.get(key)
            if newer is not None:
                newer.join(one)
            elif len(self._counts) < MAX_COUNTS:
                self._counts[key] = one
            else:
                self.uncounted += one.messages


@asynccontextmanager
async def counts_kept(
    counts: SourceCounts, classes: MailClasses | None, store: Store, *, each_s: float = WRITE_EACH_S
) -> AsyncIterator[None]:
    """Write the counts within a with block, the last ones at its end."""
    if classes is None:
        yield
        return
    writing = asyncio.create_task(_keep_writing(counts, classes, store, each_s), name="sources")
    try:
        yield
    finally:
        writing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writing
        await write_counts(counts, classes, store)


async def _keep_writing(
    counts: SourceCounts, classes: MailClasses, store: Store, each_s: float
) -> None:
    while True:
        await asyncio.sleep(each_s)
        # a write that was begun is finished: what was counted is in it once
        await asyncio.shield(asyncio.ensure_future(write_counts(counts, classes, store)))


async def write_counts(counts: SourceCounts, classes: MailClasses, store: Store) -> None:
    """Write what was counted; what cannot be written waits, its size is bounded."""
    taken = counts.take()
    while taken:
        part = taken[:_WRITTEN_AT_ONCE]
        try:
            folded = await asyncio.to_thread(store.sources.count_mail, part)
            classes.fold(folded)
        except Unstorable:  # it would be so again
            counts.uncounted += sum(one.messages for one in part)
        except StoreUnavailable:
            break
        del taken[:_WRITTEN_AT_ONCE]
    counts.put_back(taken)
