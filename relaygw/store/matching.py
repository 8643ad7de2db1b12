"""Searches of captured mail as conditions on `captured_index` and what belongs to its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Select, exists, false, or_, select
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.selectable import FromClause

from relaygw.mail.search import Field, MailSearch, Term
from relaygw.store import full_text
from relaygw.store.database import Transaction
from relaygw.store.full_text import contains
from relaygw.store.tables import captured_index, captured_tag, captured_text

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
    if full_text.has_table(tx):
        long = [term for term in texts if len(term.text) >= full_text.MIN_CHARACTERS]
        texts = [term for term in texts if term not in long]
        rows = _by_full_text(rows, long)
    return _by_reading(tx, rows, texts)


def _by_full_text(rows: Matching, terms: Sequence[Term]) -> Matching:
    wanted = [term.text for term in terms if not term.is_negated]
    unwanted = [term.text for term in terms if term.is_negated]
    if wanted:
        number = full_text.fts.c.rowid
        source = rows.source.join(full_text.fts, number == _I.index_no)
        return Matching(source, (*rows.conditions, full_text.matches(wanted, unwanted)), number)
    if unwanted:
        not_there = _I.index_no.not_in(full_text.having_any(unwanted))
        return replace(rows, conditions=(*rows.conditions, not_there))
    return rows


def _by_reading(tx: Transaction, rows: Matching, terms: Sequence[Term]) -> Matching:
    if not terms:
        return rows
    source = rows.source.join(captured_text, captured_text.c.index_no == _I.index_no)
    found = (full_text.stands_in_text(tx, term) for term in terms)
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
    return or_(*(contains(tx, column, term.text) for column in _TEXTS[term.field]))
