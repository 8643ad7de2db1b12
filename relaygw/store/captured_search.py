"""Searches of captured mail as conditions on `captured_index` and what belongs to its rows.

Where a text stands, in the middle of a word too. SQLite: `captured_fts`, an FTS5 table of trigrams
that answers from its positions, without looking at a text. It exists where SQLite is 3.43 or newer
when the schema is made. PostgreSQL: an index of trigrams under LIKE, where the extension pg_trgm
may be created. Without either, and for texts of less than three characters, all texts are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import (
    Integer,
    Select,
    Text,
    column,
    exists,
    false,
    func,
    insert,
    or_,
    select,
    table,
)
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.selectable import FromClause

from relaygw.mail.search import Field, MailSearch, Term
from relaygw.store.database import Transaction
from relaygw.store.tables import captured_index, captured_tag, captured_text

MIN_CHARACTERS = 3
_MERGE_PAGES = 64  # a few milliseconds
_IS_THERE = "captured_fts"  # key in a connection's `info`

_fts = table("captured_fts", column("rowid", Integer), column("captured_fts", Text))
"""rowid is captured_index.index_no."""
_I = captured_index.c
_TEXTS: dict[Field, tuple[ColumnElement[str], ...]] = {
    Field.FROM: (_I.from_text,),
    Field.TO: (_I.to_text,),
    Field.CC: (_I.cc_text,),
    Field.BCC: (_I.bcc_text,),
    Field.REPLY_TO: (_I.reply_to_text,),
    Field.ADDRESSED: (_I.from_text, _I.to_text, _I.cc_text, _I.bcc_text, _I.reply_to_text),
    Field.SUBJECT: (_I.subject_text,),
    Field.MESSAGE_ID: (_I.message_id_text,),
    Field.REASON: (_I.reason_text,),
}


@dataclass(frozen=True, slots=True)
class Matching:
    """Where the matching rows come from, and what holds for them."""

    source: FromClause
    conditions: tuple[ColumnElement[bool], ...]
    number: ColumnElement[int]  # index_no, by whatever finds it in its order

    def select(self, *columns: ColumnElement[Any]) -> Select[Any]:
        """Return a query for these columns of the rows."""
        return select(*columns).select_from(self.source).where(*self.conditions)


def matching(tx: Transaction, search: MailSearch) -> Matching:
    """Return the rows that a search finds."""
    texts = [term for term in search.terms if term.field is Field.TEXT]
    others = [term for term in search.terms if term.field is not Field.TEXT]
    rows = Matching(
        source=captured_index,
        conditions=(
            *(_condition(tx, term) for term in others),
            *([false()] if search.is_void else []),
        ),
        number=_I.index_no,
    )
    if has_full_text(tx):
        long = [term for term in texts if len(term.text) >= MIN_CHARACTERS]
        texts = [term for term in texts if term not in long]
        rows = _by_full_text(rows, long)
    return _by_reading(tx, rows, texts)


def _by_full_text(rows: Matching, terms: Sequence[Term]) -> Matching:
    wanted = [term.text for term in terms if not term.is_negated]
    unwanted = [term.text for term in terms if term.is_negated]
    if wanted:
        number = _fts.c.rowid
        source = rows.source.join(_fts, number == _I.index_no)
        return Matching(source, (*rows.conditions, _matches(wanted, unwanted)), number)
    if unwanted:
        not_there = _I.index_no.not_in(_having_any(unwanted))
        return replace(rows, conditions=(*rows.conditions, not_there))
    return rows


def _by_reading(tx: Transaction, rows: Matching, terms: Sequence[Term]) -> Matching:
    if not terms:
        return rows
    source = rows.source.join(captured_text, captured_text.c.index_no == _I.index_no)
    found = (stands_in_text(tx, term) for term in terms)
    return replace(rows, source=source, conditions=(*rows.conditions, *found))


def _condition(tx: Transaction, term: Term) -> ColumnElement[bool]:
    found = _positive(tx, term)
    return ~found if term.is_negated else found


def _positive(tx: Transaction, term: Term) -> ColumnElement[bool]:
    match term.field:
        case Field.TAG:
            tagged = select(captured_tag.c.queue_id).where(captured_tag.c.tag_key == term.text)
            return _I.queue_id.in_(tagged)
        case Field.IS_TAGGED:
            return exists().where(captured_tag.c.queue_id == _I.queue_id)
        case Field.IS_UNREAD:
            return _I.is_unread
        case Field.HAS_ATTACHMENT:
            return _I.attachments > 0
        case Field.HAS_INLINE:
            return _I.inlines > 0
        case Field.AFTER:
            return _I.captured_at_ms >= tx.to_stored(term.number)
        case Field.BEFORE:
            return _I.captured_at_ms <= tx.to_stored(term.number)
        case Field.LARGER:
            return _I.size_bytes > term.number
        case Field.SMALLER:
            return _I.size_bytes < term.number
    return or_(*(_contains(tx, column, term.text) for column in _TEXTS[term.field]))


# --- full text ----------------------------------------------------------------------------


def has_full_text(tx: Transaction) -> bool:
    """True on SQLite with FTS5 as the schema was made."""
    if tx.is_postgres:
        return False
    if _IS_THERE not in tx.connection.info:
        found = tx.connection.exec_driver_sql(
            "SELECT count(*) FROM sqlite_master WHERE name = 'captured_fts'"
        )
        tx.connection.info[_IS_THERE] = bool(found.scalar())
    return bool(tx.connection.info[_IS_THERE])


def add_full_text(tx: Transaction, rows: Sequence[tuple[int, str]]) -> None:
    """Make texts of new rows findable."""
    if rows and has_full_text(tx):
        tx.connection.exec_driver_sql(
            "INSERT INTO captured_fts (rowid, search_text) VALUES (?, ?)", list(rows)
        )


def remove_full_text(tx: Transaction, index_nos: Sequence[int]) -> None:
    """Forget rows that are deleted from captured_index in the same transaction, or before."""
    if not (index_nos and has_full_text(tx)):
        return
    if tx.connection.exec_driver_sql("SELECT 1 FROM captured_index LIMIT 1").scalar() is None:
        tx.execute(insert(_fts).values(captured_fts="delete-all"))
        return
    tx.connection.exec_driver_sql(
        "DELETE FROM captured_fts WHERE rowid = ?", [(number,) for number in index_nos]
    )


def merge_full_text(tx: Transaction) -> bool:
    """Bring a few pages of the index together, so that searches stay quick; False: all is done."""
    changes = "SELECT total_changes()"
    before = tx.connection.exec_driver_sql(changes).scalar_one()
    tx.connection.exec_driver_sql(
        "INSERT INTO captured_fts (captured_fts, rank) VALUES ('merge', ?)", (_MERGE_PAGES,)
    )
    # the statement itself counts as one
    return bool(tx.connection.exec_driver_sql(changes).scalar_one() - before > 1)


def _matches(wanted: Sequence[str], unwanted: Sequence[str]) -> ColumnElement[bool]:
    """Return the condition on `_fts` that all of the first, and none of the second, stand there."""
    phrases = " AND ".join(f'"{text}"' for text in wanted)
    return _match(phrases + "".join(f' NOT "{text}"' for text in unwanted))


def _having_any(texts: Sequence[str]) -> Select[tuple[int]]:
    """Return the rows of `_fts` in which any of the texts stands."""
    return select(_fts.c.rowid).where(_match(" OR ".join(f'"{text}"' for text in texts)))


def _match(query: str) -> ColumnElement[bool]:
    condition: ColumnElement[bool] = _fts.c.captured_fts.op("MATCH")(query)
    return condition


def stands_in_text(tx: Transaction, term: Term) -> ColumnElement[bool]:
    """Return the condition on captured_text that a term holds."""
    found: ColumnElement[bool]
    if not tx.is_postgres:
        found = _contains(tx, captured_text.c.search_text, term.text)
    else:  # only LIKE can use the index
        literal = term.text.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
        found = captured_text.c.search_text.like(f"%{literal}%")
    return ~found if term.is_negated else found


def _contains(tx: Transaction, text: ColumnElement[str], part: str) -> ColumnElement[bool]:
    """Return the condition that `part` stands in `text`, letter by letter."""
    find = func.instr if not tx.is_postgres else func.strpos
    return find(text, part) > 0
