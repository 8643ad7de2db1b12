"""A captured message as a line of the list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

from relaygw.mail.content_facts import Contact, ContentFacts, hidden_recipients
from relaygw.store.captured import CapturedEntry
from relaygw.web import words
from relaygw.web.sandbox.filters import list_path, message_path, tag_term

TAG_COLOURS = 6
_MAX_SHOWN_TAGS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    """A tag, the search for it, and which of the colours it has."""

    name: str
    path: str
    colour: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a line says."""

    queue_id: str
    path: str
    is_read: bool
    to: str
    to_title: str
    sender: str
    subject: str
    snippet: str
    tags: tuple[Tag, ...]
    more_tags: int
    reason: str
    attachments: int
    size: str
    age: str
    at: str  # for machines
    exact: str


def make_rows(found: Sequence[CapturedEntry], query: str, *, now: int) -> list[Row]:
    """Return the lines of messages that a search found."""
    return [make_row(one, query, now=now) for one in found]


def make_row(one: CapturedEntry, query: str, *, now: int) -> Row:
    """Return the line of a message; it leads back to the search that found it."""
    entry = one.entry
    facts = one.facts or ContentFacts()
    to = recipients_of(one)
    at_ms = entry.captured_at_ms or entry.accepted_at_ms
    return Row(
        queue_id=entry.queue_id,
        path=message_path(entry.queue_id, query),
        is_read=entry.read_at_ms is not None,
        to=_shortened(to),
        to_title=", ".join(map(_whole, to[:20])),
        sender=_name(facts.sender) or entry.sender or "<> (no sender)",
        subject=entry.subject or "(no subject)",
        snippet=facts.snippet,
        tags=tuple(make_tag(tag) for tag in one.tags[:_MAX_SHOWN_TAGS]),
        more_tags=max(0, len(one.tags) - _MAX_SHOWN_TAGS),
        reason=", ".join(words.capture_reasons(entry)),
        attachments=facts.attachments,
        size=words.size(entry.size_bytes),
        age=words.age(at_ms, now),
        at=words.iso_time(at_ms),
        exact=words.exact_time(at_ms),
    )


def make_tag(name: str) -> Tag:
    """Return a tag; the same name always has the same colour."""
    colour = crc32(name.lower().encode("utf-8", "replace")) % TAG_COLOURS
    return Tag(name=name, path=list_path(tag_term(name)), colour=colour)


def recipients_of(one: CapturedEntry) -> list[Contact]:
    """Return whom a message names and whom its envelope adds."""
    facts = one.facts or ContentFacts()
    envelope = [(each.address, each.original) for each in one.entry.recipients]
    return [*facts.to, *facts.cc, *hidden_recipients(facts, envelope)]


def _shortened(contacts: Sequence[Contact]) -> str:
    if not contacts:
        return "(nobody)"
    first = contacts[0]["Address"] or contacts[0]["Name"]
    return first if len(contacts) == 1 else f"{first} +{len(contacts) - 1}"


def _name(contact: Contact) -> str:
    return contact["Name"] or contact["Address"]


def _whole(contact: Contact) -> str:
    name, address = contact["Name"], contact["Address"]
    return f"{name} <{address}>" if name and address else name or address
