"""`relaygw install-sendmail`: the drop-in sendmail, mailq and newaliases."""

from __future__ import annotations

import os
from pathlib import Path

import click

from relaygw.cli.frame import Command, CommandFailed, Invocation, pass_invocation, warn


@click.command("install-sendmail", cls=Command)
@click.option(
    "--prefix",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/usr"),
    show_default=True,
    help="Where sbin/sendmail, lib/sendmail, bin/mailq and bin/newaliases go.",
)
@click.option("--force", is_flag=True, help="Move another mailer's programs aside.")
@click.option("--uninstall", is_flag=True, help="Remove them, and put back what was moved aside.")
@pass_invocation
def install_sendmail(invocation: Invocation, *, prefix: Path, force: bool, uninstall: bool) -> None:
    """Put sendmail, mailq and newaliases in place, and make the maildrop.

    What belongs to another mailer is left alone without --force.
    """
    from relaygw.cli.sendmail_programs import Obstacle, Programs

    programs = Programs(prefix.absolute())
    try:
        if uninstall:
            for line in programs.remove():
                click.echo(line)
            return
        loaded = invocation.load()
        for line in programs.install(
            maildrop=loaded.settings.maildrop.path,
            group=loaded.settings.maildrop.group,
            state_dir=loaded.state_dir,
            force=force,
        ):
            click.echo(line)
        for doubt in programs.doubts(loaded.settings.maildrop.path, loaded.settings.maildrop.group):
            warn(f"warning: {doubt}")
    except Obstacle as obstacle:
        raise CommandFailed(str(obstacle), exit_code=os.EX_CANTCREAT) from obstacle
    except PermissionError as error:
        raise CommandFailed(
            f"{error.filename}: {error.strerror}; run it as root, or give --prefix a directory "
            "of yours",
            exit_code=os.EX_NOPERM,
        ) from error
    click.echo("For PHP, in php.ini of FPM and of the command line (cron):")
    click.echo(f'  sendmail_path = "{prefix.absolute()}/sbin/sendmail -t -i"')
