"""The same mail to the same recipient, over and over, as a front finds it.

Of each recipient of mail to be sent a front remembers a hash of address, subject and sender. Only
when one comes again the content is looked at, and counted from then on; the mail before it counts
where its text is short and the same. Of mail with more text the opening is looked at first: where
it is a new one for the recipient, the rest is not, so that different mail to one address costs
little. Mail that is alike but for tokens is counted to be told of, exact copies also to be held.
Times are those of the hand-over, which may come in any order. What other fronts counted is read
every two seconds. Memory is bounded: what is remembered longest goes.
"""

from __future__ import annotations

import secrets
import threading
from collections import deque
from collections.abc import Callable, Sequence
from hashlib import blake2b
from operator import itemgetter
from typing import NamedTuple

from relaygw.errors import Unstorable
from relaygw.inbound.content import ReceivedContent
from relaygw.inbound.screen import Check, ScreenHold
from relaygw.mail.address import split
from relaygw.mail.clock import clock_ms
from relaygw.mail.content import HeaderFacts
from relaygw.mail.envelope import AcceptedMessage
from relaygw.mail.hold import HoldCode
from relaygw.mail.state import RecipientState
from relaygw.mail.words import printable
from relaygw.policy.storms import (
    SAME_ID_MS,
    SLICES,
    Fingerprint,
    Seen,
    fingerprint,
    opening,
    reason_of,
    slice_ms,
)
from relaygw.settings.storms import Storms
from relaygw.store.repeats import Repeat
from relaygw.store.store import Store

MAX_KEYS = 20_000  # of the present time, and as many of the time before
MAX_STORMS = 10_000  # contents that are counted
MAX_WAITING = 20_000  # repeats to be written; of more the oldest are not told of
MAX_LOOKED = 20  # recipients of a message who had it before
_MAX_OPEN = 10_000
_MAX_WATCHED = 1000
_WRITTEN_AT_ONCE = 1000
_SHORT_BYTES = 8192  # text of which a hash is remembered of each mail
_MAX_SLICES = 10 * SLICES  # of a content: times of files are what their owners say
_KEY_BITS = (1 << 60) - 1  # a number of so many bits takes a third less memory
SAME, SAME_ID, HELD = "same", "message_id", "held"


_Again = tuple[int, str, Seen]  # key, recipient, and what it had before


class _Count:
    """How often a recipient had a content, from this front and others."""

    __slots__ = (
        *("assumed_ms", "first_id", "is_told", "last_ms", "others", "slices"),
        *("storm_id", "untold"),
    )

    def __init__(self, storm_id: str, first_id: str) -> None:
        self.storm_id = storm_id
        self.first_id = first_id
        self.slices: dict[int, int] = {}  # what is being accepted as well
        self.others = 0  # lately, at other fronts
        self.last_ms = 0
        self.is_told = False  # in the log
        self.untold: Repeat | None = None  # the first one, until there is a second
        self.assumed_ms: int | None = None  # when one came that was taken for the first

    @property
    def is_several(self) -> bool:
        """True once it came more than once."""
        return self.untold is None and bool(self.slices)

    def within(self, since_ms: int, until_ms: int) -> int:
        """Return how many came here behind a time, up to another."""
        return sum(n for at_ms, n in self.slices.items() if since_ms < at_ms <= until_ms)

    def add(self, at_ms: int, step_ms: int) -> None:
        """Count one."""
        at_slice = at_ms - at_ms % step_ms
        self.slices[at_slice] = self.slices.get(at_slice, 0) + 1
        self.last_ms = max(at_ms, self.last_ms)
        if len(self.slices) > _MAX_SLICES:
            del self.slices[min(self.slices)]

    def take_back(self, at_ms: int, step_ms: int) -> None:
        """Count one less: it was not accepted."""
        at_slice = at_ms - at_ms % step_ms
        if self.slices.get(at_slice, 0) > 1:
            self.slices[at_slice] -= 1
        else:
            self.slices.pop(at_slice, None)


class _Numbered(NamedTuple):
    """A count, and which one of it a message is."""

    content: _Count
    number: int


