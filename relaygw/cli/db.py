"""`relaygw db`: the schema of the queue's database."""

from __future__ import annotations

import click

from relaygw.cli.frame import Group, Invocation, check_queue_file, pass_invocation


@click.group(cls=Group, later=("backup",))
def db() -> None:
    """Look after the queue's database."""


@db.command()
@pass_invocation
def upgrade(invocation: Invocation) -> None:
    """Bring the schema to this version; safe to repeat."""
    loaded = invocation.load()
    from relaygw import roles

    before, after = roles.upgrade_schema(loaded)
    if before == after:
        click.echo(f"schema {after}: nothing to do")
    else:
        click.echo(f"schema {before or 'none'} -> {after}")


@db.command("check")
@pass_invocation
def check_db(invocation: Invocation) -> None:
    """Tell whether the schema is the one of this version; 78 when it is not."""
    loaded = invocation.load()
    from relaygw import roles

    if not loaded.settings.queue.is_postgres:
        check_queue_file(loaded.settings.queue.url)
    roles.check_schema(loaded)
    click.echo("the queue has the schema of this version")
