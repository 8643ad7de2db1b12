"""Lists and single messages on stdout, shared by `queue` and `sandbox`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

import click

from relaygw.cli.entries import as_json, head_row, row, story
from relaygw.cli.frame import CommandFailed, warn
from relaygw.cli.text import clock_ms, counted, terminal_width
from relaygw.operations.queue_object import queue_object
from relaygw.store.protocol import QueueEntry, Store, read_content


def print_list(
    entries: Iterable[QueueEntry], *, wants_json: bool, limit: int | None, empty: str
) -> None:
    """Print at most `limit` of `entries`, as rows with a footer or as JSON lines."""
    width, now_ms = terminal_width(), clock_ms()
    number = 0
    has_more = False
    for entry in entries:
        if number == limit:
            has_more = True
            break
        if wants_json:
            click.echo(as_json(queue_object(entry)))
        else:
            if number == 0:
                click.echo(head_row(width))
            click.echo(row(entry, now_ms, width=width))
        number += 1
    if not wants_json:
        more = ", more match" if has_more else ""
        click.echo(f"-- {counted(number, 'message')}{more}" if number else empty)


def print_messages(
    store: Store, ids: tuple[str, ...], entries: list[QueueEntry], *, wants_json: bool, raw: bool
) -> int:
    """Print all about each of `ids`; return 65 when one of them is not among `entries`."""
    by_id = {entry.queue_id: entry for entry in entries}
    exit_code = os.EX_OK
    now_ms = clock_ms()
    is_first = True
    for queue_id in ids:
        entry = by_id.get(queue_id)
        if entry is None:
            sys.stdout.flush()
            warn(f"{queue_id}: no such message")
            exit_code = os.EX_DATAERR
        elif raw:
            _write_content(store, entry)
        elif wants_json:
            click.echo(as_json(queue_object(entry)))
        else:
            if not is_first:
                click.echo()
            click.echo("\n".join(story(entry, now_ms)))
        is_first = False
    return exit_code


def _write_content(store: Store, entry: QueueEntry) -> None:
    if not entry.chunk_count:
        raise CommandFailed(
            f"{entry.queue_id}: its content is no longer kept; see queue.keep_content",
            exit_code=os.EX_DATAERR,
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
            f"{entry.queue_id}: only {written_bytes} of {entry.size_bytes} bytes were there; "
            "it was being deleted",
            exit_code=os.EX_DATAERR,
        )
