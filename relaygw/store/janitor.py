"""Deleting what is over its time, keeping files short, and waits that a clock set back made long.

What has to go is found without the write lock, and removed by queue id if it still has to go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sqlalchemy import case, delete, select, tuple_, update

from relaygw.mail.queue_id import first_id_at
from relaygw.mail.state import DeliveryState
from relaygw.store.audit import forget_audit, old_audit
from relaygw.store.batches import in_batches
from relaygw.store.captured_index import forget_captured, stray_index_rows
from relaygw.store.database import (
    BatchStatement,
    Database,
    Repository,
    Row,
    Statement,
    Transaction,
    Write,
)
from relaygw.store.find_index import forget_words, stray_words
from relaygw.store.instances import Unchanged, running_s
from relaygw.store.intake import empty_trash
from relaygw.store.queue_entry import delete_messages, lock_messages
from relaygw.store.queue_tables import (
    HAS_KEPT_CONTENT,
    HAS_NO_NOTICE_DUE,
    IS_CLAIMABLE,
    chunk,
    delivery,
    message,
)
from relaygw.store.sandbox import uncapture
from relaygw.store.side_tables import web_session

_CHUNKS_A_STEP = 4
_OLDEST = 2_000  # messages whose words are looked through for what is left of deleted ones
_STILL_TO_COME_MS = 5_000  # so much later than now: by a clock that was set back since
# what is to come is in the index, and is little beside what waited for its turn
_STILL_TO_COME = Statement(
    f"""
    SELECT queue_id, delivery_no FROM delivery
    WHERE state = 'deferred' AND {IS_CLAIMABLE} AND due_at_ms > {{?}} AND changed_at_ms > {{?}}
    LIMIT {{?}}
    """
)
# one, finished before a time, that still has content and is not captured
_KEPT = Statement(
    f"""
    SELECT queue_id FROM message
    WHERE {HAS_KEPT_CONTENT} AND finished_at_ms < {{?}} AND captured_at_ms IS NULL
        AND {HAS_NO_NOTICE_DUE}
    LIMIT 1
    """
)
# nothing of it waits any more, and nothing is in the trash for less than that
_TRASH = """
    SELECT DISTINCT queue_id FROM delivery
    WHERE queue_id < {?} AND state = 'deleted' AND changed_at_ms < {?}
        AND EXISTS (SELECT 1 FROM message
            WHERE message.queue_id = delivery.queue_id AND message.finished_at_ms IS NULL)
        AND NOT EXISTS (SELECT 1 FROM delivery AS other
            WHERE other.queue_id = delivery.queue_id AND other.state <> 'finished'
                AND (other.state <> 'deleted' OR other.changed_at_ms >= {?}))
"""
_FINISHED = f"""
    SELECT queue_id FROM message
    WHERE queue_id < {{?}} AND finished_at_ms < {{?}} AND captured_at_ms IS NULL
        AND {HAS_NO_NOTICE_DUE}
