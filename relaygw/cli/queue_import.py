"""`relaygw queue import`: exported mail, or any mbox, into the queue of this configuration.

Each message is taken by the rules of now and exactly once: importing a file again after a crash
takes only what is not there yet. Messages are stored in batches.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import IO, Any

import click

from relaygw.cli.frame import Command, CommandFailed, Invocation, login_name, pass_invocation, warn
from relaygw.cli.progress import Progress
from relaygw.cli.selection import STDIN
from relaygw.cli.text import as_json, printable
from relaygw.errors import AlreadyAccepted, InvalidAddress
from relaygw.inbound.intake import Intake
from relaygw.inbound.local_mail import Importer
from relaygw.mail.address import MAX_PATH_BYTES, check_address
from relaygw.mail.clock import clock_ms
from relaygw.mail.envelope import AcceptedMessage
from relaygw.mail.exported import Exported, NotExported, exported, from_line, read_entries
from relaygw.mail.state import OPEN, DeliveryState, RecipientState
from relaygw.mail.words import counted
from relaygw.operations.selectors import NULL_SENDER
from relaygw.store.audit import AuditEntry
from relaygw.store.store import Store

_BATCH_MESSAGES = 50
_BATCH_BYTES = 4 * 2**20
_CHUNKS_A_STEP = 4
_R = RecipientState
_FATES = ((_R.PENDING, "queued"), (_R.CAPTURED, "captured"), (_R.BLOCKED, "blocked"))


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
    loaded = invocation.load()
    settings = loaded.settings
    limit_bytes = max((one.max_message_size for one in settings.listeners), default=0)
    with invocation.open_store(loaded) as store, _opened(source) as stream:
        importer = Importer(Intake(settings, state_dir=loaded.state_dir), limit_bytes=limit_bytes)
        work = _ImportRun(store, importer, is_dry_run=is_dry_run, wants_json=wants_json)
        try:
            for number, one in enumerate(_read(stream, form, limit_bytes), 1):
                if not isinstance(one, str):
                    one = _addressed(one, sender, recipients)
                work.take(number, one)
            work.flush()
        finally:
            work.progress.end()
            if work.counts["imported"] and not is_dry_run:
                store.audit.add(
                    AuditEntry(
                        at_ms=clock_ms(),
                        actor=login_name(),
                        action="queue.import",
                        target="stdin" if source == STDIN else printable(source),
                        affected=work.counts["imported"],
                        detail="",
                    )
                )
                invocation.wake_workers()
            work.report()
    return os.EX_DATAERR if work.counts["refused"] else os.EX_OK


def _addressed(mail: Exported, sender: str | None, recipients: tuple[str, ...]) -> Exported:
    """Return a message with what the caller says of all."""
    if sender is not None:
        mail = replace(mail, sender=sender)
    return replace(mail, recipients=recipients) if recipients else mail


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


@dataclass(slots=True)
class _ImportRun:
    """An import under way: what is at hand, and what became of the rest."""

    store: Store
    importer: Importer
    is_dry_run: bool
    wants_json: bool
    counts: Counter[str] = field(default_factory=Counter)
    progress: Progress = field(default_factory=lambda: Progress("messages read"))
    _batch: list[tuple[int, Exported, AcceptedMessage]] = field(default_factory=list)
    _batch_bytes: int = 0

    def take(self, number: int, mail: Exported | str) -> None:
        """Take the next message; it is stored with the batch it is in."""
        self.progress.tell(number)
        if isinstance(mail, str):
            self._refuse(number, "", mail)
            return
        try:
            with self.importer.composed(mail) as (message, chunks):
                if message.stored_chunks and not self.is_dry_run:
                    self._store_chunks(message, chunks)
        except NotExported as error:
            self._refuse(number, mail.queue_id, str(error))
            return
        self._batch.append((number, mail, message))
        self._batch_bytes += message.size_bytes
        if len(self._batch) >= _BATCH_MESSAGES or self._batch_bytes >= _BATCH_BYTES:
            self.flush()

    def _store_chunks(self, message: AcceptedMessage, chunks: Iterator[bytes]) -> None:
        self._check_space()
        bodies: list[bytes] = []
        done = 0
        for body in chunks:
            bodies.append(body)
            if len(bodies) == _CHUNKS_A_STEP:
                self.store.intake.add_chunks(message.queue_id, done, bodies)
                done += len(bodies)
                bodies = []
        if bodies:
            self.store.intake.add_chunks(message.queue_id, done, bodies)

    def flush(self) -> None:
        """Store what is at hand."""
        batch, self._batch, self._batch_bytes = self._batch, [], 0
        batch = [one for one in batch if not self._is_still_here(*one[:2])]
        if not batch:
            return
        if self.is_dry_run:
            known = self.store.intake.taken_drops(
                [message.drop_id or "" for _, _, message in batch]
            )
            batch = [one for one in batch if not self._is_known(*one, known)]
        else:
            self._check_space()
            try:
                self.store.intake.accept_batch([message for _, _, message in batch])
            except AlreadyAccepted:
                batch = [one for one in batch if self._is_stored(*one)]
        for number, mail, message in batch:
            self._note_imported(number, mail, message)

    def _is_still_here(self, number: int, mail: Exported) -> bool:
        """True for a message of this very queue that still waits: it would be sent twice."""
        found = self.store.queue.entries([mail.queue_id]) if mail.queue_id else []
        states = {part.state for entry in found for part in entry.deliveries}
        if states & OPEN:
            why = "it is still in this queue, and would be sent twice"
        elif DeliveryState.DELETED in states:
            why = f"it is in the trash of this queue; relaygw queue undelete {mail.queue_id}"
        else:
            return False
        self._refuse(number, mail.queue_id, why)
        return True

    def _is_stored(self, number: int, mail: Exported, message: AcceptedMessage) -> bool:
        try:
            self.store.intake.accept_batch([message])
        except AlreadyAccepted:
            self._note_known(number, mail)
            return False
        return True

    def _is_known(
        self, number: int, mail: Exported, message: AcceptedMessage, known: Collection[str]
    ) -> bool:
        if message.drop_id not in known:
            return False
        self._note_known(number, mail)
        return True

    def _note_known(self, number: int, mail: Exported) -> None:
        self.counts["already imported"] += 1
        self._tell(number, mail.queue_id, "already imported", None, None)

    def _check_space(self) -> None:
        if not self.importer.has_space():
            raise CommandFailed(
                "the volume of the queue is nearly full; make room, and import again: what is "
                "here already is not taken twice",
                exit_code=os.EX_TEMPFAIL,
            )

    def _note_imported(self, number: int, mail: Exported, message: AcceptedMessage) -> None:
        self.counts["imported"] += 1
        for part in message.deliveries:
            for one in part.recipients:
                self.counts[one.state] += 1
        queue_id = None if self.is_dry_run else message.queue_id
        self._tell(number, mail.queue_id, "imported", queue_id, None)

    def _refuse(self, number: int, was: str, why: str) -> None:
        self.counts["refused"] += 1
        self._tell(number, was, "refused", None, why)

    def _tell(
        self, number: int, was: str, result: str, queue_id: str | None, why: str | None
    ) -> None:
        if self.is_dry_run and result == "imported":
            result = "would be imported"
        if self.wants_json:
            fields = {"number": number, "was": was or None, "result": result}
            click.echo(as_json({**fields, "queue_id": queue_id, "reason": why}))
        elif why is not None:
            self.progress.end()
            warn(f"message {number}{f' ({was})' if was else ''}: refused: {why}")

    def report(self) -> None:
        """Say what came of it."""
        if self.wants_json:
            return
        would = "would be " if self.is_dry_run else ""
        fates = ", ".join(f"{self.counts[state]} {word}" for state, word in _FATES)
        recipients = sum(self.counts[state] for state, _ in _FATES)
        click.echo(
            f"{counted(self.counts['imported'], 'message')} {would}imported, "
            f"{counted(recipients, 'recipient')}: {fates}"
        )
        if self.counts["already imported"]:
            number = self.counts["already imported"]
            click.echo(f"{counted(number, 'message')} imported before, not taken again")
        if self.counts["refused"]:
            click.echo(f"{counted(self.counts['refused'], 'message')} refused")
