"""Reads the posts that were kept: what they tell of, which mail that is, and what follows.

Each web role reads, and several share the posts: one of them has a post for a while. Whatever ends
it, somebody reads the post again, and what it tells counts once. Bounce mails are read beside what
providers post, one at a time, so that posts do not wait for expensive ones.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from relaygw.errors import StoreUnavailable
from relaygw.feedback.bounce_mail import BounceReader, NotRead, TooExpensive
from relaygw.feedback.format import Format
from relaygw.feedback.formats import FORMATS
from relaygw.mail.clock import clock_ms
from relaygw.mail.verdict import BOUNCE_MAIL, Event, Kind
from relaygw.observe.events import Judged
from relaygw.observe.history import Series
from relaygw.observe.readings import MAX_DEATHS, ProcessReadings, unwatched
from relaygw.observe.readings import Reader as ReadBy
from relaygw.settings.model import Settings
from relaygw.store.feedback import MatchedEvent, StoredPost
from relaygw.store.mail_of_event import Clue, Found
from relaygw.store.store import Store
from relaygw.upstream.mark import KEY, Marks

POLL_S = 1.0
LEASE_MS = 20_000
_AT_ONCE = 50  # posts
_EVENTS_AT_ONCE = 100  # in a transaction: accepting mail waits for it on SQLite
LOOK_AGAIN_MS = (1_000, 5_000, 15_000, 60_000, 180_000)
"""When mail of an event is looked for again: its outcome, or its words, may not be written yet."""
_TRY_AGAIN_MS = (10_000, 60_000, 600_000, 3_600_000, 6 * 3_600_000)
_TELL_EACH_S = 600.0
_SILENCE_EACH_S = 3600.0
_SILENT_MS, _SILENT_MAILS = 86_400_000, 20

_log = logging.getLogger("relaygw.feedback")


_Read = Callable[[], tuple[list[MatchedEvent], bool]]
_IN_HAND_MS = (250, 5_000)  # at least, at most


class _Wait(NamedTuple):
    """Until a post is read again, and whether that is one of its tries."""

    wait_ms: int
    counts: bool = True

    @classmethod
    def in_hand(cls, post: StoredPost) -> _Wait:
        """Return the wait for mail that a worker has in hand, however long it has it: a lease ends.

        The first event often comes before the outcome of its mail is written, some ms later.
        """
        least_ms, most_ms = _IN_HAND_MS
        age_ms = clock_ms() - post.received_at_ms
        return cls(min(max(age_ms, least_ms), most_ms), counts=False)


class Reader:
    """The reader of one web role; `told` and `judged` hear of what is new, in the event loop."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        *,
        told: Callable[[Sequence[MatchedEvent]], None] = lambda _: None,
        judged: Callable[[Sequence[Judged]], None] = lambda _: None,
        readings: ProcessReadings | None = None,
        bounces: BounceReader | None = None,
        formats: Mapping[str, Format] = FORMATS,
        look_again_ms: Sequence[int] = LOOK_AGAIN_MS,
        try_again_ms: Sequence[int] = _TRY_AGAIN_MS,
    ) -> None:
        self._look_again_ms, self._try_again_ms = look_again_ms, try_again_ms
        self._readings = readings or unwatched()
        self._store = store
        self._retention_ms = int(settings.queue.retention * 1000)
        self._bounces = bounces or BounceReader(settings.hostname)
        self._everybody = frozenset(settings.providers)  # may have sent what a bounce mail names
        self._archive = settings.archive_to
        presets = {name: provider.preset for name, provider in settings.providers.items()}
        self._formats = {
            name: formats[preset]
            for name, preset in presets.items()
            if preset is not None and preset in formats
        }
        # an account of a service may be several providers here, and report of all at one address
        self._siblings = {
            name: frozenset(other for other, its in presets.items() if its == preset)
            for name, preset in presets.items()
        }
        self._told = told
        self._judged = judged
        self._marks: Marks | None = None
        self._woken = asyncio.Event()
        self._often = Seldom(_TELL_EACH_S)
        self._daily = Seldom(_SILENT_MS / 1000)
        self._reporting = [
            name for name, provider in settings.providers.items() if provider.events is not None
        ]
        self._silence_at_s = time.monotonic() + _SILENCE_EACH_S  # a webhook may be new

    def wake(self) -> None:
        """Have the reader look now instead of within a second."""
        self._woken.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Read until `stop` is set; what is under way is finished."""
        try:
            await asyncio.gather(
                self._keep_reading(self._read_some, self._woken, stop),
                self._keep_reading(self._read_bounce_mail, asyncio.Event(), stop),
            )
        finally:
            self._bounces.close()

    async def _keep_reading(self, read: _Read, woken: asyncio.Event, stop: asyncio.Event) -> None:
        ending = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                woken.clear()
                if not await self._look(read):
                    waking = asyncio.create_task(woken.wait())
                    await asyncio.wait(
                        {waking, ending}, timeout=POLL_S, return_when=asyncio.FIRST_COMPLETED
                    )
                    waking.cancel()
        finally:
            ending.cancel()

    async def _look(self, read: _Read) -> bool:
        """Read some posts; False: there are none for now."""
        try:
            new, has_read = await asyncio.to_thread(read)
            self._told(new)
            if verdicts := [verdict for event in new for verdict in event.verdicts]:
                self._judged(await asyncio.to_thread(self._store.reports.judged, verdicts))
            await self._look_for_silence()
            return has_read
        except StoreUnavailable as error:
            if self._often.may("store"):
                _log.warning("what providers report is not read for now: %s", error)
        except Exception:  # a defect must not end the reading
            if self._often.may("defect"):
                _log.exception("what providers report is not read for now")
        return False

    async def _look_for_silence(self) -> None:
        """Now and then tell of who reports nothing any more."""
        if time.monotonic() >= self._silence_at_s:
            self._silence_at_s = time.monotonic() + _SILENCE_EACH_S
            await asyncio.to_thread(self.tell_of_silence)

    # --- in a thread

    def _read_some(self) -> tuple[list[MatchedEvent], bool]:
        posts = self._store.feedback.claim_posts(limit=_AT_ONCE, lease_ms=LEASE_MS)
        try:
            return self._take(posts), bool(posts)
        except StoreUnavailable:
            raise
        except Exception as error:
            if len(posts) == 1:
                self._try_later(posts[0], error)
                return [], True
        # one of them cannot be read: the others can
        return [event for post in posts for event in self._read_one(post)], True

    def _read_bounce_mail(self) -> tuple[list[MatchedEvent], bool]:
        posts = self._store.feedback.claim_posts(limit=1, lease_ms=LEASE_MS, is_of_mail=True)
        if not posts:
            self._bounces.close()
        return [event for post in posts for event in self._read_one(post)], bool(posts)

    def _read_one(self, post: StoredPost) -> list[MatchedEvent]:
        try:
            return self._take([post])
        except StoreUnavailable:
            raise
        except NotRead as error:
            if isinstance(error, TooExpensive) or post.tries >= MAX_DEATHS:
                self._set_aside(post, error)
            else:
                self._try_later(post, error)
        except Exception as error:
            self._try_later(post, error)
        return []

    def _set_aside(self, post: StoredPost, error: NotRead) -> None:
        """Give up reading a bounce mail; it stays among captured mail."""
        self._store.feedback.take([], read=[post.post_no])
        queue_id = _queue_id_of(post)
        _log.warning(
            "bounce mail %s is set aside unread, it tells nothing: %s; look at it with relaygw "
            "sandbox show %s, and suppress an address that it rightly names with relaygw suppress "
            "add ADDRESS",
            *(queue_id, error, queue_id),
        )

    def _try_later(self, post: StoredPost, error: Exception) -> None:
        """Have a post that cannot be read tried again later, and later still."""
        wait_ms = self._try_again_ms[min(post.tries, len(self._try_again_ms)) - 1]
        self._store.feedback.put_off(post.post_no, wait_ms=wait_ms)
        if post.tries == 1 or self._often.may(("unread", post.provider)):
            _log.warning(
                "post %d of provider %s cannot be read (%s: %s); it is kept and tried again, for "
                "%d days at most",
                *(post.post_no, post.provider, type(error).__name__, str(error)[:200]),
                self._retention_ms // 86_400_000,
            )

    def _take(self, posts: Sequence[StoredPost]) -> list[MatchedEvent]:
        """Take what posts tell; those with events of unknown mail are read again a little later."""
        told = [(post, event) for post in posts for event in self._events(post)]
        found = self._store.feedback.match([self._clue(*pair) for pair in told]) if told else []
        told, found = believed(told, found)
        waiting: dict[int, _Wait] = {}
        for (post, event), its in zip(told, found, strict=True):
            if its.may_come:
                waiting[post.post_no] = _Wait.in_hand(post)
            elif its.queue_id is None and self._may_come(post, event):
                waiting.setdefault(post.post_no, _Wait(self._look_again_ms[post.tries - 1]))
        matched = [
            _matched(pair, its)
            for pair, its in zip(told, found, strict=True)
            if its.queue_id is not None or pair[0].post_no not in waiting
        ]
        read = [post.post_no for post in posts if post.post_no not in waiting]
        new: list[MatchedEvent] = []
        for start in range(0, max(len(matched), 1), _EVENTS_AT_ONCE):
            end = start + _EVENTS_AT_ONCE
            done = read if end >= len(matched) else ()
            new += self._store.feedback.take(matched[start:end], read=done)
        for post_no, wait in waiting.items():
            self._store.feedback.put_off(post_no, wait_ms=wait.wait_ms, counts=wait.counts)
        self._tell_unmatched(new)
        return new

    def tell_of_silence(self) -> None:
        """Name providers that took mail for a day and reported nothing; each once."""
        since_ms = clock_ms() - _SILENT_MS
        delivered = self._store.watch.sums(
            since_ms, step_ms=_SILENT_MS, series=[Series.DELIVERED.value]
        )
        sent: Counter[str] = Counter()
        for _, _, label, count in delivered:
            sent[label] += count
        for provider in self._reporting:
            told_at_ms = self._store.feedback.told_at_ms(provider)
            is_silent = told_at_ms is None or told_at_ms < since_ms
            if is_silent and sent[provider] >= _SILENT_MAILS and self._daily.may(provider):
                _log.warning(
                    "provider %s took mail for %d recipients in the last day and reported nothing; "
                    "check its webhook, that it reaches events.bind of some instance, and "
                    "relaygw check",
                    *(provider, sent[provider]),
                )

    def _events(self, post: StoredPost) -> Iterable[Event]:
        if post.provider == BOUNCE_MAIL:
            content = self._store.intake.read_chunk(_queue_id_of(post), 0)
            if content is None:  # it was deleted meanwhile
                return []
            return self._bounces.read(content, received_at_ms=post.received_at_ms)
        known = self._formats.get(post.provider)
        if known is None:
            raise LookupError(f"providers has no {post.provider} that reports events any more")
        what = f"stored post {post.post_no} of {post.provider}"
        with self._readings.reading(ReadBy.STORED_POSTS, what):
            return known.read(post.body)

    def _clue(self, post: StoredPost, event: Event) -> Clue:
        return Clue(
            queue_id=self._queue_id(event),
            provider_id=event.provider_id,
            message_id=event.message_id,
            address=event.address,
            providers=self._siblings.get(post.provider, self._everybody),
            was_sent=post.provider == BOUNCE_MAIL,
            archive=self._archive,
        )

    def _queue_id(self, event: Event) -> str | None:
        if event.mark is None:
            return event.queue_id
        if self._marks is None:
            self._marks = Marks(self._store.feedback.shared_key(KEY))
        return self._marks.read(event.mark) or event.queue_id

    def _may_come(self, post: StoredPost, event: Event) -> bool:
        """True for an event whose mail may be found a little later."""
        has_id = event.provider_id is not None or event.message_id is not None
        is_open = post.provider == BOUNCE_MAIL or self._queue_id(event) is None
        return has_id and is_open and post.tries <= len(self._look_again_ms)

    def _tell_unmatched(self, new: Sequence[MatchedEvent]) -> None:
        for provider in dict.fromkeys(event.provider for event in new if event.queue_id is None):
            if self._often.may(("unmatched", provider)):
                _log.warning(
                    "provider %s tells of mail that is not in this queue (any more), or that it "
                    "was not sent; such events are kept without effect, and counted in "
                    "relaygw_provider_events_unmatched_total",
                    provider,
                )


def _matched(told: Told, found: Found) -> MatchedEvent:
    post, event = told
    first, *more = found.rcpt_nos or (None,)
    return MatchedEvent(
        provider=post.provider,
        event=event,
        queue_id=found.queue_id,
        rcpt_no=first,
        same=tuple(rcpt_no for rcpt_no in more if rcpt_no is not None),
    )


class Seldom:
    """Says of each subject whether it may be told again: not more often than `each_s`."""

    def __init__(self, each_s: float) -> None:
        self._each_s = each_s
        self._told_at_s: dict[object, float] = {}

    def may(self, subject: object) -> bool:
        """True for the first time, and again after the wait."""
        now_s = time.monotonic()
        if now_s - self._told_at_s.get(subject, float("-inf")) < self._each_s:
            return False
        self._told_at_s[subject] = now_s
        return True


# --- bounce mails -----------------------------------------------------------------------
# What is believed of a bounce mail: that which names a mail and a recipient that we sent it to.
#
# Anybody may write a bounce mail. What names nobody whom a provider took that mail for is kept as
# an event of unknown mail, and has no effect. Who got a mail can name its other recipients, so of
# mail to several a bounce mail suppresses nobody.


Told = tuple[StoredPost, Event]
_ID_CHARACTERS = 40


def _queue_id_of(post: StoredPost) -> str:
    """Return the queue id of a bounce mail by its post."""
    return post.body.decode("ascii", "replace")[:_ID_CHARACTERS]


def believed(told: Sequence[Told], found: Sequence[Found]) -> tuple[list[Told], list[Found]]:
    """Return the events that count: of a bounce mail each once, by the address that we sent to."""
    chosen: dict[object, tuple[Told, Found]] = {}
    for number, (pair, its) in enumerate(zip(told, found, strict=True)):
        post, event = pair
        if post.provider != BOUNCE_MAIL:
            chosen[number] = pair, its
            continue
        key = (post.post_no, event.key)
        its = its if its.rcpt_nos else Found()
        pair = (post, _shared(event)) if its.is_shared else pair
        if key not in chosen or (its.rcpt_nos and not chosen[key][1].rcpt_nos):
            chosen[key] = pair, its
    return [pair for pair, _ in chosen.values()], [its for _, its in chosen.values()]


def _shared(event: Event) -> Event:
    """Return the credible part of an event that another recipient of the mail may have written."""
    kind = Kind.SOFT if event.kind is Kind.HARD else event.kind
    return replace(event, kind=kind, others=max(event.others, 1))
