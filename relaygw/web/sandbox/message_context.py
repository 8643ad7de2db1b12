"""What the page of a message says: above and beside each view, and in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from relaygw.mail.content_facts import Contact, ContentFacts, hidden_recipients, nobody
from relaygw.store.captured import CapturedEntry
from relaygw.web import words
from relaygw.web.mail.mime_header import decode_words, read_addresses
from relaygw.web.mail.mime_tree import MimeTree
from relaygw.web.sandbox.rows import make_tag

_MAX_CONTACTS = 50


def envelope_context(found: CapturedEntry, tree: MimeTree) -> dict[str, Any]:
    """Return what stands above and beside each view."""
    entry = found.entry
    facts = _people(tree)
    envelope = [(one.address, one.original) for one in entry.recipients]
    at_ms = entry.captured_at_ms or entry.accepted_at_ms
    local = words.local_time(at_ms)
    return {
        "entry": entry,
        "subject": entry.subject,
        "sender": facts.sender,
        "contacts": [
            ("To", facts.to[:_MAX_CONTACTS], len(facts.to) - _MAX_CONTACTS),
            ("Cc", facts.cc[:_MAX_CONTACTS], len(facts.cc) - _MAX_CONTACTS),
            *_hidden(hidden_recipients(facts, envelope)),
            ("Reply-To", facts.reply_to[:_MAX_CONTACTS], 0),
        ],
        "date": decode_words(tree.first("Date")),
        "tags": [make_tag(tag) for tag in found.tags],
        "tag_names": list(found.tags),
        "reasons": words.capture_reasons(entry),
        "size": words.size(entry.size_bytes),
        "captured": words.exact_time(at_ms),
        "captured_iso": words.iso_time(at_ms),
        "stamp": (f"{local.day} {local:%b %Y}".upper(), f"{local:%H:%M}"),
        "was_read": words.exact_time(entry.read_at_ms) if entry.read_at_ms else "",
    }


def _people(tree: MimeTree) -> ContentFacts:
    """Return whom the header names; unlike what the store keeps, of a message not read yet, too."""

    def named(field: str) -> tuple[Contact, ...]:
        return tuple(read_addresses(tree.first(field)))

    return ContentFacts(
        sender=next(iter(named("From")), nobody()),
        to=named("To"),
        cc=named("Cc"),
        bcc=named("Bcc"),
        reply_to=named("Reply-To"),
    )


def _hidden(contacts: list[Contact]) -> Iterator[tuple[str, list[Contact], int]]:
    yield "Bcc", contacts[:_MAX_CONTACTS], len(contacts) - _MAX_CONTACTS
