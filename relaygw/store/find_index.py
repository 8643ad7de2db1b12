"""The words of all mail: written beside accepting and sending, in batches, made anew from its rows.

Triggers of the database note in search_todo whose words are to be written (migration 0008): then
who accepts mail and who sends it have nothing more to do, whatever version they are of. Mail that
was there before that is looked at from the newest on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Integer, Table, Text, column, table

from relaygw.mail.content import link_value, read_header
from relaygw.mail.search_words import link_word, reply_ids, words_of
from relaygw.mail.state import RecipientState
from relaygw.store.database import BatchStatement, Row, Statement, Transaction, insert_into
from relaygw.store.queue_tables import mail_search

_MERGE_PAGES = 64  # a few milliseconds
_CHANGES = "SELECT total_changes()"


class FullText:
    """An FTS5 table `name` whose rowids are the keys of `rows`, and its text is `search_text`."""

    def __init__(self, name: str, rows: Table) -> None:
        self._name = name
        self._rows = rows.name
        self.table = table(name, column("rowid", Integer), column(name, Text))
        self.rowid = self.table.c.rowid
        self.matches = self.table.c[name].op("MATCH")

    def is_there(self, tx: Transaction) -> bool:
        """True on SQLite with FTS5 as the schema was made."""
        if tx.is_postgres:
            return False
        info = tx.connection.info
        if self._name not in info:
            found = tx.connection.exec_driver_sql(
                "SELECT count(*) FROM sqlite_master WHERE name = ?", (self._name,)
            )
            info[self._name] = bool(found.scalar())
        return bool(info[self._name])

    def add(self, tx: Transaction, rows: Sequence[tuple[int, str]]) -> None:
        """Make texts of new rows findable."""
        if rows and self.is_there(tx):
            tx.connection.exec_driver_sql(
                f"INSERT INTO {self._name} (rowid, search_text) VALUES (?, ?)", list(rows)
            )

    def remove(self, tx: Transaction, numbers: Sequence[int]) -> None:
        """Forget rows that are deleted in the same transaction, or were before."""
        if not (numbers and self.is_there(tx)):
            return
        if tx.connection.exec_driver_sql(f"SELECT 1 FROM {self._rows} LIMIT 1").scalar() is None:
            tx.execute(self.table.insert().values({self._name: "delete-all"}))
            return
        tx.connection.exec_driver_sql(
            f"DELETE FROM {self._name} WHERE rowid = ?", [(number,) for number in numbers]
        )

    def merge(self, tx: Transaction) -> bool:
        """Bring a few pages together, so that searches stay quick; False: all is done."""
        before = tx.connection.exec_driver_sql(_CHANGES).scalar_one()
        tx.connection.exec_driver_sql(
            f"INSERT INTO {self._name} ({self._name}, rank) VALUES ('merge', ?)", (_MERGE_PAGES,)
        )
        # the statement itself counts as one
        return bool(tx.connection.exec_driver_sql(_CHANGES).scalar_one() - before > 1)


SETTLED_MS = 10_000
"""How long new mail waits, so that most of it has its reply; searches read what waits itself."""

FULL_TEXT = FullText("mail_fts", mail_search)
_DELIVERED = RecipientState.DELIVERED.value
_TODO = Statement(
    "SELECT todo_no, queue_id FROM search_todo WHERE since_ms <= {?} ORDER BY todo_no LIMIT {?}"
    " {skip_locked}"
)
_NOTE = insert_into("search_todo", "queue_id", since_ms=0)
_DONE = BatchStatement("DELETE FROM search_todo WHERE todo_no IN (VALUES {rows})", columns=1)
_FACTS = BatchStatement(
    """
    SELECT queue_id, message_id, sender, subject, link_value FROM message
    WHERE queue_id IN (VALUES {rows})
    """,
    columns=1,
)
_RECIPIENTS = BatchStatement(
    """
    SELECT queue_id, address, original, state, reply FROM recipient
    WHERE queue_id IN (VALUES {rows}) ORDER BY queue_id, rcpt_no
    """,
    columns=1,
)
_NUMBERED_WORDS = BatchStatement(
    "SELECT search_no, words FROM mail_search WHERE queue_id IN (VALUES {rows})", columns=1
)
_FORGET = BatchStatement("DELETE FROM mail_search WHERE queue_id IN (VALUES {rows})", columns=1)
_STRAYS = Statement(
    """
    SELECT queue_id FROM (SELECT queue_id FROM mail_search ORDER BY search_no LIMIT {?}) AS oldest
    WHERE NOT EXISTS (SELECT 1 FROM message WHERE message.queue_id = oldest.queue_id)
    """
)
_KEPT = "(queue_id) DO UPDATE SET words = excluded.words"
_INSERT = insert_into("mail_search", "queue_id words", on_conflict=_KEPT)
_INSERT_NUMBERED = insert_into("mail_search", "search_no queue_id words", on_conflict=_KEPT)
_BACKFILL = Statement("SELECT search_no, before_id FROM search_backfill {skip_locked}")
_OLDER = Statement(
    "SELECT queue_id FROM message WHERE queue_id < {?} ORDER BY queue_id DESC LIMIT {?}"
)
_MOVE_BACKFILL = Statement("UPDATE search_backfill SET search_no = {?}, before_id = {?}")
_END_BACKFILL = Statement("DELETE FROM search_backfill")


def read_words(tx: Transaction, queue_ids: Iterable[str]) -> dict[str, str]:
    """Return the words of those of the messages that there are, in the order of their ids."""
    wanted = _keys(sorted(set(queue_ids)))
    people: dict[str, list[Row]] = defaultdict(list)
    for queue_id, *row in _RECIPIENTS.fetch(tx, wanted):
        people[queue_id].append(tuple(row))
    facts = sorted(_FACTS.fetch(tx, wanted))
    return {row[0]: _words(row, people[row[0]]) for row in facts}


def _words(facts: Row, recipients: Sequence[Row]) -> str:
    replies = {reply for *_, state, reply in recipients if state == _DELIVERED and reply}
    ids = [reply_id for reply in sorted(replies) for reply_id in reply_ids(reply)]
    addresses = [address for row in recipients for address in row[:2] if address is not None]
    *told, link = facts
    if link is not None:
        told += [link, link_word(link)]
    return words_of([*told, *ids], addresses)


def take_todo(tx: Transaction, *, limit: int) -> int:
    """Write the words of new mail, and of mail that has changed; return how many rows are done."""
    todo = _TODO.fetch(tx, tx.now_ms() - SETTLED_MS, limit)
    if todo:
        # read by a later statement than `todo`: what is noted since then stays in search_todo
        write_words(tx, read_words(tx, [queue_id for _, queue_id in todo]))
        _DONE.run(tx, _keys(number for number, _ in todo))
    return len(todo)


def take_older(tx: Transaction, *, limit: int) -> int:
    """Write the words of mail from before this table; return how many messages were looked at."""
    found = _BACKFILL.fetch(tx)
    if not found:
        return 0  # all is done, or somebody else does it
    number, before_id = found[0]
    queue_ids = [queue_id for (queue_id,) in _OLDER.fetch(tx, before_id, limit)]
    if len(queue_ids) < limit:
        _END_BACKFILL.run(tx)
    else:
        _MOVE_BACKFILL.run(tx, number - len(queue_ids), queue_ids[-1])
    write_words(tx, read_words(tx, queue_ids), first_no=number - len(queue_ids) + 1)
    return len(queue_ids)


def note_changed(tx: Transaction, queue_ids: Iterable[str]) -> None:
    """Have the words of messages written anew: they have recipients that they did not have."""
    _NOTE.run(tx, _keys(queue_ids))


def write_words(tx: Transaction, words: dict[str, str], *, first_no: int | None = None) -> None:
    """Write the words of messages in the order of their ids; `first_no`: their numbers begin so."""
    FULL_TEXT.remove(tx, _numbers(tx, words))
    if first_no is None:
        _INSERT.run(tx, list(words.items()))
    else:
        _INSERT_NUMBERED.run(tx, [(no, *row) for no, row in enumerate(words.items(), first_no)])
    if FULL_TEXT.is_there(tx):
        FULL_TEXT.add(tx, sorted(_NUMBERED_WORDS.fetch(tx, _keys(words))))


def _keys(values: Iterable[Any]) -> list[Row]:
    return [(value,) for value in values]


def _numbers(tx: Transaction, queue_ids: Iterable[str]) -> list[int]:
    if not FULL_TEXT.is_there(tx):
        return []
    return [number for number, _ in _NUMBERED_WORDS.fetch(tx, _keys(queue_ids))]


def forget_words(tx: Transaction, queue_ids: Sequence[str]) -> None:
    """Delete what is kept of messages that are deleted."""
    numbers = _numbers(tx, queue_ids)
    _FORGET.run(tx, _keys(queue_ids))
    FULL_TEXT.remove(tx, numbers)


def stray_words(tx: Transaction, *, limit: int) -> list[str]:
    """Return messages among the oldest ones here that an older version of this program deleted."""
    return [queue_id for (queue_id,) in _STRAYS.fetch(tx, limit)]


# --- fields that link -------------------------------------------------------------------
# What web.link_header says of mail that was accepted before it was set, while content is kept.


_AFTER_ALL = "Z" * 21  # greater than every queue id
_LINKS_BEFORE = Statement("SELECT before_id FROM link_backfill WHERE header = {?}")
_MOVE_LINKS = insert_into(
    "link_backfill",
    "header before_id",
    on_conflict="(header) DO UPDATE SET before_id = excluded.before_id",
)
_OLDER_MAIL = Statement(
    """
    SELECT queue_id, chunk_count > 0 AND link_value IS NULL FROM message WHERE queue_id < {?}
    ORDER BY queue_id DESC LIMIT {?}
    """
)
_LINK_HEADS = BatchStatement(
    "SELECT queue_id, body FROM chunk WHERE chunk_no = 0 AND queue_id IN (VALUES {rows})",
    columns=1,
)
_SET_LINKS = BatchStatement(
    """
    UPDATE message SET link_value = v.column2 FROM (VALUES {rows}) AS v
    WHERE message.queue_id = v.column1 AND message.link_value IS NULL
    """,
    columns=2,
)


def read_links(tx: Transaction, header: str, *, limit: int) -> tuple[int, list[Row], str]:
    """Return how many older messages were looked at, their values, and where the next begin."""
    found = _LINKS_BEFORE.fetch(tx, header.lower())
    before_id = found[0][0] if found else _AFTER_ALL
    rows = _OLDER_MAIL.fetch(tx, before_id, limit) if before_id else []
    kept = [(queue_id,) for queue_id, is_kept in rows if is_kept]
    names = frozenset([header.lower()])
    values = (
        (queue_id, link_value(read_header(bytes(body), names), header))
        for queue_id, body in _LINK_HEADS.fetch(tx, kept)
    )
    next_id = rows[-1][0] if len(rows) == limit else ""
    return len(rows), [(queue_id, value) for queue_id, value in values if value], next_id


def write_links(tx: Transaction, header: str, values: list[Row], next_id: str) -> None:
    """Write values of older mail, and have its words written anew."""
    _SET_LINKS.run(tx, values)
    note_changed(tx, [queue_id for queue_id, _ in values])
    _MOVE_LINKS.run(tx, [(header.lower(), next_id)])
