"""`relaygw queue import`: exported mail, or any mbox, into the queue of this configuration.

Each message is taken by the rules of now and exactly once: importing a file again after a crash
takes only what is not there yet.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import IO, Any

import click

from relaygw.cli.changing import login_name, wake_workers
from relaygw.cli.frame import Command, CommandFailed, Invocation, pass_invocation
from relaygw.cli.import_run import ImportRun
from relaygw.cli.selecting import NULL_SENDER, STDIN
from relaygw.cli.text import clock_ms, printable
from relaygw.errors import InvalidAddress
from relaygw.inbound.local_mail import Importer
from relaygw.mail.address import MAX_PATH_BYTES, check_address
from relaygw.mail.exported import Exported, NotExported, from_line
from relaygw.mail.mbox import exported, read_entries
from relaygw.store.protocol import AuditEntry


def _take_sender(_ctx: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    if value == NULL_SENDER:
        return ""
    return None if value is None else _address(value)


def _take_recipients(
    _ctx: click.Context, _option: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    return tuple(map(_address, values))


def _address(value: str) -> str:
    try:
        check_address(value)
    except InvalidAddress as error:
        raise click.BadParameter(
            f"{value[:MAX_PATH_BYTES]!r} is no address: {error}; write one like orders@shop.example"
        ) from error
    return value


@click.command("import", cls=Command)
@click.argument("source", metavar="[FILE]", type=click.Path(), default=STDIN)
@click.option(
    "--format", "form", type=click.Choice(["mbox", "json"]),
    help="What it is; by default its first byte tells.",
)  # fmt: skip
@click.option(
    "--sender", metavar="ADDRESS", callback=_take_sender,
    help="Envelope sender of all; <> is the null sender.",
)  # fmt: skip
@click.option(
    "--recipient", "recipients", metavar="ADDRESS", multiple=True, callback=_take_recipients,
    help="Who gets them, instead of who is named there; may be repeated.",
)  # fmt: skip
@click.option("--dry-run", "is_dry_run", is_flag=True, help="Say what would happen only.")
@click.option("--json", "wants_json", is_flag=True, help="One object a message.")
@pass_invocation
def import_mail(
    invocation: Invocation,
    source: str,
    form: str | None,
    sender: str | None,
    recipients: tuple[str, ...],
    is_dry_run: bool,
    wants_json: bool,
) -> int:
    """Queue exported messages, or those of any mbox file, from FILE or stdin.

    They are new messages, under the rewriting, lists, mode and routes of now. A message that was
    imported before is not taken again.
    """
    from relaygw.inbound.intake import Intake

    loaded = invocation.load()
    settings = loaded.settings
    limit_bytes = max((one.max_message_size for one in settings.listeners), default=0)
    with invocation.open_store(loaded) as store, _opened(source) as stream:
        importer = Importer(Intake(settings, state_dir=loaded.state_dir), limit_bytes=limit_bytes)
        work = ImportRun(store, importer, is_dry_run=is_dry_run, wants_json=wants_json)
        given = _Envelope(sender=sender, recipients=recipients)
        try:
            for number, one in enumerate(_read(stream, form, limit_bytes), 1):
                work.take(number, one if isinstance(one, str) else given.over(one))
            work.flush()
        finally:
            work.progress.end()
            if work.counts["imported"] and not is_dry_run:
                store.add_audit(
                    AuditEntry(
                        at_ms=clock_ms(),
                        actor=login_name(),
                        action="queue.import",
                        target="stdin" if source == STDIN else printable(source),
                        affected=work.counts["imported"],
                        detail="",
                    )
                )
                wake_workers()
            work.report()
    return os.EX_DATAERR if work.counts["refused"] else os.EX_OK


@dataclass(frozen=True, slots=True, kw_only=True)
class _Envelope:
    """What the caller says of all messages."""

    sender: str | None
    recipients: tuple[str, ...]

    def over(self, mail: Exported) -> Exported:
        if self.sender is not None:
            mail = replace(mail, sender=self.sender)
        return replace(mail, recipients=self.recipients) if self.recipients else mail


def _opened(source: str) -> IO[bytes]:
    if source == STDIN:
        return sys.stdin.buffer
    return Path(source).open("rb")


def _read(stream: IO[bytes], form: str | None, limit_bytes: int) -> Iterator[Exported | str]:
    """Yield the messages of the input, or why one of them is none."""
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
        raise CommandFailed(str(error), exit_code=os.EX_DATAERR) from error


def _tried(read: Any, piece: Any) -> Exported | str:
    try:
        message: Exported = read(piece)
    except NotExported as error:
        return str(error)
    return message
