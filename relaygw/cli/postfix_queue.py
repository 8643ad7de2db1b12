"""The queue as mailq and postqueue print it, for scripts that read those."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

import click

from relaygw.cli.selection import PAGE_MESSAGES
from relaygw.cli.text import as_json
from relaygw.mail.clock import clock_ms
from relaygw.mail.drop import QUEUE_EMPTY
from relaygw.mail.hold import sender_domain
from relaygw.mail.state import CLAIMABLE, OPEN, DeliveryState, RecipientState
from relaygw.store.queue_entry import QueueEntry, Waiting, WaitingRecipient, Way
from relaygw.store.store import Store


def all_waiting(store: Store) -> Iterator[Waiting]:
    """Yield all messages that wait, oldest first."""
    after = ""
    while page := store.queue.waiting(limit=PAGE_MESSAGES, after=after):
        yield from page
        after = page[-1].queue_id


def as_waiting(entry: QueueEntry) -> Waiting:
    """Return a message as it waits."""
    parts = {part.delivery_no: part for part in entry.deliveries}
    recipients = []
    domain, now_ms = sender_domain(entry.sender), clock_ms()
    for recipient in entry.recipients:
        part = parts[recipient.delivery_no]
        if recipient.state is RecipientState.PENDING and part.state in OPEN:
            said = part.reason if part.state is DeliveryState.HELD else recipient.reply
            provider = part.provider if part.is_in_doubt else None
            way = Way(part.route, domain, provider, part.due_at_ms <= now_ms)
            why = said or part.reason or ""
            waits = part.state in CLAIMABLE
            recipients.append(WaitingRecipient(recipient.address, why, way if waits else None))
    return Waiting(
        queue_id=entry.queue_id,
        accepted_at_ms=entry.accepted_at_ms,
        size_bytes=entry.size_bytes,
        sender=entry.sender,
        states=frozenset(part.state.value for part in entry.deliveries if part.state in OPEN),
        recipients=tuple(recipients),
    )


def print_mailq(messages: Iterable[Waiting]) -> None:
    """Print messages as mailq does."""
    from relaygw.inbound.queue_listing import HEADINGS, compose_closing, compose_rows

    sys.stdout.flush()
    stdout = sys.stdout.buffer
    number = size_bytes = 0
    for message in messages:
        if not number:
            stdout.write(HEADINGS)
        stdout.write(compose_rows(message))
        number += 1
        size_bytes += message.size_bytes
    stdout.write(compose_closing(messages=number, size_bytes=size_bytes) if number else QUEUE_EMPTY)
    stdout.flush()


def print_postqueue(messages: Iterable[Waiting]) -> None:
    """Print messages as `postqueue -j` does: JSON, one a line."""
    from relaygw.inbound.queue_listing import NULL_SENDER

    for message in messages:
        recipients = [
            {"address": address, "delay_reason": why} if why else {"address": address}
            for address, why, _ in message.recipients
        ]
        shown = {
            "queue_name": _queue_name(message.states),
            "queue_id": message.queue_id,
            "arrival_time": message.accepted_at_ms // 1000,
            "message_size": message.size_bytes,
            "forced_expire": False,
            "sender": message.sender or NULL_SENDER,
            "recipients": recipients,
        }
        click.echo(as_json(shown))


def _queue_name(states: frozenset[str]) -> str:
    if DeliveryState.ACTIVE in states:
        return "active"
    if states == {DeliveryState.HELD.value}:
        return "hold"
    return "deferred" if DeliveryState.DEFERRED in states else "incoming"
