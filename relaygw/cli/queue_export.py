"""`relaygw queue export`: queued mail into an mbox file or JSON lines.

A message is written whole or not at all, and a file gets its name when all of it is on disk.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import click

from relaygw.cli.frame import Command, CommandFailed, Invocation, login_name, pass_invocation, warn
from relaygw.cli.progress import Progress
from relaygw.cli.selection import QUEUE_OPTIONS, Choice, choose, found, ids_argument, options
from relaygw.cli.text import printable
from relaygw.mail.clock import clock_ms, rfc3339
from relaygw.mail.exported import Exported, as_entry, as_line
from relaygw.mail.state import RecipientState
from relaygw.mail.words import counted
from relaygw.operations.queue_object import leading_delivery
from relaygw.store.audit import AuditEntry
from relaygw.store.queue_entry import QueueEntry
from relaygw.store.store import Store, read_content


@click.command("export", cls=Command)
@ids_argument
@options(QUEUE_OPTIONS)
@click.option(
    "--format", "form", type=click.Choice(["mbox", "json"]), default="mbox", show_default=True,
    help="mbox, or JSON lines.",
)  # fmt: skip
@click.option(
    "--output", metavar="FILE", type=click.Path(path_type=Path), help="Instead of stdout."
)
@pass_invocation
def export(invocation: Invocation, /, form: str, output: Path | None, **given: Any) -> int:
    """Write queued messages to stdout or a file; they stay in the queue.

    Only recipients that still wait are written. Hold or delete what is exported, else it is sent
    from here as well.
    """
    choice = choose(given)
    with invocation.open_store() as store:
        with _opened(output) as stream:
            number, left_out = _write(store, choice, stream, form)
        entry = AuditEntry(
            at_ms=clock_ms(),
            actor=login_name(),
            action="queue.export",
            target=printable(str(output or "stdout")),
            affected=number,
            detail=choice.words,
        )
        store.audit.add(entry)
    warn(f"{counted(number, 'message')} exported to {output or 'stdout'}")
    return os.EX_DATAERR if left_out else os.EX_OK


def _write(store: Store, choice: Choice, stream: IO[bytes], form: str) -> tuple[int, int]:
    """Write the chosen messages; return how many, and how many could not be."""
    progress = Progress("messages exported")
    number = left_out = 0
    missing = set(choice.selection.queue_ids)
    for entry in found(store, choice):
        missing.discard(entry.queue_id)
        one = _exported(store, entry)
        if isinstance(one, str):
            progress.end()
            warn(f"{entry.queue_id}: left out: {one}")
            left_out += 1
            continue
        if form == "json":
            stream.write(as_line(one, _about(entry)))
        else:
            stream.write(as_entry(one, at_ms=entry.accepted_at_ms))
        number += 1
        progress.tell(number)
    progress.end()
    for queue_id in sorted(missing) if choice.limit is None else ():
        warn(f"{queue_id}: no such message, or it does not match")
        left_out += 1
    return number, left_out


def _exported(store: Store, entry: QueueEntry) -> Exported | str:
    """Return a message with all of its content, or why it is left out."""
    waiting = [one.address for one in entry.recipients if one.state is RecipientState.PENDING]
    if not waiting:
        return "nobody waits for it any more"
    content = b"".join(read_content(store, entry))
    if len(content) != entry.size_bytes:
        return f"only {len(content)} of {entry.size_bytes} bytes were there; it was being finished"
    return Exported(
        sender=entry.sender,
        recipients=tuple(waiting),
        content=content,
        queue_id=entry.queue_id,
        mode=entry.mode,
    )


def _about(entry: QueueEntry) -> dict[str, Any]:
    leading = leading_delivery(entry)
    return {
        "accepted_at": rfc3339(entry.accepted_at_ms),
        "state": leading.state.value,
        "route": leading.route,
        "reason": leading.reason,
        "subject": entry.subject,
        "size_bytes": entry.size_bytes,
    }


@contextmanager
def _opened(output: Path | None) -> Iterator[IO[bytes]]:
    """Yield stdout, or a file that is there under its name once all of it is on disk."""
    if output is None:
        sys.stdout.flush()
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if output.exists():
        raise CommandFailed(f"{output} exists; name another file", exit_code=os.EX_IOERR)
    with tempfile.NamedTemporaryFile(dir=output.parent, prefix=f".{output.name}-") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
        os.link(file.name, output)  # never over another file
    directory = os.open(output.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
