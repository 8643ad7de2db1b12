"""`relaygw serve`: the gateway itself, in the foreground."""

from __future__ import annotations

import signal

import click

from relaygw.cli.frame import Command, Invocation, pass_invocation, warn
from relaygw.service_file import EARLY_SIGNALS

ROLES = ("front", "delivery", "web")


@click.command(cls=Command)
@click.option(
    "--role",
    "chosen",
    multiple=True,
    type=click.Choice(ROLES),
    help="Run only this role; repeatable.",
)
@pass_invocation
def serve(invocation: Invocation, chosen: tuple[str, ...]) -> int:
    """Run the gateway in the foreground; without a configuration, run the sandbox.

    TERM
    drains and stops it, HUP reloads the configuration, USR1 reopens the log file.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, EARLY_SIGNALS)
    loaded = invocation.load()
    from relaygw import supervisor
    from relaygw.cli.install_sendmail import maildrop_warnings

    for text in maildrop_warnings(loaded.settings):
        warn(f"warning: {text}")

    roles = tuple(role for role in ROLES if role in chosen) or ROLES
    return supervisor.run(loaded, config=invocation.config, roles=roles)
