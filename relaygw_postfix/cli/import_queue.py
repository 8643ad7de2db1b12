"""`relaygw import-queue`: the mail that a stopped Postfix still has, moved over once.

Postfix cannot start meanwhile: its own lock is held. A file goes aside, into `imported/` of the
queue directory, when its mail is durable here; whoever comes again after a kill finds the mail by
what it is known by, and only moves the file. What cannot be read stays where it is.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import click

from relaygw.cli.frame import Command, CommandFailed, Invocation, pass_invocation
from relaygw.cli.import_run import IMPORTED, KNOWN, REFUSED, ImportRun, Settled
from relaygw.cli.mail_change import note_action
from relaygw.cli.running_gateway import in_running_mode
from relaygw.cli.stderr import warn
from relaygw.cli.text import as_json
from relaygw.inbound.intake import Intake
from relaygw.inbound.local_mail import Importer
from relaygw.mail.exported import Exported
from relaygw.mail.hold import HoldCause, HoldCode
from relaygw.mail.words import counted
from relaygw.settings.load import LoadedSettings
from relaygw.settings.section import Mode
from relaygw_postfix import queue_directory
from relaygw_postfix.queue_file import DamagedQueueFile, QueuedMail

_HELD = HoldCause(HoldCode.OPERATOR, "held in Postfix")
_DONE, _UNFINISHED, _IN_USE, _GONE = "done", "unfinished", "in use", "gone"
_LEFT = {  # what stays where it is, beside what is refused
    _DONE: "already delivered to everybody",
    _UNFINISHED: "that Postfix had not picked up yet",
    _IN_USE: "that a Postfix process still has open",
}
_MAX_LEFT_OUT = 10
_OTHER_FILES = {
    "bounce": "with refusals that Postfix has not yet reported to the sender; relaygw does not "
    "report them either",
    "corrupt": "that Postfix had set aside as damaged",
}


@click.command("import-queue", cls=Command)
@click.argument("directory", type=click.Path(readable=False, path_type=Path))
@click.option("--dry-run", "is_dry_run", is_flag=True, help="Only show what would happen.")
@click.option("--json", "wants_json", is_flag=True, help="JSON, one object per file.")
@pass_invocation
def import_queue(
    invocation: Invocation, directory: Path, is_dry_run: bool, wants_json: bool
) -> int:
    """Move the queue of a stopped Postfix from DIRECTORY into this one.

    Only recipients not yet served are taken, under the rewriting, lists, mode and routes in force
    now. Files whose mail is here go to DIRECTORY/imported; what was held stays held.
    """
    loaded = invocation.load_running()
    if not loaded.files and loaded.settings.mode is Mode.SANDBOX:
        raise CommandFailed(
            "there is no configuration, so this is the sandbox, which would capture all mail; "
            "give the gateway's with --config", exit_code=os.EX_CONFIG,
        )  # fmt: skip
    queue = queue_directory.QueueDirectory(directory)
    work = partial(_import, invocation, loaded, queue, wants_json=wants_json)
    with _told_as_failures(queue):
        queue.check()
        if not is_dry_run:
            with queue.locked():
                return work(is_dry_run=False, is_running=False)
        is_running = queue.is_running()
        if is_running:
            warn("Postfix is running: this is its queue now; stop it before the import")
        return work(is_dry_run=True, is_running=is_running)


@contextmanager
def _told_as_failures(queue: queue_directory.QueueDirectory) -> Iterator[None]:
    try:
        yield
    except queue_directory.NotAQueue as error:
        raise CommandFailed(str(error)) from error
    except queue_directory.PostfixRuns as error:
        raise CommandFailed(str(error), exit_code=os.EX_TEMPFAIL) from error
    except PermissionError as error:
        raise CommandFailed(
            f"{error.filename or queue.path}: {error.strerror}; run this as root",
            exit_code=os.EX_NOPERM,
        ) from error


def _import(
    invocation: Invocation,
    loaded: LoadedSettings,
    queue: queue_directory.QueueDirectory,
    *,
    is_dry_run: bool,
    is_running: bool,
    wants_json: bool,
) -> int:
    settings = in_running_mode(loaded.settings)
    with invocation.open_store(loaded) as store:
        importer = Importer(Intake(settings, state_dir=loaded.state_dir), settings.listeners)
        run = ImportRun(store, importer, is_dry_run=is_dry_run)
        work = _Work(queue, run, is_running=is_running, wants_json=wants_json)
        try:
            work.take_all()
        finally:
            run.progress.end()
            if run.counts[IMPORTED] and not is_dry_run:
                note_action(store, "queue.import", str(queue.path), run.counts[IMPORTED])
                invocation.wake_workers()
            if not wants_json:
                work.print_report()
    if work.counts[_IN_USE]:
        return os.EX_TEMPFAIL
    return os.EX_DATAERR if run.counts[REFUSED] else os.EX_OK


@dataclass
class _Work:
    """One run over all files."""

    queue: queue_directory.QueueDirectory
    run: ImportRun
    is_running: bool
    wants_json: bool
    counts: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    _files: dict[int, queue_directory.QueueFile] = field(default_factory=dict)  # in the batch

    def take_all(self) -> None:
        """Take file by file, and set aside those whose mail is durable."""
        self.run.settled = self._settle
        for number, file in enumerate(self.queue.files(), 1):
            if file.queue == queue_directory.HOLD and self.run.hold is None:
                self._flush()
                self.run.hold = _HELD
            self._files[number] = file
            self._take(number, file)
            self.queue.sync()
        self._flush()

    def _flush(self) -> None:
        self.run.flush()
        self.queue.sync()

    def _take(self, number: int, file: queue_directory.QueueFile) -> None:
        limit_bytes = self.run.importer.limit_bytes
        try:
            mail = file.read(limit_bytes=limit_bytes, is_running=self.is_running)
        except FileNotFoundError:
            self._settle(Settled(number, "", _GONE))  # a Postfix that runs has moved it on
        except queue_directory.Unfinished as error:
            self._settle(Settled(number, "", _UNFINISHED, why=str(error)))
        except queue_directory.InUse as error:
            self._settle(Settled(number, "", _IN_USE, why=str(error)))
        except DamagedQueueFile as error:
            self.run.take(number, f"damaged: {error}")
        except OSError as error:
            self.run.take(number, f"cannot be read: {error.strerror}")
        else:
            self._take_mail(number, mail)

    def _take_mail(self, number: int, mail: QueuedMail) -> None:
        if not mail.waiting:
            self._settle(
                Settled(number, "", _DONE, why="it was delivered or refused for all recipients")
            )
            return
        self.left_out.update(mail.left_out)
        message = Exported(
            sender=mail.sender,
            recipients=mail.waiting,
            content=mail.content,
            identity=f"postfix-{mail.key()}",
            dsn=mail.dsn,
        )
        self.run.take(number, message)

    def _settle(self, settled: Settled) -> None:
        file = self._files.pop(settled.number)
        self.counts[settled.result] += 1
        is_here = settled.result in (IMPORTED, KNOWN)
        self.counts["held"] += settled.result == IMPORTED and file.queue == queue_directory.HOLD
        if is_here and not self.run.is_dry_run:
            self.queue.set_aside(file)
        if self.wants_json:
            told = {"file": str(file.path), "queue": file.queue, "queue_id": settled.queue_id}
            result = self.run.words(settled.result)
            click.echo(as_json({**told, "result": result, "reason": settled.why}))
        elif settled.result in (REFUSED, _IN_USE):
            self.run.progress.end()
            warn(f"{file.path}: left in place: {settled.why}")

    def print_report(self) -> None:
        """Say what came of it."""
        self.run.report()
        if self.counts["held"]:
            click.echo(f"{counted(self.counts['held'], 'message')} of these held, as in Postfix")
        if self.run.counts[REFUSED]:
            click.echo(f"{counted(self.run.counts[REFUSED], 'file')} that cannot be taken")
        for result, words in _LEFT.items():
            if self.counts[result]:
                click.echo(f"{counted(self.counts[result], 'file')} left, {words}")
        for what, number in self.left_out.most_common(_MAX_LEFT_OUT):
            click.echo(f"{counted(number, 'message')} without these Postfix settings: {what}")
        for name, words in _OTHER_FILES.items():
            number = self.queue.count(name)
            if number:
                click.echo(f"{counted(number, 'file')} in {self.queue.path / name}, {words}")
