"""`relaygw db`: the queue's database: its schema, what is wrong with it, copies of it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from relaygw import state_owner
from relaygw.cli.frame import (
    CommandFailed,
    Group,
    Invocation,
    act_as_owner,
    login_name,
    pass_invocation,
)
from relaygw.cli.mail_change import note_action, raise_if_alone
from relaygw.cli.open_queue import check_queue_file
from relaygw.cli.text import Progress, print_lines
from relaygw.errors import StoreFull
from relaygw.mail.state import CLAIMABLE
from relaygw.mail.words import counted, printable, size
from relaygw.policy.untended import AWAY_REMEDY, away_words
from relaygw.store.home import home_elsewhere, is_bound

if TYPE_CHECKING:
    from relaygw.store.backup import Contents
    from relaygw.store.recovery import Recovered

_REMEDY = "restore a backup, or stop relaygw and save what is readable: relaygw db recover"


@click.group(cls=Group)
def db() -> None:
    """Maintain the queue's database."""


@db.command()
@pass_invocation
def upgrade(invocation: Invocation) -> None:
    """Upgrade the schema to this version; safe to repeat."""
    loaded = invocation.load_running()
    from relaygw import roles

    before, after = roles.upgrade_schema(loaded)
    if before == after:
        click.echo(f"schema {after}: nothing to do")
    else:
        click.echo(f"schema {before or 'none'} -> {after}")


@db.command("check")
@pass_invocation
def check_db(invocation: Invocation) -> None:
    """Check that the queue is intact and has the schema of this version.

    With SQLite all pages and the log are read. Exit code 65 when something is
    damaged or missing, 78 when the schema is of another version.
    """
    loaded = invocation.load_running()
    from relaygw import roles

    if not loaded.settings.queue.is_postgres:
        check_queue_file(loaded.settings.queue.url)
    problems = roles.examine_queue(loaded)
    if problems:
        raise CommandFailed("\n".join([*problems, _REMEDY]))
    roles.check_schema(loaded)
    click.echo("the queue has the schema of this version")


@db.command()
@click.option(
    "--release",
    is_flag=True,
    help="Queue mail that may have been sent already, instead of holding it.",
)
@pass_invocation
def recover(invocation: Invocation, release: bool) -> None:
    """Save what is readable of a damaged SQLite queue.

    Writes a new queue and moves the old one aside; nothing is overwritten. The gateway must be
    stopped. Intact mail is recovered. Mail that may have been sent since the readable state is
    held. Remains of damaged mail are written to files.
    """
    loaded = invocation.load_running()
    from relaygw import roles

    if loaded.settings.queue.is_postgres:
        raise CommandFailed(
            "this is for SQLite; restore a backup of the PostgreSQL database", exit_code=os.EX_USAGE
        )
    check_queue_file(loaded.settings.queue.url)
    progress = Progress("messages read")
    try:
        done = roles.recover_queue(loaded, is_released=release, tell=progress.tell)
    finally:
        progress.end()
    if done.aside is not None:
        with invocation.open_store(loaded) as store:
            roles.stay_at_home(store, loaded.settings, actor=login_name())
    print_lines(_recovered_lines(done))
    if done.log_aside is not None and done.is_log_read:
        raise CommandFailed(
            f"{done.log_aside}: it cannot be told whether this log is of this queue: mail was "
            "recovered with it and without it; look whether it is yours before you "
            "release it: relaygw queue list --state held"
        )
    if done.log_aside is not None:
        raise CommandFailed(
            f"{done.log_aside}: this log was beside the queue, but belongs to another database or "
            "time: it was not read; if mail is missing, copy it as QUEUE-wal beside the database "
            "QUEUE that it belongs to, and run: relaygw db restore QUEUE"
        )


def _recovered_lines(done: Recovered) -> Iterator[str]:
    if done.aside is None:
        yield "the queue is intact: nothing to do"
        return
    yield f"recovered: {counted(done.recovered, 'message')}"
    if done.held:
        yield (
            f"held: {done.held} of them, because they may have been sent already; check the mail "
            "log, then: relaygw queue release --reason recovered"
        )
    yield f"damaged: {counted(len(done.damaged), 'message')}"
    for queue_id, missing in done.damaged.items():
        yield f"  {printable(queue_id)}: without {printable(missing)}"
    if done.exported is not None:
        yield f"  remains of them: {done.exported}"
    if done.is_log_lost and not done.is_log_read:
        yield (
            "lost: all mail that was only in the lost log, which cannot be counted; find it in "
            'the mail log ("queued as")'
        )
    elif done.is_log_lost:
        yield "lost: not known, since the log may not be the last of this queue"
    else:
        yield f"lost: {counted(len(done.lost), 'message')}"
    for queue_id in done.lost:
        yield f"  {printable(queue_id)}: only its id is known"
    yield f"the old queue: {done.aside}"


