"""A store whose database runs on another machine, whose clock is the one that counts.

Callers go by their own clock, and those of a fleet may differ by minutes. Times that instances
compare with one another, when mail is due or too old, how long a hold or a ceiling lasts, what is
over its time, are therefore moved by the difference on the way in and out. Less than a second is
none: it comes from measuring.
"""

# ruff: noqa: D102 (store.protocol documents every method)

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

from relaygw.errors import StoreUnavailable
from relaygw.mail.envelope import AcceptedMessage, ClaimedDelivery, DeliveryUpdate
from relaygw.mail.standing import HeldMail, MailInHand, Rerouting
from relaygw.mail.state import DeliveryState
from relaygw.policy.untended import LostInstance
from relaygw.store.commands import EVERYTHING_DONE, ShapeCount, ShapeKey, Trail, Waiting
from relaygw.store.protocol import (
    Account,
    AuditEntry,
    Hold,
    Instance,
    Key,
    QueueEntry,
    Recorded,
    Selection,
)
from relaygw.store.sql import SqlStore
from relaygw.store.watching import Count, HistoryPoint, Incident

_SAME_MS = 1000
_SHARP_MS = 500  # an answer that took longer says too little

T = TypeVar("T")


class DatabaseClockStore(SqlStore):
    """`SqlStore` with all times by the database's clock; it is looked at with each heartbeat."""

    def __init__(self, *, keep_content: bool) -> None:
        super().__init__(keep_content=keep_content)
        self._measured_ms: int | None = None

    def _here_ms(self) -> int:
        """Return this machine's time."""
        return time.time_ns() // 1_000_000

    @property
    def _ahead_ms(self) -> int:
        """How far the database's clock is ahead of this machine's."""
        if self._measured_ms is None:
            self._measure()
        return self._measured_ms or 0

    def _measure(self) -> None:
        with self._read() as connection:
            asked_ms = self._here_ms()
            there_ms = self._now_us(connection) // 1000
            answered_ms = self._here_ms()
        before_ms = self._measured_ms or 0
        ahead_ms = there_ms - (asked_ms + answered_ms) // 2
        # kept as it is if it can be: what is written again, because an answer was lost, is the same
        is_new = abs(ahead_ms - before_ms) > _SAME_MS
        is_sharp = answered_ms - asked_ms <= _SHARP_MS
        self._measured_ms = ahead_ms if is_new and is_sharp else before_ms

    def _there(self, entry: T, *names: str) -> T:
        """Return an entry with the times of these names by the database's clock."""
        return _moved(entry, self._ahead_ms, names)

    def _here(self, entry: T, *names: str) -> T:
        """Return an entry with the times of these names by this machine's clock."""
        return _moved(entry, -self._ahead_ms, names)

    def heartbeat(self, incarnation: str, *, state: str = "running") -> bool:
        is_known = super().heartbeat(incarnation, state=state)
        with suppress(StoreUnavailable):
            self._measure()
        return is_known

    # --- messages ------------------------------------------------------------------------

    def accept_batch(self, messages: Sequence[AcceptedMessage]) -> None:
        super().accept_batch([self._there(one, "accepted_at_ms") for one in messages])

    def claim(
        self, route: str, *, limit: int, incarnation: str, now_ms: int
    ) -> list[ClaimedDelivery]:
        there_ms = now_ms + self._ahead_ms
        claimed = super().claim(route, limit=limit, incarnation=incarnation, now_ms=there_ms)
        return [self._here(one, "accepted_at_ms", "claimed_at_ms") for one in claimed]

    def next_due_at_ms(self, route: str) -> int | None:
        due_at_ms = super().next_due_at_ms(route)
        return None if due_at_ms is None else due_at_ms - self._ahead_ms

    def record_batch(
        self, updates: Sequence[DeliveryUpdate], *, incarnation: str, now_ms: int
    ) -> Recorded:
        there = [self._there(one, "due_at_ms") for one in updates]
        there_ms = now_ms + self._ahead_ms
        return super().record_batch(there, incarnation=incarnation, now_ms=there_ms)

    def search(self, selection: Selection, *, limit: int, after: str = "") -> list[QueueEntry]:
        there = self._there(selection, "accepted_before_ms")
        return super().search(there, limit=limit, after=after)

    def change_state(
        self,
        queue_ids: Sequence[str],
        *,
        from_states: frozenset[DeliveryState],
        to: DeliveryState,
        reason: str | None,
        due_at_ms: int,
        entry: AuditEntry,
    ) -> int:
        return super().change_state(
            queue_ids,
            from_states=from_states,
            to=to,
            reason=reason,
            due_at_ms=due_at_ms + self._ahead_ms,
            entry=self._there(entry, "at_ms"),
        )

    def waiting(self, *, limit: int, after: str = "") -> list[Waiting]:
        found = super().waiting(limit=limit, after=after)
        ahead_ms = self._ahead_ms
        if not ahead_ms:
            return found
        return [one._replace(accepted_at_ms=one.accepted_at_ms - ahead_ms) for one in found]

    def search_ids(self, selection: Selection, *, limit: int, after: str = "") -> list[str]:
        there = self._there(selection, "accepted_before_ms")
        return super().search_ids(there, limit=limit, after=after)

    def undelete(self, queue_ids: Sequence[str], *, entry: AuditEntry) -> int:
        return super().undelete(queue_ids, entry=self._there(entry, "at_ms"))

    def expire(self, queue_ids: Sequence[str], *, reason: str, entry: AuditEntry) -> int:
        return super().expire(queue_ids, reason=reason, entry=self._there(entry, "at_ms"))

    def move(
        self,
        queue_ids: Sequence[str],
        *,
        provider: str,
        ended_reasons: Collection[str],
        is_forced: bool,
        entry: AuditEntry,
    ) -> int:
        return super().move(
            queue_ids,
            provider=provider,
            ended_reasons=ended_reasons,
            is_forced=is_forced,
            entry=self._there(entry, "at_ms"),
        )

    def shape(
        self, selection: Selection, *, by: ShapeKey, bounds_ms: Sequence[int], now_ms: int
    ) -> list[ShapeCount]:
        there = self._there(selection, "accepted_before_ms")
        there_ms = now_ms + self._ahead_ms
        return super().shape(there, by=by, bounds_ms=bounds_ms, now_ms=there_ms)

    def add_audit(self, entry: AuditEntry, *, only_after: AuditEntry | None = None) -> bool:
        return super().add_audit(self._there(entry, "at_ms"), only_after=only_after)

    def audit_entries(self, *, limit: int, trail: Trail = EVERYTHING_DONE) -> list[AuditEntry]:
        there = self._there(trail, "since_ms")
        return [self._here(one, "at_ms") for one in super().audit_entries(limit=limit, trail=there)]

    def purge(self, cutoffs: Mapping[str, int], *, limit: int) -> int:
        there = {kind: at_ms + self._ahead_ms for kind, at_ms in cutoffs.items()}
        return super().purge(there, limit=limit)

    def shed_content(self, before_ms: int) -> bool:
        return super().shed_content(before_ms + self._ahead_ms)

    # --- what instances know of each other -------------------------------------------------

    def instances(self) -> list[Instance]:
        return [self._here(one, "started_at_ms", "heartbeat_at_ms") for one in super().instances()]

    def accounts(self) -> dict[str, Account]:
        times = ("ceiling_at_ms", "connections_at_ms", "wanted_at_ms")
        return {name: self._here(one, *times) for name, one in super().accounts().items()}

    def holds(self) -> list[Hold]:
        return [self._here(one, "since_ms", "probe_at_ms") for one in super().holds()]

    def put_hold(self, hold: Hold, *, entry: AuditEntry | None = None) -> bool:
        there = self._there(hold, "since_ms", "probe_at_ms")
        return super().put_hold(there, entry=entry and self._there(entry, "at_ms"))

    def drop_hold(
        self, scope: str, key: str, *, now_ms: int, entry: AuditEntry | None = None
    ) -> bool:
        there_ms = now_ms + self._ahead_ms
        there = entry and self._there(entry, "at_ms")
        return super().drop_hold(scope, key, now_ms=there_ms, entry=there)

    def held_ms(self, key: str, *, since_ms: int, now_ms: int) -> int:
        ahead_ms = self._ahead_ms
        return super().held_ms(key, since_ms=since_ms + ahead_ms, now_ms=now_ms + ahead_ms)

    def let_go(self, keys: Sequence[Key], *, reason: str, now_ms: int) -> int:
        return super().let_go(keys, reason=reason, now_ms=now_ms + self._ahead_ms)

    def reroute(self, steps: Sequence[Rerouting], *, entry: AuditEntry) -> int:
        return super().reroute(steps, entry=self._there(entry, "at_ms"))

    def release_held(self, reason: str, *, limit: int, now_ms: int) -> int:
        return super().release_held(reason, limit=limit, now_ms=now_ms + self._ahead_ms)

    # --- what is watched over --------------------------------------------------------------

    def add_history(self, at_ms: int, amounts: Mapping[Count, int]) -> None:
        super().add_history(at_ms + self._ahead_ms, amounts)

    def raise_history(self, at_ms: int, amounts: Mapping[Count, int]) -> None:
        super().raise_history(at_ms + self._ahead_ms, amounts)

    def history(self, since_ms: int, *, series: Collection[str] = ()) -> list[HistoryPoint]:
        found = super().history(since_ms + self._ahead_ms, series=series)
        return [self._here(one, "slice_at_ms") for one in found]

    def forget_watched(self, before_ms: int) -> bool:
        return super().forget_watched(before_ms + self._ahead_ms)

    def open_incident(self, incident: Incident) -> bool:
        return super().open_incident(self._there(incident, "since_ms"))

    def end_incident(self, incident_id: str, *, at_ms: int) -> None:
        super().end_incident(incident_id, at_ms=at_ms + self._ahead_ms)

    def incidents(self, since_ms: int) -> list[Incident]:
        found = super().incidents(since_ms + self._ahead_ms)
        return [self._here(one, "since_ms", "recovered_at_ms") for one in found]

    def held_mail(self) -> list[HeldMail]:
        return [self._here(one, "since_ms") for one in super().held_mail()]

    def in_hand_since(self, before_ms: int) -> list[MailInHand]:
        found = super().in_hand_since(before_ms + self._ahead_ms)
        return [self._here(one, "since_ms") for one in found]

    def lost_instances(self, since_ms: int) -> list[LostInstance]:
        found = super().lost_instances(since_ms + self._ahead_ms)
        return [self._here(one, "heartbeat_at_ms") for one in found]


def _moved(entry: T, by_ms: int, names: Sequence[str]) -> T:
    """Return an entry with its times moved; those that are not set stay so."""
    if not by_ms:
        return entry
    changes: dict[str, Any] = {
        name: at_ms + by_ms for name in names if (at_ms := getattr(entry, name))
    }
    return replace(entry, **changes)  # type: ignore[type-var]