"""
_CAPTURED = "SELECT queue_id FROM message WHERE captured_at_ms < {?}"
_HAS_NO_MESSAGE = "NOT EXISTS (SELECT 1 FROM message WHERE message.queue_id = chunk.queue_id)"
_ORPHANS = Statement(
    f"""
    SELECT queue_id, count(*) FROM chunk WHERE {_HAS_NO_MESSAGE}
    GROUP BY queue_id ORDER BY queue_id
    """
)
_STILL_ORPHANS = BatchStatement(
    f"SELECT queue_id FROM chunk WHERE queue_id IN (VALUES {{rows}}) AND {_HAS_NO_MESSAGE}",
    columns=1,
)
_FIRST_EXPIRY = Statement("SELECT min(expires_at_ms) FROM web_session")
_TOO_MANY = Statement(
    """
    SELECT queue_id FROM message
    WHERE captured_at_ms <= (
        SELECT captured_at_ms FROM message WHERE captured_at_ms IS NOT NULL
        ORDER BY captured_at_ms DESC LIMIT 1 OFFSET {?})
    ORDER BY captured_at_ms LIMIT {?}
    """
)


class Janitor(Repository):
    """What is done now and then so that the queue stays small and goes on."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        # Content whose message never came, since its client left before the end. What is on its way
        # looks the same, and its id says when it began by another machine's clock. So it is an
        # orphan when nothing more of it came for a time, by the clock of this process.
        self._orphans = Unchanged()

    def purge(self, older_than_ms: Mapping[str, int], *, limit: int) -> int:
        """Delete what is over its time, at most `limit` messages a call; return how many.

        `older_than_ms`: the age at which `finished`, `captured`, `deleted` and `orphans` go;
        orphans when this store saw them unchanged for so long. Logins that have expired go as well.
        """
        self._tidy(limit=limit, is_thorough="orphans" in older_than_ms)
        with self._read() as tx:
            now_ms = tx.now_ms()
            cutoffs = {kind: now_ms - age_ms for kind, age_ms in older_than_ms.items()}
            found = {
                kind: finder.found(tx, cutoffs[kind], limit)
                for kind, finder in _FINDERS.items()
                if kind in cutoffs
            }
            if "orphans" in cutoffs:
                age_s = older_than_ms["orphans"] / 1000
                now_s = running_s()
                self._orphans.look(dict(_ORPHANS.fetch(tx)), now_s)
                found["orphans"] = self._orphans.unchanged_for(age_s, now_s)[:limit]
        if not any(found.values()):
            return 0
        with self._write() as tx:
            return _purge(tx, found, cutoffs)

    def _tidy(self, *, limit: int, is_thorough: bool) -> None:
        """Delete logins that have expired and, thoroughly, what deleted messages left behind.

        Then also lines of the audit trail that are over their time.
        """
        expires_at_ms = web_session.c.expires_at_ms
        with self._read() as tx:
            oldest_ms = _FIRST_EXPIRY.fetch(tx)[0][0]
            has_expired = oldest_ms is not None and oldest_ms <= tx.now_ms()
            strays = stray_index_rows(tx, limit=limit) if is_thorough else []
            wordless = stray_words(tx, limit=_OLDEST) if is_thorough else []
            done_long_ago = old_audit(tx, limit=limit) if is_thorough else []
        if has_expired or strays or wordless or done_long_ago:
            with self._write(Write.UNSYNCED) as tx:
                tx.execute(delete(web_session).where(expires_at_ms <= tx.now_ms()))
                forget_captured(tx, strays)
                forget_words(tx, wordless)
                forget_audit(tx, done_long_ago)

    def shed_content(self, older_than_ms: int) -> bool:
        """Delete a piece of content of uncaptured mail finished so long ago; False: none left."""
        with self._read() as tx:
            found = _KEPT.fetch(tx, tx.now_ms() - older_than_ms)
        for (queue_id,) in found:
            with self._write(Write.BULK) as tx:
                _shed(tx, queue_id)
        return bool(found)

    def trim_captured(self, *, keep: int, limit: int) -> int:
        """Delete the oldest captured messages above `keep`; return how many."""
        with self._read() as tx:
            oldest = [queue_id for (queue_id,) in _TOO_MANY.fetch(tx, keep, limit)]
        if not oldest:
            return 0
        with self._write() as tx:
            return uncapture(tx, oldest)

    def restart_waits(self, *, limit: int) -> int:
        """Let up to `limit` deferred deliveries wait anew from now; return how many.

        Only those put off at a time still to come: they would wait until the clock has caught up.
        """
        with self._read() as tx:
            now_ms = tx.now_ms()
            keys = _STILL_TO_COME.fetch(tx, now_ms, now_ms + _STILL_TO_COME_MS, limit)
        if not keys:
            return 0
        part = delivery.c
        is_deferred = (part.state == DeliveryState.DEFERRED.value) & IS_CLAIMABLE
        key = (part.queue_id, part.delivery_no)
        with self._write() as tx:
            now_ms = tx.now_ms()
            wait_ms = part.due_at_ms - part.changed_at_ms
            wait_ms = case((wait_ms > 0, wait_ms), else_=0)
            is_it = tuple_(*key).in_(keys) & is_deferred & (part.changed_at_ms > now_ms)
            anew = {"due_at_ms": now_ms + wait_ms, "changed_at_ms": now_ms}
            return tx.execute(update(delivery).where(is_it).values(anew)).rowcount

    def checkpoint(self) -> bool:
        """Keep the log short; True when it grows fast: call soon, much at once slows each sync."""
        return self._database.checkpoint()

    def shrink(self) -> None:
        """Give some of the space back that deleted mail left, a small step a call."""
        self._database.shrink()


