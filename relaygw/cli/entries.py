"""A message as a row of a list, and told in full; what is JSON as one line."""

from __future__ import annotations

import json
from collections.abc import Iterator

from relaygw.cli.text import age, counted, cut, fitted, labelled, moment, size
from relaygw.mail.envelope import Released
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.operations.queue_object import leading_delivery, next_attempt_at_ms
from relaygw.store.protocol import DeliveryEntry, QueueEntry, RecipientEntry

_ID_CELLS, _AGE_CELLS, _STATE_CELLS, _SIZE_CELLS = 17, 4, 8, 5
_RELEASED_WORDS = {
    Released.ALLOWED.value: "from the sandbox, to addresses that may have it",
    Released.ANYONE.value: "from the sandbox, outside of the allow list",
}
_FIXED_CELLS = _ID_CELLS + _AGE_CELLS + _STATE_CELLS + _SIZE_CELLS + 6  # with the spaces
_MIN_REST_CELLS = 30
_MAX_SUBJECT_CELLS = 320


def as_json(value: object) -> str:
    """Return one line of JSON in ASCII, which no terminal and no encoding can spoil."""
    return json.dumps(value, separators=(",", ":"))


def _columns(width: int) -> tuple[int, int, int]:
    """Share what the fixed columns leave among sender, recipients and subject."""
    rest = max(width - _FIXED_CELLS, _MIN_REST_CELLS)
    sender = recipients = rest // 3
    return sender, recipients, rest - sender - recipients


def head_row(width: int) -> str:
    """Return the headings above the rows of `row`."""
    sender, recipients, _ = _columns(width)
    return (
        f"{'QUEUE ID':<{_ID_CELLS}} {'AGE':>{_AGE_CELLS}} {'STATE':<{_STATE_CELLS}} "
        f"{'SIZE':>{_SIZE_CELLS}} {'SENDER':<{sender}} {'RECIPIENTS':<{recipients}} SUBJECT"
    )


def row(entry: QueueEntry, now_ms: int, *, width: int) -> str:
    """Return a message on one line of at most `width` cells (never under 70)."""
    sender, recipients, subject = _columns(width)
    state = leading_delivery(entry).state
    shown_state = "captured" if _is_captured_only(entry) else state.value
    return (
        f"{fitted(entry.queue_id, _ID_CELLS)} {age(now_ms - entry.accepted_at_ms):>{_AGE_CELLS}} "
        f"{fitted(shown_state, _STATE_CELLS)} {size(entry.size_bytes):>{_SIZE_CELLS}} "
        f"{fitted(entry.sender or '<>', sender)} {_shown_recipients(entry, recipients)} "
        f"{fitted(entry.subject, subject)}"
    ).rstrip()


def _is_captured_only(entry: QueueEntry) -> bool:
    is_over = leading_delivery(entry).state is DeliveryState.FINISHED
    return is_over and any(one.state is RecipientState.CAPTURED for one in entry.recipients)


def _shown_recipients(entry: QueueEntry, width: int) -> str:
    """Return the first recipient, those who still wait before others, and how many more."""
    waiting = [one for one in entry.recipients if one.state is RecipientState.PENDING]
    first = (waiting or entry.recipients)[0].address
    more = f" +{len(entry.recipients) - 1}" if len(entry.recipients) > 1 else ""
    return fitted(fitted(first, width - len(more)).rstrip() + more, width)


def story(entry: QueueEntry, now_ms: int) -> Iterator[str]:
    """Yield the lines that tell all about a message."""
    leading = leading_delivery(entry)
    yield _told("queue id", entry.queue_id)
    yield _told("state", leading.state.value)
    yield _told("sender", entry.sender or "<> (the null sender)")
    yield _told("subject", cut(entry.subject, _MAX_SUBJECT_CELLS) or "(none)")
    yield _told("message-id", entry.message_id)
    yield _told("size", f"{counted(entry.size_bytes, 'byte')}{_content_note(entry)}")
    yield _told("accepted", f"{moment(entry.accepted_at_ms, now_ms)}, in mode {entry.mode}")
    yield _told("source", _shown_source(entry))
    if entry.captured_at_ms is not None:
        yield _told("captured", moment(entry.captured_at_ms, now_ms))
    for part in entry.deliveries:
        yield ""
        yield from _delivery_story(entry, part, now_ms)


def _content_note(entry: QueueEntry) -> str:
    return "" if entry.chunk_count else ", content no longer kept"


def _shown_source(entry: QueueEntry) -> str:
    source = entry.source
    facts = {
        "host": source.host,
        "client": source.client,
        "HELO": source.helo,
        "user": source.user,
        "listener": source.listener,
        "uid": source.uid,
        "script": source.script,
        "directory": source.cwd,
    }
    return ", ".join(f"{name} {fact}" for name, fact in facts.items() if fact is not None) or "-"


def _delivery_story(entry: QueueEntry, part: DeliveryEntry, now_ms: int) -> Iterator[str]:
    yield _told("route", f"{part.route} ({part.stream}): {part.state.value}")
    if part.released:
        yield _told("released", _RELEASED_WORDS.get(part.released, part.released), indent=2)
    if part.provider:
        yield _told("provider", part.provider, indent=2)
    if part.attempts:
        yield _told("attempts", str(part.attempts), indent=2)
    due_at_ms = next_attempt_at_ms(part)
    if due_at_ms is not None:
        yield _told("next try", moment(due_at_ms, now_ms), indent=2)
    if part.reason:
        yield _told("reason", part.reason, indent=2)
    for one in entry.recipients:
        if one.delivery_no == part.delivery_no:
            yield from _recipient_story(one, now_ms)


def _recipient_story(one: RecipientEntry, now_ms: int) -> Iterator[str]:
    given = f" (given as {one.original})" if one.original else ""
    yield _told("to", f"{one.address}{given}: {one.state.value}", indent=2)
    if one.reply:
        who = f"{one.provider}: " if one.provider else ""
        status = f" [{one.dsn}]" if one.dsn else ""
        at = moment(one.changed_at_ms, now_ms)
        yield _told("", f"{who}{one.reply}{status}, {at}")


def _told(label: str, text: str, *, indent: int = 0) -> str:
    return labelled(label, text, indent=indent, breaks_words=True)
