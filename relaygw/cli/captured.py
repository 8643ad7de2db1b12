"""The captured messages that the options of a call choose."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice

from relaygw.cli.selecting import PAGE_MESSAGES, Choice, found
from relaygw.mail.search import parse_search
from relaygw.store.protocol import QueueEntry, Store

LATEST = "LATEST"
"""The id that stands for the newest captured message; ids are in upper case by then."""


def with_latest(store: Store, choice: Choice) -> Choice:
    """Return a choice with the newest captured message's id in the place of `latest`."""
    ids = choice.selection.queue_ids
    if LATEST not in ids:
        return choice
    newest = store.captured_entry(None)
    found_id = newest.entry.queue_id if newest is not None else LATEST.lower()
    named = dict.fromkeys(found_id if word == LATEST else word for word in ids)
    return replace(choice, selection=replace(choice.selection, queue_ids=tuple(named)))


def chosen(store: Store, choice: Choice) -> Iterator[QueueEntry]:
    """Yield the chosen messages: with ids whether captured or not, else captured ones.

    Captured ones come newest first. A search reads content that nobody has read yet before.
    """
    if choice.has_ids and not choice.search:
        return found(store, choice)
    return captured(store, choice)


def captured(store: Store, choice: Choice) -> Iterator[QueueEntry]:
    """Yield the chosen captured messages, the newest first."""
    if choice.search:
        from relaygw.web.indexing import Indexer

        Indexer(store).catch_up(within_s=None)
    return islice(
        (entry for entry in _pages(store, choice.search) if _is_chosen(entry, choice)),
        choice.limit,
    )


def _pages(store: Store, search: str) -> Iterator[QueueEntry]:
    wanted = parse_search(search)
    seen: set[str] = set()  # mail that arrives meanwhile moves the pages
    start = 0
    while page := store.find_captured(wanted, start=start, limit=PAGE_MESSAGES):
        for one in page:
            if one.entry.queue_id not in seen:
                seen.add(one.entry.queue_id)
                yield one.entry
        start += len(page)


def _is_chosen(entry: QueueEntry, choice: Choice) -> bool:
    wanted = choice.selection
    before_ms = wanted.accepted_before_ms
    return (
        (not choice.has_ids or entry.queue_id in wanted.queue_ids)
        and (not choice.is_null_sender or not entry.sender)
        and _contains([entry.sender], wanted.sender)
        and _contains([one.address for one in entry.recipients], wanted.recipient)
        and _contains([entry.subject], wanted.subject)
        and (before_ms is None or entry.accepted_at_ms < before_ms)
    )


def _contains(texts: Iterable[str], part: str | None) -> bool:
    return part is None or any(part.lower() in text.lower() for text in texts)
