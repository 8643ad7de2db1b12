"""A queued message as an object for JSON: `--json` of the command line and the API alike.

The names of the fields are fixed: scripts rely on them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from relaygw.mail.clock import rfc3339, rfc3339_or_none
from relaygw.mail.result import SHOWN, WORST_FIRST, shown_result
from relaygw.mail.state import CLAIMABLE, OPEN, DeliveryState, RecipientState
from relaygw.mail.words import fields
from relaygw.store.queue_entry import DeliveryEntry, QueueEntry, RecipientEntry
from relaygw.store.reports import Report

UNFINISHED = tuple(state for state in DeliveryState if state in OPEN)
"""In the order in which they are shown: the least finished first."""
_RANKS = {result: n for n, result in enumerate((RecipientState.PENDING.value, *WORST_FIRST))}
_LEAST_FINISHED = (*UNFINISHED, DeliveryState.DELETED, DeliveryState.FINISHED)


def leading_delivery(entry: QueueEntry) -> DeliveryEntry:
    """Return the least finished delivery, which stands for the whole message."""
    return min(entry.deliveries, key=lambda part: _LEAST_FINISHED.index(part.state))


def shown_state(entry: QueueEntry) -> str:
    """Return the state of a message in a word; finished it may be captured."""
    state = leading_delivery(entry).state
    is_captured = any(recipient.state is RecipientState.CAPTURED for recipient in entry.recipients)
    return "captured" if state is DeliveryState.FINISHED and is_captured else state.value


def standing(entry: QueueEntry) -> str:
    """Return the state of a message, of a finished one its results: `2 delivered, 1 bounced`."""
    results = results_of(entry)
    if not results:
        return leading_delivery(entry).state.value
    if len(results) == 1:
        return next(iter(results))
    return ", ".join(f"{number} {result}" for result, number in results.items())


def shown_recipient(entry: QueueEntry) -> RecipientEntry | None:
    """Return whom a line of a list names: the first who waits, else with whom it went worst."""
    return min(entry.recipients, key=rank, default=None)


def rank(recipient: RecipientEntry) -> int:
    """Return a recipient's place among others: who waits, then with whom it went worst."""
    return _RANKS[result_of(recipient)]


def result_of(recipient: RecipientEntry) -> str:
    """Return the result of a recipient in a word."""
    return shown_result(recipient.state, recipient.verdict)


def results_of(entry: QueueEntry) -> dict[str, int]:
    """Return how many recipients of a finished message came to which result; else nothing."""
    if leading_delivery(entry).state is not DeliveryState.FINISHED:
        return {}
    numbers = Counter(map(result_of, entry.recipients))
    return {result: numbers[result] for result in SHOWN if numbers[result]}


def next_attempt_at_ms(part: DeliveryEntry) -> int | None:
    """Return when a delivery is due, None when no timer runs for it."""
    return part.due_at_ms if part.state in CLAIMABLE else None


def queue_object(entry: QueueEntry) -> dict[str, Any]:
    """Return a message; it has the state, route and stream of its least finished delivery."""
    leading = leading_delivery(entry)
    parts = {part.delivery_no: part for part in entry.deliveries}
    return {
        "queue_id": entry.queue_id,
        **fields(leading, "state", "stream", "route"),
        "sender": entry.sender,
        "recipients": [
            _recipient(recipient, parts[recipient.delivery_no]) for recipient in entry.recipients
        ],
        **fields(entry, "subject", "size_bytes"),
        "accepted_at": rfc3339(entry.accepted_at_ms),
        "source": fields(
            entry.source, "client", "user", "listener", "uid", "script", "helo", "cwd", "host"
        ),
        "attempts": leading.attempts,
        "next_attempt_at": rfc3339_or_none(next_attempt_at_ms(leading)),
        "reason": leading.reason,
        **fields(entry, "message_id", "mode"),
        "captured_at": rfc3339_or_none(entry.captured_at_ms),
    }


def _recipient(recipient: RecipientEntry, part: DeliveryEntry) -> dict[str, Any]:
    waits = recipient.state is RecipientState.PENDING
    return {
        **fields(recipient, "address", "original", "state", "provider", "reply", "dsn", "attempts"),
        "next_attempt_at": rfc3339_or_none(next_attempt_at_ms(part)) if waits else None,
        "route": part.route,
        "released": part.released,
        "verdict": recipient.verdict,
        "verdict_at": rfc3339_or_none(recipient.verdict_at_ms),
    }


def shown_object(
    entry: QueueEntry, reports: Iterable[Report], *, is_raw: bool = True
) -> dict[str, Any]:
    """Return a message with what was reported of it after a provider's 250.

    `is_raw`: the reports as they came, too.
    """
    return {**queue_object(entry), "events": [_event(report, is_raw=is_raw) for report in reports]}


def _event(report: Report, *, is_raw: bool) -> dict[str, Any]:
    return {
        **fields(report, "kind", "provider", "address", "dsn", "detail"),
        "at": rfc3339(report.at_ms),
        "received_at": rfc3339(report.received_at_ms),
        "raw": report.raw if is_raw else None,
    }
