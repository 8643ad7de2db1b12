"""What searches of captured mail look at: rows beside messages, made anew from their content.

A message's row is locked before its index row, also by those who delete both: an index row never
outlives its message, and both say the same of whether it was opened. Without FTS5 (SQLite older
than 3.43 when the schema is made) or pg_trgm, and for texts of less than three characters, all
texts are read.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import delete, exists, false, func, or_, select
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.selectable import FromClause, Select

from relaygw.mail.content_facts import Contact, ContentFacts, hidden_recipients
from relaygw.mail.search import Field, MailSearch, Term
from relaygw.mail.searchable_text import searchable
from relaygw.mail.state import RecipientState
from relaygw.store.batches import in_batches, rows_in
from relaygw.store.database import Row, Transaction, insert_into
from relaygw.store.find_index import FullText
from relaygw.store.queue_tables import (
    IS_UNINDEXED,
    captured_facts,
    captured_index,
    captured_tag,
    captured_text,
    message,
    recipient,
)

MIN_CHARACTERS = 3
_MAX_SEARCHED_CHARACTERS = 16_000  # how much of a message is searched for words
_MAX_FIELD_CHARACTERS = 64_000
_MAX_HEAD_CHARACTERS = 8_000
_LISTS = ("to", "cc", "bcc", "reply_to")

FULL_TEXT = FullText("captured_fts", captured_index)
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
_INSERT_INDEX = insert_into(
    "captured_index",
    "queue_id captured_at_ms size_bytes is_unread attachments inlines from_text to_text cc_text"
    " bcc_text reply_to_text subject_text message_id_text reason_text",
)
_INSERT_TEXT = insert_into("captured_text", "index_no search_text")
_INSERT_FACTS = insert_into("captured_facts", "index_no facts")


def _record(message: Any, recipients: Sequence[Any], facts: ContentFacts) -> tuple[Row, str]:
    """Return the index row of a message, and what is searched for words."""
    envelope = [(person.address, person.original) for person in recipients]
    hidden = hidden_recipients(facts, envelope)
    people = ((facts.sender,), facts.to, facts.cc, hidden, facts.reply_to)
    sender, to, cc, bcc, reply_to = map(_people_text, people)
    subject, message_id = searchable(message.subject), searchable(message.message_id)
    captured = [person for person in recipients if person.state == RecipientState.CAPTURED.value]
    reasons = searchable(" ".join(sorted({person.reply or "" for person in captured})))
    addresses = [searchable(person.address) for person in recipients]  # where rewritten
    others = [address for address in addresses if address not in f"{to} {cc} {bcc}"]
    more = searchable(" ".join([message.sender, *others]))
    # a line for each field, so that no phrase runs over two
    head = "\n".join((subject, message_id, sender, reply_to, to, cc, bcc, more))
    text = f"{head[:_MAX_HEAD_CHARACTERS]}\n{searchable(facts.words)}"[:_MAX_SEARCHED_CHARACTERS]
    is_unread = message.read_at_ms is None
    row = (
        *(message.queue_id, message.captured_at_ms, message.size_bytes, is_unread),
        *(facts.attachments, facts.inlines),
        *(sender, to, cc, bcc, reply_to, subject, message_id, reasons),
    )
    return row, text


def _people_text(contacts: Iterable[Contact]) -> str:
    names = (f"{contact['Name']} {contact['Address']}" for contact in contacts)
    return searchable(" ".join(names))[:_MAX_FIELD_CHARACTERS]


def write_index(tx: Transaction, facts: Mapping[str, ContentFacts]) -> None:
    """Write the rows of a batch of captured messages, but for those that have theirs."""
    rows = _lock_unindexed(tx, list(facts))
    queue_ids = [row.queue_id for row in rows]
    people = _recipients(tx, queue_ids)
    records = {
        row.queue_id: _record(row, people[row.queue_id], facts[row.queue_id]) for row in rows
    }
    _INSERT_INDEX.run(tx, [row for row, _ in records.values()])
    numbered = tx.execute(
        select(_I.index_no, _I.queue_id).where(_I.queue_id.in_(queue_ids)).order_by(_I.index_no)
    ).all()
    kept = {queue_id: _written_facts(facts[queue_id]) for queue_id in queue_ids}
    _INSERT_FACTS.run(tx, [(number, kept[queue_id]) for number, queue_id in numbered])
    texts = [(number, records[queue_id][1]) for number, queue_id in numbered]
    _INSERT_TEXT.run(tx, texts)
    FULL_TEXT.add(tx, texts)
    mine = message.update().where(message.c.queue_id.in_(queue_ids))
    tx.execute(mine.values(indexed_at_ms=tx.now_ms()))


def _lock_unindexed(tx: Transaction, queue_ids: Sequence[str]) -> list[Any]:
    mine = select(message).where(message.c.queue_id.in_(queue_ids), IS_UNINDEXED)
    found = tx.execute(mine.order_by(message.c.queue_id).with_for_update())
    # the number that a row gets says how new it is
    return sorted(found, key=lambda row: (row.captured_at_ms, row.queue_id))


def _recipients(tx: Transaction, queue_ids: Sequence[str]) -> dict[str, list[Any]]:
    mine = select(recipient).where(recipient.c.queue_id.in_(queue_ids))
    found: dict[str, list[Any]] = defaultdict(list)
    for row in tx.execute(mine.order_by(*recipient.primary_key)):
        found[row.queue_id].append(row)
    return found


def facts_of(tx: Transaction, queue_ids: Sequence[str]) -> dict[str, ContentFacts]:
    """Return the rows kept of messages, by queue id."""
    of_number = captured_facts.c.index_no == _I.index_no
    query = select(_I.queue_id, captured_facts.c.facts).join_from(
        captured_index, captured_facts, of_number
    )
    rows = rows_in(tx, query, _I.queue_id, queue_ids)
    return {queue_id: _read_facts(text) for queue_id, text in rows}


def _written_facts(facts: ContentFacts) -> str:
    values = asdict(replace(facts, words=""))
    del values["tags"]  # the message has them
    return json.dumps(values)


def _read_facts(text: str) -> ContentFacts:
    values: dict[str, Any] = json.loads(text)
    lists: dict[str, Any] = {name: tuple(values.pop(name)) for name in _LISTS}
    return ContentFacts(**values, **lists)


def forget_captured(tx: Transaction, queue_ids: Sequence[str]) -> None:
    """Delete what belongs to captured mail that was deleted, or that left the sandbox."""
    for batch in in_batches(queue_ids):
        mine = select(_I.index_no).where(_I.queue_id.in_(batch))
        numbers = list(tx.execute(mine).scalars())
        for kept in (captured_facts, captured_text, captured_index):
            tx.execute(delete(kept).where(kept.c.index_no.in_(numbers)))
        FULL_TEXT.remove(tx, numbers)
        tx.execute(delete(captured_tag).where(captured_tag.c.queue_id.in_(batch)))


def stray_index_rows(tx: Transaction, *, limit: int) -> list[str]:
    """Return messages that left rows here when an older version of this program deleted them."""
    of_captured = exists().where(
        message.c.queue_id == _I.queue_id, message.c.captured_at_ms.is_not(None)
    )
    query = select(_I.queue_id).where(~of_captured).limit(limit)
    return list(tx.execute(query).scalars())


# --- searches -----------------------------------------------------------------------------


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
    conditions = (*(_condition(tx, term) for term in others), *([false()] * search.is_void))
    rows = Matching(captured_index, conditions, _I.index_no)
    if FULL_TEXT.is_there(tx):
        long = [term for term in texts if len(term.text) >= MIN_CHARACTERS]
        texts = [term for term in texts if term not in long]
        rows = _by_full_text(rows, long)
    return _by_reading(tx, rows, texts)


def _by_full_text(rows: Matching, terms: Sequence[Term]) -> Matching:
    wanted = [f'"{term.text}"' for term in terms if not term.is_negated]
    unwanted = [f'"{term.text}"' for term in terms if term.is_negated]
    if wanted:
        found = FULL_TEXT.matches(" NOT ".join([" AND ".join(wanted), *unwanted]))
        source = rows.source.join(FULL_TEXT.table, FULL_TEXT.rowid == _I.index_no)
        return Matching(source, (*rows.conditions, found), FULL_TEXT.rowid)
    if unwanted:
        found = FULL_TEXT.matches(" OR ".join(unwanted))
        not_there = _I.index_no.not_in(select(FULL_TEXT.rowid).where(found))
        return replace(rows, conditions=(*rows.conditions, not_there))
    return rows


def _by_reading(tx: Transaction, rows: Matching, terms: Sequence[Term]) -> Matching:
    if not terms:
        return rows
    source = rows.source.join(captured_text, captured_text.c.index_no == _I.index_no)
    found = (stands_in_text(tx, term) for term in terms)
    return replace(rows, source=source, conditions=(*rows.conditions, *found))


def _condition(tx: Transaction, term: Term) -> ColumnElement[bool]:
    found = condition_on_captured(tx, term)
    return ~found if term.is_negated else found


def condition_on_captured(tx: Transaction, term: Term) -> ColumnElement[bool]:
    """Return the condition on captured_index that a term says, negated or not."""
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


def stands_in_text(tx: Transaction, term: Term) -> ColumnElement[bool]:
    """Return the condition on captured_text that a term holds."""
    found: ColumnElement[bool]
    if not tx.is_postgres:
        found = contains(tx, captured_text.c.search_text, term.text)
    else:  # only LIKE can use the index
        literal = term.text.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
        found = captured_text.c.search_text.like(f"%{literal}%")
    return ~found if term.is_negated else found


def contains(tx: Transaction, text: ColumnElement[str], part: str) -> ColumnElement[bool]:
    """Return the condition that `part` stands in `text`, letter by letter."""
    find = func.instr if not tx.is_postgres else func.strpos
    return find(text, part) > 0
