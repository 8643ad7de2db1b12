"""`relaygw queue export` and `import`: queued mail into an mbox file or JSON lines, and back.

A message is written whole or not at all, and a file gets its name when all of it is on disk. An
imported message is taken by the rules of now and exactly once: importing a file again after a
crash takes only what is not there yet. Messages are stored in batches.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO, Any

import click

from relaygw import state_owner
from relaygw.cli import frame
from relaygw.cli.import_run import IMPORTED, REFUSED, ImportRun, Settled
from relaygw.cli.mail_change import note_action, tell_missing
from relaygw.cli.running_gateway import in_running_mode
from relaygw.cli.selection import QUEUE_OPTIONS, STDIN, Choice, choose, found, ids_argument, options
from relaygw.cli.stderr import warn
from relaygw.cli.text import Progress, as_json
from relaygw.errors import InvalidAddress
from relaygw.inbound.intake import Intake
from relaygw.inbound.local_mail import Importer
from relaygw.mail.address import MAX_PATH_BYTES, check_address
from relaygw.mail.clock import rfc3339
from relaygw.mail.exported import (
    Exported,
    NotExported,
    as_entry,
    as_line,
    exported,
    from_line,
    read_entries,
)
from relaygw.mail.state import RecipientState
from relaygw.mail.suppression import NULL_SENDER
from relaygw.mail.words import counted, fields
from relaygw.operations.queue_object import leading_delivery
from relaygw.store.queue_entry import QueueEntry
from relaygw.store.store import Store, read_content


@click.command("export", cls=frame.Command)
@ids_argument
@options(QUEUE_OPTIONS)
@click.option(
    "--format", "form", type=click.Choice(["mbox", "json"]), default="mbox", show_default=True,
    help="mbox, or JSON lines.",
)  # fmt: skip
@click.option(
    "--output",
    metavar="FILE",
    type=click.Path(readable=False, path_type=Path),
    help="File to write instead of stdout.",
)
@frame.pass_invocation
def export(invocation: frame.Invocation, /, form: str, output: Path | None, **given: Any) -> int:
    """Export queued messages to stdout or a file; they stay in the queue.

    Only recipients that still wait are exported. Hold or delete the exported messages, else they
    are sent from here as well.
    """
    choice = choose(given)
    with invocation.open_store() as store:
        with _opened_output(output) as stream:
            number, left_out = _write(store, choice, stream, form)
        note_action(store, "queue.export", str(output or "stdout"), number, choice.words)
    warn(f"{counted(number, 'message')} exported to {output or 'stdout'}")
    return os.EX_DATAERR if left_out else os.EX_OK


def _write(store: Store, choice: Choice, stream: IO[bytes], form: str) -> tuple[int, int]:
    """Write the chosen messages; return how many, and how many could not be."""
    progress = Progress("messages exported")
    number = left_out = 0
    missing = set(choice.selection.queue_ids)
    for entry in found(store, choice):
        missing.discard(entry.queue_id)
        mail = _exported(store, entry)
        if isinstance(mail, str):
            progress.end()
            warn(f"{entry.queue_id}: left out: {mail}")
            left_out += 1
            continue
        if form == "json":
            about = {
                "accepted_at": rfc3339(entry.accepted_at_ms),
                **fields(leading_delivery(entry), "state", "route", "reason"),
                **fields(entry, "subject", "size_bytes"),
            }
            stream.write(as_line(mail, about))
        else:
            stream.write(as_entry(mail, at_ms=entry.accepted_at_ms))
        number += 1
        progress.tell(number)
    progress.end()
    unfound = sorted(missing) if choice.limit is None else []
    tell_missing(unfound)
    return number, left_out + len(unfound)


def _exported(store: Store, entry: QueueEntry) -> Exported | str:
    waiting = [
        recipient.address
        for recipient in entry.recipients
        if recipient.state is RecipientState.PENDING
    ]
    if not waiting:
        return "no recipient waits for it any more"
    content = b"".join(read_content(store, entry))
    if len(content) != entry.size_bytes:
        return f"only {len(content)} of {entry.size_bytes} bytes were left; it was just finished"
    about = fields(entry, "sender", "queue_id", "mode")
    return Exported(recipients=tuple(waiting), content=content, **about)


@contextmanager
def _opened_output(output: Path | None) -> Iterator[IO[bytes]]:
    """Yield stdout, or a file that is there under its name once all of it is on disk."""
    if output is None:
        sys.stdout.flush()
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with state_owner.as_caller():
        if output.exists():
            raise frame.CommandFailed(f"{output} exists; name another file", exit_code=os.EX_IOERR)
        draft = tempfile.NamedTemporaryFile(dir=output.parent, prefix=f".{output.name}-")  # noqa: SIM115
    try:
        yield draft
        draft.flush()
        os.fsync(draft.fileno())
        with state_owner.as_caller():
            os.link(draft.name, output)  # never over another file
            directory = os.open(output.parent, os.O_RDONLY | os.O_DIRECTORY)
    finally:
        with state_owner.as_caller():
            draft.close()
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


# --- import --------------------------------------------------------------------------------


def _take_address(value: str) -> str:
    try:
        check_address(value)
    except InvalidAddress as error:
        raise click.BadParameter(
            f"{value[:MAX_PATH_BYTES]!r} is not an address: {error}; write one like "
            "orders@shop.example"
        ) from error
    return value


@click.command("import", cls=frame.Command)
@click.argument("source", metavar="[FILE]", type=click.Path(readable=False), default=STDIN)
@click.option(
    "--format", "form", type=click.Choice(["mbox", "json"]),
    help="The format; default: detected from the first byte.",
)  # fmt: skip
@click.option(
    "--sender", metavar="ADDRESS",
    type=frame.Text(lambda text: "" if text == NULL_SENDER else _take_address(text)),
    help="Envelope sender for all messages; <> is the null sender.",
)  # fmt: skip
@click.option(
    "--recipient", "recipients", metavar="ADDRESS", multiple=True, type=frame.Text(_take_address),
    help="Recipient instead of those in the file; repeatable.",
)  # fmt: skip
@click.option("--dry-run", "is_dry_run", is_flag=True, help="Only show what would happen.")
@click.option("--json", "wants_json", is_flag=True, help="JSON, one object per message.")
@frame.pass_invocation
def import_mail(
    invocation: frame.Invocation,
    source: str,
    form: str | None,
    sender: str | None,
    recipients: tuple[str, ...],
    is_dry_run: bool,
    wants_json: bool,
) -> int:
    """Import exported messages, or those of any mbox file, from FILE or stdin.

    They are new messages, under the rewriting, lists, mode and routes in force now. A
    message that was imported before is not imported again.
    """
    loaded = invocation.load_running()
    settings = in_running_mode(loaded.settings)
    with state_owner.as_reader_of(Path(source)):
        opened = click.open_file(source, "rb")
    with opened as stream, invocation.open_store(loaded) as store:
        importer = Importer(Intake(settings, state_dir=loaded.state_dir), settings.listeners)
        work = ImportRun(store, importer, is_dry_run=is_dry_run)
        work.settled = partial(_tell, work) if not wants_json else partial(_tell_json, work)
        try:
            for number, message in enumerate(_read(stream, form, importer.limit_bytes), 1):
                if not isinstance(message, str):
                    used = message.sender if sender is None else sender
                    message = replace(
                        message, sender=used, recipients=recipients or message.recipients
                    )
                work.take(number, message)
            work.flush()
        finally:
            work.progress.end()
            if work.counts[IMPORTED] and not is_dry_run:
                target = "stdin" if source == STDIN else source
                note_action(store, "queue.import", target, work.counts[IMPORTED])
                invocation.wake_workers()
            if not wants_json:
                work.report()
                if work.counts[REFUSED]:
                    click.echo(f"{counted(work.counts[REFUSED], 'message')} refused")
    return os.EX_DATAERR if work.counts[REFUSED] else os.EX_OK


def _tell(work: ImportRun, settled: Settled) -> None:
    if settled.why is not None:
        work.progress.end()
        was = f" ({settled.was})" if settled.was else ""
        warn(f"message {settled.number}{was}: refused: {settled.why}")


def _tell_json(work: ImportRun, settled: Settled) -> None:
    told = {
        "number": settled.number,
        "was": settled.was or None,
        "result": work.words(settled.result),
    }
    click.echo(as_json({**told, "queue_id": settled.queue_id, "reason": settled.why}))


def _read(stream: IO[bytes], form: str | None, limit_bytes: int) -> Iterator[Exported | str]:
    first = stream.readline()
    if form is None:
        form = "json" if first.lstrip()[:1] == b"{" else "mbox"
    lines = chain([first], stream) if first else iter(())
    if form == "json":
        for line in lines:
            if line.strip():
                yield _tried(from_line, line)
        return
    try:
        for entry in read_entries(lines, limit_bytes=limit_bytes):
            yield _tried(exported, entry)
    except NotExported as error:
        raise frame.CommandFailed(str(error)) from error


def _tried(read: Any, piece: Any) -> Exported | str:
    try:
        message: Exported = read(piece)
    except NotExported as error:
        return str(error)
    return message
