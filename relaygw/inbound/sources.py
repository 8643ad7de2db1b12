"""Who sends what, and who was told to come later, as this front counts it.

It is counted in memory, and written to the queue every few seconds.

Memory is bounded whatever clients send: so many classes in all, so many of a source; what is more
is counted as one. What a kill loses are the counts of the last seconds, never mail.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from relaygw.errors import StoreUnavailable, Unstorable
from relaygw.mail.clock import HOUR_MS, clock_ms
from relaygw.mail.content import subject_template
from relaygw.mail.envelope import AcceptedMessage, Source
from relaygw.mail.hold import sender_domain
from relaygw.mail.mail_class import (
    LOCAL_HOST,
    OTHER_SCRIPTS,
    ClassCount,
    MailClass,
    MailSource,
    elsewhere,
    others_of,
    short_text,
    shown_source,
    source_id,
)
from relaygw.mail.state import RecipientState
from relaygw.mail.words import printable
from relaygw.store.batch_writer import written_each
from relaygw.store.sources import MAX_CLASSES, MAX_CLASSES_OF_SOURCE
from relaygw.store.store import Store
from relaygw.store.visitors import MAX_THROTTLED, Throttled

WRITE_EACH_S = 5.0
MAX_NEW_SCRIPTS = 30  # an hour, of a host, login and uid
MAX_NEW_NAMED = 10  # hosts with login and uid an hour, that one client names
_NEW_WITHIN_S = 3600.0
MAX_COUNTS = 20_000  # that wait to be written while the store is away; more are not counted
_WRITTEN_AT_ONCE = 200  # classes of a transaction: mail waits for it
_FOLLOW_EACH_S = 600.0  # what the queue knows is read again: it forgets old classes
_START_S = 2.0  # how long the first look may hold up a front


_Key = tuple[str, str, str, int | None, str, str, str, str]  # source, domain, template, stream


class Known:
    """What the queue knows of classes: their ids, and how many each source has."""

    def __init__(self, ids: Sequence[tuple[str, str]] = ()) -> None:
        """`ids`: of each class, with that of its source."""
        self.apart = {class_id for class_id, _ in ids}
        self.of_source = Counter(source_id for _, source_id in ids)


class MailClasses:
    """Which class a message belongs to, as the queue knows them; a new one needs room.

    What is known keeps its place however many subjects a flood has.
    """

    def __init__(self) -> None:
        self._found: dict[_Key, MailClass] = {}  # so that no hash is made of each mail
        self._apart: set[str] = set()  # ids of classes that are counted apart
        self._of_source: Counter[str] = Counter()  # how many these are, by id of the source
        self._folded: set[str] = set()  # ids of those that the queue had no room for
        self._new_scripts: Counter[MailSource] = Counter()  # of this hour, by the rest of a source
        self._new_named: defaultdict[str, set[tuple[object, ...]]] = defaultdict(set)
        self._hour = 0

    def of(self, source: Source, sender: str, subject: str, stream: str) -> MailClass:
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
        return self._found.get(key) or self._find(key, source)

    def follow(self, known: Known) -> None:
        """Take what the queue knows now, which others counted, and which it has forgotten."""
        self._apart, self._of_source = known.apart, known.of_source
        self._folded.clear()
        self._found.clear()

    def fold(self, class_ids: Collection[str]) -> None:
        """Count these with the others of their source: the queue has no room for them."""
        self._folded.update(class_ids)
        for key, one in self._found.items() if class_ids else ():
            if one.class_id in class_ids:
                self._found[key] = others_of(one.source, one.stream)

    def _find(self, key: _Key, source: Source) -> MailClass:
        *_, domain, template, stream = key
        named_by = short_text(source.client or LOCAL_HOST) if source.host else None
        found = MailClass.of(
            self._source_of(shown_source(key[:5]), named_by),
            sender_domain=short_text(domain),
            template=printable(template),
            stream=stream,
        )
        if found.class_id not in self._apart and not self._take_place(found):
            is_known = self._of_source[found.source_id] > 0
            # not remembered: there is no end of these
            return others_of(found.source, stream) if is_known else elsewhere(stream)
        if len(self._found) >= MAX_CLASSES:
            self._found.clear()
        self._found[key] = found
        return found

    def _source_of(self, source: MailSource, named_by: str | None) -> MailSource:
        """Return a source, of too many new scripts or named hosts one for all: anybody names any.

        `named_by`: the client that names its host.
        """
        if self._of_source[source_id(source)] or (not source[4] and named_by is None):
            return source
        hour = int(time.monotonic() / _NEW_WITHIN_S)
        if hour != self._hour:
            self._hour, self._new_scripts, self._new_named = hour, Counter(), defaultdict(set)
        if named_by is not None:
            named = self._new_named[named_by]
            if source[:4] not in named and len(named) >= MAX_NEW_NAMED:
                return (named_by, source[1], "", None, OTHER_SCRIPTS)
            named.add(source[:4])
        if not source[4]:
            return source
        other: MailSource = (*source[:4], OTHER_SCRIPTS)
        self._new_scripts[other] += 1
        return source if self._new_scripts[other] <= MAX_NEW_SCRIPTS else other

    def _take_place(self, new: MailClass) -> bool:
        is_full = self._of_source[new.source_id] >= MAX_CLASSES_OF_SOURCE
        if is_full or len(self._apart) >= MAX_CLASSES or new.class_id in self._folded:
            return False
        self._apart.add(new.class_id)
        self._of_source[new.source_id] += 1
        return True


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
            counts.uncounted += sum(one.messages for one in part)
        except StoreUnavailable:
            break
        del taken[:_WRITTEN_AT_ONCE]
    counts.put_back(taken)


def _write(store: Store, counts: Sequence[ClassCount]) -> set[str]:
    folded = store.sources.count_mail(counts)
    with contextlib.suppress(StoreUnavailable, Unstorable):  # again would count the classes twice
        apart = [one for one in counts if one.mail_class.class_id not in folded]
        store.rhythms.count_kinds(apart)
    return folded


RATE, CONNECTIONS, LOGINS = "rate", "connections", "logins"


class ThrottledClients:
    """Those of one front, since the last write."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], Throttled] = {}

    def note(self, listener: str, client: str, cause: str) -> None:
        """Count a client that came too often; of very many only the first."""
        key, now_ms = (listener, client, cause), clock_ms()
        before = self._found.get(key)
        if before is not None:
            self._found[key] = replace(before, last_seen_ms=now_ms, times=before.times + 1)
        elif len(self._found) < MAX_THROTTLED:
            times = {"first_seen_ms": now_ms, "last_seen_ms": now_ms}
            self._found[key] = Throttled(
                listener=listener, client=printable(client), cause=cause, times=1, **times
            )

    def take(self) -> list[Throttled]:
        """Return what was counted since the last time."""
        taken, self._found = self._found, {}
        return list(taken.values())

    def put_back(self, found: Sequence[Throttled]) -> None:
        """Take back what could not be written."""
        for one in found:
            key = (one.listener, one.client, one.cause)
            newer = self._found.get(key)
            times = one.times + (newer.times if newer else 0)
            last_ms = newer.last_seen_ms if newer else one.last_seen_ms
            self._found[key] = replace(one, times=times, last_seen_ms=last_ms)
