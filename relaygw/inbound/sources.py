"""Who sends what, as this front counts it: in memory, written to the queue every few seconds.

Memory is bounded whatever clients send: so many classes in all, so many of a source; what is more
is counted as one. What a kill loses are the counts of the last seconds, never mail.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager

from relaygw.errors import StoreUnavailable, Unstorable
from relaygw.mail.envelope import AcceptedMessage, Source
from relaygw.mail.hold import sender_domain
from relaygw.mail.mail_class import LOCAL_HOST, MailClass, MailSource, elsewhere, others_of
from relaygw.mail.state import RecipientState
from relaygw.mail.words import printable
from relaygw.policy.template import subject_template
from relaygw.store.sources import HOUR_MS, MAX_CLASSES, MAX_CLASSES_OF_SOURCE, ClassCount
from relaygw.store.store import Store

WRITE_EACH_S = 5.0
MAX_COUNTS = 20_000  # that wait to be written while the store is away; more are not counted
_WRITTEN_AT_ONCE = 200  # classes of a transaction: mail waits for it
_FORGET_MS = 86_400_000  # a class that was not seen for so long makes room
_LOOK_EACH_MS = 60_000
_MAX_TEXT = 200


class _Known:
    """A class, and when it was last seen."""

    __slots__ = ("mail_class", "seen_ms")

    def __init__(self, mail_class: MailClass, seen_ms: int) -> None:
        self.mail_class = mail_class
        self.seen_ms = seen_ms


_Key = tuple[str, str, str, int | None, str, str, str, str]  # source, domain, template, stream


class MailClasses:
    """Which class a message belongs to."""

    def __init__(self) -> None:
        self._known: dict[_Key, _Known] = {}
        self._of_source: Counter[MailSource] = Counter()  # how many of these
        self._looked_ms = 0

    def of(self, source: Source, sender: str, subject: str, stream: str, now_ms: int) -> MailClass:
        """Return the class of a message; costs a few microseconds."""
        key = (
            source.host or source.client or LOCAL_HOST,
            source.listener or "",
            source.user or "",
            source.uid,
            source.script or "",
            sender_domain(sender),
            subject_template(subject),
            stream,
        )
        found = self._known.get(key)
        if found is None:
            return self._new(key, now_ms)
        found.seen_ms = now_ms
        return found.mail_class

    def fold(self, class_ids: Collection[str]) -> None:
        """Count these with the others of their source: the queue has too many classes."""
        for key, one in self._known.items() if class_ids else ():
            if one.mail_class.class_id in class_ids:
                one.mail_class = _others(key)

    def _new(self, key: _Key, now_ms: int) -> MailClass:
        source: MailSource = key[:5]
        if not self._has_room(source) and now_ms - self._looked_ms > _LOOK_EACH_MS:
            self._forget(now_ms - _FORGET_MS)
            self._looked_ms = now_ms
        if not self._has_room(source):
            return _others(key) if source in self._of_source else elsewhere(key[7])
        new = MailClass.of(
            _shown(source),
            sender_domain=_short(key[5]),
            template=printable(key[6]),
            stream=key[7],
        )
        self._known[key] = _Known(new, now_ms)
        self._of_source[source] += 1
        return new

    def _has_room(self, source: MailSource) -> bool:
        is_one_more = self._of_source[source] < MAX_CLASSES_OF_SOURCE
        return is_one_more and len(self._known) < MAX_CLASSES

    def _forget(self, before_ms: int) -> None:
        self._known = {key: one for key, one in self._known.items() if one.seen_ms > before_ms}
        self._of_source = Counter(key[:5] for key in self._known)


def _others(key: _Key) -> MailClass:
    return others_of(_shown(key[:5]), key[7])


def _shown(source: MailSource) -> MailSource:
    host, listener, user, uid, script = source
    # gateways that share a queue have listeners on different addresses
    return _short(host), listener[listener.rfind(":") :], _short(user), uid, _short(script)


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
    counts: SourceCounts,
    classes: MailClasses | None,
    store: Store,
    *,
    told: Callable[[str], None] = lambda _line: None,
    each_s: float = WRITE_EACH_S,
) -> AsyncIterator[None]:
    """Write the counts within a with block, the last ones at its end; `told` what is lost."""
    if classes is None:
        yield
        return

    async def keep_writing() -> None:
        lost = 0
        while True:
            await asyncio.sleep(each_s)
            # a write that was begun is finished: what was counted is in it once
            await asyncio.shield(asyncio.ensure_future(write_counts(counts, classes, store)))
            if counts.uncounted > lost:
                told(f"warning: {counts.uncounted - lost} messages are missing in relaygw sources")
                lost = counts.uncounted

    writing = asyncio.create_task(keep_writing(), name="sources")
    try:
        yield
    finally:
        writing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writing
        await write_counts(counts, classes, store)


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
