"""What a drain leaves, with the reasons: for people and as an object for JSON."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relaygw.cli.frame import PROGRAM, CommandFailed
from relaygw.cli.mail_change import SHOWN_ROWS
from relaygw.mail.drop import is_complete
from relaygw.mail.state import OPEN, DeliveryState
from relaygw.store.holds import Hold
from relaygw.store.queue import LaneCount
from relaygw.store.queue_entry import DeliveryEntry, QueueEntry
from relaygw.store.selection import Selection
from relaygw.store.store import Store

_MAX_READ = 1000  # messages whose reasons are told
_MAX_REASONS = 10
_NOT_TRIED = "not tried yet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
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
        return not self.files and all(lane.state is DeliveryState.HELD for lane in self.lanes)

    def __str__(self) -> str:
        sending = self.deliveries(DeliveryState.ACTIVE)
        waiting = self.deliveries(DeliveryState.INCOMING, DeliveryState.DEFERRED)
        held = self.deliveries(DeliveryState.HELD)
        return f"{self.files} in the maildrop, {waiting} waiting, {sending} being sent, {held} held"


def count_left(store: Store, maildrop: Path | None) -> Left:
    """Count what is left: the maildrop first, since mail goes from there into the queue."""
    return Left(files=count_drops(maildrop), lanes=tuple(store.queue.counts()))


def count_drops(maildrop: Path | None) -> int:
    """Return how many messages lie in the maildrop, 0 without one.

    Raises CommandFailed if nobody may know.
    """
    if maildrop is None:
        return 0
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Remains:
    """What is left, and why."""

    left: Left
    reasons: list[tuple[str, str, int]]  # route, reason, deliveries; the most first
    held: list[tuple[str, str, str]]  # queue id, route, reason
    holds: list[Hold]


def read_remains(store: Store, left: Left) -> Remains:
    """Read why mail is left."""
    reasons: Counter[tuple[str, str]] = Counter()
    held = []
    for entry in [] if left.is_empty else store.queue.search(Selection(), limit=_MAX_READ):
        for part in entry.deliveries:
            if part.state is DeliveryState.HELD:
                held.append((entry.queue_id, part.route, part.reason or ""))
            elif part.state in OPEN:
                reasons[part.route, _reason(entry, part)] += 1
    return Remains(
        left=left,
        reasons=[(*what, number) for what, number in reasons.most_common(_MAX_REASONS)],
        held=held,
        holds=[] if left.is_empty else store.holds.in_force(),
    )


def _reason(entry: QueueEntry, part: DeliveryEntry) -> str:
    """Return why a delivery waits; mail that was made due has only its recipients' replies."""
    replies = (one.reply for one in entry.recipients if one.delivery_no == part.delivery_no)
    return part.reason or next(filter(None, replies), _NOT_TRIED)


def told(remains: Remains, waited_s: float) -> Iterator[str]:
    """Yield the lines that tell of it."""
    left = remains.left
    if left.is_empty:
        yield "drained: nothing is left"
        return
    yield f"not drained after {waited_s:.0f} s: {left}"
    for lane in left.lanes:
        yield f"route {lane.route} ({lane.stream}): {lane.deliveries} {lane.state.value}"
    for route, reason, number in remains.reasons:
        yield f"route {route}: {number} of these: {reason}"
    for hold in remains.holds:
        yield f"{hold.scope} {hold.key} is held: {hold.reason}; {hold.remedy}"
    for queue_id, route, reason in remains.held[:SHOWN_ROWS]:
        yield f"{queue_id} is held on route {route}: {reason}; see: {PROGRAM} queue release"
    if len(remains.held) > SHOWN_ROWS:
        yield f"... and {len(remains.held) - SHOWN_ROWS} more held"
    if left.files:
        yield "the maildrop is not empty: relaygw status says why"


def as_object(remains: Remains, waited_s: float) -> dict[str, Any]:
    """Return the form of `--json`."""
    return {
        "drained": remains.left.is_empty,
        "waited_s": round(waited_s, 3),
        "maildrop": remains.left.files,
        "lanes": [
            {
                "route": lane.route,
                "stream": lane.stream,
                "state": lane.state.value,
                "deliveries": lane.deliveries,
            }
            for lane in remains.left.lanes
        ],
        "reasons": [
            {"route": route, "reason": reason, "deliveries": number}
            for route, reason, number in remains.reasons
        ],
        "held": [
            {"queue_id": queue_id, "route": route, "reason": reason}
            for queue_id, route, reason in remains.held
        ],
        "holds": [
            {"scope": one.scope, "key": one.key, "reason": one.reason, "remedy": one.remedy}
            for one in remains.holds
        ],
    }
