"""What searches look at: rows beside captured messages, written once their content was read.

They can be made anew from the content, so nothing here is synced by itself. A message's row is
locked before its index row is touched, also by those who delete both: an index row never
outlives its message, and both say the same of whether it was opened.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any

from sqlalchemy import delete, exists, select, update

from relaygw.mail.content import Contact, ContentFacts, hidden_recipients
from relaygw.mail.search import searchable
from relaygw.mail.state import RecipientState
from relaygw.store.captured_search import add_full_text, remove_full_text
from relaygw.store.database import Row, Transaction, insert_into
from relaygw.store.queue_entry import in_batches
from relaygw.store.tables import (
    IS_UNINDEXED,
    captured_facts,
    captured_index,
    captured_tag,
    captured_text,
    message,
    recipient,
)

_MAX_SEARCHED_CHARACTERS = 16_000
"""How much of a message is searched for words."""
_MAX_FIELD_CHARACTERS = 64_000
_MAX_HEAD_CHARACTERS = 8_000
_LISTS = ("to", "cc", "bcc", "reply_to")
_INSERT_INDEX = insert_into(
    "captured_index",
    "queue_id captured_at_ms size_bytes is_unread attachments inlines from_text to_text cc_text"
    " bcc_text reply_to_text subject_text message_id_text reason_text",
)
_INSERT_TEXT = insert_into("captured_text", "index_no search_text")
_INSERT_FACTS = insert_into("captured_facts", "index_no facts")


class IndexRecord:
    """Made of rows of `message` and `recipient`, and of what the content says."""

    def __init__(self, message: Any, recipients: Sequence[Any], facts: ContentFacts) -> None:
        self._message = message
        self._recipients = recipients
        self._facts = facts
        envelope = [(one.address, one.original) for one in recipients]
        self._from = _people_text((facts.sender,))
        self._to = _people_text(facts.to)
        self._cc = _people_text(facts.cc)
        self._bcc = _people_text(hidden_recipients(facts, envelope))
        self._reply_to = _people_text(facts.reply_to)
        self._subject = searchable(message.subject)
        self._message_id = searchable(message.message_id)

    def index_row(self) -> Row:
        """Return the values of INDEX_COLUMNS."""
        message, facts = self._message, self._facts
        reasons = {
            one.reply or ""
            for one in self._recipients
            if one.state == RecipientState.CAPTURED.value
        }
        return (
            message.queue_id,
            message.captured_at_ms,
            message.size_bytes,
            message.read_at_ms is None,
            facts.attachments,
            facts.inlines,
            self._from,
            self._to,
            self._cc,
            self._bcc,
            self._reply_to,
            self._subject,
            self._message_id,
            searchable(" ".join(sorted(reasons))),
        )

    @cached_property
    def search_text(self) -> str:
        """What is searched for words: a line for each field, so that no phrase runs over two."""
        named = f"{self._to} {self._cc} {self._bcc}"
        addresses = [searchable(one.address) for one in self._recipients]  # where rewritten
        envelope = [self._message.sender, *(one for one in addresses if one not in named)]
        head = "\n".join(
            (
                self._subject,
                self._message_id,
                self._from,
                self._reply_to,
                self._to,
                self._cc,
                self._bcc,
                searchable(" ".join(envelope)),
            )
        )
        words = searchable(self._facts.words)
        return f"{head[:_MAX_HEAD_CHARACTERS]}\n{words}"[:_MAX_SEARCHED_CHARACTERS]

    def facts_text(self) -> str:
        """Return what `read_facts` reads: the facts without the words."""
        return json.dumps(asdict(replace(self._facts, words="")))


def read_facts(text: str) -> ContentFacts:
    """Return facts as they were kept."""
    values: dict[str, Any] = json.loads(text)
    lists: dict[str, Any] = {name: tuple(values.pop(name)) for name in _LISTS}
    return ContentFacts(**values, **lists)


def _people_text(contacts: Iterable[Contact]) -> str:
    names = (f"{contact['Name']} {contact['Address']}" for contact in contacts)
    return searchable(" ".join(names))[:_MAX_FIELD_CHARACTERS]


def write_index(tx: Transaction, facts: Mapping[str, ContentFacts]) -> None:
    """Write the rows of a batch of captured messages, but for those that have theirs."""
    rows = _lock_unindexed(tx, list(facts))
    queue_ids = [row.queue_id for row in rows]
    people = _recipients(tx, queue_ids)
    records = {
        row.queue_id: IndexRecord(row, people[row.queue_id], facts[row.queue_id]) for row in rows
    }
    _INSERT_INDEX.run(tx, [record.index_row() for record in records.values()])
    numbers = _numbers(tx, queue_ids)
    texts = [(number, records[queue_id].search_text) for number, queue_id in numbers]
    _INSERT_FACTS.run(
        tx, [(number, records[queue_id].facts_text()) for number, queue_id in numbers]
    )
    _INSERT_TEXT.run(tx, texts)
    add_full_text(tx, texts)
    tx.execute(
        update(message).where(message.c.queue_id.in_(queue_ids)).values(indexed_at_ms=tx.now_ms())
    )


def _lock_unindexed(tx: Transaction, queue_ids: Sequence[str]) -> list[Any]:
    found = tx.execute(
        select(message)
        .where(message.c.queue_id.in_(queue_ids), IS_UNINDEXED)
        .order_by(message.c.queue_id)
        .with_for_update()
    )
    # the number that a row gets says how new it is
    return sorted(found, key=lambda row: (row.captured_at_ms, row.queue_id))


def _numbers(tx: Transaction, queue_ids: Sequence[str]) -> list[tuple[int, str]]:
    rows = tx.execute(
        select(captured_index.c.index_no, captured_index.c.queue_id)
        .where(captured_index.c.queue_id.in_(queue_ids))
        .order_by(captured_index.c.index_no)
    )
    return [(number, queue_id) for number, queue_id in rows]


def _recipients(tx: Transaction, queue_ids: Sequence[str]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = defaultdict(list)
    for row in tx.execute(
        select(recipient)
        .where(recipient.c.queue_id.in_(queue_ids))
        .order_by(recipient.c.queue_id, recipient.c.rcpt_no)
    ):
        found[row.queue_id].append(row)
    return found


def facts_of(tx: Transaction, queue_ids: Sequence[str]) -> dict[str, ContentFacts]:
    """Return what is kept of messages, by queue id."""
    of_number = captured_facts.c.index_no == captured_index.c.index_no
    query = select(captured_index.c.queue_id, captured_facts.c.facts).join_from(
        captured_index, captured_facts, of_number
    )
    found: dict[str, ContentFacts] = {}
    for batch in in_batches(queue_ids):
        rows = tx.execute(query.where(captured_index.c.queue_id.in_(batch)))
        found |= {queue_id: read_facts(text) for queue_id, text in rows}
    return found


def forget_captured(tx: Transaction, queue_ids: Sequence[str]) -> None:
    """Delete what belongs to captured mail that was deleted, or that left the sandbox."""
    for batch in in_batches(queue_ids):
        numbers = list(
            tx.execute(
                select(captured_index.c.index_no).where(captured_index.c.queue_id.in_(batch))
            ).scalars()
        )
        for table in (captured_facts, captured_text, captured_index):
            tx.execute(delete(table).where(table.c.index_no.in_(numbers)))
        remove_full_text(tx, numbers)
        tx.execute(delete(captured_tag).where(captured_tag.c.queue_id.in_(batch)))


def stray_index_rows(tx: Transaction, *, limit: int) -> list[str]:
    """Return messages that left rows here when an older version of this program deleted them."""
    of_captured = exists().where(
        message.c.queue_id == captured_index.c.queue_id, message.c.captured_at_ms.is_not(None)
    )
    query = select(captured_index.c.queue_id).where(~of_captured).limit(limit)
    return list(tx.execute(query).scalars())