class _Finder:
    """Finds messages that are over their time, and tells which of some still are."""

    def __init__(self, sql: str, parameters: Callable[[int], Row], *, order: str = "") -> None:
        of_these = sql.replace("WHERE", "WHERE queue_id IN (VALUES {rows}) AND", 1)
        self._find = Statement(f"{sql} {order} LIMIT {{?}}")
        self._still = BatchStatement(of_these, columns=1)
        self._parameters = parameters

    def found(self, tx: Transaction, cutoff_ms: int, limit: int) -> list[str]:
        """Return the ids of up to `limit`, in order."""
        return [
            queue_id for (queue_id,) in self._find.fetch(tx, *self._parameters(cutoff_ms), limit)
        ]

    def still(self, tx: Transaction, cutoff_ms: int, queue_ids: Sequence[str]) -> list[str]:
        """Return those of `queue_ids` that are over their time now."""
        rows = [(queue_id,) for queue_id in queue_ids]
        return [
            queue_id for (queue_id,) in self._still.fetch(tx, rows, *self._parameters(cutoff_ms))
        ]


# the trash is emptied into finished messages first
_FINDERS = {
    "deleted": _Finder(_TRASH, lambda end_ms: (first_id_at(end_ms), end_ms, end_ms)),
    "finished": _Finder(
        _FINISHED, lambda end_ms: (first_id_at(end_ms), end_ms), order="ORDER BY queue_id"
    ),
    "captured": _Finder(_CAPTURED, lambda end_ms: (end_ms,), order="ORDER BY captured_at_ms"),
}


def _purge(tx: Transaction, found: Mapping[str, Sequence[str]], cutoffs: Mapping[str, int]) -> int:
    """Remove what was found and is still over its time; return how many messages."""
    done = 0
    for kind, queue_ids in found.items():
        for batch in in_batches(queue_ids):
            if kind == "orphans":
                done += _remove_orphans(tx, batch)
                continue
            if kind == "deleted":
                lock_messages(tx, batch)
            still = _FINDERS[kind].still(tx, cutoffs[kind], batch)
            if kind == "deleted":
                empty_trash(tx, still, now_ms=tx.now_ms())
            else:
                (delete_messages if kind == "finished" else uncapture)(tx, still)
            done += len(still)
    return done


def _remove_orphans(tx: Transaction, queue_ids: Sequence[str]) -> int:
    is_mine = chunk.c.queue_id.in_(queue_ids)
    # first, and by a statement of its own: who takes the message meanwhile is waited for
    mine = select(chunk.c.queue_id).where(is_mine).order_by(*chunk.primary_key)
    tx.execute(mine.with_for_update()).all()
    still = {
        queue_id
        for (queue_id,) in _STILL_ORPHANS.fetch(tx, [(queue_id,) for queue_id in queue_ids])
    }
    tx.execute(delete(chunk).where(chunk.c.queue_id.in_(still)))
    return len(still)


def _shed(tx: Transaction, queue_id: str) -> None:
    """Delete the last chunks of a message, if it is finished and not captured (any more)."""
    is_it = message.c.queue_id == queue_id
    is_over = message.c.finished_at_ms.is_not(None) & message.c.captured_at_ms.is_(None)
    is_over &= HAS_NO_NOTICE_DUE
    count = tx.execute(select(message.c.chunk_count).where(is_it, is_over)).scalar()
    if count is not None:  # else found without the lock, and other by now
        left = max(0, count - _CHUNKS_A_STEP)
        tx.execute(delete(chunk).where(chunk.c.queue_id == queue_id, chunk.c.chunk_no >= left))
        tx.execute(update(message).where(is_it).values(chunk_count=left))
