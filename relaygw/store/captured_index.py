"""What searches of captured mail look at: rows beside messages, made anew from their content.

A message's row is locked before its index row, also by those who delete both: an index row never
outlives its message, and both say the same of whether it was opened.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from sqlalchemy import delete, exists, select

from relaygw.mail.content_facts import Contact, ContentFacts, hidden_recipients
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

_MAX_SEARCHED_CHARACTERS = 16_000  # how much of a message is searched for words
_MAX_FIELD_CHARACTERS = 64_000
_MAX_HEAD_CHARACTERS = 8_000
_LISTS = ("to", "cc", "bcc", "reply_to")

FULL_TEXT = FullText("captured_fts", captured_index)
_I = captured_index.c
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
