"""Captured messages for tests of what stores make of them."""

from __future__ import annotations

from typing import Any

from relaygw.mail.content_facts import Contact, ContentFacts
from relaygw.mail.envelope import NewRecipient
from relaygw.mail.search import EVERYTHING, parse_search
from relaygw.mail.state import RecipientState
from relaygw.store.audit import AuditEntry
from relaygw.store.store import Store
from tests.builders import NOW_MS, accepted

AUDITED = AuditEntry(
    at_ms=NOW_MS, actor="ann", action="sandbox.delete", target="", affected=0, detail=""
)


def contact(address: str, name: str = "") -> Contact:
    return Contact(Name=name, Address=address)


def capture(
    store: Store, *recipients: str | NewRecipient, reason: str = "sandbox mode", **more: Any
) -> str:
    """Store a captured message and return its id."""
    entries = [
        NewRecipient(address=entry, state=RecipientState.CAPTURED, reason=reason)
        if isinstance(entry, str)
        else entry
        for entry in recipients or ("b@cust.test",)
    ]
    message = accepted(*entries, **more)
    store.intake.accept_batch([message])
    return message.queue_id


def indexed(
    store: Store, *recipients: str | NewRecipient, facts: ContentFacts | None = None, **more: Any
) -> str:
    """Store a captured message whose content was read, and return its id."""
    queue_id = capture(store, *recipients, **more)
    store.sandbox.index({queue_id: facts or ContentFacts()})
    return queue_id


def found(store: Store, query: str) -> list[str]:
    """Return the ids that a search finds, after a look at whether all its ways agree."""
    search = parse_search(query)
    ids = [one.entry.queue_id for one in store.sandbox.find_captured(search, start=0, limit=1000)]
    assert store.sandbox.count_captured(search)[0] == len(ids)
    assert store.sandbox.captured_ids(search, limit=1000) == sorted(ids)
    return ids


def listed(store: Store) -> list[str]:
    """Return the ids of the list without conditions."""
    return [
        one.entry.queue_id for one in store.sandbox.find_captured(EVERYTHING, start=0, limit=1000)
    ]
