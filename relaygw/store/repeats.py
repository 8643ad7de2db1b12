"""Mail that came more than once: storms, as all fronts count them, and what was taken once only.

Counts and notes are not synced by themselves: a power cut may forget the last ones. Whether a
message was taken before is decided in the transaction that accepts it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import zip_longest
from operator import attrgetter
from typing import NamedTuple

from sqlalchemy import select

from relaygw.mail.envelope import AcceptedMessage
from relaygw.mail.queue_id import first_id_at
from relaygw.policy.storms import Storm
from relaygw.store.database import (
    BatchStatement,
    Repository,
    Row,
    Statement,
    Transaction,
    Write,
    insert_into,
)
from relaygw.store.side_tables import repeated_mail

ONCE_MS = 60_000
"""An exact duplicate that comes within this time is the same message."""
_FORGET_ONCE_MS = 10 * ONCE_MS
_PRUNED_AT_ONCE = 2000  # rows
_MOST_STORMS = 1000
_STRAYS_MS = 3_600_000

_ADD_STORM = insert_into(
    "storm",
    "storm_id slice_at_ms front messages held same_ids host script template recipient_domain"
    " first_id last_id first_ms",
    on_conflict="""(storm_id, slice_at_ms, front) DO UPDATE SET
        messages = storm.messages + excluded.messages, held = storm.held + excluded.held,
        same_ids = storm.same_ids + excluded.same_ids, last_id = excluded.last_id""",
)
_ADD_REPEATED = insert_into(
    "repeated_mail",
    "queue_id number first_id earlier_id again",
    on_conflict="""(queue_id) DO UPDATE SET
        number = excluded.number, first_id = excluded.first_id, earlier_id = excluded.earlier_id""",
)
_OTHERS = BatchStatement(
    """
    SELECT storm_id, sum(messages) FROM storm
    WHERE storm_id IN (VALUES {rows}) AND front <> {?} AND slice_at_ms > {?} GROUP BY storm_id
    """,
    columns=1,
)
_STORMS = Statement(
    f"""
    SELECT sum(messages) AS messages, sum(held) AS held, sum(same_ids) AS same_ids,
        max(host) AS host, max(script) AS script, max(template) AS template,
        max(recipient_domain) AS recipient_domain, max(last_id) AS last_id,
        min(first_id) AS first_id, min(first_ms) AS first_ms
    FROM storm WHERE slice_at_ms > {{?}}
    GROUP BY storm_id ORDER BY sum(storm.messages) DESC LIMIT {_MOST_STORMS}
    """
)
_FORGET_STORMS = Statement(
    f"""
    DELETE FROM storm WHERE slice_at_ms < {{?}} AND storm_id IN (
        SELECT storm_id FROM storm WHERE slice_at_ms < {{?}} LIMIT {_PRUNED_AT_ONCE})
    """
)
# who has a row that is locked uses it again
_FORGET_ONCE = Statement(
    f"""
    DELETE FROM recent_mail WHERE mail_key IN (
        SELECT mail_key FROM recent_mail WHERE abs(at_ms - {{?}}) > {_FORGET_ONCE_MS}
        LIMIT {_PRUNED_AT_ONCE} {{skip_locked}})
    """
)
_FORGET_STRAYS = Statement(
    """
    DELETE FROM repeated_mail WHERE queue_id >= {?} AND queue_id < {?}
        AND NOT EXISTS (SELECT 1 FROM message WHERE message.queue_id = repeated_mail.queue_id)
    """
)
_TAKE = insert_into(
    "recent_mail",
    "mail_key queue_id at_ms",
    on_conflict=f"""(mail_key) DO UPDATE SET
        queue_id = excluded.queue_id, at_ms = excluded.at_ms
        WHERE recent_mail.at_ms < excluded.at_ms - {ONCE_MS}
            OR recent_mail.at_ms > excluded.at_ms + {ONCE_MS}""",
)
_TAKEN = BatchStatement(
    "SELECT mail_key, queue_id FROM recent_mail WHERE mail_key IN (VALUES {rows})", columns=1
)
_TAKE_INSTEAD = BatchStatement(
    """
    UPDATE recent_mail SET queue_id = v.column2, at_ms = v.column3
    FROM (VALUES {rows}) AS v WHERE recent_mail.mail_key = v.column1
    """,
    columns=3,
)
# not what was deleted, also out of the sandbox alone, nor what somebody did not get
_COUNTING = BatchStatement(
    """
    SELECT queue_id FROM message WHERE queue_id IN (VALUES {rows}) AND NOT EXISTS (
        SELECT 1 FROM recipient WHERE recipient.queue_id = message.queue_id AND (
            state IN ('bounced', 'expired', 'blocked', 'cancelled')
            OR (state = 'captured' AND captured_at_ms IS NULL)))
    """,
    columns=1,
)
_DROP_OF = Statement("SELECT 1 FROM message WHERE drop_id = {?}")
_AGAIN = insert_into(
    "repeated_mail",
    "queue_id number first_id again again_ms",
    on_conflict="""(queue_id) DO UPDATE SET
        again = repeated_mail.again + excluded.again, again_ms = excluded.again_ms""",
)


class Repeat(NamedTuple):
    """A message that a recipient had before, as a front found it."""

    storm_id: str  # of this recipient and content
    queue_id: str
    at_ms: int
    number: int  # which one it was within the window; 1: it was noted when the second came
    first_id: str
    earlier_id: str | None  # the message before it, where that had the same Message-ID
    is_held: bool
    host: str
    script: str
    template: str
    recipient_domain: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeated:
    """How often a message came, as its story tells it."""

    number: int  # which one of the same mail it was, 0: it was the only one
    first_id: str
    earlier_id: str | None
    again: int  # times it came again and was not taken
    again_ms: int | None  # the last time


class Repeats(Repository):
    """What came more than once."""

    def count_repeats(
        self,
        front: str,
        repeats: Sequence[Repeat],
        *,
        watched: Collection[str],
        window_ms: int,
        slice_ms: int,
    ) -> dict[str, int]:
        """Add what a front found; return how often other fronts had the `watched` in the window.

        Two transactions: an error may come when all is added.
        """
        told = {
            repeat.queue_id: (repeat.queue_id, repeat.number, repeat.first_id, repeat.earlier_id, 0)
            for repeat in sorted(
                repeats, key=lambda repeat: (repeat.number, repeat.earlier_id or "")
            )
        }
        if repeats:
            with self._write(Write.UNSYNCED) as tx:
                _ADD_STORM.run(tx, _storm_rows(tx, front, repeats, slice_ms))
                _ADD_REPEATED.run(tx, sorted(told.values()))
        with self._read() as tx:
            since_ms = tx.now_ms() - window_ms
            rows = _OTHERS.fetch(tx, [(storm_id,) for storm_id in sorted(watched)], front, since_ms)
            return {storm_id: int(number) for storm_id, number in rows}

    def storms(self, window_ms: int) -> list[Storm]:
        """Return mail that came more than once within a window, the most first; 1,000 at most."""
        with self._read() as tx:
            return [
                tx.entry(
                    Storm,
                    row,
                    "first_ms",
                    messages=int(row.messages),
                    held=int(row.held),
                    same_ids=int(row.same_ids),
                )
                for row in _STORMS.fetch_named(tx, tx.now_ms() - window_ms)
            ]

    def forget_repeats(self, older_than_ms: int) -> bool:
        """Delete counts that are so old, and what `duplicates` is done with; True: do it again.

        What is told of a message goes with it; where that went first, after so long.
        """
        with self._write(Write.UNSYNCED) as tx:
            now_ms = tx.now_ms()
            end_ms = now_ms - older_than_ms
            gone = _FORGET_ONCE.run(tx, now_ms)
            over = _FORGET_STORMS.run(tx, end_ms, end_ms)
            _FORGET_STRAYS.run(tx, first_id_at(end_ms - _STRAYS_MS), first_id_at(end_ms))
            return max(gone, over) >= _PRUNED_AT_ONCE


def _storm_rows(tx: Transaction, front: str, repeats: Sequence[Repeat], slice_ms: int) -> list[Row]:
    rows: dict[tuple[str, int], Row] = {}
    for repeat in repeats:
        at_ms = tx.to_stored(repeat.at_ms)
        key = (repeat.storm_id, at_ms - at_ms % slice_ms)
        before = rows.get(key, (*key, front, 0, 0, 0))
        messages, held, same_ids = before[3:6]
        rows[key] = (
            *before[:3],
            messages + 1,
            held + repeat.is_held,
            same_ids + (repeat.earlier_id is not None),
            *(repeat.host, repeat.script, repeat.template, repeat.recipient_domain),
            *(repeat.first_id, repeat.queue_id),
            before[-1] if messages else at_ms,
        )
    return sorted(rows.values())  # in one order: fronts never deadlock


# --- taken once -------------------------------------------------------------------------------


def taken_before(tx: Transaction, messages: Sequence[AcceptedMessage]) -> dict[str, str]:
    """Return which of these, with keys, are duplicates, and of what; notes the others as taken.

    Who has the same at this moment waits for this transaction to end: the first is durable, or was
    never there.
    """
    again: dict[str, str] = {}
    mine: set[str] = set()  # that are stored by this transaction
    for runs in _rounds(messages):
        before = _take(tx, [run[0] for run in runs], mine)
        for run in runs:
            first_id = before.get(run[0].queue_id, run[0].queue_id)
            for message in run:
                if message.queue_id != first_id and not _is_stored_drop(tx, message):
                    again[message.queue_id] = first_id
        mine |= {run[0].queue_id for run in runs}
    if again:
        _note_again(tx, messages, again)
    return again


def _rounds(messages: Sequence[AcceptedMessage]) -> Iterator[list[list[AcceptedMessage]]]:
    """Yield runs of the same mail within ONCE_MS, each key once in a round; nearly always one."""
    if len({message.mail_key for message in messages}) == len(messages):  # nearly always
        yield [[message] for message in messages]
        return
    runs: dict[str | None, list[list[AcceptedMessage]]] = {}
    for message in sorted(messages, key=attrgetter("came_at_ms")):
        of_key = runs.setdefault(message.mail_key, [])
        if of_key and message.came_at_ms - of_key[-1][0].came_at_ms <= ONCE_MS:
            of_key[-1].append(message)
        else:
            of_key.append([message])
    for found in zip_longest(*runs.values()):
        yield [run for run in found if run is not None]


def _take(tx: Transaction, messages: Sequence[AcceptedMessage], mine: Set[str]) -> dict[str, str]:
    """Note these as taken, unless the same was; return what was taken instead of which."""
    rows = {
        message.mail_key: (message.mail_key, message.queue_id, message.came_at_ms + tx.ahead_ms)
        for message in messages
    }
    if _TAKE.run(tx, sorted(rows.values())) == len(rows):
        return {}  # nearly always
    keys = [(key,) for key, *_ in sorted(rows.values())]
    taken: dict[str | None, str] = dict(_TAKEN.fetch(tx, keys))
    before = {message.queue_id: taken[message.mail_key] for message in messages}
    before = {queue_id: first_id for queue_id, first_id in before.items() if queue_id != first_id}
    # who sends again what was deleted, or what somebody did not get, wants it sent
    ids = [(first_id,) for first_id in sorted({*before.values()} - mine)]
    counting = {first_id for (first_id,) in _COUNTING.fetch(tx, ids)} | mine
    instead = [
        rows[message.mail_key] for message in messages if _is_lost(before, message, counting)
    ]
    _TAKE_INSTEAD.run(tx, sorted(instead))
    return {queue_id: first_id for queue_id, first_id in before.items() if first_id in counting}


def _is_lost(before: Mapping[str, str], message: AcceptedMessage, counting: Set[str]) -> bool:
    return message.queue_id in before and before[message.queue_id] not in counting


def _is_stored_drop(tx: Transaction, message: AcceptedMessage) -> bool:
    """True for a file of the maildrop that was stored itself, and could not be removed."""
    return message.drop_id is not None and bool(_DROP_OF.fetch(tx, message.drop_id))


def _note_again(
    tx: Transaction, messages: Sequence[AcceptedMessage], again: dict[str, str]
) -> None:
    notes: dict[str, Row] = {}
    for message in messages:
        first_id = again.get(message.queue_id)
        if first_id is not None:
            times = notes[first_id][3] + 1 if first_id in notes else 1
            at_ms = tx.to_stored(message.accepted_at_ms)
            notes[first_id] = (first_id, 0, first_id, times, at_ms)
    _AGAIN.run(tx, sorted(notes.values()))


def repeated(tx: Transaction, queue_id: str) -> Repeated | None:
    """Return the words about a repeated message, None for one that came once."""
    found = tx.execute(select(repeated_mail).where(repeated_mail.c.queue_id == queue_id)).first()
    return None if found is None else tx.entry(Repeated, found, "again_ms")
