"""Messages on their way into a queue: stored in batches, each by the rules of now and once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import click

from relaygw.cli.frame import CommandFailed
from relaygw.cli.text import Progress
from relaygw.errors import AlreadyAccepted
from relaygw.inbound.local_mail import Importer
from relaygw.mail.envelope import AcceptedMessage
from relaygw.mail.exported import Exported, NotExported
from relaygw.mail.hold import HoldCause
from relaygw.mail.state import OPEN, DeliveryState, RecipientState
from relaygw.mail.words import counted
from relaygw.store.store import Store, add_content

IMPORTED, KNOWN, REFUSED = "imported", "already imported", "refused"
_BATCH_MESSAGES = 50
_BATCH_BYTES = 4 * 2**20
_R = RecipientState
_FATES = ((_R.PENDING, "queued"), (_R.CAPTURED, "captured"), (_R.BLOCKED, "blocked"))


class Settled(NamedTuple):
    """What became of a message, once that is durable."""

    number: int
    was: str  # its id where it came from
    result: str
    queue_id: str | None = None
    why: str | None = None


@dataclass(slots=True)
class ImportRun:
    """Stores messages in batches; what becomes of each is told to `settled`."""

    store: Store
    importer: Importer
    is_dry_run: bool
    settled: Callable[[Settled], None] = lambda _one: None
    hold: HoldCause | None = None
    """What the messages of a batch are held for; `flush` before it changes."""
    counts: Counter[str] = field(default_factory=Counter)
    progress: Progress = field(default_factory=lambda: Progress("messages read"))
    _batch: list[tuple[int, Exported, AcceptedMessage]] = field(default_factory=list)

    def take(self, number: int, mail: Exported | str) -> None:
        """Take the next message; it is stored with the batch it is in."""
        self.progress.tell(number)
        if isinstance(mail, str):
            self._tell(number, "", REFUSED, why=mail)
            return
        try:
            with self.importer.composed(mail) as (message, chunks):
                if message.stored_chunks and not self.is_dry_run:
                    self._check_space()
                    add_content(self.store, message.queue_id, chunks)
        except NotExported as error:
            self._tell(number, mail.queue_id, REFUSED, why=str(error))
            return
        self._batch.append((number, mail, message))
        size_bytes = sum(accepted.size_bytes for *_, accepted in self._batch)
        if len(self._batch) >= _BATCH_MESSAGES or size_bytes >= _BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Store what is at hand."""
        batch, self._batch = self._batch, []
        batch = [entry for entry in batch if not self._is_still_here(*entry[:2])]
        messages = [message for *_, message in batch]
        if not messages:
            return
        are_new = [True] * len(messages)
        if self.is_dry_run:
            known = self.store.intake.taken_drops(
                [accepted_message.drop_id or "" for accepted_message in messages]
            )
            are_new = [accepted_message.drop_id not in known for accepted_message in messages]
        else:
            self._check_space()
            if not self._is_stored(messages):
                are_new = [self._is_stored([accepted_message]) for accepted_message in messages]
        for (number, mail, message), is_new in zip(batch, are_new, strict=True):
            if not is_new:
                self._tell(number, mail.queue_id, KNOWN)
                continue
            for part in message.deliveries:
                self.counts.update(recipient.state for recipient in part.recipients)
            queue_id = None if self.is_dry_run else message.queue_id
            self._tell(number, mail.queue_id, IMPORTED, queue_id)

    def _is_stored(self, messages: list[AcceptedMessage]) -> bool:
        """Store messages, all or none; False if one of them is there already."""
        try:
            self.store.intake.accept_batch(messages, hold=self.hold)
        except AlreadyAccepted:
            return False
        return True

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
        self._tell(number, mail.queue_id, REFUSED, why=why)
        return True

    def _check_space(self) -> None:
        if not self.importer.has_space():
            raise CommandFailed(
                "the volume that holds the queue is nearly full; free some space, and import "
                "again: mail imported before is not imported twice",
                exit_code=os.EX_TEMPFAIL,
            )

    def words(self, result: str) -> str:
        """Return a result, or what it would be."""
        return f"would be {result}" if self.is_dry_run and result == IMPORTED else result

    def _tell(
        self,
        number: int,
        was: str,
        result: str,
        queue_id: str | None = None,
        why: str | None = None,
    ) -> None:
        self.counts[result] += 1
        self.settled(Settled(number, was, result, queue_id, why))

    def report(self) -> None:
        """Say what came of it."""
        fates = ", ".join(f"{self.counts[state]} {word}" for state, word in _FATES)
        recipients = sum(self.counts[state] for state, _ in _FATES)
        click.echo(
            f"{counted(self.counts['imported'], 'message')} {self.words(IMPORTED)}, "
            f"{counted(recipients, 'recipient')}: {fates}"
        )
        if self.counts[KNOWN]:
            number = self.counts[KNOWN]
            click.echo(f"{counted(number, 'message')} imported before, skipped")
