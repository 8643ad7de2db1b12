"""What the commands on the queue do to it, beyond `change_state`: part of the store.

Leases are never taken away: a delivery that a worker is sending stays as it is.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:  # protocol.Store inherits from here
    from relaygw.store.protocol import AuditEntry, QueueEntry, Selection


class ShapeKey(StrEnum):
    """What the queue is counted by: recipients' domains by recipient, the rest by delivery."""

    RECIPIENT = "recipient"
    SENDER = "sender"
    PROVIDER = "provider"
    REASON = "reason"
    ROUTE = "route"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeCount:
    """How much of a key is of one age: step n is younger than bound n, the last has none."""

    key: str
    step: int
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trail:
    """Which lines of the audit trail: every condition set must hold."""

    since_ms: int | None = None
    actor: str | None = None  # contains it, without regard to case
    action: str | None = None  # is it, or one below it: `queue` matches `queue.delete`
    target: str | None = None  # is it exactly


EVERYTHING_DONE = Trail()


class Waiting(NamedTuple):
    """A queued message as Postfix's mailq tells it; cheap, since a long queue has many."""

    queue_id: str
    accepted_at_ms: int
    size_bytes: int
    sender: str
    states: frozenset[str]  # of its open deliveries
    recipients: tuple[tuple[str, str], ...]  # those that still wait: address, why or nothing


class QueueCommands(Protocol):
    """The queue as its commands change it; `protocol.Store` says what holds for all methods."""

    def waiting(self, *, limit: int, after: str = "") -> list[Waiting]:
        """Return queued messages in the order of acceptance, those after queue id `after`."""

    def search_ids(self, selection: Selection, *, limit: int, after: str = "") -> list[str]:
        """Return the queue ids of what `search` would return."""

    def entries(self, queue_ids: Sequence[str]) -> list[QueueEntry]:
        """Return those of the messages that there are, in the order of acceptance."""

    def taken_drops(self, drop_ids: Sequence[str]) -> set[str]:
        """Return which of these drop ids a message was stored with."""

    def undelete(self, queue_ids: Sequence[str], *, entry: AuditEntry) -> int:
        """Take deliveries out of the trash; audited; return how many.

        What was held is held as before, the rest is due now; time in the trash is no age.
        """

    def expire(self, queue_ids: Sequence[str], *, reason: str, entry: AuditEntry) -> int:
        """End open deliveries as expired; audited; return how many.

        Each recipient that still waited is told as `reason` and what was said to it last.
        """

    def move(
        self,
        queue_ids: Sequence[str],
        *,
        provider: str,
        ended_reasons: Collection[str],
        is_forced: bool,
        entry: AuditEntry,
    ) -> int:
        """Let open deliveries go by one provider alone; audited; return how many.

        Deferred ones are due now, and so are those held for one of `ended_reasons`; others stay
        held. Mail that another provider may have taken is moved only when `is_forced`.
        """

    def shape(
        self, selection: Selection, *, by: ShapeKey, bounds_ms: Sequence[int], now_ms: int
    ) -> list[ShapeCount]:
        """Count what waits by a key and by age, in steps that end at `bounds_ms`."""

    def add_audit(self, entry: AuditEntry, *, only_after: AuditEntry | None = None) -> bool:
        """Write a line into the audit trail.

        With `only_after` at most one line is written that follows that one: False when somebody
        was faster.
        """