@db.command()
@pass_invocation
def adopt(invocation: Invocation) -> None:
    """Let the queue be sent from this machine.

    A SQLite queue belongs to the machine that it was made on. In mode production, a gateway on
    another one starts held: it accepts mail and sends nothing. This command confirms that this is
    the machine that sends. On a copy of that machine, such as a staging host, do not run it.
    """
    loaded = invocation.load_running()
    from relaygw import roles

    if loaded.settings.queue.is_postgres:
        problem = "this is for SQLite; a queue in PostgreSQL belongs to no machine"
        raise CommandFailed(problem, exit_code=os.EX_USAGE)
    with invocation.open_store(loaded) as store:
        adopted = roles.adopt_queue(store, loaded.settings, actor=login_name())
        waiting = sum(lane.deliveries for lane in store.queue.counts() if lane.state in CLAIMABLE)
    if adopted is None:
        is_here = is_bound(loaded.settings)
        whose = "this machine" if is_here else "no machine, as in every container"
        click.echo(f"the queue belongs to {whose}: nothing to do")
        return
    roles.wake_workers(loaded)
    before, new = adopted
    click.echo(f"adopted: the queue belonged to {printable(before.owner)}")
    click.echo(f"it belongs to {printable(new.words)} now")
    click.echo(f"waiting: {counted(waiting, 'delivery', 'deliveries')}")


# --- copies -------------------------------------------------------------------------------


@db.command()
@click.argument("file", type=click.Path(readable=False, path_type=Path))
@pass_invocation
def backup(invocation: Invocation, file: Path) -> None:
    """Write a copy of a SQLite queue into FILE, while the gateway runs.

    The copy is a consistent snapshot, is verified, and has mode 0600. No file is overwritten.
    For PostgreSQL it prints the command to use.
    """
    loaded = invocation.load_running()
    from relaygw import roles

    queue = loaded.settings.queue
    if queue.is_postgres:
        words = ["pg_dump", "--format=custom", "--dbname", queue.url, "--file", str(file)]
        raise CommandFailed(
            f"this queue is in PostgreSQL; run: {shlex.join(words)}", exit_code=os.EX_USAGE
        )
    check_queue_file(queue.url)
    try:
        found = roles.back_up_queue(loaded, file)
    except FileExistsError as error:
        problem = f"{file} exists; name another file"
        raise CommandFailed(problem, exit_code=os.EX_CANTCREAT) from error
    except StoreFull as error:
        raise CommandFailed(str(error), exit_code=os.EX_IOERR) from error
    except OSError as error:
        problem = f"{file}: {error.strerror}; name a file in a directory where you may write"
        is_none = isinstance(error, (FileNotFoundError, NotADirectoryError))
        code = os.EX_CANTCREAT if is_none else os.EX_IOERR
        raise CommandFailed(problem, exit_code=code) from error
    with state_owner.as_caller():
        size_bytes = file.stat().st_size
    click.echo(f"{file}: {_contents_words(found)}, {size(size_bytes)}")


@db.command()
@click.argument("file", type=click.Path(readable=False, path_type=Path))
@click.option(
    "--release", is_flag=True, help="Queue the mail that waited then, instead of holding it."
)
@click.option(
    "--yes", "is_sure", is_flag=True, help="Do not ask for confirmation when the queue has mail."
)
@pass_invocation
def restore(invocation: Invocation, file: Path, release: bool, is_sure: bool) -> None:
    """Restore a SQLite queue from its copy FILE.

    The gateway must be stopped. The present queue is moved aside; when it has mail,
    confirmation is asked for. Mail that was not finished when the copy was made may have been
    sent since: it is held.
    """
    loaded = invocation.load_running()
    from relaygw import roles

    queue = loaded.settings.queue
    if queue.is_postgres:
        words = ["pg_restore", "--exit-on-error", "--dbname", queue.url, str(file)]
        raise CommandFailed(
            "this queue is in PostgreSQL; stop the gateways, empty the database, and run: "
            f"{shlex.join(words)}; before they start: relaygw queue hold --all --yes --note "
            "restored",
            exit_code=os.EX_USAGE,
        )

    def may_replace(present: Contents | None) -> bool:
        what = "cannot be read" if present is None else f"has {_contents_words(present)}"
        return is_sure or _agrees(f"The present queue {what}. Move it aside?")

    try:
        _make_directory(queue.url)
        act_as_owner(loaded)
        done = roles.restore_queue(loaded, file, is_released=release, may_replace=may_replace)
    except OSError as error:
        problem = f"{error.filename or file}: {error.strerror}"
        raise CommandFailed(problem, exit_code=os.EX_NOINPUT) from error
    if done is None:
        click.echo("nothing was changed")
        return
    click.echo(f"restored: {_contents_words(done.contents)}")
    if done.held:
        click.echo(
            f"held: {counted(done.held, 'delivery', 'deliveries')}, because they may have been "
            "sent since; check the mail log, then: relaygw queue release --reason restored"
        )
    if done.aside is not None:
        click.echo(f"the old queue: {done.aside}")
    with invocation.open_store(loaded) as store:
        note_action(store, "db.restore", str(file), done.contents.messages)
        roles.stay_at_home(store, loaded.settings, actor=login_name())
        home = home_elsewhere(store.homes, loaded.settings)
    if home is not None:
        click.echo(f"warning: {away_words(printable(home.owner))}; {AWAY_REMEDY}", err=True)


def _make_directory(url: str) -> None:
    """Make the directory of a queue for the service's user, whoever restores it."""
    from relaygw.cli.setup_host import Owner, write
    from relaygw.cli.setup_plan import NewFile

    directory = NewFile(path=Path(url.removeprefix("sqlite:///")).parent, is_own=True)
    if not directory.path.exists():
        write(directory, Owner.of_service())


def _contents_words(found: Contents) -> str:
    return f"{counted(found.messages, 'message')}, {found.unfinished} not finished"


def _agrees(question: str) -> bool:
    try:
        return click.confirm(question, err=True)
    except (click.Abort, OSError):
        raise_if_alone("give --yes")
        raise
