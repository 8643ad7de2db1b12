"""What is written of one captured message for searches and lists; pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any

from relaygw.mail.content_facts import Contact, ContentFacts, hidden_recipients
from relaygw.mail.search import searchable
from relaygw.mail.state import RecipientState
from relaygw.store.batch import Row

MAX_TEXT_CHARACTERS = 16_000
"""How much of a message is searched for words."""
INDEX_COLUMNS = (
    "queue_id",
    "captured_at_ms",
    "size_bytes",
    "is_unread",
    "attachments",
    "inlines",
    "from_text",
    "to_text",
    "cc_text",
    "bcc_text",
    "reply_to_text",
    "subject_text",
    "message_id_text",
    "reason_text",
)

_MAX_FIELD_CHARACTERS = 64_000
_MAX_HEAD_CHARACTERS = 8_000
_LISTS = ("to", "cc", "bcc", "reply_to")


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
        return f"{head[:_MAX_HEAD_CHARACTERS]}\n{words}"[:MAX_TEXT_CHARACTERS]

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