class _Mark(NamedTuple):
    """What a look at a message did for a recipient who had mail like it."""

    key: int
    before: Seen
    contents: tuple[_Numbered, ...] = ()  # of what came again: what is alike, and exact copies
    at_ms: int = 0
    recipient: str = ""
    earlier_id: str | None = None
    is_over: bool = False


class StormCheck(Check):
    """Counts what comes again, and holds what comes too often where that is wanted."""

    name = "storms"

    def __init__(
        self,
        settings: Storms,
        store: Store,
        *,
        told: Callable[[str], None],
        counted: Callable[[str], None] = lambda _what: None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._told = told  # a line for the log
        self._counted = counted  # a word for metrics
        self._front = secrets.token_hex(8)
        self._window_ms = int(settings.window * 1000)
        self._step_ms = slice_ms(settings.window)
        self._reason = reason_of(settings)
        self._new: dict[int, bytes] = {}  # what was seen, packed
        self._old: dict[int, bytes] = {}
        self._turned_ms = 0
        self._counts: dict[str, _Count] = {}
        self._open: dict[str, list[_Mark]] = {}
        self._waiting: deque[Repeat] = deque(maxlen=MAX_WAITING)
        self._told_id = ""  # of the message that was told of last
        self._writing = threading.Lock()

    @property
    def remembered(self) -> int:
        """How much is kept in memory: of recipients and contents, of storms, of mail on its way."""
        return len(self._new) + len(self._old) + len(self._counts) + len(self._open)

    # --- a message comes -------------------------------------------------------------------

    def look(
        self, message: AcceptedMessage, facts: HeaderFacts, content: ReceivedContent
    ) -> Sequence[ScreenHold]:
        """Remember who gets it; look at its content only for who had such a one before."""
        now_ms, at_ms = message.accepted_at_ms, message.came_at_ms
        if len(self._new) >= MAX_KEYS or not 0 <= now_ms - self._turned_ms <= self._window_ms:
            self._old, self._new, self._turned_ms = self._new, {}, now_ms
        text = _text_hash(content.head, facts.end)
        seen = Seen(message.queue_id, at_ms, hash(message.message_id), text)
        packed, again = seen.packed(), []
        for key, given in _keys(message).items():
            before = self._new.get(key) or self._old.get(key)
            if before is not None:
                again.append((key, given, Seen.of(before)))
            self._new[key] = packed
        return self._repeated(message, content, facts.end, seen, again) if again else ()

    def _repeated(
        self,
        message: AcceptedMessage,
        content: ReceivedContent,
        header_bytes: int,
        seen: Seen,
        again: list[_Again],
    ) -> Sequence[ScreenHold]:
        is_exact = not content.is_spooled  # else the rest is not looked at
        seen = seen._replace(is_counted=True)
        packed = seen.packed()
        begins = None if seen.text is not None else opening(content.head, header_bytes)
        same = content.fingerprint
        marks: list[_Mark] = []
        again.sort(key=itemgetter(0))  # of many the same are looked at each time
        over: list[str] = []
        storm_id = ""
        for key, recipient, before in again[:MAX_LOOKED]:
            is_near = self._is_within_window(seen, before)
            if is_near:
                self._new[key] = packed
            if not is_near or self._is_another(key, begins, before, seen):
                marks.append(_Mark(key, before))
                continue
            same = same or fingerprint(content.head, header_bytes)
            mark = self._mark_of(key, recipient, before, seen, same)
            mark = mark._replace(is_over=is_exact and self._is_too_many(mark, message))
            marks.append(mark)
            if mark.is_over:
                over.append(recipient)
                storm_id = mark.contents[-1].content.storm_id
        self._remember(message.queue_id, marks)
        if not over or self._settings.action != "hold":
            return ()
        if len(over) == MAX_LOOKED:  # they stand for the others
            over = [who for _, who, sighting in again if self._is_within_window(seen, sighting)]
        return (ScreenHold(HoldCode.STORM, storm_id[:8], self._reason, frozenset(over)),)

    def _is_within_window(self, seen: Seen, before: Seen) -> bool:
        return abs(seen.at_ms - before.at_ms) <= self._window_ms

    def _is_another(self, key: int, begins: int | None, before: Seen, seen: Seen) -> bool:
        """True for mail that begins as none that its recipient had; remember how it begins."""
        if begins is None:
            return False
        key = hash((key, begins)) & _KEY_BITS
        is_new = key not in self._new and key not in self._old
        self._new[key] = b""
        # of what came before the first repeat nobody knows how it begins
        return is_new and before.is_counted and before.message_id != seen.message_id

    def _mark_of(
        self, key: int, recipient: str, before: Seen, seen: Seen, content: Fingerprint
    ) -> _Mark:
        contents = []
        is_exact = self._settings.action == "hold"
        for fromkey in dict.fromkeys(content if is_exact else (content.alike,)):
            count = self._count_of(recipient, fromkey, before, seen)
            count.add(seen.at_ms, self._step_ms)
            contents.append(
                _Numbered(
                    count, count.within(seen.at_ms - self._window_ms, seen.at_ms + self._step_ms)
                )
            )
        is_same_id = before.message_id == seen.message_id
        is_lately = abs(seen.at_ms - before.at_ms) <= SAME_ID_MS
        earlier_id = before.queue_id if is_same_id and is_lately else None
        return _Mark(key, before, tuple(contents), seen.at_ms, recipient, earlier_id)

    def _is_too_many(self, mark: _Mark, message: AcceptedMessage) -> bool:
        return self._number(mark.contents[-1], message) > self._settings.same

    def _number(self, numbered: _Numbered, message: AcceptedMessage) -> int:
        """Return which one a message is within the window, with those of other fronts."""
        is_late = message.accepted_at_ms - message.came_at_ms > self._step_ms
        # they have what came lately
        return numbered.number + (0 if is_late else numbered.content.others)

    def _count_of(self, recipient: str, content: bytes, before: Seen, seen: Seen) -> _Count:
        whole = blake2b(recipient.encode("utf-8", "replace") + b"\0" + content, digest_size=16)
        storm_id = whole.hexdigest()
        count = self._counts.get(storm_id)
        if count is None or seen.at_ms - count.last_ms > self._window_ms:
            if len(self._counts) >= MAX_STORMS:
                self._make_room(seen.at_ms)
            count = self._counts[storm_id] = _Count(storm_id, seen.queue_id)
            is_same = before.text is not None and before.text == seen.text
            if is_same and not before.is_counted:
                count.first_id, count.assumed_ms = before.queue_id, before.at_ms
                count.add(before.at_ms, self._step_ms)
        return count

    def _make_room(self, now_ms: int) -> None:
        """Forget what is over, else the half that was quiet longest."""
        kept = [
            count for count in self._counts.values() if now_ms - count.last_ms <= self._window_ms
        ]
        if len(kept) > MAX_STORMS // 2:
            kept = sorted(kept, key=lambda count: count.last_ms)[-MAX_STORMS // 2 :]
        self._counts = {count.storm_id: count for count in kept}

    def _remember(self, queue_id: str, marks: list[_Mark]) -> None:
        if len(self._open) >= _MAX_OPEN:  # one whose end nobody told
            self._take_back(next(iter(self._open)))
        self._open[queue_id] = marks

    # --- what became of it -----------------------------------------------------------------

    def committed(self, messages: Sequence[AcceptedMessage]) -> None:
        """Tell of what is durable."""
        for message in messages if self._open else ():
            held = _held(message)
            for mark in self._open.pop(message.queue_id, ()):
                for numbered in mark.contents:
                    self._count_mail(
                        message, mark, numbered, is_held=mark.is_over and mark.recipient in held
                    )

    def withdrawn(self, message: AcceptedMessage) -> None:
        """Forget what was not accepted: its client comes with it again."""
        before = self._take_back(message.queue_id)
        for key in _keys(message):
            seen = self._new.get(key)
            if seen is not None and Seen.of(seen).queue_id == message.queue_id:
                del self._new[key]
                if key in before:
                    self._new[key] = before[key].packed()

    def _take_back(self, queue_id: str) -> dict[int, Seen]:
        """Count a message no more; return what its recipients had before."""
        marks = self._open.pop(queue_id, [])
        for mark in marks:
            for numbered in mark.contents:
                numbered.content.take_back(mark.at_ms, self._step_ms)
        return {mark.key: mark.before for mark in marks}

    def _count_mail(
        self, message: AcceptedMessage, mark: _Mark, numbered: _Numbered, *, is_held: bool
    ) -> None:
        count, number = numbered.content, self._number(numbered, message)
        repeat = _repeat_of(message, mark, count, number, is_held=is_held)
        if count.assumed_ms is not None:
            first = repeat._replace(queue_id=count.first_id, at_ms=count.assumed_ms, number=1)
            count.untold = first._replace(earlier_id=None, is_held=False)
            count.assumed_ms = None
        if number == 1 and mark.earlier_id is None:
            count.untold = repeat
            return
        if count.untold is not None:
            self._waiting.append(count.untold)
            count.untold = None
        self._waiting.append(repeat)
        if numbered is not mark.contents[0]:
            return  # it is told of with what is alike
        self._tell(message, count, number)
        for what, is_so in ((SAME, number > 1), (SAME_ID, mark.earlier_id), (HELD, is_held)):
            if is_so:
                self._counted(what)

    def _tell(self, message: AcceptedMessage, count: _Count, number: int) -> None:
        is_storm = number > self._settings.same
        if is_storm and not count.is_told and self._told_id != message.queue_id:
            self._told_id = message.queue_id  # once for all of its recipients
            first = f"the first was {count.first_id}"
            self._told(f"{message.queue_id}: warning: storm: {self._reason}; {first}")
        count.is_told = is_storm

    # --- with the other fronts, in a thread -------------------------------------------------

    def refresh(self) -> None:
        """Write what came again, and read what others counted."""
        with self._writing:
            since_ms = clock_ms() - self._window_ms
            counts = tuple(self._counts.values())
            watched = [count for count in counts if count.last_ms > since_ms and count.is_several]
            watched.sort(key=lambda count: -count.last_ms)
            if watched or self._waiting:
                self._write_repeats(watched[:_MAX_WATCHED])

    def _write_repeats(self, watched: Sequence[_Count]) -> None:
        ids = [count.storm_id for count in watched]
        while True:
            number = min(len(self._waiting), _WRITTEN_AT_ONCE)
            repeats = [self._waiting.popleft() for _ in range(number)]
            try:
                others = self._store.repeats.count_repeats(
                    self._front,
                    repeats,
                    watched=ids,
                    window_ms=self._window_ms,
                    slice_ms=self._step_ms,
                )
            except Unstorable:  # it would be so again
                raise
            except Exception:
                self._waiting.extendleft(reversed(repeats))
                raise
            if not self._waiting:
                break
        for count in watched:
            count.others = others.get(count.storm_id, 0)


def _keys(message: AcceptedMessage) -> dict[int, str]:
    """Return who gets it: a hash of address, subject and sender, and the address."""
    found: dict[int, str] = {}
    for part in message.deliveries:
        for recipient in part.recipients:
            if recipient.state is RecipientState.PENDING:
                given = recipient.given.lower()  # several may go to one instead
                found[hash((given, message.subject, message.sender)) & _KEY_BITS] = given
    return found


def _held(message: AcceptedMessage) -> set[str]:
    """Return the given addresses that a message is held for as a storm."""
    return {
        recipient.given.lower()
        for part in message.deliveries
        if any(cause.code is HoldCode.STORM for cause in part.holds)
        for recipient in part.recipients
    }


def _text_hash(head: bytes, end: int) -> int | None:
    if len(head) - end > _SHORT_BYTES:
        return None
    # as nearly all write them
    from_at, reply_at = head.find(b"\nFrom:", 0, end), head.find(b"\nReply-To:", 0, end)
    sender = head[from_at : head.find(b"\r", from_at)] if from_at >= 0 else b""
    reply_to = head[reply_at : head.find(b"\r", reply_at)] if reply_at >= 0 else b""
    return hash((head[end:], sender, reply_to))


def _repeat_of(
    message: AcceptedMessage, mark: _Mark, count: _Count, number: int, *, is_held: bool
) -> Repeat:
    found = message.mail_class
    return Repeat(
        storm_id=count.storm_id,
        queue_id=message.queue_id,
        at_ms=message.came_at_ms,
        number=number,
        first_id=count.first_id,
        earlier_id=mark.earlier_id,
        is_held=is_held,
        host="" if found is None else found.host,
        script="" if found is None else found.script,
        template="" if found is None else found.template,
        recipient_domain=printable((split(mark.recipient)[1] or "")[:255]),
    )
