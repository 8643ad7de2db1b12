"""The store on a SQL database: transactions around the statements of this room.

`SqlStore` knows when to read and when to write; its two subclasses know how a
transaction starts on their database and what its errors mean.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.sql.elements import ColumnElement

from relaygw.mail.envelope import AcceptedMessage, ClaimedDelivery, DeliveryUpdate
from relaygw.mail.standing import Rerouting
from relaygw.mail.state import DeliveryState
from relaygw.store import (
    accepting,
    auditing,
    claiming,
    finding,
    leasing,
    limits,
    operating,
    purging,
    registry,
    releasing,
    rerouting,
    standing,
)
from relaygw.store.attempts_sql import SqlAttempts
from relaygw.store.captured_sql import SqlCapturedMail
from relaygw.store.commands import EVERYTHING_DONE, Trail
from relaygw.store.commands_sql import SqlQueueCommands
from relaygw.store.protocol import (
    Account,
    AuditEntry,
    Begun,
    Hold,
    Instance,
    Key,
    LaneCount,
    QueueEntry,
    Recorded,
    Release,
    Selection,
    SenderNote,
    Tokens,
)
from relaygw.store.tables import chunk
from relaygw.store.transactions import Write
from relaygw.store.watching_sql import SqlWatching


class SqlStore(SqlAttempts, SqlCapturedMail, SqlQueueCommands, SqlWatching):
    """`protocol.Store` in SQLAlchemy Core; see there for what each method promises."""

    def __init__(self, *, keep_content: bool) -> None:
        self._keep_content = keep_content
        self._turns = claiming.Turns()

    @property
    @abstractmethod
    def _clock(self) -> ColumnElement[Any]:
        """The database's time in ms, as an SQL expression."""

    def _now_us(self, _connection: Connection) -> int:
        """Return the database's time in microseconds."""
        return time.time_ns() // 1000

    def _now_ms(self, connection: Connection) -> int:
        """Return the database's time in milliseconds."""
        return self._now_us(connection) // 1000

    @abstractmethod
    def close(self) -> None:
        """Close all connections."""

    @abstractmethod
    def checkpoint(self) -> bool:
        """See Store.checkpoint."""

    @abstractmethod
    def shrink(self) -> None:
        """See Store.shrink."""

    # --- the front -----------------------------------------------------------------------

    def accept_batch(self, messages: Sequence[AcceptedMessage]) -> None:
        with self._write() as connection:
            accepting.insert_messages(connection, messages)

    def add_chunks(self, queue_id: str, first_no: int, bodies: Sequence[bytes]) -> None:
        with self._write(Write.BULK) as connection:
            accepting.insert_chunks(connection, queue_id, first_no, bodies)

    # --- the delivery worker -------------------------------------------------------------

    def claim(
        self, route: str, *, limit: int, incarnation: str, now_ms: int
    ) -> list[ClaimedDelivery]:
        with self._write(Write.LEASE) as connection:
            return claiming.claim(
                connection, route, self._turns, limit=limit, incarnation=incarnation, now_ms=now_ms
            )

    def next_due_at_ms(self, route: str) -> int | None:
        with self._read() as connection:
            return claiming.next_due_at_ms(connection, route)

    def read_chunk(self, queue_id: str, chunk_no: int) -> bytes | None:
        with self._read() as connection:
            body: bytes | None = connection.execute(
                select(chunk.c.body).where(
                    chunk.c.queue_id == queue_id, chunk.c.chunk_no == chunk_no
                )
            ).scalar()
            return body

    def record_batch(
        self, updates: Sequence[DeliveryUpdate], *, incarnation: str, now_ms: int
    ) -> Recorded:
        with self._write() as connection:
            return leasing.record(
                connection,
                updates,
                incarnation=incarnation,
                now_ms=now_ms,
                keep_content=self._keep_content,
            )

    def give_back(self, deliveries: Sequence[Key], *, incarnation: str) -> None:
        with self._write(Write.LEASE) as connection:
            leasing.give_back(connection, deliveries, incarnation=incarnation)

    def free_unknown(self, route: str, *, known: Collection[Key], incarnation: str) -> int:
        with self._write(Write.LEASE) as connection:
            return leasing.free_unknown(connection, route, known=known, incarnation=incarnation)

    # --- instances -----------------------------------------------------------------------

    def register(self, entry: Instance) -> None:
        with self._write() as connection:
            registry.register(connection, entry, self._clock)

    def heartbeat(self, incarnation: str, *, state: str = "running") -> bool:
        with self._write() as connection:
            return registry.heartbeat(connection, incarnation, state, self._clock)

    def bury(
        self, incarnation: str, *, begun: Collection[Begun] | None = (), is_lost: bool = False
    ) -> int:
        with self._write() as connection:
            return leasing.bury(
                connection,
                incarnation,
                begun=begun,
                is_lost=is_lost,
                now_ms=self._now_ms(connection),
            )

    def ownerless(self) -> list[str]:
        with self._read() as connection:
            return standing.ownerless(connection)

    def stale_incarnations(self, older_than_s: float) -> list[str]:
        with self._read() as connection:
            return registry.stale_incarnations(connection, older_than_s, self._clock)

    def instances(self) -> list[Instance]:
        with self._read() as connection:
            return registry.instances(connection)

    # --- limits and holds ----------------------------------------------------------------

    def acquire_permits(
        self, limit_group: str, *, wanted: int, limit: int, incarnation: str
    ) -> int:
        with self._write() as connection:
            granted = registry.acquire_permits(
                connection,
                limit_group,
                wanted=wanted,
                limit=limit,
                incarnation=incarnation,
                now_ms=self._now_ms(connection),
            )
            if not granted:
                limits.note_wanted(connection, limit_group, now_ms=self._now_ms(connection))
            return granted

    def release_permits(self, limit_group: str, *, count: int, incarnation: str) -> None:
        with self._write() as connection:
            registry.release_permits(connection, limit_group, count=count, incarnation=incarnation)

    def permits_held(self, limit_group: str, *, incarnation: str) -> int:
        with self._write(Write.UNSYNCED) as connection:
            return registry.permits_held(connection, limit_group, incarnation=incarnation)

    def take_tokens(self, limit_group: str, *, wanted: int, per_s: float) -> Tokens:
        with self._write(Write.UNSYNCED) as connection:
            return limits.take_tokens(
                connection, limit_group, wanted=wanted, per_s=per_s, clock_us=self._now_us
            )

    def use_quota(self, limit_group: str, *, wanted: int, quota: int) -> Tokens:
        with self._write(Write.UNSYNCED) as connection:
            return limits.use_quota(
                connection,
                limit_group,
                wanted=wanted,
                quota=quota,
                now_ms=self._now_ms(connection),
            )

    def quota_used(self, limit_group: str) -> int:
        with self._read() as connection:
            return limits.quota_used(connection, limit_group, now_ms=self._now_ms(connection))

    def accounts(self) -> dict[str, Account]:
        with self._read() as connection:
            return limits.accounts(connection)

    def lower_rate(self, limit_group: str, *, per_s: float, guard_s: float) -> None:
        with self._write(Write.UNSYNCED) as connection:
            limits.lower_rate(
                connection,
                limit_group,
                per_s=per_s,
                now_ms=self._now_ms(connection),
                guard_s=guard_s,
            )

    def lower_connections(
        self, limit_group: str, *, own: int, incarnation: str, guard_s: float
    ) -> None:
        with self._write(Write.UNSYNCED) as connection:
            limits.lower_connections(
                connection,
                limit_group,
                own=own,
                incarnation=incarnation,
                now_ms=self._now_ms(connection),
                guard_s=guard_s,
            )

    def note_senders(self, notes: Sequence[SenderNote]) -> None:
        with self._write(Write.UNSYNCED) as connection:
            limits.note_senders(connection, notes)

    def senders(self) -> list[SenderNote]:
        with self._read() as connection:
            return limits.senders(connection)

    def held_reasons(self) -> list[str]:
        with self._read() as connection:
            return leasing.held_reasons(connection)

    def release_held(self, reason: str, *, limit: int, now_ms: int) -> int:
        with self._write() as connection:
            return leasing.release_held(connection, reason, limit=limit, now_ms=now_ms)

    def let_go(self, keys: Sequence[Key], *, reason: str, now_ms: int) -> int:
        with self._write() as connection:
            return leasing.let_go(connection, keys, reason=reason, now_ms=now_ms)

    def routes_waiting(self) -> list[str]:
        with self._read() as connection:
            return rerouting.routes_waiting(connection)

    def reroute(self, steps: Sequence[Rerouting], *, entry: AuditEntry) -> int:
        with self._write() as connection:
            number = rerouting.reroute(connection, steps)
            if number:
                auditing.add_audit(connection, entry, number)
            return number

    def holds(self) -> list[Hold]:
        with self._read() as connection:
            return registry.holds(connection)

    def put_hold(self, hold: Hold, *, entry: AuditEntry | None = None) -> bool:
        with self._write() as connection:
            is_new = registry.put_hold(connection, hold)
            if entry is not None:
                auditing.add_audit(connection, entry, 1)
            return is_new

    def drop_hold(
        self, scope: str, key: str, *, now_ms: int, entry: AuditEntry | None = None
    ) -> bool:
        with self._write() as connection:
            was_there = registry.drop_hold(
                connection, scope, key, now_ms, probed_only=entry is None
            )
            if entry is not None and was_there:
                auditing.add_audit(connection, entry, 1)
            return was_there

    def held_ms(self, key: str, *, since_ms: int, now_ms: int) -> int:
        with self._read() as connection:
            return registry.held_ms(connection, key, since_ms=since_ms, now_ms=now_ms)

    # --- the operator --------------------------------------------------------------------

    def search(self, selection: Selection, *, limit: int, after: str = "") -> list[QueueEntry]:
        with self._read() as connection:
            return finding.search(connection, selection, limit=limit, after=after)

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
        with self._write() as connection:
            changed = operating.change_state(
                connection,
                queue_ids,
                from_states=from_states,
                to=to,
                reason=reason,
                due_at_ms=due_at_ms,
                now_ms=entry.at_ms,
            )
            auditing.add_audit(connection, entry, changed)
            return changed

    def counts(self) -> list[LaneCount]:
        with self._read() as connection:
            return operating.counts(connection)

    def audit_entries(self, *, limit: int, trail: Trail = EVERYTHING_DONE) -> list[AuditEntry]:
        with self._read() as connection:
            return auditing.audit_entries(connection, trail, limit=limit)

    # --- captured mail -------------------------------------------------------------------

    def release_captured(self, releases: Sequence[Release]) -> frozenset[str]:
        with self._write() as connection:
            return releasing.release(connection, releases)

    # --- the janitor ---------------------------------------------------------------------

    def purge(self, cutoffs: Mapping[str, int], *, limit: int) -> int:
        self._tidy_captured(limit=limit, is_thorough="orphans" in cutoffs)
        with self._read() as connection:
            found = purging.find(connection, cutoffs, limit=limit)
        if not any(found.values()):
            return 0
        with self._write() as connection:
            return purging.purge(connection, found, cutoffs, now_ms=self._now_ms(connection))

    def shed_content(self, before_ms: int) -> bool:
        with self._read() as connection:
            queue_id = purging.find_kept(connection, before_ms)
        if queue_id is None:
            return False
        with self._write(Write.BULK) as connection:
            purging.shed(connection, queue_id)
        return True

    def trim_captured(self, *, keep: int, limit: int) -> int:
        with self._read() as connection:
            oldest = purging.oldest_captured(connection, keep=keep, limit=limit)
        if not oldest:
            return 0
        with self._write() as connection:
            return purging.uncapture(connection, oldest)
