"""SQL conditions of a search of captured mail, on the rows that `captured_index` writes.

Without FTS5 (SQLite older than 3.43 when the schema is made) or pg_trgm, and for texts of less than
three characters, all texts are read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import exists, false, or_, select
from sqlalchemy.sql.elements import ColumnElement

from relaygw.mail.search import Field, MailSearch, Term
from relaygw.store.captured_index import FULL_TEXT
from relaygw.store.database import Transaction
from relaygw.store.queue_tables import captured_index, captured_tag, captured_text
from relaygw.store.terms import contains
from relaygw.store.walk import Walk

MIN_CHARACTERS = 3

_I, _T = captured_index.c, captured_tag.c
_Make = Callable[[Transaction, Term], ColumnElement[bool]]


def _has(*texts: ColumnElement[Any]) -> _Make:
    return lambda tx, term: or_(*(contains(tx, text, term.text) for text in texts))


_CONDITIONS: dict[Field, _Make] = {
    Field.FROM: _has(_I.from_text),
    Field.TO: _has(_I.to_text),
    Field.CC: _has(_I.cc_text),
    Field.BCC: _has(_I.bcc_text),
    Field.REPLY_TO: _has(_I.reply_to_text),
    Field.ADDRESSED: _has(_I.from_text, _I.to_text, _I.cc_text, _I.bcc_text, _I.reply_to_text),
    Field.SUBJECT: _has(_I.subject_text),
    Field.MESSAGE_ID: _has(_I.message_id_text),
    Field.REASON: _has(_I.reason_text),
    Field.TAG: lambda _, term: _I.queue_id.in_(select(_T.queue_id).where(_T.tag_key == term.text)),
    Field.IS_TAGGED: lambda *_: exists().where(_T.queue_id == _I.queue_id),
    Field.IS_UNREAD: lambda *_: _I.is_unread,
    Field.HAS_ATTACHMENT: lambda *_: _I.attachments > 0,
    Field.HAS_INLINE: lambda *_: _I.inlines > 0,
    Field.AFTER: lambda tx, term: _I.captured_at_ms >= tx.to_stored(term.number),
    Field.BEFORE: lambda tx, term: _I.captured_at_ms <= tx.to_stored(term.number),
    Field.LARGER: lambda _, term: _I.size_bytes > term.number,
    Field.SMALLER: lambda _, term: _I.size_bytes < term.number,
}


def on_captured(tx: Transaction, term: Term) -> ColumnElement[bool]:
    """Return the condition on captured_index of a term, negated or not."""
    return _CONDITIONS[term.field](tx, term)


def matching(tx: Transaction, search: MailSearch) -> Walk:
    """Return the walk through the rows that a search finds, the newest first."""
    texts = [term for term in search.terms if term.field is Field.TEXT]
    others = [term for term in search.terms if term.field is not Field.TEXT]
    conditions = [*(_condition(tx, term) for term in others), *([false()] * search.is_void)]
    rows = Walk(captured_index, (_I.index_no,), _I.queue_id, conditions)
    if FULL_TEXT.is_there(tx):
        long = [term for term in texts if len(term.text) >= MIN_CHARACTERS]
        texts = [term for term in texts if term not in long]
        rows = _by_full_text(rows, long)
    return _by_reading(tx, rows, texts)


def _by_full_text(rows: Walk, terms: Sequence[Term]) -> Walk:
    wanted = [f'"{term.text}"' for term in terms if not term.is_negated]
    unwanted = [f'"{term.text}"' for term in terms if term.is_negated]
    if wanted:
        found = FULL_TEXT.matches(" NOT ".join([" AND ".join(wanted), *unwanted]))
        source = rows.source.join(FULL_TEXT.table, FULL_TEXT.rowid == _I.index_no)
        return Walk(source, (FULL_TEXT.rowid,), rows.queue_id, [*rows.where, found])
    if unwanted:
        found = FULL_TEXT.matches(" OR ".join(unwanted))
        not_there = _I.index_no.not_in(select(FULL_TEXT.rowid).where(found))
        return replace(rows, where=[*rows.where, not_there])
    return rows


def _by_reading(tx: Transaction, rows: Walk, terms: Sequence[Term]) -> Walk:
    if not terms:
        return rows
    source = rows.source.join(captured_text, captured_text.c.index_no == _I.index_no)
    found = (stands_in_text(tx, term) for term in terms)
    return replace(rows, source=source, where=[*rows.where, *found])


def _condition(tx: Transaction, term: Term) -> ColumnElement[bool]:
    found = on_captured(tx, term)
    return ~found if term.is_negated else found


def stands_in_text(tx: Transaction, term: Term) -> ColumnElement[bool]:
    """Return the condition on captured_text that a term holds."""
    found: ColumnElement[bool]
    if not tx.is_postgres:
        found = contains(tx, captured_text.c.search_text, term.text)
    else:  # only LIKE can use the index
        literal = term.text.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
        found = captured_text.c.search_text.like(f"%{literal}%")
    return ~found if term.is_negated else found
