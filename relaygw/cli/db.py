"""`relaygw db`: the schema of the queue's database."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from relaygw.cli.frame import CommandFailed, Group, Invocation, check_queue_file, pass_invocation
from relaygw.cli.text import Progress, print_lines
from relaygw.mail.words import counted, printable

if TYPE_CHECKING:
    from relaygw.store.recovery import Recovered

_REMEDY = "restore a backup, or stop relaygw and save what can be read: relaygw db recover"


@click.group(cls=Group, later=("backup",))
def db() -> None:
    """Look after the queue's database."""


@db.command()
@pass_invocation
def upgrade(invocation: Invocation) -> None:
    """Bring the schema to this version; safe to repeat."""
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
    """Tell whether the queue is whole and has the schema of this version.

    With SQLite all pages are read, and its log is looked at. Exit code 65 when something is
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
@click.option("--release", is_flag=True, help="Queue what may have been sent, instead of holding.")
@pass_invocation
def recover(invocation: Invocation, release: bool) -> None:
    """Save what can be read of a damaged SQLite queue.

    Writes a new queue and moves the old one aside; nothing is overwritten. The gateway must be
    stopped. Mail that is whole comes back. What may have been sent since the state that can be
    read is held. What is left of the rest is written to files.
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
    print_lines(_recovered_lines(done))


def _recovered_lines(done: Recovered) -> Iterator[str]:
    if done.aside is None:
        yield "the queue is whole: nothing to do"
        return
    yield f"recovered: {counted(done.recovered, 'message')}"
    if done.held:
        yield (
            f"held: {done.held} of them, as they may have been sent already; look into the mail "
            "log, then: relaygw queue release --reason recovered"
        )
    yield f"damaged: {counted(len(done.damaged), 'message')}"
    for queue_id, missing in done.damaged.items():
        yield f"  {printable(queue_id)}: without {printable(missing)}"
    if done.exported is not None:
        yield f"  what is left of them: {done.exported}"
    yield f"lost: {counted(len(done.lost), 'message')}"
    for queue_id in done.lost:
        yield f"  {printable(queue_id)}: only its id is known"
    if done.is_log_lost:
        yield '  and what was in the lost log only; the mail log ("queued as") tells of it'
    yield f"the old queue: {done.aside}"
