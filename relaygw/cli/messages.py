"""Messages on stdout: lists of rows, single ones in full, as JSON, or their content."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice

import click

from relaygw.cli.frame import CommandFailed
from relaygw.cli.selection import Choice
from relaygw.cli.stderr import warn
from relaygw.cli.text import aligned, as_json, cut, fitted, labelled, moment, terminal_width
from relaygw.mail.clock import clock_ms
from relaygw.mail.envelope import Released, Source
from relaygw.mail.result import WORST_FIRST
from relaygw.mail.verdict import report_words
from relaygw.mail.words import age, counted, printable, size, some_of
from relaygw.operations.queue_object import (
    next_attempt_at_ms,
    queue_object,
    result_of,
    results_of,
    shown_object,
    shown_recipient,
    standing,
)
from relaygw.policy.story import Note, Outlook, Story
from relaygw.store.queue_entry import DeliveryEntry, QueueEntry
from relaygw.store.store import Store, read_content

_CELLS = (17, -4, 10, -5)  # of queue id, age, state and size
_WIDE = 100  # cells of a terminal that has room for several results
_MORE_CELLS = 14  # that they need
_RELEASED_WORDS = {
    Released.ALLOWED.value: "from the sandbox, to allowed addresses",
    Released.ANYONE.value: "from the sandbox, outside the allow list",
    Released.RESENT.value: "sent again by an operator; see relaygw queue explain for the first one",
}
_FIXED_CELLS = sum(map(abs, _CELLS)) + 6  # with the spaces
_MIN_REST_CELLS = 30
_MAX_SUBJECT_CELLS = 320
_INDENT = "  "
_MIN_WIDTH = 40
_SHOWN = 10


def _widths(width: int) -> tuple[int, ...]:
    more = _MORE_CELLS if width >= _WIDE else 0
    queue_id, age_cells, state, size_cells = _CELLS
    rest = max(width - _FIXED_CELLS - more, _MIN_REST_CELLS)
    texts = (rest // 3, rest // 3, rest - 2 * (rest // 3))
    return queue_id, age_cells, state + more, size_cells, *texts


def head_row(width: int) -> str:
    """Return the headings above the rows of `row`."""
    heads = ("QUEUE ID", "AGE", "STATE", "SIZE", "SENDER", "RECIPIENTS", "SUBJECT")
    return aligned(_widths(width), *heads)


def row(entry: QueueEntry, now_ms: int, *, width: int) -> str:
    """Return a message on one line of at most `width` cells (never under 70)."""
    widths = _widths(width)
    return aligned(
        widths,
        entry.queue_id,
        age(now_ms - entry.accepted_at_ms),
        _shown_state(entry, widths[2]),
        size(entry.size_bytes),
        entry.sender or "<>",
        _shown_recipients(entry, widths[5]),
        entry.subject,
    )


def _shown_state(entry: QueueEntry, width: int) -> str:
    text = standing(entry)
    if len(text) <= width:
        return text
    results = results_of(entry)
    worst = next(result for result in WORST_FIRST if result in results)
    return f"{worst} +{sum(results.values()) - results[worst]}"


def _shown_recipients(entry: QueueEntry, width: int) -> str:
    recipient = shown_recipient(entry)
    first = "" if recipient is None else recipient.address
    more = f" +{len(entry.recipients) - 1}" if len(entry.recipients) > 1 else ""
    return fitted(first, width - len(more)).rstrip() + more


def _told_in_full(entry: QueueEntry, now_ms: int) -> Iterator[str]:
    yield _told("queue id", entry.queue_id)
    yield _told("state", standing(entry))
    yield _told("sender", entry.sender or "<> (the null sender)")
    yield _told("subject", cut(entry.subject, _MAX_SUBJECT_CELLS) or "(none)")
    yield _told("message-id", entry.message_id)
    gone = "" if entry.chunk_count else ", content no longer kept"
    yield _told("size", f"{counted(entry.size_bytes, 'byte')}{gone}")
    yield _told("accepted", f"{moment(entry.accepted_at_ms, now_ms)}, in mode {entry.mode}")
    yield _told("source", _shown_source(entry.source))
    if entry.captured_at_ms is not None:
        yield _told("captured", moment(entry.captured_at_ms, now_ms))
    for part in entry.deliveries:
        yield ""
        yield from _delivery_story(entry, part, now_ms)


def _shown_source(source: Source) -> str:
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
    due_at_ms = next_attempt_at_ms(part)
    for label, text in (
        ("provider", part.provider),
        ("attempts", str(part.attempts) if part.attempts else ""),
        ("next try", "" if due_at_ms is None else moment(due_at_ms, now_ms)),
        ("reason", part.reason),
    ):
        if text:
            yield _told(label, text, indent=2)
    for recipient in entry.recipients:
        if recipient.delivery_no != part.delivery_no:
            continue
        given = f" (given as {recipient.original})" if recipient.original else ""
        yield _told("to", f"{recipient.address}{given}: {result_of(recipient)}", indent=2)
        if recipient.reply:
            who = f"{recipient.provider}: " if recipient.provider else ""
            status = f" [{recipient.dsn}]" if recipient.dsn else ""
            yield _told(
                "", f"{who}{recipient.reply}{status}, {moment(recipient.changed_at_ms, now_ms)}"
            )
        if recipient.verdict is not None and recipient.verdict_at_ms is not None:
            words = report_words(recipient.verdict)
            yield _told("", f"since then: {words}, {moment(recipient.verdict_at_ms, now_ms)}")


def _told(label: str, text: str, *, indent: int = 0) -> str:
    return labelled(label, text, indent=indent, breaks_words=True)


def check_one_form(**asked_for: bool) -> None:
    """Raise UsageError when several options say how to print, each by its name."""
    names = [f"--{name.replace('_', '-')}" for name, is_given in asked_for.items() if is_given]
    if len(names) > 1:
        raise click.UsageError(f"{' and '.join(names[:2])} cannot be used together; remove one")


def print_entries(entries: Iterable[QueueEntry], *, wants_json: bool) -> int:
    """Print messages as rows below their headings, or as JSON lines; return how many there were."""
    width, now_ms, number = terminal_width(), clock_ms(), 0
    for number, entry in enumerate(entries, 1):
        if wants_json:
            click.echo(as_json(queue_object(entry)))
            continue
        if number == 1:
            click.echo(head_row(width))
        click.echo(row(entry, now_ms, width=width))
    return number


def print_list(
    find: Callable[[Store, Choice], Iterable[QueueEntry]],
    store: Store,
    choice: Choice,
    *,
    wants_json: bool,
    place: str,
) -> None:
    """Print the chosen messages of a place, as rows with a footer or as JSON lines."""
    limit = choice.limit
    found = iter(find(store, replace(choice, limit=None if limit is None else limit + 1)))
    number = print_entries(islice(found, limit), wants_json=wants_json)
    if wants_json:
        return
    if number:
        more = ", more match" if next(found, None) is not None else ""
        click.echo(f"-- {counted(number, 'message')}{more}")
    else:
        click.echo("-- 0 messages" if choice.has_conditions else f"the {place} is empty")


def print_messages(
    store: Store, ids: tuple[str, ...], entries: list[QueueEntry], *, wants_json: bool, raw: bool
) -> int:
    """Print all about each of `ids`; return 65 when one of them is not among `entries`."""
    by_id = {entry.queue_id: entry for entry in entries}
    exit_code, now_ms, is_first = os.EX_OK, clock_ms(), True
    for queue_id in ids:
        entry = by_id.get(queue_id)
        if entry is None:
            sys.stdout.flush()
            warn(f"{queue_id}: no such message")
            exit_code = os.EX_DATAERR
        elif raw:
            _write_content(store, entry)
        elif wants_json:
            click.echo(as_json(shown_object(entry, store.reports.of_message(queue_id))))
        else:
            if not is_first:
                click.echo()
            click.echo("\n".join(_told_in_full(entry, now_ms)))
        is_first = False
    return exit_code


def _write_content(store: Store, entry: QueueEntry) -> None:
    if not entry.chunk_count:
        raise CommandFailed(
            f"{entry.queue_id}: its content is no longer kept; see queue.keep_content"
        )
    sys.stdout.flush()
    stdout = sys.stdout.buffer
    written_bytes = 0
    for body in read_content(store, entry):
        stdout.write(body)
        written_bytes += len(body)
    stdout.flush()
    if written_bytes != entry.size_bytes:
        raise CommandFailed(
            f"{entry.queue_id}: only {written_bytes} of {entry.size_bytes} bytes were left; it "
            "was being deleted"
        )


# --- the story of a message ----------------------------------------------------------------


def story_lines(story: Story) -> Iterator[str]:
    """Yield the lines of the story of a message."""
    yield _told("queue id", story.queue_id)
    yield _told("sender", story.sender or "<> (the null sender)")
    yield _told("recipients", some_of(story.recipients, _SHOWN))
    yield _told("subject", story.subject or "(none)")
    yield _told("in short", story.headline)
    yield from ("", "What happened", "")
    for event in story.events:
        when = moment(event.at_ms, story.now_ms)
        if event.until_ms is not None:
            when += f", {event.times} times until {moment(event.until_ms, story.now_ms)}"
        yield _filled(f"{when}: {event.text}")
        yield from _note_lines(event.notes)
    if story.outlooks:
        yield from ("", "What comes next", "")
    for outlook in story.outlooks:
        yield from _outlook_lines(outlook, story.now_ms, is_alone=len(story.outlooks) == 1)
    yield from ("", "What to do", "")
    for advice in story.advice:
        yield _filled(advice.text)
        if advice.command:
            yield printable(f"{_INDENT}{advice.command}")  # whole, to be copied


def _filled(text: str) -> str:
    return textwrap.fill(
        printable(text),
        width=max(terminal_width(), _MIN_WIDTH),
        subsequent_indent=_INDENT,
        break_on_hyphens=False,
    )


def _outlook_lines(outlook: Outlook, now_ms: int, *, is_alone: bool) -> Iterator[str]:
    who = "" if is_alone else f"{some_of(outlook.recipients, _SHOWN)}, route {outlook.route}: "
    yield _filled(who + outlook.text)
    if outlook.next_at_ms is not None:
        yield _told("next try", moment(outlook.next_at_ms, now_ms), indent=2)
    yield from _note_lines(outlook.notes)


def _note_lines(notes: Iterable[Note]) -> Iterator[str]:
    for note in notes:
        yield _told(note.label, note.text, indent=2)
