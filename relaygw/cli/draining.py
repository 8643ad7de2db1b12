"""Waiting until nothing is left to send, and making deferred mail due meanwhile.

The running workers send; this only looks, and asks them to try again. Mail in doubt may have
been taken by its provider: it is hurried once, as an operator would, and never again and again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from relaygw import operations
from relaygw.cli.frame import CommandFailed
from relaygw.cli.selecting import PAGE_MESSAGES
from relaygw.cli.text import clock_ms
from relaygw.errors import StoreUnavailable
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.store.protocol import DeliveryEntry, LaneCount, QueueEntry, Selection, Store

HURRY_S = 5.0
"""How long deferred mail waits before it is made due once more: nobody is to be hammered."""
_LOOK_S = 0.25
_SOON_MS = 1000  # mail that is due so soon needs no help
_LOOK_SHARE = 4  # of a large queue, looking takes at most one part in so many and one
# the words of the log and of the queue for mail in doubt (delivery/attempt.py)
_IN_DOUBT = "may be sent more than once"

_D = DeliveryState


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What is left at one moment."""

    files: int  # in the maildrop
    lanes: tuple[LaneCount, ...]

    def deliveries(self, *states: DeliveryState) -> int:
        """Return how many deliveries are in these states."""
        return sum(lane.deliveries for lane in self.lanes if lane.state in states)

    @property
    def is_empty(self) -> bool:
        """True when nothing is left, held mail included."""
        return not self.files and not self.lanes

    @property
    def is_over(self) -> bool:
        """True when waiting changes nothing: no mail is left that anything would send."""
        return not self.files and all(lane.state is _D.HELD for lane in self.lanes)

    def __str__(self) -> str:
        sending = self.deliveries(_D.ACTIVE)
        waiting = self.deliveries(_D.INCOMING, _D.DEFERRED)
        held = self.deliveries(_D.HELD)
        return f"{self.files} in the maildrop, {waiting} waiting, {sending} being sent, {held} held"


def take_look(store: Store, maildrop: Path | None) -> Look:
    """Count what is left: the maildrop first, since mail goes from there into the queue."""
    files = 0 if maildrop is None else count_drops(maildrop)
    return Look(files=files, lanes=tuple(store.counts()))


def count_drops(maildrop: Path) -> int:
    """Return how many messages lie in the maildrop. Raises CommandFailed if nobody may know."""
    from relaygw.mail.drop import is_complete

    try:
        with os.scandir(maildrop) as entries:
            return sum(is_complete(entry.name) for entry in entries)
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise CommandFailed(
            f"maildrop {maildrop}: {error.strerror}; run this as relaygw's user",
            exit_code=os.EX_UNAVAILABLE,
        ) from error


class Draining:
    """Waits for an empty queue. `wake` is called whenever mail was made due."""

    def __init__(
        self, store: Store, *, maildrop: Path | None, actor: str, wake: Callable[[], None]
    ) -> None:
        self._store = store
        self._maildrop = maildrop
        self._actor = actor
        self._wake = wake
        self._rounds = 0

    def run(self, wait_s: float, *, show: Callable[[Look], None]) -> Look:
        """Return what is left when nothing is left to send, or after `wait_s`.

        A store that is busy is asked again. Raises StoreUnavailable when it stays so.
        """
        deadline_s = time.monotonic() + wait_s
        hurried_s = float("-inf")
        while True:
            began_s = time.monotonic()
            try:
                if began_s - hurried_s >= HURRY_S:
                    self._hurry()
                    hurried_s = time.monotonic()
                now = take_look(self._store, self._maildrop)
                show(now)
                if now.is_over or time.monotonic() >= deadline_s:
                    return now
            except StoreUnavailable:
                if time.monotonic() >= deadline_s:
                    raise
            took_s = time.monotonic() - began_s
            left_s = deadline_s - time.monotonic()
            time.sleep(max(0.0, min(left_s, max(_LOOK_S, _LOOK_SHARE * took_s))))

    def _hurry(self) -> None:
        """Make deferred mail due now."""
        selection = Selection(states=frozenset({_D.DEFERRED}))
        now_ms = clock_ms()
        after = ""
        while page := self._store.search(selection, limit=PAGE_MESSAGES, after=after):
            after = page[-1].queue_id
            ids = [entry.queue_id for entry in page if self._is_to_hurry(entry, now_ms)]
            if ids:
                operations.retry(
                    self._store,
                    ids,
                    actor=self._actor,
                    now_ms=now_ms,
                    detail="drain",
                    is_forced=True,  # once: see _is_to_hurry
                )
        self._rounds += 1
        self._wake()

    def _is_to_hurry(self, entry: QueueEntry, now_ms: int) -> bool:
        waiting = [part for part in entry.deliveries if part.state is _D.DEFERRED]
        if not any(part.due_at_ms > now_ms + _SOON_MS for part in waiting):
            return False
        return self._rounds == 0 or not is_in_doubt(entry, waiting)


def is_in_doubt(entry: QueueEntry, parts: Iterable[DeliveryEntry]) -> bool:
    """True when a provider may have taken the mail of one of these deliveries."""
    numbers = {part.delivery_no for part in parts}
    return any(
        one.delivery_no in numbers
        and one.state is RecipientState.PENDING
        and _IN_DOUBT in (one.reply or "")
        for one in entry.recipients
    )
